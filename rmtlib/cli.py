"""The command `rmtlib`: run, queue, plan, rehearse, evaluate, status, publish, verify, claims, export, data, notebook.

Exit status: 0 done; 2 an error, in one line on standard error; 75 stopped with a checkpoint by a signal or the time
budget (the same command continues). Results go to standard output (as JSON with --json), progress to standard error.
An option given as "" means its default, so that a Makefile can pass its variables as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rmtlib import __version__, cli_claims, cli_cluster, cli_evaluate, cli_rehearse, cli_results
from rmtlib.cli_results import selected
from rmtlib.data.meter import printable
from rmtlib.errors import RmtlibError, Stopped, StoppedAtOnce
from rmtlib.terminal import print_json, print_table


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RmtlibError(f"{message} (see `{self.prog} --help`)")


def _whole(text: str) -> int | None:
    if text == "":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 up, not {text!r}")
    return int(text)


def _seconds(text: str) -> float | None:
    if text == "":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0, not {text!r}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rmtlib", description="Train and record the experiments of the recurrent-memory papers.")
    parser.add_argument("--version", action="version", version=f"rmtlib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[argparse.Namespace], int], text: str, *, as_json: bool = True) -> Any:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        if as_json:
            command.add_argument("--json", action="store_true", help="print the result as JSON")
        return command

    def add_selection(command: Any, *, precision: bool = True) -> None:
        command.add_argument("artifact", metavar="ARTIFACT", help="table or figure, e.g. figure-5")
        command.add_argument(
            "--scale",
            metavar="S",
            help="smoke, small, medium, gpu or paper, whichever it has, or pilot if it has trials "
            "(default: gpu with a GPU, else small)",
        )
        command.add_argument("--seeds", metavar="N", type=_whole, help="train seeds 0 to N-1 (default: each row's)")
        command.add_argument(
            "--rows", metavar="PATTERNS", help="comma list of row names; * and ? match as in file names"
        )
        command.add_argument("--tasks", metavar="NAMES", help="comma list of tasks, e.g. qa1,qa2")
        if precision:
            command.add_argument("--precision", metavar="P", help="bf16: the float32 runs of scale paper in bf16")

    def add_budget(command: Any) -> None:
        command.add_argument(
            "--time-budget",
            metavar="SECONDS",
            type=_seconds,
            help="stop with checkpoints after so long; the same command continues",
        )

    command = add("run", _run, "train what runs/ does not hold yet, and show what the results say")
    add_selection(command)
    command.add_argument(
        "--jobs",
        metavar="N",
        type=_whole,
        help="runs at once (default: one on each GPU; without one, one per core, at most 4)",
    )
    add_budget(command)
    command.add_argument("--devices", metavar="N", type=_whole, help="GPUs, or processes, that train each run together")
    command.add_argument("--shards", metavar="N", type=_whole, help="processes that share each run's tests")
    command.add_argument("--executor", choices=("ray", "slurm"), help="train them on a cluster; see book/running.md")
    command.add_argument("--address", metavar="HOST:PORT", help="Ray's, or auto (default: a Ray of this machine alone)")
    command.add_argument("--fresh", action="store_true", help="delete these runs first and train them anew")
    command = add(
        "queue", cli_cluster.queue, "train the missing runs of several artifacts, most worth first; see book/running.md"
    )
    command.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="table or figure, e.g. figure-5")
    command.add_argument("--scale", metavar="S", help="as for run, for all of them")
    command.add_argument("--seeds", metavar="N", type=_whole, help="seeds 0 to N-1 (default: each row's)")
    command.add_argument(
        "--jobs", metavar="N", type=_whole, help="runs at once at most, as far as their memory allows (default: 4)"
    )
    add_budget(command)
    command = add("plan", _plan, "list the runs with their estimated time, memory and disk; starts nothing")
    add_selection(command)
    command.add_argument("--jobs", metavar="N", type=_whole, help="runs at once, for the total time")
    command = add(
        "rehearse", cli_rehearse.rehearse, "a few steps of every row's real model, before a GPU runs the scale"
    )
    add_selection(command, precision=False)
    cli_rehearse.add_options(command)
    command = add("evaluate", cli_evaluate.evaluate, cli_evaluate.TEXT)
    cli_evaluate.add_options(command, _whole)
    command = add("status", _status, "what runs/ and results/ hold: finished, partial and published runs")
    command.add_argument("artifact", metavar="ARTIFACT", nargs="?", help="one artifact only")
    command = add("publish", cli_results.publish, "copy finished records of committed code to results/")
    add_selection(command)
    command.add_argument("--checkpoint", metavar="NAME", help="publish the weights of the first of these runs instead")
    command = add("verify", cli_results.verify, "rehash the published records; exit status 2 if one was changed")
    command.add_argument("folder", metavar="FOLDER", nargs="?", default="results")
    command = add("claims", cli_claims.claims, "the papers' claims, and what the published records say of each")
    command.add_argument("artifact", metavar="ARTIFACT", nargs="?", help="one artifact only")
    command = add("export", cli_claims.export, "write all published numbers and claims as CSV and JSON, with a schema")
    command.add_argument("artifacts", metavar="ARTIFACT", nargs="*", help="these only, e.g. figure-5 (default: all)")
    command.add_argument("--to", metavar="DIR", default="out/export", help="folder to write into (default: out/export)")
    command = add("data", _data, "list the data files and where they are, or fetch those named")
    command.add_argument("names", metavar="NAME", nargs="*", help="files to fetch; * and ? match as in file names")
    command = add("notebook", _notebook, "execute notebooks/ARTIFACT.ipynb", as_json=False)
    command.add_argument("artifact", metavar="ARTIFACT")
    command.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; an empty value leaves its default",
    )
    command.add_argument("--out", metavar="PATH", help="the executed notebook (default: out/ARTIFACT/ARTIFACT.ipynb)")
    return parser


def _run(options: argparse.Namespace) -> int:
    from rmtlib.runs.folder import run_folder
    from rmtlib.runs.plan import without_bf16, without_gpu
    from rmtlib.runs.scheduler import run

    artifact, configs = selected(options, prepare=True)
    gpu = without_gpu(artifact, configs, options.jobs, fresh=options.fresh)
    for warning in filter(None, (gpu, without_bf16(artifact, configs, fresh=options.fresh))):
        print(f"warning: {warning}", file=sys.stderr)
    if options.executor == "slurm":
        return cli_cluster.write_slurm(artifact, configs, options)
    executor = cli_cluster.executor(artifact, configs, options)
    limits: dict[str, Any] = {"jobs": options.jobs, "time_budget": options.time_budget, "fresh": options.fresh}
    together: dict[str, Any] = {"devices": options.devices or 1, "shards": options.shards or 1}
    records = run(artifact, configs, **limits, **together, executor=executor)
    summary = artifact.summary(records)
    if options.json:
        keys = ("run_id", "row", "scale", "seed", "metrics", "tokens", "wall_s", "notes")
        runs = [
            {**{key: record[key] for key in keys}, "record": str(run_folder(config) / "record.json")}
            for config, record in zip(configs, records, strict=True)
        ]
        print_json({"artifact": options.artifact, "scale": configs[0].scale, "runs": runs, "summary": summary})
    else:
        print("\n".join(summary))
        print(f"{len(records)} record{'s' * (len(records) > 1)} in {Path('runs') / options.artifact}/*/record.json")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from rmtlib.experiments.registry import all_artifacts
    from rmtlib.runs.plan import plan

    planned = plan(*selected(options), jobs=options.jobs, others=all_artifacts().values())
    if options.json:
        print_json(planned)
        return 0
    from rmtlib.runs.progress import amount, duration, size

    print(f"{planned['artifact']}: {planned['title']}; scale {planned['scale']}")
    table = [["row", "seed", "state", "tokens", "time", "memory", "disk", "time is"]]
    for run in planned["runs"]:
        state = f"{run['state']} {run['done']:.0%}" if run["state"] == "partial" else run["state"]
        table.append(
            [
                run["row"],
                run["seed"],
                state,
                amount(run["tokens"]),
                duration(run["seconds"]),
                size(run["memory_bytes"]) + (" measured" if run["memory_basis"] == "measured" else ""),
                size(run["disk_bytes"]),
                run["basis"],
            ]
        )
    for one in planned["once"]:
        took = duration(one["seconds"])
        table.append([one["name"], "", "to do, once", amount(one["tokens"]), took, "", "", one["basis"]])
    total, at_once = planned["total"], planned["jobs"]
    table.append(
        [
            "left to do",
            "",
            f"{total['runs']} run{'s' * (total['runs'] != 1)}",
            amount(total["tokens"]),
            duration(total["seconds"]),
            size(total["memory_bytes"]),
            size(total["disk_bytes"]),
            f"{at_once} at once",
        ]
    )
    print_table(table)
    if planned["device"]:
        print(f"computed times are for {planned['device']}")
    for run in planned["runs"]:
        if run["state"] == "damaged":
            print(f"damaged: {run['stage']}")
    for warning in planned["warnings"]:
        print(f"warning: {warning}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from rmtlib.experiments.registry import all_artifacts, get_artifact
    from rmtlib.runs.plan import status

    runs = status([get_artifact(options.artifact)] if options.artifact else all_artifacts().values())
    damaged = [run for run in runs if run["state"] == "damaged"]
    if options.json:
        print_json(runs)
    elif not runs:
        print("no runs here and no published records; `rmtlib plan ARTIFACT` says what there is to train")
    else:
        from rmtlib.runs.progress import duration

        table = [["artifact", "row", "scale", "seed", "state", "took", "where it is", "published"]]
        for run in runs:
            state = f"{run['state']} {run['done']:.0%}" if run["state"] in ("partial", "training") else run["state"]
            took = "" if run["wall_s"] is None else duration(run["wall_s"])
            where = run["stage"] if run["state"] in ("partial", "training") else run["folder"]
            table.append(
                [
                    run["artifact"],
                    run["row"] or run["run_id"],
                    run["scale"] or "",
                    run["seed"],
                    state,
                    took,
                    where or "",
                    "yes" if run["published"] else "no",
                ]
            )
        print_table(table)
    if damaged:
        others = f"; {len(damaged) - 1} more are damaged" if len(damaged) > 1 else ""
        raise RmtlibError(f"{damaged[0]['stage']}{others}")
    return 0


def _data(options: argparse.Namespace) -> int:
    from fnmatch import filter as matching

    from rmtlib.data.sources import SOURCES, fetch, provenance, state
    from rmtlib.runs.progress import size

    if not options.names:
        files: list[dict[str, Any]] = [
            {"name": name, "bytes": source.bytes, "licence": source.licence, "state": state(name)}
            for name, source in SOURCES.items()
        ]
        if options.json:
            print_json(files)
        else:
            print_table(
                [
                    ["name", "size", "state", "licence"],
                    *([row["name"], size(row["bytes"]), row["state"], row["licence"]] for row in files),
                ]
            )
        return 0
    names: list[str] = []
    for pattern in options.names:
        matched = matching(SOURCES, pattern)
        if not matched:
            raise RmtlibError(f"unknown data file {pattern!r}: use one of {', '.join(SOURCES)}")
        names += matched
    fetched = []
    for name in dict.fromkeys(names):
        path = fetch(name, progress=True)
        fetched.append({**provenance(name), "path": str(path)})
        if not options.json:
            print(f"{name}: {path}")
    if options.json:
        print_json(fetched)
    return 0


def _notebook(options: argparse.Namespace) -> int:
    from rmtlib.notebooks import execute

    name = options.artifact
    if Path(name).name != name or not name:
        raise RmtlibError(f"unknown artifact {name!r}: give the name of a notebook in notebooks/, without .ipynb")
    target = execute(
        Path("notebooks") / f"{name}.ipynb",
        options.out or Path("out") / name / f"{name}.ipynb",
        options.parameters,
    )
    print(target)
    return 0


@contextlib.contextmanager
def _stopped_at_once() -> Iterator[None]:
    """Where a command does not listen itself a signal ends it, with the status of a stop; what is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise StoppedAtOnce

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, handler in previous.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's); the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in cli_cluster.INNER:
            return cli_cluster.inner(_Parser(prog=f"rmtlib {arguments[0]}"), arguments)
        with _stopped_at_once():
            options = _parser().parse_args(arguments)
            status: int = options.action(options)
        sys.stdout.flush()
        return status
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 75
    except RmtlibError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)  # it may say again what was typed
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues if it can", file=sys.stderr)
        return 75
    except BrokenPipeError:  # `rmtlib status | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:  # of an extra: training needs none of them
        if error.name is None or error.name.startswith("rmtlib"):
            raise
        print(f"error: this needs {error.name}, which is not installed: pip install 'rmtlib[all]'", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or 'while reading or writing'}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
