"""Intervals for accuracies and differences, Welch's test, and Holm's correction for several tests at once."""

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
    """Mean and sample standard deviation (ddof 1); None for the latter where there is one value.

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


def above_p(a: Sequence[float], b: Sequence[float]) -> float:
    """p-value of Welch's one-sided t-test that `a` has a higher mean than `b`, whose variances may differ (Welch 1947).

    Raises:
        ValueError: fewer than two values in a sample.
    """
    return float(above_ps(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)))


def above_ps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`above_p` of many pairs of samples at once: (..., m) and (..., n) values give (...) p-values."""
    from scipy.special import stdtr

    difference, error, freedom = _welch(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):  # samples without any spread: 0, 1, or 0.5 for equal ones
        t = np.where(error + abs(difference) > 0, difference / error, 0.0)
    return stdtr(freedom, -t)


def difference_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Welch's confidence interval for the mean of `a` less that of `b`, whose variances may differ (Welch 1947).

    The interval at 90 % lies wholly above zero just if `above_p` is below 5 %.

    Raises:
        ValueError: fewer than two values in a sample, or a level outside (0, 1).
    """
    from scipy.special import stdtrit

    difference, error, freedom = _welch(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    half = error * stdtrit(freedom, 0.5 + _checked(level) / 2)
    return float(difference - half), float(difference + half)


def _welch(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of means, its standard error, and the degrees of freedom (Welch-Satterthwaite), over the last axis."""
    m, n = a.shape[-1], b.shape[-1]
    if min(m, n) < 2:
        raise ValueError(f"needs two values of each, not {m} and {n}")
    of_a, of_b = a.var(axis=-1, ddof=1) / m, b.var(axis=-1, ddof=1) / n
    spread = of_a**2 / (m - 1) + of_b**2 / (n - 1)
    freedom = np.divide((of_a + of_b) ** 2, spread, out=np.full_like(spread, m + n - 2), where=spread > 0)
    return a.mean(axis=-1) - b.mean(axis=-1), np.sqrt(of_a + of_b), freedom


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


def any_p(p_values: Sequence[float]) -> float:
    """p-value that at least one of several tests finds what it looks for (Simes 1986)."""
    return min(p * len(p_values) / rank for rank, p in enumerate(sorted(p_values), start=1))


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
