"""Intervals: known values, limits, and how often they cover the truth (simulated, fixed seeds)."""

import numpy as np
import pytest

from rmtlib.evaluation import statistics
from rmtlib.evaluation.statistics import (
    above_p,
    above_ps,
    any_p,
    binomial_interval,
    bootstrap_interval,
    difference_interval,
    holm,
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


def test_above_p():
    """Two samples of three, one apart, of deviation 1: t = 1.2247 at 4 degrees of freedom."""
    low, high = [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]
    assert above_p(high, low) == pytest.approx(0.14393, abs=1e-5)
    assert above_p(low, high) == pytest.approx(1 - 0.14393, abs=1e-5)
    assert [above_p([1.0, 1.0], [x, x]) for x in (0.0, 1.0, 2.0)] == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="two values of each, not 1 and 2"):
        above_p([1.0], [1.0, 2.0])


def test_welchs_test_and_interval_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, (20, 3)), rng.normal(0, 3, (20, 5))
    theirs = stats.ttest_ind(a, b, axis=1, equal_var=False, alternative="greater")
    assert above_ps(a, b) == pytest.approx(theirs.pvalue, rel=1e-10)
    interval = stats.ttest_ind(a[0], b[0], equal_var=False).confidence_interval(0.9)
    assert difference_interval(a[0], b[0], 0.9) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert difference_interval([2.0, 2.0], [1.0, 1.0]) == (1.0, 1.0)


def test_the_interval_of_a_difference_covers_the_truth():
    rng = np.random.default_rng(0)
    samples = [(rng.normal(3, 1, 3), rng.normal(1, 2, 4)) for _ in range(2000)]
    covered = [low <= 2 <= high for low, high in (difference_interval(a, b, 0.9) for a, b in samples)]
    assert 0.88 <= np.mean(covered) <= 0.94


def test_holms_adjusted_p_values():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last may not be below 0.06."""
    adjusted = [0.03, 0.06, 0.06, 0.02]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(adjusted)
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([0.4, 0.9, 0.5]) == pytest.approx([1.0, 1.0, 1.0])
    several = holm(np.array([[0.01, 0.5], [0.04, 0.001], [0.03, 0.5], [0.005, 0.5]]))  # each column on its own
    assert several[:, 0] == pytest.approx(adjusted)
    assert several[:, 1] == pytest.approx([1.0, 0.004, 1.0, 1.0])


def test_any_p_is_that_of_simes():
    assert any_p([0.02]) == 0.02
    assert any_p([0.5, 0.02]) == pytest.approx(0.04)
    assert any_p([0.03, 0.02]) == pytest.approx(0.03)  # two that agree are no weaker than the second alone


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
