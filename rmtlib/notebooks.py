"""Execute notebooks/<artifact>.ipynb with parameters; nothing wrong goes unnoticed, nothing good is lost.

papermill does the work; this module adds what it lacks: unknown parameters and wrong types are errors,
progress of the cells shows while they run, Ctrl-C reaches the cell (which then stops its training with a
checkpoint), and a failed notebook is left beside the last good one as `*.partial.ipynb` and never replaces
it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.runs.display import PROGRESS, Display, make_display

TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """A variable of the cell tagged `parameters`: type ("int | None"; None if nothing tells), default."""

    name: str
    type: str | None
    default: Any


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, by name.

    The type is the annotation's (`SEEDS: int | None = None`), else the default's or None; if the default
    is None too, any Python literal is right, and what is none is text.

    Raises:
        RmtlibError: no such notebook, a damaged one, or one without a `parameters` cell.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if "parameters" in cell.get("metadata", {}).get("tags", [])]
        source = "".join(cells[0]["source"]) if cells else ""
        body = ast.parse(source).body
    except FileNotFoundError:
        known = sorted(other.stem for other in path.parent.glob("*.ipynb"))
        there = f"there are {', '.join(known)}" if known else "call this in the project's folder"
        raise RmtlibError(f"no notebook {path}: {there}") from None
    except OSError as error:
        raise RmtlibError(f"cannot read {path} ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, SyntaxError, AttributeError) as error:
        raise RmtlibError(
            f"{path} is no readable notebook ({type(error).__name__}: {error}): restore it (git checkout -- {path})"
        ) from error
    if len(cells) != 1:
        raise RmtlibError(f"{path} has {len(cells)} cells tagged `parameters`, needs one: tag the cell that sets them")
    parameters: dict[str, Parameter] = {}
    for statement in body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            parameters[statement.target.id] = _parameter(
                statement.target.id, statement.value, ast.unparse(statement.annotation)
            )
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    parameters[target.id] = _parameter(target.id, statement.value, None)
    return parameters


def _parameter(name: str, value: ast.expr, annotation: str | None) -> Parameter:
    try:
        default = ast.literal_eval(value)
    except ValueError:
        default = None
    kind = annotation or (None if default is None else f"{type(default).__name__} | None")
    return Parameter(name, kind, default)


def parse_parameters(path: Path, pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The values of `-p NAME VALUE` pairs, typed as the notebook's parameters are. "" leaves the default.

    Raises:
        RmtlibError: an unknown name, or a value of another type; the message lists what there is.
    """
    known = read_parameters(path)
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            raise RmtlibError(f"unknown parameter {name!r}: {path} has {', '.join(known)}")
        if text != "":
            values[name] = _typed(known[name], text, path)
    return values


def _typed(parameter: Parameter, text: str, path: Path) -> Any:
    if parameter.type is None:
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
        return text
    kinds = [kind.strip() for kind in parameter.type.split("|")]
    if "None" in kinds and text.lower() in ("none", "null"):
        return None
    if "str" in kinds:
        return text
    with contextlib.suppress(ValueError, SyntaxError):
        if "bool" in kinds and text.lower() in ("true", "false", "1", "0"):
            return text.lower() in ("true", "1")
        if "int" in kinds:
            return int(text)
        if "float" in kinds:
            return float(text)
        value = ast.literal_eval(text)
        base = kinds[0].partition("[")[0]
        if "bool" not in kinds and isinstance(value, TYPES.get(base, object)):
            return value
    raise RmtlibError(
        f"parameter {parameter.name} of {path} is of type {parameter.type}, not {text!r} "
        f"(its default: {parameter.default!r})"
    )


def execute(
    source: str | Path, target: str | Path, pairs: Sequence[Sequence[str]] = (), *, quiet: bool = False
) -> Path:
    """Execute the notebook `source` with `-p` pairs in the present folder, leaving `target`; its path.

    Raises:
        Stopped: interrupted, or a cell's training was stopped; the same call continues.
        RmtlibError: bad parameters, a failed cell (what it said, and where the partial notebook is), a dead
        kernel.
    """
    source, target = Path(source), Path(target)
    parameters = parse_parameters(source, pairs)
    if target.suffix != ".ipynb":
        raise RmtlibError(f"the executed notebook is an .ipynb file, not {target}")
    if target.resolve() == source.resolve():
        raise RmtlibError(f"{target} is the source itself: give another --out")
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernel, not another one called python3
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    except ImportError as error:
        raise RmtlibError(f"notebooks need {error.name}: pip install 'rmtlib[notebooks]'") from error
    engine = _register_engine()
    partial = target.with_suffix(".partial.ipynb")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _ProgressOf(source, make_display(quiet)) as engine.watch:
            papermill.execute_notebook(
                str(source),
                str(partial),
                parameters=parameters,
                kernel_name="python3",
                engine_name="rmtlib",
                progress_bar=False,
                log_output=False,
            )
        partial.replace(target)
    except PapermillExecutionError as error:
        said = " ".join(str(error.evalue).split())
        if error.ename == "Stopped":
            raise Stopped(said) from None
        if error.ename == "KeyboardInterrupt":
            raise Stopped(f"{source}: interrupted in cell {error.cell_index + 1}; the same command continues") from None
        what = said if error.ename == "RmtlibError" else f"{error.ename}: {said}"
        raise RmtlibError(f"{source}, cell {error.cell_index + 1}: {what}; see {partial}") from None
    except DeadKernelError:
        raise RmtlibError(
            f"{source}: its kernel died, often for lack of memory; finished runs are kept, so the same "
            f"command continues; see {partial}"
        ) from None
    except KeyboardInterrupt:
        raise Stopped(f"{source}: interrupted; the same command continues") from None
    except OSError as error:
        raise RmtlibError(
            f"cannot write {error.filename or partial} ({error.strerror or error}); fix that, then the same "
            "command continues"
        ) from error
    return target


class _ProgressOf:
    """Shows what cells say while they run, and hands signals to the kernel."""

    def __init__(self, source: Path, display: Display) -> None:
        self.source, self.display = source, display
        self.kernel: int | None = None
        self.cell = f"{source}: starting the kernel"
        self._shown = 0.0
        self._previous: dict[int, Any] = {}
        self._heard = 0

    def __enter__(self) -> _ProgressOf:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._hear)
        self.display.line(self.cell)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self.display.close()

    def _hear(self, number: int, frame: object) -> None:
        self._heard += 1
        if self.kernel is None or self._heard > 2:
            raise KeyboardInterrupt
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.kernel, signal.SIGINT)

    def begin(self, index: int, count: int) -> None:
        self.cell = f"{self.source}: cell {index + 1} of {count}"
        self._shown = 0.0

    def take(self, message: dict[str, Any]) -> None:
        """A message of the kernel: its progress outputs are shown, and what it writes to stderr."""
        content = message["content"]
        kind = message["msg_type"]
        if kind == "stream" and content["name"] == "stderr":
            for line in content["text"].splitlines():
                self.display.line(line)
        elif kind in ("display_data", "update_display_data") and content.get("metadata", {}).get(PROGRESS):
            if time.monotonic() - self._shown >= self.display.every:
                self.display.update([self.cell, *content["data"]["text/plain"].splitlines()])
                self._shown = time.monotonic()


def _register_engine() -> Any:
    """papermill's engine with a `watch` on the cells."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.log import logger

    class Client(PapermillNotebookClient):
        def start_new_kernel_client(self, **kwargs: Any) -> Any:
            client = super().start_new_kernel_client(**kwargs)
            Engine.watch.kernel = getattr(self.km.provisioner, "pid", None)
            return client

        def process_message(self, *arguments: Any, **kwargs: Any) -> Any:
            Engine.watch.take(arguments[0])
            return super().process_message(*arguments, **kwargs)

    class Engine(NBClientEngine):
        watch: _ProgressOf

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            start, count = nb_man.cell_start, len(nb_man.nb.cells)

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                cls.watch.begin(cell_index or 0, count)
                start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            quiet = ["--log-level=CRITICAL"]  # TCP, and the interrupt that ends every kernel, are no news to the user
            return Client(
                nb_man,
                kernel_name=kernel_name,
                log=logger,
                startup_timeout=120,
                timeout=None,
                extra_arguments=quiet,
            ).execute()

    logger.setLevel("ERROR")  # it takes parameters with some comments for unknown ones; names are checked here
    papermill_engines.register("rmtlib", Engine)
    return Engine
