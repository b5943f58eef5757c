"""The book's table of rehearsals: which rows of the scale gpu were tried on a CPU, and what that took."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rmtlib.report.escape import escape
from rmtlib.report.tables import Cell, Table, fold, plural
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.progress import duration, size
from rmtlib.runs.rehearsal import NOT_HERE, PASSED
from rmtlib.runs.rehearsals import load

SCALE = "gpu"
NOT_YET, OTHER = "not rehearsed", "not rehearsed with these settings"
STEPS = {  # what an outcome says was done
    "stopped and continued": "built, trained, stopped with a checkpoint, continued, tested",
    "finished": "built and tested; nothing to stop at",
}


def fragment(path: Path, artifacts: Iterable[Artifact]) -> str:
    """A table of all artifacts that have the scale, each one's rows folded away, and where the numbers come from."""
    kept = {(entry["artifact"], entry["row"]): entry for entry in load(path) if entry["scale"] == SCALE}
    overview: list[tuple[Cell, ...]] = []
    folds = []
    for artifact in (artifact for artifact in artifacts if SCALE in artifact.scales):
        rows = [_row(artifact, row.name, kept.get((artifact.name, row.name))) for row in artifact.rows_at(SCALE)]
        outcomes = [str(row[1]) for row in rows]
        passed = sum(outcome in STEPS.values() for outcome in outcomes)
        waiting = sum(outcome in (NOT_YET, OTHER) or outcome.startswith(NOT_HERE) for outcome in outcomes)
        failed = len(rows) - passed - waiting
        overview.append((artifact.name, str(len(rows)), str(passed), str(failed), str(waiting)))
        if any(outcome != NOT_YET for outcome in outcomes):
            header = ("row", "what was done", "weights", "time", "planned", "memory", "planned", "commit")
            table = Table(f"{artifact.name}: every row of the scale {SCALE}.", header, tuple(rows), prose=header[:2])
            folds.append(fold(f"{artifact.name}: {plural(passed, 'row')} rehearsed", table.to_html()))
    caption = (
        f"Rehearsed on a CPU, never run on a GPU: each row's own model of the scale {SCALE}, two steps, a stop, the "
        "rest, and one test sample, with smaller counts. Nothing is claimed from these runs."
    )
    columns = ("artifact", "rows", "rehearsed", "failed", "not rehearsed")
    machines = sorted({entry["hardware"]["cpu"] for entry in kept.values()})
    where = f"<p>On {escape('; '.join(machines))}; one process a row.</p>\n" if machines else ""
    return f"{Table(caption, columns, tuple(overview)).to_html()}\n{where}{''.join(folds)}"


def _row(artifact: Artifact, row: str, entry: dict[str, Any] | None) -> tuple[Cell, ...]:
    if entry is None:
        return (row, NOT_YET, *[""] * 6)
    if entry["run_id"] not in {artifact.config(row, SCALE, 0).id, artifact.with_all_files(row, SCALE, 0).id}:
        return (row, OTHER, *[""] * 6)
    done = STEPS.get(entry["outcome"], entry["outcome"])
    if entry["outcome"] not in PASSED:
        return (row, done, *[""] * 5, entry["commit"][:7])
    weights, commit = f"{entry.get('parameters') or 0:,}", entry["commit"][:7]
    times = duration(entry["wall_s"]), duration(entry["planned_s"])
    return (row, done, weights, *times, size(entry["peak_memory"]), size(entry["planned_memory"]), commit)
