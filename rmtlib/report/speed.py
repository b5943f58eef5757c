"""The table of `make bench` for the book, from the record that `python -m benchmarks --record` leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.report.escape import escape
from rmtlib.report.tables import Table
from rmtlib.runs.storage import check_seal, read_json, write_json

HEADER = ("case", "what", "ours", "peer", "ratio", "target", "met", "arithmetic")
REACHED = {None: "not measured", True: "yes", False: "no"}
_KEYS = {"machine", "commit", "date", "packages", "rounds", "rows", "sha256"}
_CPU = "one thread, float32 unless said, CPU time"  # how a record was measured that does not say how


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the record as the table's cells."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
    names = ("case", "what", "ours", "peer")
    return (*(row[name] for name in names), ratio, row["target"], REACHED[row["reached"]], row["floor"])


def about(record: dict[str, Any]) -> str:
    """Where the numbers come from, in a line."""
    rounds = f"{record['rounds']} round{'s' * (record['rounds'] > 1)}"
    commit, *changed = record["commit"].split(" ", 1)  # whole, it is wider than a phone
    return (
        f"{record['machine']}; {record.get('how', _CPU)}, median of {rounds}; "
        f"commit {' '.join([commit[:12], *changed])}; {record['date']}"
    )


def load(path: Path) -> dict[str, Any]:
    """The record of a bench run.

    Raises:
        RmtlibError: it is no such record, or was changed after it was written.
    """
    remedy = f"write it anew with {_command(path)}"
    record = read_json(path, dict, remedy)
    if set(record) - {"how"} != _KEYS:
        raise RmtlibError(f"{path} is not a record of make bench: {remedy}")
    check_seal(path, record, remedy)
    return record


def _command(path: Path) -> str:
    """What makes the record at this path."""
    return f"make bench BENCH_ARGS={repr('--gpu --record') if _of_gpu(path) else '--record'}"


def _of_gpu(path: Path) -> bool:
    return path.name == "gpu.json"


TASKS = {  # what a user does -> the row of the record that measures it
    "Training GPT-2 with RMT": "RMT training",
    "Training GPT-2 with ARMT": "ARMT training",
    "Training ARMT on many short segments": "associative ARMT training",
    "Training RMT on samples of one to eight segments": "samples that have ended, RMT",
    "Training Mamba": "Mamba training",
    "Reading two segments with RMT's GPT-2": "RMT prefill",
    "Tokenising a text": "tokenising",
    "Assembling a BABILong sample of a million tokens": "sample assembly",
    "Memory to train ARMT on many short segments, states rebuilt": (
        "associative ARMT training with rebuilt states: peak memory"
    ),
}


def gains(path: Path) -> str:
    """What the package buys a user, a line for each task: ours, the straightforward code's, the factor."""
    if not path.exists():
        return "Not run: `make bench BENCH_ARGS=--record` measures it.\n"
    rows = {row["case"]: row for row in load(path)["rows"] if row["ratio"]}
    body = []
    for task, case in TASKS.items():
        if row := rows.get(case):
            less = 1 / row["ratio"] if case.endswith("peak memory") else row["ratio"]
            unit = "times less" if case.endswith("peak memory") else "times as fast"
            body.append((task, row["what"].partition("; peer")[0], row["ours"], row["peer"], f"{less:.3g} {unit}"))
    caption = "How long a task takes here, and with the straightforward code that computes the same."
    header = ("task", "size", "here", "straightforward code", "gain")
    return Table(caption, header, tuple(body), prose=("task", "size")).to_html() + "\n"


def fragment(path: Path, extra: Path, cases: str = "") -> str:
    """The table as HTML with where it comes from, or that there is none; copies the record into `extra`.

    Args:
        path: of the record of a CPU, or of a GPU: gpu.json.
        cases: only rows whose case starts so.
    """
    if not path.exists():
        return f"Not run: `{_command(path)}` measures it.\n"
    record, name = load(path), "bench-gpu.json" if _of_gpu(path) else "bench.json"
    extra.mkdir(parents=True, exist_ok=True)
    write_json(extra / name, record)
    rows = tuple(cells(row) for row in record["rows"] if row["case"].startswith(cases))
    table = Table("Speed and memory against straightforward peers.", HEADER, rows, prose=("case", "what"))
    versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    return (
        f"{table.to_html()}\n<p>{escape(about(record))}; {escape(versions)}. "
        f'<a href="{name}">The record as JSON</a>.</p>\n'
    )
