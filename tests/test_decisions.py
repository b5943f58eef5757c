"""Rules: what they decide, how seldom they err where nothing is to be found, and that power is of the rule itself."""

import time

import numpy as np
import pytest

from rmtlib.evaluation.decisions import (
    LEVEL,
    POWER_WANTED,
    Comparison,
    Gate,
    Power,
    Rule,
    decide,
    needed_n,
    power,
    prospects,
    rescaled,
)
from rmtlib.evaluation.statistics import above_p
from rmtlib.seeds import generator

BELOW = Rule((Comparison("a", "b"),))
CHAIN = Rule((Comparison("a", "b"), Comparison("b", "c")))
LEVEL_WITH = Rule((Comparison("a", "b", 0.01), Comparison("b", "a", 0.01)))
DRAWS = 20_000
CHANCE = 3 * (LEVEL * (1 - LEVEL) / DRAWS) ** 0.5  # three standard errors of a simulated rate of 5 %


def outcome(rule: Rule, **values: list[float]) -> str:
    return decide([rule], values)[0].outcome


def test_the_outcomes_of_one_comparison():
    low, high = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]
    assert outcome(BELOW, a=low, b=high) == "holds"
    assert outcome(BELOW, a=high, b=low) == "fails"
    assert outcome(BELOW, a=low, b=[1.05, 1.15, 0.95]) == "undecided"
    assert outcome(BELOW, a=low, b=high[:2]) == outcome(BELOW, a=low) == "not enough runs"
    decision = decide([BELOW], {"a": low, "b": [1.2, 1.3, 1.1]})[0]
    assert decision.fails_p == pytest.approx(above_p(low, [1.2, 1.3, 1.1]))
    assert decision.holds_p == pytest.approx(1 - decision.fails_p)


def test_margins_move_the_bound():
    a, b = [1.00, 1.01, 0.99], [0.98, 0.99, 0.97]  # a is 0.02 above b
    outcomes = [outcome(Rule((Comparison("a", "b", margin),)), a=a, b=b) for margin in (0.0, 0.02, 0.06)]
    assert outcomes == ["fails", "undecided", "holds"]
    fixed = [outcome(Rule((Comparison("a", "b", m, relative=False),)), a=a, b=b) for m in (-0.02, 0.02, 0.06)]
    assert fixed == ["fails", "undecided", "holds"]
    far = [[10 * x for x in values] for values in (a, b)]  # ten times the scale: a relative margin goes along
    assert outcome(Rule((Comparison("a", "b", 0.06),)), a=far[0], b=far[1]) == "holds"
    assert outcome(Rule((Comparison("a", "b", 0.06, relative=False),)), a=far[0], b=far[1]) == "undecided"


def test_a_rule_holds_if_all_its_comparisons_do_and_fails_if_any_does():
    one, two, three = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9], [3.0, 3.1, 2.9]
    assert outcome(CHAIN, a=one, b=two, c=three) == "holds"
    assert outcome(CHAIN, a=one, b=two, c=[2.0, 2.2, 1.9]) == "undecided"
    assert outcome(CHAIN, a=one, b=three, c=two) == "fails"
    _, holds_p, fails_p = decide([CHAIN], {"a": one, "b": [1.2, 1.3, 1.1], "c": [1.15, 1.25, 1.05]})[0]
    first, second = above_p(one, [1.2, 1.3, 1.1]), above_p([1.2, 1.3, 1.1], [1.15, 1.25, 1.05])
    assert (holds_p, fails_p) == pytest.approx((1 - min(first, second), 2 * min(first, second)))
    assert outcome(LEVEL_WITH, a=[1.0, 1.001, 0.999], b=[1.0, 1.001, 1.002]) == "holds"
    assert outcome(LEVEL_WITH, a=[1.0, 1.001, 0.999], b=[1.1, 1.101, 1.102]) == "fails"


def test_a_gate_stands_before_every_decision():
    low, high = [0.1, 0.12, 0.08], [0.2, 0.22, 0.18]
    for better, threshold, expected in [("above", 0.9, "not learned"), ("above", 0.15, "holds")]:
        rule = Rule(BELOW.comparisons, (Gate("b", threshold, better),))
        assert outcome(rule, a=low, b=high) == expected
    rule = Rule(BELOW.comparisons, (Gate("loss", 2.3, "below"),))
    assert outcome(rule, a=low, b=high, loss=[2.2, 2.2, 2.3]) == "holds"
    assert outcome(rule, a=low, b=high, loss=[2.4, 2.2, 2.5]) == "not learned"
    assert decide([rule], {"a": high, "b": low, "loss": [2.4, 2.2, 2.5]}) == [("not learned", 1.0, 1.0)]
    assert outcome(rule, a=low, b=high) == "not enough runs"


def test_a_family_is_corrected_and_later_runs_take_nothing_back():
    values = {"a": [1.0, 1.1, 0.9], "b": [1.2, 1.3, 1.15]}  # p = 0.02
    others = [Rule((Comparison(x, y),)) for x, y in [("c", "d"), ("e", "f")]]
    p = [decide([BELOW, *others[:k]], values)[0].holds_p for k in range(3)]
    assert p == pytest.approx([p[0], 2 * p[0], 3 * p[0]])
    assert p[0] < LEVEL < p[2]
    assert [d.outcome for d in decide([BELOW, *others], values)] == ["undecided"] + ["not enough runs"] * 2
    strong = {"c": [1.0, 1.001, 0.999], "d": [2.0, 2.001, 1.999]}
    decisions = decide([BELOW, *others], values | strong)
    assert [d.outcome for d in decisions] == ["holds", "holds", "not enough runs"]
    assert decisions[0].holds_p == pytest.approx(2 * p[0])


@pytest.mark.parametrize(
    ("rule", "std", "n"),
    [
        (BELOW, 0.02, 3),
        (BELOW, 0.02, 10),
        (BELOW, {"a": 0.01, "b": 0.04}, {"a": 6, "b": 3}),
        (Rule((Comparison("a", "b", 0.05),)), 0.02, 3),
        (Rule((Comparison("a", "b", -0.1, relative=False),)), 0.02, 3),
        (CHAIN, 0.02, 3),
        (LEVEL_WITH, 0.002, 5),
    ],
    ids=str,
)
def test_on_its_boundary_a_rule_errs_in_at_most_one_case_of_twenty(rule, std, n):
    for means in rule.boundaries({"a": 1.0, "b": 1.1, "c": 1.5}):
        found = power([rule], means, std, n, draws=DRAWS)[0]
        assert found.holds <= LEVEL + CHANCE + 0.005  # Welch's test is not exact if the spreads differ
        assert found.fails <= LEVEL + CHANCE + 0.005
        assert found.holds > 0.02  # a rule that is silent would pass otherwise


def test_equal_arms_are_mostly_undecided():
    alone = power([BELOW], {"a": 1.0, "b": 1.0}, 0.01, 5, draws=DRAWS)[0]
    assert alone.undecided == pytest.approx(0.9, abs=0.015)
    family = [Rule((Comparison(x, y),)) for x, y in ("ab", "cd", "ef")]
    among_three = power(family, dict.fromkeys("abcdef", 1.0), 0.01, 5, draws=DRAWS)
    assert all(of_rule.undecided == pytest.approx(0.967, abs=0.01) for of_rule in among_three)
    assert sum(of_rule.holds for of_rule in among_three) <= LEVEL + CHANCE + 0.005  # of any: no more than of one


def test_power_is_how_often_the_rule_itself_decides():
    rules = [CHAIN, Rule((Comparison("a", "c", -0.03),), (Gate("b", 1.04, "below"),))]
    means, std = {"a": 1.0, "b": 1.04, "c": 1.1}, {"a": 0.03, "b": 0.01, "c": 0.05}
    n = {"a": 3, "b": 4, "c": 5}
    noise = {arm: generator(7, "power", arm).standard_normal((200, n[arm])) for arm in n}
    said = [decide(rules, {arm: means[arm] + std[arm] * noise[arm][draw] for arm in n}) for draw in range(200)]
    for i, found in enumerate(power(rules, means, std, n, draws=200, seed=7)):
        outcomes = [decisions[i].outcome for decisions in said]
        assert found.holds == outcomes.count("holds") / 200
        assert found.fails == outcomes.count("fails") / 200
        assert len(set(outcomes)) > 1
    assert "not learned" in outcomes


def test_power_rises_with_the_number_of_seeds_and_needed_n_is_where_it_suffices():
    rules, means = [BELOW, Rule((Comparison("c", "d"),))], {"a": 1.0, "b": 1.02, "c": 1.0, "d": 1.0}
    by_n = [power(rules, means, 0.015, n)[0].holds for n in range(3, 15)]
    assert all(more > fewer for fewer, more in zip(by_n, by_n[1:], strict=False) if fewer < 0.95)
    assert by_n[-1] > 0.9 > 0.5 > by_n[0]
    first = next(n for n, holds in enumerate(by_n, start=3) if holds >= POWER_WANTED)
    assert needed_n(rules, means, 0.015) == [first, None]
    assert needed_n(rules, means, 0.015, up_to=first - 1) == [None, None]


def test_prospects_are_of_the_papers_world_and_of_the_worst_boundary():
    paper = {"a": 1.24, "b": 1.30, "c": 1.36}
    means = rescaled(paper, "c", ours=2.72)
    assert means == pytest.approx({"a": 2.48, "b": 2.6, "c": 2.72})
    found = prospects([CHAIN, BELOW], means, 0.02, 3)[0]
    assert found.if_true == power([CHAIN, BELOW], means, 0.02, 3)[0]
    worlds = [{"a": 2.6, "b": 2.6, "c": 2.72}, {"a": 2.48, "b": 2.72, "c": 2.72}]
    assert found.at_boundary == max(power([CHAIN, BELOW], world, 0.02, 3)[0] for world in worlds)
    assert found.at_boundary.holds <= LEVEL < POWER_WANTED < found.if_true.holds
    assert found.needed_n == 3


def test_power_is_reproducible_and_fast():
    rules, means = [LEVEL_WITH, CHAIN, BELOW], {"a": 1.0, "b": 1.01, "c": 1.02}
    first = power(rules, means, 0.01, 3)
    start = time.perf_counter()
    assert power(rules, means, 0.01, 3) == first
    assert time.perf_counter() - start < 1  # about 0.03 s
    assert power(rules, means, 0.01, 3, seed=1) != first
    assert all(isinstance(x, Power) and sum(x) == pytest.approx(1) for x in first)
    assert np.isfinite(first).all()
