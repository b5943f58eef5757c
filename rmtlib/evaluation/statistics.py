"""Intervals for accuracies, tests of differences, and Holm's correction for several tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from rmtlib.seeds import generator

RESAMPLES = 10_000


def binomial_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for the accuracy of one run: `correct` of `n` samples answered correctly.

    It covers the samples' randomness only, not that of training. (Wilson 1927; unlike the textbook interval
    it is sound for few samples and near 0 and 1.)

    Raises:
        ValueError: not 0 <= correct <= n, no samples, or a level outside (0, 1).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"needs 0 <= correct <= n and n >= 1, not {correct} of {n}")
    z = NormalDist().inv_cdf(0.5 + _checked(level) / 2)
    rate = correct / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)  # exact ends: rounding would miss them by 1e-17
    high = 1.0 if correct == n else min(1.0, centre + half)
    return low, high


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (ddof 1); None for the latter if there is one value.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("needs at least one value")
    data = np.asarray(values, dtype=np.float64)
    return float(data.mean()), float(data.std(ddof=1)) if len(data) > 1 else None


def mean_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of `a` less mean of `b`, and its standard error from the spread of both (a single value has none)."""
    (a_mean, a_std), (b_mean, b_std) = mean_std(a), mean_std(b)
    return a_mean - b_mean, math.sqrt((a_std or 0.0) ** 2 / len(a) + (b_std or 0.0) ** 2 / len(b))


def holm(p_values: np.ndarray | Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, over the first axis (Holm 1979).

    Rejecting what is below 5 % here rejects any true hypothesis of the family in at most 5 % of cases, however the
    tests depend on each other. The smallest is multiplied by their number, the next by one less and so on, and none
    is below one that was smaller.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, axis=0, kind="stable")
    remaining = np.arange(len(p), 0, -1.0).reshape(-1, *[1] * (p.ndim - 1))
    ascending = np.maximum.accumulate(np.take_along_axis(p, order, axis=0) * remaining, axis=0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(ascending, 1.0), axis=0)
    return adjusted


def bootstrap_interval(runs: Sequence[tuple[int, int]], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile interval for the mean accuracy over training seeds, by a two-level bootstrap.

    `runs` holds (correct, n) per seed. Each of `RESAMPLES` resamples draws as many runs, with replacement,
    and within each drawn run its n samples with replacement (a binomial draw). It so covers both kinds of
    randomness; with three seeds, as papers have them, it is still too narrow (it cannot know of seeds worse
    than those seen), and with one it covers the samples alone. Equal arguments give equal intervals.

    Raises:
        ValueError: no runs, not 0 <= correct <= n, a run without samples, or a level outside (0, 1).
    """
    if not len(runs):
        raise ValueError("needs at least one run")
    correct, n = np.asarray(runs, dtype=np.int64).T
    if (n < 1).any() or (correct < 0).any() or (correct > n).any():
        raise ValueError(f"needs 0 <= correct <= n and n >= 1 in every run, not {list(runs)}")
    tail = (1 - _checked(level)) / 2
    rng = generator(seed, "bootstrap")
    drawn = rng.integers(len(n), size=(RESAMPLES, len(n)))
    means = (rng.binomial(n[drawn], (correct / n)[drawn]) / n[drawn]).mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, not {level}")
    return level
