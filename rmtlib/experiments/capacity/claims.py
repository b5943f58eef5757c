"""The claims of the ARMT paper on the memory-capacity tasks, as checks over pairs stored and exact match."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rmtlib.evaluation.statistics import mean_std
from rmtlib.report.claims import BY_TEST, Claim, Finding, Pair, compare, too_few
from rmtlib.report.measurements import Aggregate, Series

BEYOND = 10  # times the trained updates: 50 and 500 in the paper
LEARNED = 0.9  # exact match at the trained number of updates, of a model whose forgetting is to be judged
SLACK = 0.1


def _stored(rows: Mapping[str, Series], models: Sequence[str]) -> tuple[int, dict[str, list[float]]]:
    """The most pairs that all these models were asked for in the same task, and how many each run stored of them."""
    asked = [{(p.x, p.runs[0].tokens): p for p in rows[f"{model}-remember"].points} for model in models]
    common = max(set.intersection(*map(set, asked)), default=None)
    if common is None:
        return 0, {}
    return int(common[0]), {model: points[common].values for model, points in zip(models, asked, strict=True)}


def _ordered(rows: Mapping[str, Series], *models: str, limit: float = 0.0) -> Finding:
    """Whether each model stores less than the next one."""
    if short := too_few(rows, [f"{model}-remember" for model in models]):
        return short
    pairs, stored = _stored(rows, models)
    if not stored:
        return Finding("undecided", "no number of pairs was asked of all of them in the same task")
    tested = compare([Pair(a, stored[a], b, stored[b], limit) for a, b in zip(models, models[1:], strict=False)])
    means = ", ".join(f"{model} {mean_std(values)[0]:.1f}" for model, values in stored.items())
    return replace(tested, statistic=f"stored of {pairs} pairs: {means}; {tested.statistic}")


def _far(series: Series) -> Aggregate:
    """The tested number of updates nearest to `BEYOND` times as many as were trained."""
    wanted = BEYOND * series.at_trained_x.x
    return min(series.points, key=lambda p: abs(p.x - wanted))


def _not_learned(rows: Mapping[str, Series], needed: Sequence[str]) -> Finding | None:
    """Why nothing can be said of what these rows keep, if so: too few runs, or a task that was not learned."""
    if short := too_few(rows, needed):
        return short
    for row in needed:
        trained = rows[row].at_trained_x
        if trained.mean < LEARNED:
            text = f"{row} has not learned the task: {trained.mean:.2f} after {trained.x:g} updates, as trained"
            return Finding("undecided", text)
    return None


def _gamma_needed(rows: Mapping[str, Series]) -> Finding:
    with_gamma, without = "armt-rewrite", "armt-nogamma-rewrite"
    if reason := _not_learned(rows, [with_gamma, without]):
        return reason
    far = _far(rows[without])
    name = f"{without} after {far.x:g} updates"
    return compare(
        [
            Pair(name, far.values, "as trained", rows[without].at_trained_x.values, -SLACK),
            Pair(name, far.values, with_gamma, _far(rows[with_gamma]).values),
        ]
    )


def _keeps(series: Series) -> Pair:
    trained, far = series.at_trained_x, _far(series)
    return Pair(f"{series.row} as trained", trained.values, f"after {far.x:g} updates", far.values, SLACK)


def _degrades(series: Series) -> Pair:
    trained, far = series.at_trained_x, _far(series)
    return Pair(f"{series.row} after {far.x:g} updates", far.values, "as trained", trained.values)


def _armt_keeps(rows: Mapping[str, Series]) -> Finding:
    """Two halves: the claim holds only if both do, but each is shown even if nothing can be said of the other."""
    kept, lost = ["armt-rewrite"], ["rmt-rewrite", "mamba-rewrite"]
    parts = {
        "ARMT keeps": _not_learned(rows, kept) or compare([_keeps(rows[row]) for row in kept]),
        "RMT and Mamba degrade": _not_learned(rows, lost) or compare([_degrades(rows[row]) for row in lost]),
    }
    if reason := _not_learned(rows, kept + lost):
        return replace(reason, parts=parts)
    whole = compare([*(_keeps(rows[row]) for row in kept), *(_degrades(rows[row]) for row in lost)])
    return replace(whole, parts=parts)


CLAIMS = (
    Claim(
        "capacity-order",
        "ARMT stores more pairs than Mamba, and Mamba more than RMT.",
        "ARMT, Figure 2a and section 3",
        "At the largest number of pairs that all three were asked for, the means of the stored pairs are in this order."
        + BY_TEST,
        lambda rows: _ordered(rows, "rmt", "mamba", "armt"),
        rows=("rmt-remember", "mamba-remember", "armt-remember"),
    ),
    Claim(
        "prmt-no-better",
        "PRMT does not improve on RMT.",
        "ARMT, Figure 4b and section 3",
        "At the largest number of pairs that both were asked for in the same task, PRMT's mean of stored pairs is at "
        "most 10 % above RMT's." + BY_TEST,
        lambda rows: _ordered(rows, "prmt", "rmt", limit=SLACK),
        rows=("prmt-remember", "rmt-remember"),
        margin=SLACK,
    ),
    Claim(
        "gamma-needed",
        "Without gamma correction, Rewrite collapses beyond the trained number of updates.",
        "ARMT, Figure 4a and appendix F.1",
        "Without the correction, the mean exact match after 10 times the trained updates (the nearest tested) is at "
        "least 10 % below that at the trained number, and below that of ARMT with it. Both have learned the task: at "
        "least 0.9 at the trained number." + BY_TEST,
        _gamma_needed,
        rows=("armt-nogamma-rewrite", "armt-rewrite"),
        margin=SLACK,
    ),
    Claim(
        "armt-keeps",
        "ARMT keeps Rewrite at 10 times the trained updates, while RMT and Mamba degrade.",
        "ARMT, Figure 2b and section 3",
        "After 10 times the trained updates (the nearest tested), the mean exact match is below that at the trained "
        "number for RMT and for Mamba, while for ARMT that at the trained number is at most 10 % higher. All have "
        "learned the task: at least 0.9 at the trained number." + BY_TEST,
        _armt_keeps,
        rows=("armt-rewrite", "rmt-rewrite", "mamba-rewrite"),
        margin=SLACK,
    ),
)
