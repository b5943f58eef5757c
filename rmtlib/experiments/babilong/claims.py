"""The claims of the BABILong paper on Figure 5, as checks over exact match at one scale, task by task."""

from collections.abc import Mapping, Sequence
from math import log2, sqrt

from rmtlib.data.babi import TASKS
from rmtlib.evaluation.statistics import mean_difference, mean_std
from rmtlib.report.claims import RUNS_NEEDED, Claim, Finding, too_few
from rmtlib.report.measurements import Series, short_count
from rmtlib.report.tables import plural

TIE = 0.01  # the paper prints whole percents
SUPPORTING_FACTS = {"qa1": 1, "qa2": 2, "qa3": 3}


def _with_enough_runs(tasks: Mapping[str, Series]) -> list[Series]:
    return [series for series in tasks.values() if series.n_runs >= RUNS_NEEDED]


def _none_with_enough(tasks: Mapping[str, Series]) -> Finding:
    return too_few(tasks, sorted(tasks) or ["qa1"]) or Finding("not enough runs", "no runs")


def _declines(tasks: Mapping[str, Series]) -> Finding:
    judged = _with_enough_runs(tasks)
    if not judged:
        return _none_with_enough(tasks)
    parts = {}
    for series in judged:
        trained, longest = series.at_trained_x, series.last
        if longest.x <= series.x_trained:
            return Finding("undecided", f"{series.row} was not tested beyond its training length")
        (low, high), (low_long, high_long) = trained.interval, longest.interval
        parts[series.row] = Finding(
            "holds" if high_long < low else "fails",
            f"{series.row}: {trained.mean:.2f} [{low:.2f}, {high:.2f}] at {short_count(round(trained.x))}, "
            f"{longest.mean:.2f} [{low_long:.2f}, {high_long:.2f}] at {short_count(round(longest.x))}, "
            f"{series.n_runs} runs",
            *mean_difference(longest.values, trained.values),
            (len(longest.runs), len(trained.runs)),
        )
    least = max(parts.values(), key=lambda part: part.effect or 0.0)
    holds = all(part.outcome == "holds" for part in parts.values())
    text = "; ".join(part.statistic for part in parts.values())
    several = parts if len(parts) > 1 else None
    return Finding("holds" if holds else "fails", text, least.effect, least.error, least.n, parts=several)


def _qa1_highest(tasks: Mapping[str, Series]) -> Finding:
    others = [series for series in _with_enough_runs(tasks) if series.row != "qa1"]
    if short := too_few(tasks, ["qa1"]):
        return short
    if not others:
        return Finding("not enough runs", f"{RUNS_NEEDED} runs of qa1 and of at least one other task are needed")
    qa1 = tasks["qa1"]
    leads = [
        (point.mean - other.mean, series.row, point.x / qa1.x_trained, (point.values, other.values))
        for series in others
        for point in qa1.points
        if (other := series.at_multiple(point.x / qa1.x_trained)) is not None
    ]
    if not leads:
        return Finding("undecided", "qa1 and the other tasks have no context length in common")
    lead, task, multiple, (ours, theirs) = min(leads)
    compared = ", ".join(f"{series.row} ({series.n_runs} runs)" for series in others)
    return Finding(
        "holds" if lead >= -TIE else "fails",
        f"smallest lead of qa1 ({qa1.n_runs} runs): {lead:+.3f}, over {task} at {multiple:g}× the training "
        f"length; compared with {compared} at {len({m for _, _, m, _ in leads})} lengths",
        *mean_difference(ours, theirs),
        (len(ours), len(theirs)),
    )


def slopes(series: Series) -> list[float]:
    """Each run's change in accuracy per doubling of the context: least squares over all its lengths."""
    result = []
    for slug in series.slugs:
        xy = [(log2(p.x), run.value) for p in series.points for run in p.runs if run.record == slug]
        x_mean = sum(x for x, _ in xy) / len(xy)
        spread = sum((x - x_mean) ** 2 for x, _ in xy)
        result.append(sum((x - x_mean) * y for x, y in xy) / spread if spread else 0.0)
    return result


def _facts_steepen(tasks: Mapping[str, Series]) -> Finding:
    if short := too_few(tasks, list(SUPPORTING_FACTS)):
        return short
    by_task = {task: slopes(tasks[task]) for task in SUPPORTING_FACTS}
    means = {task: mean_std(values) for task, values in by_task.items()}
    text = ", ".join(f"{t} {mean:+.3f} ± {std or 0.0:.3f} ({len(by_task[t])} runs)" for t, (mean, std) in means.items())
    gaps = {task: mean_difference(by_task["qa1"], values) for task, values in by_task.items() if task != "qa1"}
    parts = {
        f"{task} falls faster than qa1": Finding(
            "holds" if gap > 2 * error else "fails",
            f"{gap:+.3f} ± {error:.3f}",
            gap,
            error,
            (len(by_task["qa1"]), len(by_task[task])),
        )
        for task, (gap, error) in gaps.items()
    }
    least = min(parts.values(), key=lambda part: (part.effect or 0.0) - 2 * (part.error or 0.0))
    holds = all(part.outcome == "holds" for part in parts.values())
    text = f"accuracy per doubling of the context: {text}"
    return Finding("holds" if holds else "fails", text, least.effect, least.error, least.n, parts=parts)


def _variances(points: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """Of (mean, std, n) at each length: the variance between seeds, less what the finite test set gives, and that."""
    noise = sum(mean * (1 - mean) / n for mean, _, n in points) / len(points)
    return max(sum(std**2 for _, std, _ in points) / len(points) - noise, 0.0), noise


def _spread_grows(tasks: Mapping[str, Series]) -> Finding:
    from scipy import stats

    judged = _with_enough_runs(tasks)
    if not judged:
        return _none_with_enough(tasks)
    within: list[tuple[float, float, int]] = []
    beyond: list[tuple[float, float, int]] = []
    for series in judged:
        for point in series.points:
            if point.std is not None:
                side = within if point.x <= series.x_trained else beyond
                side.append((point.mean, point.std, min(run.n or 0 for run in point.runs)))
    if not within or not beyond:
        return Finding("undecided", "no lengths on both sides of the training length")
    (inside, noise), (outside, _) = _variances(within), _variances(beyond)
    freedom = sum(series.n_runs - 1 for series in judged)  # lengths of a run go together and count once
    ratio = (outside + noise) / (inside + noise) if inside + noise else float(outside > 0) * 1e9
    needed = float(stats.f.ppf(0.95, freedom, freedom))
    runs = ", ".join(f"{series.row} ({plural(series.n_runs, 'run')})" for series in judged)
    return Finding(
        "holds" if ratio > needed else "undecided" if ratio > 1 else "fails",
        f"standard deviation between seeds, sampling noise removed: {sqrt(inside):.3f} within, {sqrt(outside):.3f} "
        f"beyond; ratio of variances {min(ratio, 9999):.3g}, needed {needed:.3g}; {runs}",
        sqrt(outside) - sqrt(inside),
        n=tuple(series.n_runs for series in judged),
        p=float(stats.f.sf(ratio, freedom, freedom)),
    )


CLAIMS = (
    Claim(
        "declines",
        "Accuracy decreases as the context grows beyond the training length.",
        "BABILong, Figure 5 and section 3.3",
        "For every task with enough runs the 95 % bootstrap interval at the longest context lies wholly below the "
        "one at the training length.",
        _declines,
        rows=TASKS,
    ),
    Claim(
        "qa1-highest",
        "qa1 keeps the highest accuracy at every context length.",
        "BABILong, Figure 5",
        "At no multiple of the training length is qa1's mean more than one percentage point (a tie in the paper's "
        "rounding) below another task's.",
        _qa1_highest,
        rows=TASKS,
        margin=TIE,
    ),
    Claim(
        "facts-steepen",
        "Tasks with more supporting facts decline more steeply.",
        "BABILong, Figure 5",
        "Slope of accuracy per doubling of the context: qa2 (two facts) and qa3 (three) each fall faster than qa1 "
        "(one) by more than two standard errors of the difference.",
        _facts_steepen,
        rows=tuple(SUPPORTING_FACTS),
    ),
    Claim(
        "spread-grows",
        "Beyond the lengths of training, runs differ more from seed to seed.",
        "BABILong, appendix C",
        "The variance between seeds, less the sampling noise of the test set, is larger beyond the training length "
        "than within it, by more than chance allows (one-sided F test at the 5 % level, a run counting once). Larger "
        "by less than that is undecided.",
        _spread_grows,
        rows=TASKS,
    ),
)
