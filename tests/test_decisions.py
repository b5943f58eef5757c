"""Rules as data: what they decide, and how often they are right in worlds that are known."""

import math

import numpy as np
import pytest
from scipy import stats

from rmtlib.evaluation.decisions import (
    DRAWS,
    LEVEL,
    Contrast,
    Gate,
    Rule,
    decide,
    estimate,
    power,
    runs_needed,
)
from rmtlib.evaluation.statistics import holm
from rmtlib.experiments.registry import all_artifacts

SPREAD = {"memory": 0.004, "baseline": 0.004}
BETTER = Rule((Contrast({"memory": 1, "baseline": -1}),), paper={"memory": 0.98, "baseline": 1.0}, spread=SPREAD)
ARMS = {"memory": [1.0, 1.1, 1.2], "baseline": [2.0, 2.1, 2.3]}


def test_two_arms_are_welchs_test():
    found = estimate(BETTER.contrasts[0], ARMS)
    theirs = stats.ttest_ind(ARMS["memory"], ARMS["baseline"], equal_var=False, alternative="less")
    assert found.effect == pytest.approx(np.mean(ARMS["memory"]) - np.mean(ARMS["baseline"]))
    assert found.p_below == pytest.approx(theirs.pvalue)
    assert found.freedom == pytest.approx(theirs.df)
    low, high = found.interval()
    two_sided = stats.ttest_ind(ARMS["memory"], ARMS["baseline"], equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((two_sided.low, two_sided.high))


def test_one_arm_and_a_limit_are_a_t_test():
    falls = [0.05, 0.02, 0.04]
    found = estimate(Contrast({"fall": 1}, limit=0.1), {"fall": falls})
    assert found.p_below == pytest.approx(stats.ttest_1samp(falls, 0.1, alternative="less").pvalue)


def test_three_arms_ask_for_a_share_of_a_gain():
    """A model that gains nine tenths of what another gains over the baseline is exactly at that limit."""
    share = Contrast({"rmt": 1, "baseline": -0.1, "trxl": -0.9})
    at_limit = {"baseline": [10.0, 10.0], "trxl": [5.0, 5.0], "rmt": [5.5, 5.5]}
    assert estimate(share, at_limit).effect == pytest.approx(0.0)
    assert estimate(share, at_limit | {"rmt": [5.4, 5.4]}).p_below == 0.0
    assert estimate(share, at_limit | {"rmt": [5.6, 5.6]}).p_below == 1.0


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04; none below its predecessor
    assert list(holm([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert list(holm([0.5, 0.9])) == [1.0, 1.0]


def test_a_rule_holds_fails_or_stays_open():
    swapped = {"memory": ARMS["baseline"], "baseline": ARMS["memory"]}
    alike = {"memory": ARMS["memory"], "baseline": [1.05, 1.12, 1.16]}
    for arms, outcome in ((ARMS, "holds"), (swapped, "fails"), (alike, "undecided")):
        decision = decide({"better": BETTER}, arms)["better"]
        assert decision.outcome == outcome
        assert decision.p is not None and (decision.p < LEVEL) == (outcome != "undecided")


def test_runs_that_are_missing():
    assert decide({"better": BETTER}, {})["better"].outcome == "not run"
    short = decide({"better": BETTER}, ARMS | {"memory": [1.0]})["better"]
    assert short.outcome == "not enough runs" and "memory has 1" in short.why


def test_a_gate_stands_before_the_comparison():
    gated = Rule(BETTER.contrasts, (Gate("baseline", below=2.0, why="the baseline loses to counting"),))
    decision = decide({"better": gated}, ARMS)["better"]
    assert decision.outcome == "undecided"
    assert decision.why.startswith("the baseline loses to counting: baseline is 2.133")
    assert decision.estimates[0].effect < 0  # shown, not decided


def test_a_gate_may_be_another_arm_of_which_one_run_is_enough():
    gated = Rule(BETTER.contrasts, (Gate("baseline", than="ngram", why="the baseline loses to counting"),))
    assert decide({"better": gated}, ARMS | {"ngram": [2.5]})["better"].outcome == "holds"
    lost = decide({"better": gated}, ARMS | {"ngram": [2.0]})["better"]
    assert lost.outcome == "undecided" and lost.why.endswith("baseline is 2.133, not below ngram (2)")
    assert decide({"better": gated}, ARMS)["better"].why == "ngram has 0 of 1 runs"


def test_more_claims_need_more():
    """Holm's correction counts the claims that have no runs yet."""
    p = decide({"better": BETTER}, ARMS)["better"].p
    other = Rule((Contrast({"a": 1, "b": -1}),))
    third = decide({"better": BETTER, "other": other, "third": other}, ARMS)["better"].p
    assert third == pytest.approx(3 * p)


def test_all_contrasts_have_to_be_confirmed_and_one_is_enough_to_fail():
    order = Rule((Contrast({"a": 1, "b": -1}), Contrast({"b": 1, "c": -1})))
    low, middle, high = [1.0, 1.1, 1.05], [2.0, 2.1, 2.05], [3.0, 3.1, 3.05]
    assert decide({"order": order}, {"a": low, "b": middle, "c": high})["order"].outcome == "holds"
    assert decide({"order": order}, {"a": low, "b": high, "c": middle})["order"].outcome == "fails"
    assert decide({"order": order}, {"a": low, "b": middle, "c": middle})["order"].outcome == "undecided"


def test_equal_means_are_decided_as_seldom_as_promised():
    found = power({"better": BETTER}, "better", 3, boundary=True)
    noise = 3 * math.sqrt(LEVEL / DRAWS)
    assert found["holds"] <= LEVEL + noise and found["fails"] <= LEVEL + noise
    assert sum(found.values()) == pytest.approx(1.0)


def test_power_rises_with_effect_and_runs_and_falls_with_the_number_of_claims():
    weak = Rule(BETTER.contrasts, paper={"memory": 0.995, "baseline": 1.0}, spread=SPREAD)
    assert power({"weak": weak}, "weak", 3)["holds"] < power({"weak": weak}, "weak", 8)["holds"]
    assert power({"weak": weak}, "weak", 3)["holds"] < power({"better": BETTER}, "better", 3)["holds"]
    three = {"weak": weak, "two": BETTER, "three": BETTER}
    assert power(three, "weak", 5)["holds"] <= power({"weak": weak}, "weak", 5)["holds"]
    needed = runs_needed({"weak": weak}, "weak")
    assert needed is not None and power({"weak": weak}, "weak", needed)["holds"] >= 0.8
    assert needed == 3 or power({"weak": weak}, "weak", needed - 1)["holds"] < 0.8


def test_what_is_simulated_is_the_rule():
    """Decisions of drawn arms, one by one, come out as often as `power` says."""
    rng = np.random.default_rng(0)
    holds = 0
    for _ in range(300):
        arms = {name: rng.normal(mean, SPREAD[name], 3) for name, mean in BETTER.paper.items()}
        holds += decide({"better": BETTER}, arms)["better"].outcome == "holds"
    assert holds / 300 == pytest.approx(power({"better": BETTER}, "better", 3)["holds"], abs=0.08)


AGAINST_THEIR_OWN_TABLE = {  # sentences of the RMT paper with pairs that its Table 5 has the other way, as notes say
    ("more-bptt", "rmt-25-bptt-2-seg50", "rmt-25-bptt-1-seg50"),
    ("both-are-no-worse", "trxl-140-rmt-10-bptt-0-seg150", "trxl-150-seg150"),
    ("both-are-no-worse", "trxl-150-rmt-10-bptt-1-seg150", "trxl-150-seg150"),
}


def test_every_rule_holds_for_the_values_that_its_paper_prints():
    """A contrast whose arms are all printed is below its limit: else the rule could not hold if the paper were true."""
    compared, against = 0, set()
    for artifact in all_artifacts().values():
        report = artifact.report()
        for claim in report.claims:
            for contrast in claim.test.contrasts:
                if set(contrast.weights) <= set(report.paper_arms):
                    value = sum(weight * report.paper_arms[arm] for arm, weight in contrast.weights.items())
                    compared += 1
                    if value >= contrast.limit:
                        against.add((claim.name, *contrast.weights))
    assert against == AGAINST_THEIR_OWN_TABLE
    assert compared > 60
