"""What decides the primary claims of quadratic: rules as data, declared before the runs (see book/protocol.md).

Means and spreads of the world in which the paper is exactly true are those of the authors' single runs.
"""

from collections.abc import Iterable, Mapping
from statistics import stdev
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.quadratic.counts import SOLVED
from rmtlib.experiments.quadratic.rows import SOLVERS

ONE, CACHE, MEMORY = "baseline-1", "trxl-6", "rmt-6"
LEARNED = 0.9  # right answers in one segment, without which six segments say nothing about memory

_MEANS = {row: solver.mean for row, solver in SOLVERS.items() if solver.authors}
_SPREAD = {row: stdev(solver.authors) for row, solver in SOLVERS.items() if solver.authors}
LEVEL_WITHIN = (_MEANS[ONE] - _MEANS[CACHE]) / 2  # half of what the cache loses: nearer to one segment than to a cache


def _rule(weights: Mapping[str, float], limit: float = 0.0) -> Rule:
    gate = Gate(ONE, above=LEARNED, why="the task was not learned even in one segment")
    return Rule((Contrast(weights, limit),), (gate,), paper=_MEANS, spread=_SPREAD)


RULES: dict[str, Rule] = {
    # Table 1: 0.99 against 0.93, in six segments.
    "rmt-above-cache": _rule({CACHE: 1, MEMORY: -1}),
    # Table 1: 0.99 in six segments, as in one.
    "rmt-as-one-segment": _rule({ONE: 1, MEMORY: -1}, LEVEL_WITHIN),
}


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the claims compare, one a seed, from the records of one scale.

    "<row>": right answers, all of the solution written by the model itself; "<row>: <step>": another step, right;
    "<row>: with roots": right answers of the equations that have roots. "<row>: released" and "<row>: forced": with the
    first token of every segment given, and with all true tokens before each.
    """
    found: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        row, tests = record["row"], record["metrics"]["test"]
        own = tests["generated"]
        rates = {f"{row}: {step}": right / own["n"] for step, right in zip(SOLVED, own["steps"], strict=True)}
        rates[row] = rates.pop(f"{row}: {SOLVED[-1]}")
        rates |= {f"{row}: {how}": tests[how]["steps"][-1] / tests[how]["n"] for how in ("released", "forced")}
        if rooted := own["with_roots"]["n"]:
            rates[f"{row}: with roots"] = own["with_roots"]["steps"][-1] / rooted
        for name, rate in rates.items():
            found.setdefault(name, []).append(rate)
    return found
