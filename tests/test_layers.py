"""The package's layers: a module imports what lies below it, nothing above, and never round in a circle."""

import ast
from pathlib import Path

import pytest

from rmtlib.experiments.registry import ARTIFACTS

PACKAGE = Path(__file__).parent.parent / "rmtlib"
LAYERS = ("data", "models", "training", "evaluation", "runs", "report", "experiments")
ABOVE = {
    "rmtlib.cli",
    "rmtlib.cli_cluster",
    "rmtlib.cli_claims",
    "rmtlib.cli_rehearse",
    "rmtlib.cli_evaluate",
    "rmtlib.cli_results",
    "rmtlib.book",
    "rmtlib.kept",
    "rmtlib.kernels",
    "rmtlib.notebooks",
    "rmtlib",
}  # commands, and the list of public names


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """The package's modules that `name` imports when it runs, at the top and inside functions."""
    tree = ast.parse(MODULES[name].read_text())
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name} has a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else node.module for each in full}
    return {each for each in found if each in MODULES and each != name}


def layer(name: str) -> int:
    if name in ABOVE:
        return len(LAYERS)
    part = name.split(".")[1]
    return LAYERS.index(part) if part in LAYERS else -1  # files, seeds, errors: below all


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down(name):
    for other in imports(name):
        assert layer(other) <= layer(name), f"{name} imports {other}"


def test_no_circles():
    edges = {name: imports(name) for name in MODULES if name not in ABOVE}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join([*way[way.index(name) :], name])}"
        if name in done or name in ABOVE:
            return
        for other in edges[name]:
            visit(other, (*way, name))
        done.add(name)

    for name in edges:
        visit(name, ())


def test_only_the_registry_lists_artifacts():
    names = tuple(ARTIFACTS)
    for name, path in MODULES.items():
        if name.split(".")[1:2] in (["runs"], ["training"], ["models"], ["evaluation"]):
            text = path.read_text()
            # as keys of a table; a docstring may give one as an example
            assert not any(f'"{artifact}":' in text for artifact in names), name
