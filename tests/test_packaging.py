"""What an installation rests on: pyproject, constraints, environment.yml, README, and the Makefile's first steps."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rattler import MatchSpec

TORCH_BUILDS = "3.11"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


def constraints(root: Path) -> dict[str, Requirement]:
    lines = [line.split("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines()]
    parsed = [Requirement(line) for line in lines if line]
    return {each.name.lower(): each for each in parsed}


def requirements(project: dict) -> list[Requirement]:
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for name, part in extras.items() if name != "all" for line in part]
    return [Requirement(line) for line in lines]


# Packaging


def test_core_dependencies_are_only_what_importing_and_training_need(project):
    assert sorted(Requirement(line).name for line in project["dependencies"]) == [
        *("numpy", "safetensors", "torch", "transformers")
    ]
    assert project["requires-python"] == ">=3.11"
    assert project["scripts"] == {"rmtlib": "rmtlib.cli:main"}


def test_all_is_every_other_extra_but_those_for_clusters_and_peers(project):
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all", "cluster", "harness", "peers"}


def test_files_that_are_no_modules_are_package_data(root):
    """Else an installation that is not editable lacks them: without its C file Mamba would be slow and say nothing."""
    named = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    data = {f"{package.replace('.', '/')}/{name}" for package, names in named.items() for name in names}
    listed = subprocess.run(["git", "ls-files", "rmtlib"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert {path for path in listed.split() if not path.endswith(".py")} == data


def test_constraints_pin_exactly_and_lie_within_the_ranges(project, root):
    pinned = constraints(root)
    for name, requirement in pinned.items():
        assert [spec.operator for spec in requirement.specifier] == ["=="], name
    for requirement in requirements(project):
        assert not any(spec.operator == "==" for spec in requirement.specifier), f"{requirement} pins in pyproject"
        pin = pinned.get(requirement.name.lower())
        if pin is not None:
            (version,) = (spec.version for spec in pin.specifier)
            assert requirement.specifier.contains(version, prereleases=True), f"{pin} is not within {requirement}"
    assert str(pinned["torch"].specifier) == "==2.13.0"  # without the pin pip takes gigabytes of CUDA packages


def test_what_is_imported_is_installed_by_an_extra(project, root):
    """Every top-level import of the package is the standard library's, a requirement, or one of a requirement's."""
    known = {re.sub(r"[-_.]+", "_", each.name).lower() for each in requirements(project)}
    known |= {"rmtlib", "bs4", "yaml", "ipython", "nbclient", "jupyter_client"} | set(sys.stdlib_module_names)
    found = set()
    for path in (root / "rmtlib").rglob("*.py"):
        found |= set(re.findall(r"^\s*(?:from|import) (\w+)", _without_docstrings(path.read_text()), re.M))
    assert {name for name in found if name.lower() not in known} == set()


def _without_docstrings(source: str) -> str:
    return re.sub(r'"""(?:.|\n)*?"""', "", source)


# environment.yml


def test_environment_is_one_that_conda_reads(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    specs = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    names = {MatchSpec(spec, strict=True).name.normalized for spec in specs}
    assert names == {"python", "make", "pip"}
    (python,) = (spec for spec in specs if spec.startswith("python"))
    assert SpecifierSet(">=3.11").contains(python.partition("=")[2])
    assert python.partition("=")[2] == TORCH_BUILDS


def test_environment_installs_what_make_installs(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    options = dict(line.split(maxsplit=1) for line in pip)
    assert (root / options.pop("-c")).samefile(root / "constraints.txt")
    requirement = Requirement("rmtlib" + options.pop("-e").removeprefix("."))
    assert requirement.extras == {"all"} and not options
    assert "-c $(CONSTRAINTS) -e '.[all]'" in (root / "Makefile").read_text()


def test_wrong_match_specs_are_seen():
    with pytest.raises(Exception, match=r"\S"):
        MatchSpec("python=3.11=bad=4", strict=True)


# README and repository


def test_readme_starts_with_the_two_commands_and_its_files_exist(root):
    readme = (root / "README.md").read_text()
    first_screen = "\n".join(readme.splitlines()[:12])
    assert "make figure-5\n" in first_screen and "make test\n" in first_screen
    targets = set(re.findall(r"`make ([a-z][\w-]*)", readme))
    makefile = subprocess.run(["make", "-pn", "help"], cwd=root, capture_output=True, text=True).stdout
    assert targets <= set(re.findall(r"^([\w.-]+):", makefile, re.M))
    for path in ("LICENSE", "constraints.txt", "environment.yml", "notebooks", "book", "tests", "Makefile"):
        assert (root / path).exists() and path in readme


def test_the_version_is_the_same_everywhere(project, root, capsys):
    from rmtlib import __version__
    from rmtlib.cli import main

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"rmtlib {__version__}\n"
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert project["version"] == __version__ == citation["version"]
    assert citation["license"] == project["license"]
    for reference in citation["references"]:
        name = reference["identifiers"][0]["value"].removeprefix("arXiv:").removeprefix("https://")
        assert name in (root / "README.md").read_text()


def test_types_are_delivered(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    assert (root / "rmtlib/py.typed").exists() and "py.typed" in settings["tool"]["setuptools"]["package-data"][
        "rmtlib"
    ]


def test_licences_are_there(root):
    assert "Copyright 2026 the rmtlib authors" in (root / "LICENSE").read_text()
    assert "Apache License" in (root / "book/assets/mathjax/LICENSE").read_text()


def test_what_is_made_is_not_tracked(root):
    ignored = (root / ".gitignore").read_text().split()
    assert {"/runs/", "out/", ".venv/", "book/_build/", "book/_generated/"} <= set(ignored)


# Makefile


@pytest.fixture
def checkout(tmp_path, root):
    """A copy of what `make` reads, without a virtual environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "figure-5.ipynb").touch()
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    keep = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=keep | environment, capture_output=True, text=True, timeout=60
    )


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    path.chmod(0o755)
    return path


def test_help_is_the_default_and_lists_every_target(checkout):
    done = make(checkout)
    assert done.returncode == 0 and done.stdout == make(checkout, "help").stdout
    for word in ("figure-5", "test", "book", "lab", "lint", "clean", "SCALE", "SEEDS", "TASKS", "ROWS", "FRESH"):
        assert word in done.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(("version", "wanted"), [("3, 10", False), ("3, 11", True), ("3, 14", True)])
def test_old_python_is_refused_in_one_line(checkout, version, wanted):
    body = (
        f'[ "$1" = -c ] && exec {sys.executable} -c "import sys; sys.version_info = ({version}, 0); ${{2#import sys;}}"'
    )
    fake = script(checkout / "bin" / "pythonX", f"case $2 in *version_info*) {body} ;; esac", "exit 9")
    done = make(checkout, "setup", f"PYTHON={fake}")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert ("Python 3.11 or newer" in errors[0]) == (not wanted)
    assert not (checkout / ".venv" / ".ready").exists()


def test_missing_venv_is_said_with_its_remedy(checkout):
    fake = script(
        checkout / "bin" / "pythonX", 'case "$2" in *ensurepip*) exit 1 ;; esac', f'exec {sys.executable} "$@"'
    )
    done = make(checkout, "test", f"PYTHON={fake}")
    assert done.returncode != 0
    assert "python3-venv" in done.stderr and "make test again" in done.stderr


def test_no_python_at_all_is_said(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for name in ("bash", "make", "echo", "awk", "tee", "touch", "mkdir"):
        found = subprocess.run(["bash", "-c", f"type -P {name}"], capture_output=True, text=True).stdout.strip()
        (tools / name).symlink_to(found)
    done = make(checkout, "figure-5", PATH=str(tools))
    assert done.returncode != 0 and "error: found no Python 3.11 or newer" in done.stderr


def test_a_failed_installation_is_no_installation(checkout):
    python = script(
        checkout / ".venv" / "bin" / "python",
        'case "$*" in *"-m pip"*) echo "ERROR: No matching distribution found for torch"; exit 1 ;; esac',
        f'exec {sys.executable} "$@"',
    )
    done = make(checkout, "setup")
    assert done.returncode != 0 and not (checkout / ".venv" / ".ready").exists()
    assert "ERROR: No matching distribution" in done.stderr and "install.log" in done.stderr
    script(python, "exit 0")
    assert make(checkout, "setup").returncode == 0
    assert (checkout / ".venv" / ".ready").exists()


@pytest.fixture
def installed(checkout):
    """A checkout with a fake installation that writes down how it is called."""
    script(
        checkout / ".venv" / "bin" / "python",
        'if [ "$2" != rmtlib.cli ]; then echo "python $*" >> calls; exit 0; fi',
        "shift 2",
        'printf "%s|" "$@" >> calls; echo >> calls',
        'if [ "$1" = run ] && [ -n "${FAIL:-}" ]; then echo "error: no such scale" >&2; exit $FAIL; fi',
        'if [ "$1" = notebook ]; then mkdir -p out/figure-5; echo "what it shows" > out/figure-5/summary.txt; fi',
    )
    (checkout / ".venv" / ".ready").touch()
    return checkout


def calls(folder: Path) -> list[list[str]]:
    return [line.rstrip("|").split("|") for line in (folder / "calls").read_text().splitlines() if "|" in line]


def test_artifact_target_runs_draws_and_says_what_it_shows(installed):
    done = make(installed, "figure-5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "what it shows"
    run, notebook = calls(installed)
    assert run == ["run", "figure-5"]
    assert notebook[:2] == ["notebook", "figure-5"] and "out/figure-5/figure-5.ipynb" in notebook


def test_settings_reach_both_steps(installed):
    settings = [
        "SCALE=small",
        "SEEDS=2",
        "ROWS=qa*",
        "TASKS=qa1,qa2",
        "PRECISION=bf16",
        "JOBS=1",
        "TIME_BUDGET=540",
        "FRESH=1",
    ]
    make(installed, "figure-5", *settings)
    run, notebook = calls(installed)
    assert run[2:] == [
        *("--scale", "small", "--seeds", "2", "--rows", "qa*", "--tasks", "qa1,qa2", "--precision", "bf16"),
        *("--jobs", "1", "--time-budget", "540", "--fresh"),
    ]
    given = {tuple(notebook[i + 1 : i + 3]) for i, word in enumerate(notebook) if word == "-p"}
    assert {("SCALE", "small"), ("SEEDS", "2"), ("ROWS", "qa*"), ("TASKS", "qa1,qa2"), ("PRECISION", "bf16")} <= given


def test_long_chooses_the_longest_contexts_and_rows_go_before_it(installed):
    make(installed, "figure-5", "LONG=1")
    run, notebook = calls(installed)
    assert run == ["run", "figure-5", "--rows", "*-long"] and notebook[notebook.index("ROWS") + 1] == "*-long"
    make(installed, "figure-5", "LONG=1", "ROWS=qa1")
    assert calls(installed)[2] == ["run", "figure-5", "--rows", "qa1"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [("scale=smoke", "SCALE"), ("Seeds=2", "SEEDS"), ("SEED=2", "SEEDS"), ("TASK=qa1", "TASKS"), ("row=qa1", "ROWS"),
     ("TIMEBUDGET=9", "TIME_BUDGET"), ("time-budget=9", "TIME_BUDGET"), ("SCALES=smoke", "SCALE")],
)  # fmt: skip
def test_a_variable_that_looks_like_one_of_ours_is_an_error(installed, given, meant):
    done = make(installed, "figure-5", given)
    assert done.returncode != 0 and not (installed / "calls").exists()
    name = given.partition("=")[0]
    assert f"unknown variable {name}: did you mean {meant}?" in done.stderr and len(done.stderr.splitlines()) == 1


def test_other_variables_are_none_of_our_business(installed):
    assert make(installed, "figure-5", "CC=gcc", "V=1", "SCALE=smoke", seed="7", scale="x").returncode == 0
    assert calls(installed)[0] == ["run", "figure-5", "--scale", "smoke"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("figure5", "did you mean figure-5?"), ("Figure_5", "did you mean figure-5?"), ("tests", "did you mean test?"),
     ("nonsense", "`make` lists what there is")],
)  # fmt: skip
def test_an_unknown_target_gets_a_suggestion(installed, asked, said):
    done = make(installed, asked)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith(f"error: nothing called {asked}") and said in done.stderr


@pytest.mark.parametrize("user", ["0", "1000"])
def test_lab_may_be_roots(installed, user):
    """As in a container, where there is no other user; JupyterLab has to be told."""
    script(installed / "bin" / "id", f"echo {user}")
    make(installed, "lab", PATH=f"{installed / 'bin'}:{os.environ['PATH']}")
    assert ("--allow-root" in (installed / "calls").read_text()) == (user == "0")


def test_a_failed_run_stops_there_with_its_line(installed):
    done = make(installed, "figure-5", "SCALE=huge", FAIL="2")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "error: no such scale"
    assert len(calls(installed)) == 1 and not (installed / "out").exists()


def test_a_moved_project_uses_nothing_that_names_its_old_place(installed, root):
    """Scripts in .venv/bin begin with an absolute path, and pip keeps that of the package."""
    rules = (root / "Makefile").read_text()
    assert set(re.findall(r"\$\(BIN\)/(\S+)", rules)) == {"python"}
    script(installed / ".venv" / "bin" / "python", 'echo "$PYTHONPATH" >> paths', "exit 0")
    make(installed, "test")
    assert (installed / "paths").read_text() == f"{installed}\n"


def test_installation_is_renewed_when_requirements_change(installed):
    make(installed, "setup")
    assert not (installed / "calls").exists()
    later = (installed / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(installed / "constraints.txt", (later, later))
    make(installed, "setup")
    assert "-m pip install" in (installed / "calls").read_text()


def test_clean_keeps_runs_and_environment(installed):
    for name in ("runs/figure-5", "out/figure-5", "book/_build", "book/_generated", "rmtlib/__pycache__"):
        (installed / name).mkdir(parents=True)
    assert make(installed, "clean").returncode == 0
    assert (installed / "runs/figure-5").exists() and (installed / ".venv").exists()
    assert not any(
        (installed / name).exists() for name in ("out", "book/_build", "book/_generated", "rmtlib/__pycache__")
    )


def test_ci_runs_the_tests_and_the_book_and_ends_with_pytests_line(installed, root):
    (installed / ".ci").mkdir()
    script(installed / ".ci" / "run", *(root / ".ci" / "run").read_text().splitlines()[1:])
    script(
        installed / "bin" / "make",
        'echo "make $*" >> made',
        'case "$1" in test) echo "===== 7 passed, 1 skipped in 3.21s ====="; exit ${FAIL:-0} ;; esac',
        "echo built",
    )
    script(installed / "bin" / "chromium", "exit 0")  # it is there: nothing is installed
    environment = {**os.environ, "PATH": f"{installed / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([installed / ".ci" / "run"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "===== 7 passed, 1 skipped in 3.21s ====="
    made = (installed / "made").read_text().splitlines()
    assert [line.split()[1] for line in made] == ["test", "book", "test-peers", "stress", "test-book"]
    assert made[1].startswith("make book SCALE=smoke ARTIFACTS=") and "STRESS_ARGS=--seconds" in made[3]
    failed = subprocess.run(
        [installed / ".ci" / "run"], env=environment | {"FAIL": "1"}, capture_output=True, text=True
    )
    assert failed.returncode != 0 and "7 passed" in failed.stdout


def test_all_public_names_can_be_imported():
    import rmtlib

    for name in rmtlib.__all__:
        assert getattr(rmtlib, name).__name__ == name
    assert set(rmtlib.__all__) == set(rmtlib._HOMES)
