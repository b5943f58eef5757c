"""Rules that decide claims: written before the runs, applied to the runs, and simulated to see what they can tell.

A claim compares *arms*: named samples with one number a seed (the test value of a row, an accuracy, a fall between two
lengths). Its `Rule` is data: contrasts of the arms' means, and gates that the arms have to pass first. The same object
judges records (`decide`) and is simulated in worlds whose means are known (`power`), so that what is simulated is the
rule itself.

A contrast says that a weighted sum of means is below a limit. With w the weights, m the means, s the sample standard
deviations and n the sizes of the arms,

    t = (sum w m - limit) / error      error^2 = sum v,  v = w^2 s^2 / n      freedom = (sum v)^2 / sum v^2 / (n - 1)

which for two arms is Welch's test (Welch 1947; Satterthwaite 1946 for the degrees of freedom). A rule holds if all its
contrasts are confirmed, fails if one is contradicted. The rules of one artifact share the error: Holm's correction
(Holm 1979) at `LEVEL` over all of them, also over those that have no runs yet.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from rmtlib.evaluation.statistics import holm
from rmtlib.seeds import generator

Outcome = Literal["holds", "fails", "undecided", "not enough runs", "not run"]
Arms = Mapping[str, Sequence[float]]

LEVEL = 0.05
RUNS_NEEDED = 3  # of every arm: what the papers have
DRAWS = 4000
ENOUGH_POWER = 0.8


@dataclass(frozen=True)
class Contrast:
    """The sum of weight times mean over the arms is below `limit`."""

    weights: Mapping[str, float]
    limit: float = 0.0


@dataclass(frozen=True)
class Gate:
    """Whether there is something to compare: the arm's mean is `below` or `above` a number, or below another arm's.

    Attributes:
        than: the arm that it has to be below. One run of that arm is enough, as it may be without chance (an n-gram).
    """

    arm: str
    below: float = math.inf
    above: float = -math.inf
    than: str | None = None
    why: str = "it was not learned"

    def shut(self, arms: Arms) -> str | None:
        """Why nothing can be compared, in one line; None if the gate is passed."""
        mean = float(np.mean(arms[self.arm]))
        bounds = [(mean < self.below, f"below {self.below:.4g}"), (mean > self.above, f"above {self.above:.4g}")]
        if self.than is not None:
            other = float(np.mean(arms[self.than]))
            bounds.append((mean < other, f"below {self.than} ({other:.4g})"))
        missed = [bound for passed, bound in bounds if not passed]
        return f"{self.why}: {self.arm} is {mean:.4g}, not {missed[0]}" if missed else None


@dataclass(frozen=True)
class Rule:
    """What decides a claim.

    Attributes:
        seeds: runs that every arm has to have; a decision after fewer would be one of many looks.
        paper: means of the arms if the paper is exactly true.
        spread: standard deviations between the seeds of the arms.
    """

    contrasts: tuple[Contrast, ...]
    gates: tuple[Gate, ...] = ()
    seeds: int = RUNS_NEEDED
    paper: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)

    @property
    def runs(self) -> dict[str, int]:
        """Every arm that the rule needs, in order, and how many runs of it."""
        names = [name for contrast in self.contrasts for name in contrast.weights]
        needed = dict.fromkeys([*names, *(gate.arm for gate in self.gates)], self.seeds)
        return dict.fromkeys((gate.than for gate in self.gates if gate.than), 1) | needed


class Estimate(NamedTuple):
    """A contrast as measured: sum of weight times mean less the limit, its standard error, degrees of freedom."""

    effect: float
    error: float
    freedom: float

    @property
    def p_below(self) -> float:
        """p-value of the contrast: how likely so low an effect is if the true one is at the limit."""
        return float(_p_below(np.array(self.effect), np.array(self.error), np.array(self.freedom)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the effect."""
        from scipy import stats

        half = self.error * float(stats.t.ppf(0.5 + level / 2, self.freedom)) if self.error else 0.0
        return self.effect - half, self.effect + half


class Decision(NamedTuple):
    """What a rule says of some arms, and in one line why."""

    outcome: Outcome
    estimates: tuple[Estimate, ...]
    p: float | None  # of the claim, after Holm's correction; None if nothing was tested
    why: str


def estimate(contrast: Contrast, arms: Arms) -> Estimate:
    """The contrast's effect and error in these arms (two values at least in each)."""
    names = list(contrast.weights)
    weights = np.array([contrast.weights[name] for name in names])
    means = np.array([np.mean(arms[name]) for name in names])
    variances = np.array([np.var(arms[name], ddof=1) for name in names])
    sizes = np.array([len(arms[name]) for name in names])
    effect, error, freedom = _estimates(weights, means, variances, sizes, contrast.limit)
    return Estimate(float(effect), float(error), float(freedom))


def decide(rules: Mapping[str, Rule], arms: Arms) -> dict[str, Decision]:
    """What each of an artifact's rules says of the arms that were run."""
    confirmed, contradicted, estimates = {}, {}, {}
    for name, rule in rules.items():
        confirmed[name] = contradicted[name] = 1.0
        if not _missing(rule, arms):
            estimates[name] = tuple(estimate(contrast, arms) for contrast in rule.contrasts)
            ps = np.array([estimate.p_below for estimate in estimates[name]])
            confirmed[name] = float(ps.max())
            contradicted[name] = min(1.0, len(ps) * float((1 - ps).min()))
    holds, fails = (
        dict(zip(rules, map(float, holm(list(p.values()))), strict=True)) for p in (confirmed, contradicted)
    )
    decisions = {}
    for name, rule in rules.items():
        if missing := _missing(rule, arms):
            nothing = not any(len(arms.get(arm, ())) for arm in rule.runs)
            decisions[name] = Decision("not run" if nothing else "not enough runs", (), None, "; ".join(missing))
        elif shut := [why for gate in rule.gates if (why := gate.shut(arms))]:
            decisions[name] = Decision("undecided", estimates[name], None, shut[0])
        elif fails[name] < LEVEL:
            decisions[name] = Decision("fails", estimates[name], fails[name], "a contrast is contradicted")
        elif holds[name] < LEVEL:
            decisions[name] = Decision("holds", estimates[name], holds[name], "all contrasts are confirmed")
        else:
            p = min(holds[name], fails[name])
            decisions[name] = Decision("undecided", estimates[name], p, "the seeds tell neither")
    return decisions


def _missing(rule: Rule, arms: Arms) -> list[str]:
    """What the arms lack, in words."""
    have = {arm: len(arms.get(arm, ())) for arm in rule.runs}
    return [f"{arm} has {have[arm]} of {needed} runs" for arm, needed in rule.runs.items() if have[arm] < needed]


def power(rules: Mapping[str, Rule], name: str, runs: int, *, boundary: bool = False) -> dict[str, float]:
    """How often the rule `name` holds, fails and stays undecided with `runs` seeds an arm, by simulation.

    Args:
        boundary: False: the paper is exactly true, for all rules of the artifact. True: of this rule one contrast is
            exactly at its limit (no effect, for a difference): that for which its first arm has to shift least.

    The other rules share Holm's correction, so they are simulated too. Gates are taken as passed.
    """
    rng = generator(0, "power", name, runs, boundary)
    confirmed = np.ones((len(rules), DRAWS))
    contradicted = np.ones((len(rules), DRAWS))
    for i, (other, rule) in enumerate(rules.items()):
        means = _at_limit(rule) if boundary and other == name else rule.paper
        drawn = {}
        for arm in dict.fromkeys(name for contrast in rule.contrasts for name in contrast.weights):
            drawn[arm] = means[arm] + rule.spread[arm] * rng.standard_normal((DRAWS, runs))
        ps = []
        for contrast in rule.contrasts:
            values = [drawn[arm] for arm in contrast.weights]
            ps.append(
                _p_below(
                    *_estimates(
                        np.array(list(contrast.weights.values())),
                        np.stack([x.mean(1) for x in values], axis=-1),
                        np.stack([x.var(1, ddof=1) for x in values], axis=-1),
                        np.full(len(values), runs),
                        contrast.limit,
                    )
                )
            )
        confirmed[i] = np.max(ps, axis=0)
        contradicted[i] = np.minimum(1.0, len(ps) * (1 - np.array(ps)).min(axis=0))
    chosen = list(rules).index(name)
    fails = holm(contradicted)[chosen] < LEVEL
    holds = (holm(confirmed)[chosen] < LEVEL) & ~fails
    return {"holds": float(holds.mean()), "fails": float(fails.mean()), "undecided": float((~holds & ~fails).mean())}


def _at_limit(rule: Rule) -> Mapping[str, float]:
    """The paper's means with the first arm of a contrast shifted, so that the contrast is exactly at its limit."""
    shifts = []
    for contrast in rule.contrasts:
        arm, weight = next(iter(contrast.weights.items()))
        effect = sum(w * rule.paper[each] for each, w in contrast.weights.items()) - contrast.limit
        shifts.append((arm, -effect / weight))
    arm, shift = min(shifts, key=lambda pair: abs(pair[1]))
    return {**rule.paper, arm: rule.paper[arm] + shift}


def runs_needed(rules: Mapping[str, Rule], name: str, most: int = 30) -> int | None:
    """The fewest seeds an arm with which the rule would hold with `ENOUGH_POWER` if the paper is true; None: more."""
    for runs in range(RUNS_NEEDED, most + 1):
        if power(rules, name, runs)["holds"] >= ENOUGH_POWER:
            return runs
    return None


def _estimates(
    weights: np.ndarray, means: np.ndarray, variances: np.ndarray, sizes: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effect, error and degrees of freedom; the arms are the last axis."""
    parts = weights**2 * variances / sizes
    total = parts.sum(-1)
    squares = (parts**2 / (sizes - 1)).sum(-1)
    freedom = np.divide(total**2, squares, out=np.full_like(total, np.inf), where=squares > 0)
    return (weights * means).sum(-1) - limit, np.sqrt(total), freedom


def _p_below(effect: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    from scipy import stats

    with np.errstate(divide="ignore", invalid="ignore"):  # seeds that agree to the last digit
        t = np.nan_to_num(effect / error, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return stats.t.cdf(t, np.minimum(freedom, 1e6))
