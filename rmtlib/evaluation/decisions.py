"""Claims decided by tests: rules over samples of seeds, and how often a rule would decide in a world of known means.

A rule is data. `decide` applies a family of rules to what runs measured; `power` applies the same function to simulated
runs, so what is simulated is what judges. The family is all claims that a table decides, fixed before its runs:

- A `Comparison` claims that one mean is below another, up to a margin. Welch's one-sided test can confirm it, and
  the opposite one-sided test contradict it.
- A `Rule` is confirmed if all its comparisons are: its p-value is the largest (intersection-union test, Berger 1982;
  no correction is needed). It is contradicted if any is: its p-value is the smallest after Holm.
- Within the family, Holm (1979) corrects both over the rules. So the chance of any false "holds" is at most `LEVEL`,
  and that of any false "fails". Just on its boundary a lone rule so says either in one case of twenty, and is
  undecided in nine of ten.
- If an arm misses its `Gate`, or has too few runs, nothing is decided, and the rule stays in the family at p = 1: runs
  that come later take no "holds" back.

"A is no worse than B" is a comparison with a margin (non-inferiority); "A is at the level of B" is two of them, one
each way (two one-sided tests, Schuirmann 1987).

    rules = [Rule((Comparison("rmt-5", "trxl-40", margin=0.01),), gates=(Gate("trxl-40", 2.3, "below"),))]
    prospects(rules, rescaled({"rmt-5": 1.241, "trxl-40": 1.235}, "trxl-40", ours=2.2), std=0.01, n=3)
    decide(rules, {"rmt-5": [2.21, 2.20, 2.22], "trxl-40": [2.20, 2.19, 2.20]})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from rmtlib.evaluation.statistics import above_ps, holm
from rmtlib.seeds import generator

LEVEL = 0.05
SEEDS_NEEDED = 3  # of every arm that a rule compares
POWER_WANTED = 0.8

Value = TypeVar("Value", float, np.ndarray)
Outcome = Literal["holds", "fails", "undecided", "not learned", "not enough runs"]


@dataclass(frozen=True)
class Comparison:
    """The mean of arm `low` is below that of arm `high`, times 1 + `margin` (or plus it, if not `relative`).

    A positive margin lets `low` be that much worse; a negative one asks it to be that much better. Two measurements of
    the same runs may stand as two arms: if they vary together, the test is only more careful.
    """

    low: str
    high: str
    margin: float = 0.0
    relative: bool = True

    def bound(self, high: Value) -> Value:
        """What `low` has to stay below, of a mean or of every value."""
        return high * (1 + self.margin) if self.relative else high + self.margin


@dataclass(frozen=True)
class Gate:
    """An arm has learned its task: the mean over its seeds is `threshold` or better, which is `above` or `below`."""

    arm: str
    threshold: float
    better: Literal["above", "below"]

    def passed(self, values: np.ndarray) -> np.ndarray:
        mean = values.mean(axis=-1)
        return mean >= self.threshold if self.better == "above" else mean <= self.threshold


@dataclass(frozen=True)
class Rule:
    """What decides a claim."""

    comparisons: tuple[Comparison, ...]
    gates: tuple[Gate, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that the rule looks at, once."""
        compared = [arm for c in self.comparisons for arm in (c.low, c.high)]
        return tuple(dict.fromkeys([*compared, *(gate.arm for gate in self.gates)]))

    def learned(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether every gate is passed: values (..., n) by arm give (...)."""
        return np.all([gate.passed(values[gate.arm]) for gate in self.gates], axis=0)

    def boundaries(self, means: Mapping[str, float]) -> list[dict[str, float]]:
        """Worlds in which the claim is just not true: of each comparison in turn, `low` put at the bound of `high`."""
        return [dict(means) | {c.low: c.bound(means[c.high])} for c in self.comparisons]


class Decision(NamedTuple):
    """What a rule says. The p-values are after Holm, to be compared with `LEVEL`."""

    outcome: Outcome
    holds_p: float
    fails_p: float


class Power(NamedTuple):
    """How often a rule says what in a world; a missed gate counts as undecided."""

    holds: float
    fails: float
    undecided: float


class Prospect(NamedTuple):
    """What a rule can be expected to say before its runs are made."""

    if_true: Power  # in the world that the paper describes
    at_boundary: Power  # in a world in which it is just not true: `holds` is an error here
    needed_n: int | None  # seeds of every arm for a power of `POWER_WANTED`; None: more than were tried


def decide(rules: Sequence[Rule], values: Mapping[str, Sequence[float]]) -> list[Decision]:
    """The decision of each rule of a family; `values` maps an arm to its seeds' values.

    Arms may be missing or have few values: their rules have "not enough runs".
    """
    arms = {arm: np.asarray(seeds, dtype=np.float64) for arm, seeds in values.items() if len(seeds) >= SEEDS_NEEDED}
    decisions = []
    for rule, holds_p, fails_p in zip(rules, *_p_values(rules, arms), strict=True):
        outcome: Outcome = "holds" if holds_p < LEVEL else "fails" if fails_p < LEVEL else "undecided"
        if any(arm not in arms for arm in rule.arms):
            outcome = "not enough runs"
        elif not rule.learned(arms):
            outcome = "not learned"
        decisions.append(Decision(outcome, float(holds_p), float(fails_p)))
    return decisions


def _p_values(rules: Sequence[Rule], values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """p that each rule holds, and that it fails, after Holm: values (..., n) by arm give (rules, ...) of each."""
    holds, fails = zip(*(_alone(rule, values) for rule in rules), strict=True)
    return holm(np.stack(holds)), holm(np.stack(fails))


def _alone(rule: Rule, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if any(arm not in values for arm in rule.arms):
        return np.ones(()), np.ones(())
    above = np.stack([above_ps(values[c.low], c.bound(values[c.high])) for c in rule.comparisons])
    learned = rule.learned(values)
    return np.where(learned, 1 - above.min(axis=0), 1.0), np.where(learned, holm(above).min(axis=0), 1.0)


def power(
    rules: Sequence[Rule],
    means: Mapping[str, float],
    std: float | Mapping[str, float],
    n: int | Mapping[str, int],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> list[Power]:
    """How often each rule of a family would say what, if the arms had these means.

    Args:
        std: between seeds, of every arm or by arm; from pilot seeds.
        n: seeds of every arm, or by arm.
        draws: simulated sets of runs. Their values are normal around the means; accuracies near 0 or 1 are so in
            approximation only. Equal arguments give equal results.
    """
    values = {}
    for arm in dict.fromkeys(arm for rule in rules for arm in rule.arms):
        size = (draws, n if isinstance(n, int) else n[arm])
        noise = generator(seed, "power", arm).standard_normal(size)
        values[arm] = means[arm] + (std[arm] if isinstance(std, Mapping) else std) * noise
    holds, fails = ((p < LEVEL).mean(axis=1) for p in _p_values(rules, values))
    return [Power(float(h), float(f), float(1 - h - f)) for h, f in zip(holds, fails, strict=True)]


def needed_n(
    rules: Sequence[Rule], means: Mapping[str, float], std: float | Mapping[str, float], up_to: int = 30
) -> list[int | None]:
    """The fewest seeds of every arm with which each rule holds in `POWER_WANTED` of such worlds; None above `up_to`."""
    needed: list[int | None] = [None] * len(rules)
    for n in range(SEEDS_NEEDED, up_to + 1):
        for i, of_rule in enumerate(power(rules, means, std, n)):
            if needed[i] is None and of_rule.holds >= POWER_WANTED:
                needed[i] = n
        if None not in needed:
            break
    return needed


def prospects(
    rules: Sequence[Rule],
    means: Mapping[str, float],
    std: float | Mapping[str, float],
    n: int | Mapping[str, int],
) -> list[Prospect]:
    """What each rule would say in two worlds: that of the paper's `means` (see `rescaled`), and its boundary.

    Of a rule with several comparisons the boundary is the one that deceives it most often.
    """
    found = []
    in_paper, needed = power(rules, means, std, n), needed_n(rules, means, std)
    for i, rule in enumerate(rules):
        on_bounds = [power(rules, world, std, n)[i] for world in rule.boundaries(means)]
        found.append(Prospect(in_paper[i], max(on_bounds), needed[i]))
    return found


def rescaled(paper: Mapping[str, float], arm: str, ours: float) -> dict[str, float]:
    """A paper's means moved to our scale: `arm` at our value, the others with the paper's relative distance to it."""
    return {name: mean * ours / paper[arm] for name, mean in paper.items()}
