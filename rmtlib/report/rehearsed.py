"""The book's table of rehearsals: which rows of the scale gpu were tried, on a CPU or on a GPU, and what that took."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rmtlib.report.escape import escape
from rmtlib.report.tables import Cell, Table, fold, plural
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.progress import duration, size
from rmtlib.runs.rehearsal import NOT_HERE, PASSED
from rmtlib.runs.rehearsals import load, on_gpu

SCALE = "gpu"
NOT_YET, OTHER = "not rehearsed", "not rehearsed with these settings"
STEPS = {  # what an outcome says was done
    "stopped and continued": "built, trained, stopped with a checkpoint, continued, tested",
    "finished": "built and tested; nothing to stop at",
}
HEADER = ("row", "on a", "what was done", "weights", "time", "planned", "memory", "planned", "commit")


def fragment(path: Path, artifacts: Iterable[Artifact]) -> str:
    """A table of all artifacts that have the scale, each one's rows folded away, and where the numbers come from."""
    kept = [entry for entry in load(path) if entry["scale"] == SCALE]
    overview: list[tuple[Cell, ...]] = []
    folds = []
    for artifact in (artifact for artifact in artifacts if SCALE in artifact.scales):
        names = [row.name for row in artifact.rows_at(SCALE)]
        lines: list[tuple[str, ...]] = []
        for name in names:
            entries = [entry for entry in kept if (entry["artifact"], entry["row"]) == (artifact.name, name)]
            lines += [_line(artifact, entry) for entry in sorted(entries, key=on_gpu)] or [_empty(name, "", NOT_YET)]
        passed = {place: {line[0] for line in lines if line[1] == place and _passed(line)} for place in ("CPU", "GPU")}
        failed = {line[0] for line in lines if _failed(line)}
        some = passed["CPU"] | passed["GPU"]
        counts = len(names), len(passed["CPU"]), len(passed["GPU"]), len(failed), len(set(names) - some - failed)
        overview.append((artifact.name, *map(str, counts)))
        if any(line[2] != NOT_YET for line in lines):
            table = Table(f"{artifact.name}: every row of the scale {SCALE}.", HEADER, tuple(lines), prose=HEADER[:3])
            folds.append(fold(f"{artifact.name}: {plural(len(some), 'row')} rehearsed", table.to_html()))
    caption = (
        f"Rehearsals: each row's own model of the scale {SCALE}, a few training steps, a stop, the rest, and one test "
        "sample. Counts are smaller, and nothing is claimed from these runs."
    )
    columns = ("artifact", "rows", "on a CPU", "on a GPU", "failed", "not rehearsed")
    machines = sorted({entry["hardware"]["gpu"] or entry["hardware"]["cpu"] for entry in kept})
    where = f"<p>On {escape('; '.join(machines))}; one process a row.</p>\n" if machines else ""
    return f"{Table(caption, columns, tuple(overview)).to_html()}\n{where}{''.join(folds)}"


def _line(artifact: Artifact, entry: dict[str, Any]) -> tuple[str, ...]:
    """An entry as a row of a table."""
    row, place = entry["row"], "GPU" if on_gpu(entry) else "CPU"
    if entry["run_id"] not in {artifact.config(row, SCALE, 0).id, artifact.with_all_files(row, SCALE, 0).id}:
        return _empty(row, place, OTHER)
    done, commit = STEPS.get(entry["outcome"], entry["outcome"]), entry["commit"][:7]
    if entry["outcome"] not in PASSED:
        return _empty(row, place, done, commit)
    weights, took = f"{entry.get('parameters') or 0:,}", duration(entry["wall_s"])
    if place == "GPU":  # what is planned is for a CPU
        return (row, place, done, weights, took, "", size(entry.get("gpu_memory") or 0), "", commit)
    memory = size(entry["peak_memory"]), size(entry["planned_memory"])
    return (row, place, done, weights, took, duration(entry["planned_s"]), *memory, commit)


def _empty(row: str, place: str, done: str, commit: str = "") -> tuple[str, ...]:
    return (row, place, done, *[""] * (len(HEADER) - 4), commit)


def _passed(line: tuple[str, ...]) -> bool:
    return line[2] in STEPS.values()


def _failed(line: tuple[str, ...]) -> bool:
    return not (_passed(line) or line[2] in (NOT_YET, OTHER) or line[2].startswith(NOT_HERE))
