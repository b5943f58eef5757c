"""What early stopping on short contexts costs: the run that it would choose, read far beyond the training length.

BABILong, appendix C: runs differ on contexts longer than those of training, which "suggests that the early stopping
criterion based on short-context accuracy may not be optimal". No rule decides this, as one choice leaves one number.
"""

from collections.abc import Iterable
from statistics import fmean

from rmtlib.experiments.babilong.rules import BEYOND
from rmtlib.report.measurements import Record, Results
from rmtlib.report.tables import Cell, Table, runs_cell


def validated(record: Record) -> float | None:
    """The best score on validation samples in the last stage: what early stopping sees of a run."""
    curve = record["curves"].get("validation", [])
    return max((score for stage, _, score in curve if stage == curve[-1][0] and score is not None), default=None)


def far(record: Record) -> float | None:
    """Exact match at `BEYOND` times the training length, if that was tested."""
    metrics = record["metrics"]
    wanted = BEYOND * metrics["train_segments"]
    return next((p["correct"] / p["n"] for p in metrics["exact_match"] if p["segments"] == wanted), None)


def chosen(runs: Iterable[tuple[float, float]]) -> tuple[float, int]:
    """Of pairs (validated, far): far of the run validated best, the mean if several are level; how many are."""
    pairs = list(runs)
    best = max(score for score, _ in pairs)
    level = [value for score, value in pairs if score == best]
    return fmean(level), len(level)


def selection_table(results: Results, scale: str) -> Table | None:
    """A row for every row of the artifact that has two runs or more at this scale; None if there is none."""
    body: list[tuple[Cell, ...]] = []
    for row in results.rows:
        runs = [record for record in results.at(scale) if record["row"] == row.name]
        pairs = {record["seed"]: (validated(record), far(record)) for record in runs}
        known = [(score, value) for score, value in pairs.values() if score is not None and value is not None]
        if len(known) < 2 or len(known) < len(runs):
            continue
        (value, level), values = chosen(known), [value for _, value in known]
        said = f"{value:.3f}" + (f" (mean of {level}, whose scores are level)" if level > 1 else "")
        best, mean = max(values), fmean(values)
        body.append((row.label, runs_cell(runs), said, f"{mean:.3f}", f"{best:.3f}", f"{best - value:.3f}"))
    if not body:
        return None
    return Table(
        f"What a choice by short contexts costs, {scale} scale: exact match at {BEYOND} times the training length, of "
        "the run with the best validation score at the training length, of all runs, and of the best run. Regret: the "
        "best run's value less the chosen run's. Equal runs have some too, as the best of values that scatter is "
        "taken.",
        ("row", "runs", "chosen run", "mean of all", "best run", "regret"),
        tuple(body),
        prose=("row", "chosen run"),
    )
