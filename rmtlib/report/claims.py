"""Sentences of the papers as checks over records: holds, fails, or not enough runs, with the statistic."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import log2, sqrt
from typing import Any

from rmtlib.evaluation.statistics import mean_difference, mean_std
from rmtlib.experiments.capacity.claims import MEMORY_CAPACITY
from rmtlib.experiments.language_modelling.claims import ENWIK8_CLAIMS, WIKITEXT_103_CLAIMS
from rmtlib.experiments.language_modelling.report import rows_by_scale
from rmtlib.report.claim import RUNS_NEEDED, Claim, Finding, Verdict, too_few
from rmtlib.report.measurements import Curve, Record, curves, short_count

__all__ = ["CLAIMS", "FIGURE_5", "RUNS_NEEDED", "Claim", "Finding", "Verdict", "judge", "slopes"]

TIE = 0.01  # the paper prints whole percents
SUPPORTING_FACTS = {"qa1": 1, "qa2": 2, "qa3": 3}


def _judged(tasks: Mapping[str, Curve]) -> list[Curve]:
    return [curve for curve in tasks.values() if curve.runs >= RUNS_NEEDED]


def _decline(tasks: Mapping[str, Curve]) -> Finding:
    judged = _judged(tasks)
    if not judged:
        return too_few(tasks, sorted(tasks) or ["qa1"]) or Finding("not enough runs", "no runs")
    parts, holds = [], True
    for curve in judged:
        trained, longest = curve.at_training_length, curve.points[-1]
        if longest.tokens <= curve.train_tokens:
            return Finding("not enough runs", f"{curve.task} was not tested beyond its training length")
        (low, high), (low_long, high_long) = trained.interval, longest.interval
        holds &= high_long < low
        parts.append(
            f"{curve.task}: {trained.mean:.2f} [{low:.2f}, {high:.2f}] at {short_count(trained.tokens)}, "
            f"{longest.mean:.2f} [{low_long:.2f}, {high_long:.2f}] at {short_count(longest.tokens)}, {curve.runs} runs"
        )
    return Finding("holds" if holds else "fails", "; ".join(parts))


def _qa1_highest(tasks: Mapping[str, Curve]) -> Finding:
    others = [curve for curve in _judged(tasks) if curve.task != "qa1"]
    if short := too_few(tasks, ["qa1"]):
        return short
    if not others:
        return Finding("not enough runs", f"{RUNS_NEEDED} runs of qa1 and of at least one other task are needed")
    leads = [
        (point.mean - other.mean, curve.task, multiple)
        for curve in others
        for point in tasks["qa1"].points
        if (other := curve.at(multiple := tasks["qa1"].multiple(point))) is not None
    ]
    if not leads:
        return Finding("not enough runs", "qa1 and the other tasks have no context length in common")
    lead, task, multiple = min(leads)
    compared = ", ".join(f"{curve.task} ({curve.runs} runs)" for curve in others)
    return Finding(
        "holds" if lead >= -TIE else "fails",
        f"smallest lead of qa1 ({tasks['qa1'].runs} runs): {lead:+.3f}, over {task} at {multiple:g}× the training "
        f"length; compared with {compared} at {len({m for *_, m in leads})} lengths",
    )


def slopes(curve: Curve) -> list[float]:
    """Each run's change in accuracy per doubling of the context: least squares over all its lengths."""
    result = []
    for slug in curve.slugs:
        xy = [(log2(p.tokens), run.accuracy) for p in curve.points for run in p.runs if run.slug == slug]
        x_mean = sum(x for x, _ in xy) / len(xy)
        spread = sum((x - x_mean) ** 2 for x, _ in xy)
        result.append(sum((x - x_mean) * y for x, y in xy) / spread if spread else 0.0)
    return result


def _facts_steepen(tasks: Mapping[str, Curve]) -> Finding:
    if short := too_few(tasks, list(SUPPORTING_FACTS)):
        return short
    found = {task: slopes(tasks[task]) for task in SUPPORTING_FACTS}
    holds, parts = True, []
    for task, values in found.items():
        mean, std = mean_std(values)
        parts.append(f"{task} {mean:+.3f} ± {std or 0.0:.3f} ({len(values)} runs)")
        if task != "qa1":
            gap, error = mean_difference(found["qa1"], values)
            holds &= gap > 2 * error
    return Finding("holds" if holds else "fails", "accuracy per doubling of the context: " + ", ".join(parts))


def _variances(points: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """Of (mean, std, n) at each length: the variance between seeds, less what the finite test set gives, and that."""
    noise = sum(mean * (1 - mean) / n for mean, _, n in points) / len(points)
    return max(sum(std**2 for _, std, _ in points) / len(points) - noise, 0.0), noise


def _spread_grows(tasks: Mapping[str, Curve]) -> Finding:
    from scipy import stats

    judged = _judged(tasks)
    if not judged:
        return too_few(tasks, sorted(tasks) or ["qa1"]) or Finding("not enough runs", "no runs")
    within: list[tuple[float, float, int]] = []
    beyond: list[tuple[float, float, int]] = []
    for curve in judged:
        for point in curve.points:
            if point.std is not None:
                side = within if point.tokens <= curve.train_tokens else beyond
                side.append((point.mean, point.std, min(run.n for run in point.runs)))
    if not within or not beyond:
        return Finding("not enough runs", "no lengths on both sides of the training length")
    (inside, noise), (outside, _) = _variances(within), _variances(beyond)
    freedom = sum(curve.runs - 1 for curve in judged)  # lengths of a run go together and count once
    ratio = (outside + noise) / (inside + noise) if inside + noise else float(outside > 0) * 1e9
    needed = float(stats.f.ppf(0.95, freedom, freedom))
    runs = ", ".join(f"{curve.task} ({curve.runs} runs)" for curve in judged)
    return Finding(
        "holds" if ratio > needed else "not enough runs" if ratio > 1 else "fails",
        f"standard deviation between seeds, sampling noise removed: {sqrt(inside):.3f} within, {sqrt(outside):.3f} "
        f"beyond; ratio of variances {min(ratio, 9999):.3g}, needed {needed:.3g}; {runs}",
    )


FIGURE_5 = (
    Claim(
        "declines",
        "Accuracy decreases as the context grows beyond the training length.",
        "BABILong, Figure 5 and section 3.3",
        "For every task with enough runs the 95 % bootstrap interval at the longest context lies wholly below the "
        "one at the training length.",
        _decline,
    ),
    Claim(
        "qa1-highest",
        "qa1 keeps the highest accuracy at every context length.",
        "BABILong, Figure 5",
        "At no multiple of the training length is qa1's mean more than one percentage point (a tie in the paper's "
        "rounding) below another task's.",
        _qa1_highest,
    ),
    Claim(
        "facts-steepen",
        "Tasks with more supporting facts decline more steeply.",
        "BABILong, Figure 5",
        "Slope of accuracy per doubling of the context: qa2 (two facts) and qa3 (three) each fall faster than qa1 "
        "(one) by more than two standard errors of the difference.",
        _facts_steepen,
    ),
    Claim(
        "spread-grows",
        "Beyond the lengths of training, runs differ more from seed to seed.",
        "BABILong, appendix C",
        "The variance between seeds, less the sampling noise of the test set, is larger beyond the training length "
        "than within it, by more than chance allows (one-sided F test at the 5 % level, a run counting once). Larger "
        "by less than that is undecided: not enough runs.",
        _spread_grows,
    ),
)

CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "figure-5": FIGURE_5,
    "enwik8": ENWIK8_CLAIMS,
    "wikitext-103": WIKITEXT_103_CLAIMS,
    "memory-capacity": MEMORY_CAPACITY,
}
GROUPED: Mapping[str, Callable[[Iterable[Record]], Mapping[str, Mapping[str, Any]]]] = {
    "figure-5": curves,
    "enwik8": partial(rows_by_scale, "enwik8"),
    "wikitext-103": partial(rows_by_scale, "wikitext-103"),
    "memory-capacity": curves,
}
"""Artifact -> how its records are put together: scale -> row -> its runs, as its claims take them."""


def judge(artifact: str, records: Iterable[Record]) -> list[Verdict]:
    """Every claim of an artifact at every scale that has records, except `smoke`, which only shows that all runs."""
    verdicts = []
    for scale, rows in GROUPED.get(artifact, curves)(records).items():
        if scale == "smoke":
            continue
        for claim in CLAIMS.get(artifact, ()):
            finding = claim.check(rows)
            verdicts.append(Verdict(claim, scale, finding.outcome, finding.statistic))
    return verdicts
