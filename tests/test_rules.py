"""The declared rules of primary claims: what each can tell if its paper is true, and if there is nothing to tell."""

import pytest

from rmtlib.evaluation.decisions import ENOUGH_POWER, LEVEL, RUNS_NEEDED, power
from rmtlib.experiments.capacity import rules as capacity

PRIMARY = {"memory-capacity": capacity.RULES}
EVERY = [(artifact, name) for artifact, rules in PRIMARY.items() for name in rules]


@pytest.mark.parametrize(("artifact", "name"), EVERY)
def test_a_rule_holds_if_the_paper_is_true(artifact, name):
    found = power(PRIMARY[artifact], name, RUNS_NEEDED)
    assert found["holds"] >= ENOUGH_POWER and found["fails"] < 0.01


@pytest.mark.parametrize(("artifact", "name"), EVERY)
def test_a_rule_seldom_holds_if_there_is_nothing(artifact, name):
    assert power(PRIMARY[artifact], name, RUNS_NEEDED, boundary=True)["holds"] <= LEVEL + 0.01


@pytest.mark.parametrize("artifact", PRIMARY)
def test_at_most_three_claims_are_primary(artifact):
    assert 1 <= len(PRIMARY[artifact]) <= 3
