"""The table of `make stress` for the book, from the record that `python -m stress --record` leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.report.escape import escape
from rmtlib.report.tables import Table
from rmtlib.runs.progress import duration
from rmtlib.runs.storage import check_seal, read_json, write_json

HEADER = ("fault", "trials", "survived", "lost")
REMEDY = "write it anew with make stress STRESS_ARGS=--record"
_KEYS = {"date", "commit", "dirty", "hardware", "packages", "seed", "seconds", "rows", "sha256"}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the record as the table's cells; a fault that could not be tried has survived nothing."""
    if row["not_run"] and not row["trials"]:
        return (row["fault"], f"not run: {row['not_run']}", "", "")
    partly = f" (then not run: {row['not_run']})" if row["not_run"] else ""
    return (row["fault"], f"{row['trials']}{partly}", str(row["survived"]), str(row["lost"]))


def _in_the_book(row: dict[str, Any]) -> tuple[str, ...]:
    """`cells` with what is done; why a fault was not run stands there too, as the columns of numbers are narrow."""
    fault, *counts = cells(row | {"not_run": None}) if row["trials"] else (row["fault"], "not run", "", "")
    why = f" Not run: {row['not_run']}" if row["not_run"] else ""
    return fault, row["what"].replace("`", "") + why, *counts


def about(record: dict[str, Any]) -> str:
    """Where the numbers come from, in a line."""
    hardware, changed = record["hardware"], " with changes" if record["dirty"] else ""
    return (
        f"seed {record['seed']}; {duration(record['seconds'])} on {hardware['cpu']}, {hardware['cores']} "
        f"core{'s' * (hardware['cores'] != 1)}; commit {record['commit']}{changed}; {record['date']}"
    )


def load(path: Path) -> dict[str, Any]:
    """The record of a run of `make stress`.

    Raises:
        RmtlibError: it is no such record, or was changed after it was written.
    """
    record: dict[str, Any] = read_json(path, dict, REMEDY)
    if set(record) != _KEYS:
        raise RmtlibError(f"{path} is not a record of make stress: {REMEDY}")
    check_seal(path, record, REMEDY)
    return record


def fragment(path: Path, extra: Path) -> str:
    """What was tried, as HTML, with what was lost or not run; copies the record into `extra`."""
    if not path.exists():
        return "Not run: `make stress STRESS_ARGS=--record` tries it.\n"
    record = load(path)
    extra.mkdir(parents=True, exist_ok=True)
    write_json(extra / "stress.json", record)
    table = Table(
        "Faults, and what became of the runs.",
        ("fault", "what is done", *HEADER[1:]),
        tuple(map(_in_the_book, record["rows"])),
        prose=("what is done",),
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    losses = "".join(
        f"<li>{escape(row['fault'])}, {escape(loss)}</li>" for row in record["rows"] for loss in row["losses"]
    )
    lost = f"<p>What was lost:</p>\n<ul>{losses}</ul>" if losses else "<p>Nothing was lost in this run.</p>"
    return (
        f"{table.to_html()}\n{lost}\n<p>{escape(about(record))}; {escape(versions)}. "
        '<a href="stress.json">The record as JSON</a>.</p>\n'
    )
