"""Intervals: known values, limits, and how often they cover the truth (simulated, fixed seeds)."""

import numpy as np
import pytest

from rmtlib.evaluation import statistics
from rmtlib.evaluation.statistics import (
    binomial_interval,
    bootstrap_interval,
    mean_difference,
    mean_std,
)


@pytest.mark.parametrize(
    ("correct", "n", "level", "expected"),
    [  # scipy 1.17: binomtest(correct, n).proportion_ci(level, method="wilson")
        (0, 10, 0.95, (0.0, 0.27753279986288926)),
        (10, 10, 0.95, (0.7224672001371109, 1.0)),
        (8, 10, 0.95, (0.4901624715366418, 0.9433178485456248)),
        (240, 250, 0.95, (0.9279472764187335, 0.9781300880454575)),
        (5, 10, 0.9, (0.26927182113826725, 0.7307281788617328)),
    ],
)
def test_binomial_interval_is_wilsons(correct, n, level, expected):
    assert binomial_interval(correct, n, level) == pytest.approx(expected, abs=1e-12)


def test_a_difference_of_means_has_the_error_of_both():
    assert mean_difference([2.0, 3.0, 4.0], [1.0, 3.0]) == pytest.approx((1.0, (1 / 3 + 2 / 2) ** 0.5))
    assert mean_difference([2.0], [1.0]) == (1.0, 0.0)


def test_binomial_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for correct, n in [(1, 7), (33, 100), (999, 1000)]:
        theirs = stats.binomtest(correct, n).proportion_ci(0.99, method="wilson")
        assert binomial_interval(correct, n, 0.99) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
def test_binomial_interval_covers_the_truth_as_often_as_it_says(rate):
    draws = np.random.default_rng(0).binomial(200, rate, size=4000)
    bounds = {int(k): binomial_interval(int(k), 200) for k in set(draws)}
    covered = np.mean([bounds[int(k)][0] <= rate <= bounds[int(k)][1] for k in draws])
    assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize("bad", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(ValueError, match="correct"):
        binomial_interval(*bad)
    with pytest.raises(ValueError, match="correct"):
        bootstrap_interval([bad])


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_impossible_levels_are_refused(level):
    with pytest.raises(ValueError, match="level"):
        binomial_interval(1, 2, level)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([(1, 2)], level)


def test_mean_and_sample_standard_deviation():
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, 1.5275252316519468))
    assert mean_std([0.25]) == (0.25, None)
    with pytest.raises(ValueError, match="at least one"):
        mean_std([])


def test_bootstrap_is_reproducible_and_depends_on_its_seed():
    runs = [(200, 250), (220, 250), (150, 250)]
    assert bootstrap_interval(runs, seed=1) == bootstrap_interval(runs, seed=1)
    assert bootstrap_interval(runs, seed=1) != bootstrap_interval(runs, seed=2)


def test_bootstrap_of_one_run_is_the_samples_uncertainty():
    low, high = bootstrap_interval([(400, 500)])
    half = 1.96 * np.sqrt(0.8 * 0.2 / 500)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.005)


def test_bootstrap_sees_both_the_seeds_and_the_samples():
    alike = bootstrap_interval([(125, 250)] * 10)
    apart = bootstrap_interval([(25, 250), (225, 250)] * 5)
    few_samples = bootstrap_interval([(5, 10)] * 10)
    widths = [high - low for low, high in (alike, apart, few_samples)]
    assert widths[1] > 5 * widths[0]  # same mean, other spread over seeds
    assert widths[2] == pytest.approx(5 * widths[0], rel=0.1)  # 25 times fewer samples


def test_bootstrap_covers_the_truth(monkeypatch):
    """20 seeds whose accuracies vary around 0.7, 100 samples each: the truth is inside 9 times of 10."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        rates = rng.beta(14, 6, size=20)
        low, high = bootstrap_interval([(int(rng.binomial(100, p)), 100) for p in rates], seed=trial)
        covered += low <= 0.7 <= high
    assert 0.89 <= covered / 200 <= 0.99
