"""What decides the primary claim of figure-5: a rule as data, declared before the runs (book/protocol.md)."""

from collections.abc import Iterable, Mapping
from math import log2, sqrt
from statistics import fmean, linear_regression, median
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.babilong.rows import BACKBONES, ROWS, stand_in_of

BEYOND = 8  # times the training length at which extrapolation is read (128k in the paper)
LEARNED = 0.9  # exact match at the training length, without which a fall means nothing
PAPER = {row.name: row.paper for row in ROWS if row.paper}
FALL = PAPER["qa1"]["16k"] - PAPER["qa1"]["128k"]  # 100 -> 94 % in the paper
SEEDS = 4  # with three the rule would hold too seldom if the paper is true
SPREAD = 0.03  # standard deviation of exact match between seeds

RULES: dict[str, Rule] = {
    # Section 3.3: "up to 128k tokens, with only a marginal quality degradation"; the limit is twice the paper's fall.
    "holds-beyond": Rule(
        (Contrast({"qa1: fall": 1}, limit=round(2 * FALL, 6)),),
        gates=(Gate("qa1: trained", above=LEARNED, why="it did not learn the task"),),
        seeds=SEEDS,
        paper={"qa1: fall": FALL},
        spread={"qa1: fall": SPREAD},
    ),
}


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the rules compare, one a seed, from the records of one scale.

    Of every row: "trained" is the exact match at the training length, "far" at `BEYOND` times that length, "fall" what
    is lost between these, "fall to the longest" what is lost up to the longest context, "slope" the change per doubling
    of the context, "deviation trained" and "deviation far" the distance from the median over seeds in standard errors:
    those of a binomial with as many questions and the seeds' mean, taken half an answer away from none and from all.

    If GPT-2's weights were not to be had, no row of its own has a record, and those that stand in have their names.
    """
    records = list(records)
    named = _named_after(record["row"] for record in records)
    by_arm: dict[str, list[float]] = {}
    asked: dict[str, int] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        metrics, row = record["metrics"], record["row"]
        if named and stand_in_of(row) == named:
            row = "-".join(part for part in row.split("-") if part != named)
        points = {point["segments"]: point for point in metrics["exact_match"] if point["segments"]}
        accuracy = {segments: point["correct"] / point["n"] for segments, point in points.items()}
        trained, longest = metrics["train_segments"], max(accuracy)
        numbers = {"slope": slope(accuracy)}
        if trained in accuracy and longest > trained:
            asked[f"{row}: trained"] = points[trained]["n"]
            numbers |= {"trained": accuracy[trained], "fall to the longest": accuracy[trained] - accuracy[longest]}
        if {trained, BEYOND * trained} <= set(accuracy):
            far, asked[f"{row}: far"] = accuracy[BEYOND * trained], points[BEYOND * trained]["n"]
            numbers |= {"far": far, "fall": accuracy[trained] - far}
        for name, value in numbers.items():
            by_arm.setdefault(f"{row}: {name}", []).append(value)
    for name, n in asked.items():
        row, _, at = name.partition(": ")
        right = min(max(fmean(by_arm[name]), 0.5 / n), 1 - 0.5 / n)
        error = sqrt(right * (1 - right) / n)
        by_arm[f"{row}: deviation {at}"] = [abs(value - median(by_arm[name])) / error for value in by_arm[name]]
    return by_arm


def _named_after(rows: Iterable[str]) -> str:
    """Whose rows have GPT-2's names: the first stand-in that has records, if no row of GPT-2's own has any."""
    rows = [row for row in rows if not row.startswith(("mamba-", "rwkv-"))]  # which have no stand-ins
    if not all(map(stand_in_of, rows)):
        return ""
    return next((name for name in BACKBONES if name in map(stand_in_of, rows)), "")


def slope(accuracy: Mapping[int, float]) -> float:
    """Change in accuracy per doubling of the segments: least squares over all lengths."""
    if len(accuracy) < 2:
        return 0.0
    return linear_regression([log2(segments) for segments in accuracy], list(accuracy.values())).slope
