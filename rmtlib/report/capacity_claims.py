"""The claims of the ARMT paper on the memory-capacity tasks, as checks over records."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from rmtlib.evaluation.capacity import pairs_stored
from rmtlib.experiments.memory_capacity import VALUES
from rmtlib.report.claim import Claim, Finding, too_few
from rmtlib.report.curves import Curve, Point

BEYOND = 10  # times the trained updates: 50 and 500 in the paper


def _stored(tasks: Mapping[str, Curve], model: str) -> tuple[float, float, float, int]:
    """Mean and 95 % interval of the pairs that `model` stores of the most that all models were asked for."""
    rows = [curve for row, curve in tasks.items() if row in {f"{m}-remember" for m in CAPACITY_MODELS}]
    most = min(curve.points[-1].segments for curve in rows)
    point = next(p for p in tasks[f"{model}-remember"].points if p.segments == most)
    mean, low, high = (pairs_stored(x, most - 1, VALUES) for x in (point.mean, *point.interval))
    return mean, low, high, most - 1


def _in_words(tasks: Mapping[str, Curve], models: Sequence[str]) -> str:
    found = {model: _stored(tasks, model) for model in models}
    parts = (
        f"{m} {mean:.1f} [{low:.1f}, {high:.1f}] ({tasks[f'{m}-remember'].runs} runs)"
        for m, (mean, low, high, _) in found.items()
    )
    return f"stored of {found[models[0]][3]} pairs: " + ", ".join(parts)


def _capacity_order(tasks: Mapping[str, Curve]) -> Finding:
    models = ("armt", "mamba", "rmt")
    if short := too_few(tasks, [f"{model}-remember" for model in models]):
        return short
    found = [_stored(tasks, model) for model in models]
    holds = all(above[1] > below[2] for above, below in pairwise(found))
    return Finding("holds" if holds else "fails", _in_words(tasks, models))


def _prmt_no_better(tasks: Mapping[str, Curve]) -> Finding:
    models = ("prmt", "rmt")
    if short := too_few(tasks, [f"{model}-remember" for model in models]):
        return short
    better = _stored(tasks, "prmt")[1] > _stored(tasks, "rmt")[2]
    return Finding("fails" if better else "holds", _in_words(tasks, models))


def _beyond(curve: Curve) -> tuple[Point, Point]:
    """The point at the training length, and the tested one nearest to `BEYOND` times as many updates."""
    trained = curve.at_training_length
    wanted = BEYOND * (trained.segments - 1) + 1
    return trained, min(curve.points, key=lambda p: abs(p.segments - wanted))


def _kept(curve: Curve) -> tuple[bool, str]:
    """Whether the interval beyond the training length does not lie wholly below that at it; and the numbers."""
    trained, far = _beyond(curve)
    text = (
        f"{curve.task} {trained.mean:.2f} [{trained.interval[0]:.2f}, {trained.interval[1]:.2f}] after "
        f"{trained.segments - 1} updates, {far.mean:.2f} [{far.interval[0]:.2f}, {far.interval[1]:.2f}] after "
        f"{far.segments - 1} ({curve.runs} runs)"
    )
    return far.interval[1] >= trained.interval[0], text


def _gamma_needed(tasks: Mapping[str, Curve]) -> Finding:
    if short := too_few(tasks, ["armt-rewrite", "armt-nogamma-rewrite"]):
        return short
    kept, text = _kept(tasks["armt-nogamma-rewrite"])
    _, with_gamma = _beyond(tasks["armt-rewrite"])
    _, without = _beyond(tasks["armt-nogamma-rewrite"])
    holds = not kept and without.interval[1] < with_gamma.interval[0]
    return Finding(
        "holds" if holds else "fails",
        f"{text}; with correction {with_gamma.mean:.2f} there",
    )


def _armt_keeps(tasks: Mapping[str, Curve]) -> Finding:
    if short := too_few(tasks, ["armt-rewrite", "rmt-rewrite", "mamba-rewrite"]):
        return short
    found = [_kept(tasks[f"{model}-rewrite"]) for model in ("armt", "rmt", "mamba")]
    holds = [kept for kept, _ in found] == [True, False, False]
    return Finding("holds" if holds else "fails", "; ".join(text for _, text in found))


CAPACITY_MODELS = ("armt", "rmt", "prmt", "mamba")
MEMORY_CAPACITY = (
    Claim(
        "capacity-order",
        "ARMT stores more pairs than Mamba, and Mamba more than RMT.",
        "ARMT, Figure 2a and section 3",
        "At the largest number of pairs that all models were asked for, the 95 % bootstrap intervals of the stored "
        "pairs lie apart, in this order.",
        _capacity_order,
    ),
    Claim(
        "prmt-no-better",
        "PRMT does not improve on RMT.",
        "ARMT, Figure 4b and section 3",
        "PRMT's interval of stored pairs does not lie wholly above RMT's.",
        _prmt_no_better,
    ),
    Claim(
        "gamma-needed",
        "Without gamma correction, Rewrite collapses beyond the trained number of updates.",
        "ARMT, Figure 4a and appendix F.1",
        "Without the correction, the 95 % bootstrap interval after 10 times the trained updates (the nearest tested) "
        "lies wholly below that at the trained number, and below that of ARMT with it.",
        _gamma_needed,
    ),
    Claim(
        "armt-keeps",
        "ARMT keeps Rewrite at 10 times the trained updates, while RMT and Mamba degrade.",
        "ARMT, Figure 2b and section 3",
        "After 10 times the trained updates (the nearest tested), the 95 % bootstrap interval lies wholly below that "
        "at the trained number for RMT and for Mamba, and not for ARMT.",
        _armt_keeps,
    ),
)
