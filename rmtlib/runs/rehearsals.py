"""The record of rehearsals: what each row of a scale did on this machine, kept row by row, for the book.

A file of its own, sealed as a whole: {"rows": [entry, ...], "sha256"}. An entry is a line of `rehearsal.rehearse` with
its artifact, the run that it stands for, and where it was made: a row has one from a CPU and one from a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.plan import CPU_EFFICIENCY, core_flops
from rmtlib.runs.rehearsal import PASSED, rehearse
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import check_seal, read_json, write_sealed

RECORD = Path("benchmarks/rehearsal.json")
REMEDY = "restore it from git, or name another file with --record"


def load(path: Path) -> list[dict[str, Any]]:
    """The entries of a record, of every row the last one; none if there is no file.

    Raises:
        RmtlibError: it is no such record, or was changed after it was written.
    """
    if not path.exists():
        return []
    record = read_json(path, dict, REMEDY)
    check_seal(path, record, REMEDY)
    if set(record) != {"rows", "sha256"}:
        raise RmtlibError(f"{path} is no record of rehearsals: {REMEDY}")
    rows: list[dict[str, Any]] = record["rows"]
    return rows


def still_holds(entry: dict[str, Any], config: RunConfig) -> bool:
    """Whether the entry is a rehearsal of exactly this run, which it passed."""
    return entry["run_id"] == config.id and entry["outcome"] in PASSED


def rehearse_and_keep(
    artifact: Artifact, configs: Iterable[RunConfig], path: Path, *, fresh: bool = False
) -> Iterator[dict[str, Any]]:
    """Rehearse the rows that the record at `path` lacks, or all; yields each entry once it is kept.

    Raises:
        RmtlibError: the code is not committed: an entry names the commit that it was made with.
    """
    git = provenance.git_state()
    if git["dirty"]:
        raise RmtlibError(
            "a record keeps rehearsals of committed code: commit the changes in rmtlib and call this again"
        )
    gpu = provenance.has_gpu()
    kept = {_key(entry): entry for entry in load(path)}
    first: dict[str, RunConfig] = {}
    for config in configs:
        first.setdefault(config.row, config)
    todo = [
        config
        for config in first.values()
        if fresh
        or not ((entry := kept.get((artifact.name, config.row, config.scale, gpu))) and still_holds(entry, config))
    ]
    speed = core_flops() * CPU_EFFICIENCY if todo and not gpu else None
    for line in rehearse(artifact, todo):
        about = {
            "hardware": line.get("hardware") or provenance.hardware(),
            "artifact": artifact.name,
            "run_id": first[line["row"]].id,
            "planned_s": line.get("planned_flops", 0.0) / speed if speed else None,  # on a GPU it is calls that count
            "commit": git["commit"],
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        entry = line | about
        kept[_key(entry)] = entry
        write_sealed(path, {"rows": [kept[key] for key in sorted(kept)]})
        yield entry


def on_gpu(entry: dict[str, Any]) -> bool:
    """Whether it was made on a GPU."""
    return entry["hardware"]["gpu"] is not None


def _key(entry: dict[str, Any]) -> tuple[str, str, str, bool]:
    return entry["artifact"], entry["row"], entry["scale"], on_gpu(entry)
