"""The declared rules of primary claims: what each can tell if its paper is true, and if there is nothing to tell."""

import json
from types import SimpleNamespace

import pytest

from rmtlib.evaluation.decisions import ENOUGH_POWER, LEVEL, estimate, power
from rmtlib.experiments.algorithmic import rules as algorithmic
from rmtlib.experiments.attention import rules as attention
from rmtlib.experiments.babilong import rules as babilong
from rmtlib.experiments.babilong_table import rules as babilong_table
from rmtlib.experiments.babilong_time import rules as babilong_time
from rmtlib.experiments.capacity import rules as capacity
from rmtlib.experiments.declare import DECLARED, from_data, main, to_data
from rmtlib.experiments.language_modelling import rules as language
from rmtlib.experiments.language_modelling.rows import table_row
from rmtlib.experiments.lora import rules as lora
from rmtlib.experiments.quadratic import rules as quadratic
from rmtlib.experiments.registry import all_artifacts
from rmtlib.experiments.segments import rules as segments
from rmtlib.report.claims import Verdict

PRIMARY = {
    "memory-capacity": capacity.RULES,
    "lm-segments": segments.RULES,
    "figure-5": babilong.RULES,
    "attention-maps": attention.RULES,
    "babilong": babilong_table.RULES,
    "babilong-time": babilong_time.RULES,
    "lora-wikitext-2": lora.RULES,
    **language.RULES,
    **algorithmic.RULES,
    "quadratic": quadratic.RULES,
}

EVERY = [(artifact, name) for artifact, rules in PRIMARY.items() for name in rules]


@pytest.mark.parametrize(("artifact", "name"), EVERY)
def test_a_rule_holds_if_the_paper_is_true(artifact, name):
    found = power(PRIMARY[artifact], name, PRIMARY[artifact][name].seeds)
    assert found["holds"] >= ENOUGH_POWER and found["fails"] < 0.01


@pytest.mark.parametrize(("artifact", "name"), EVERY)
def test_a_rule_seldom_holds_if_there_is_nothing(artifact, name):
    assert power(PRIMARY[artifact], name, PRIMARY[artifact][name].seeds, boundary=True)["holds"] <= LEVEL + 0.01


@pytest.mark.parametrize("artifact", PRIMARY)
def test_at_most_three_claims_are_primary(artifact):
    assert 1 <= len(PRIMARY[artifact]) <= 3


def test_a_cache_of_half_the_size_does_not_have_enough_of_the_gain():
    """The share that has to be reached lies halfway between that of half the cache and all of the gain."""
    for artifact, row, cache, half in (
        ("enwik8", "baseline-seg128", "trxl-40-seg128", "trxl-20-seg128"),
        ("wikitext-103", "baseline-seg50", "trxl-50-seg50", "trxl-25-seg50"),
    ):
        contrast = language.RULES[artifact][f"matches-cache-{cache.split('-')[1]}"].contrasts[0]
        means = {name: table_row(artifact, name).paper["mean"] for name in (row, cache, half)}
        rmt = next(name for name in contrast.weights if name.startswith("rmt"))
        arms = {name: [means[name]] * 2 for name in (row, cache)}
        too_high = estimate(contrast, arms | {rmt: [means[half]] * 2}).effect
        low_enough = estimate(contrast, arms | {rmt: [means[cache]] * 2}).effect
        assert too_high > 0 > low_enough and too_high == pytest.approx(-low_enough)


def test_arms_of_language_rows_are_test_values_by_seed():
    records = [{"row": "a", "seed": seed, "metrics": {"value": 2.0 + seed}} for seed in (1, 0)]
    assert language.arms(records) == {"a": [2.0, 3.0]}


def test_arms_of_figure_5_are_what_is_lost_at_eight_times_the_training_length():
    points = [{"segments": 4, "n": 10, "correct": 9}, {"segments": 32, "n": 10, "correct": 4}]
    record = {"row": "qa1", "seed": 0, "metrics": {"train_segments": 4, "exact_match": points}}
    found = babilong.arms([record])
    assert found["qa1: trained"] == [0.9] and found["qa1: far"] == [0.4] and found["qa1: deviation far"] == [0.0]
    assert found["qa1: fall"] == found["qa1: fall to the longest"] == [pytest.approx(0.5)]
    assert found["qa1: slope"] == [pytest.approx(-0.5 / 3)]
    short = {"row": "qa1", "seed": 1, "metrics": {"train_segments": 4, "exact_match": points[:1]}}
    assert "qa1: fall" not in babilong.arms([short])


def test_deviations_between_seeds_are_in_units_of_binomial_noise():
    """Four of 100 about a half are less noise than four of 100 about 0.96."""

    def record(seed, trained, far):
        points = [{"segments": 4, "n": 100, "correct": trained}, {"segments": 32, "n": 100, "correct": far}]
        return {"row": "qa1", "seed": seed, "metrics": {"train_segments": 4, "exact_match": points}}

    found = babilong.arms([record(0, 92, 46), record(1, 96, 50), record(2, 100, 54)])
    assert found["qa1: deviation far"] == [pytest.approx(0.04 / 0.05), 0.0, pytest.approx(0.04 / 0.05)]
    assert found["qa1: deviation trained"][0] == pytest.approx(0.04 / (0.96 * 0.04 / 100) ** 0.5)
    same = babilong.arms([record(0, 100, 0), record(1, 100, 0)])
    assert same["qa1: deviation trained"] == same["qa1: deviation far"] == [0.0, 0.0]


def claims():
    return [(name, claim) for name, artifact in all_artifacts().items() for claim in artifact.report().claims]


def test_every_rule_belongs_to_a_primary_claim_and_there_are_many_claims():
    primary = {(artifact, claim.name): claim.test for artifact, claim in claims() if claim.primary}
    assert primary == {(artifact, name): PRIMARY[artifact][name] for artifact, name in EVERY}
    assert len(claims()) >= 25


def test_a_verdict_by_a_replaced_form_of_a_rule_says_so():
    """It would be read as one of the words beside it, which are the newest form's."""
    replaced = [claim for _, claim in claims() if len(claim.declared) > 1]
    assert replaced
    for claim in replaced:
        formers = [Verdict(claim, "small", "holds", commit=entry.commit).former for entry in claim.declared]
        assert formers == [True] * (len(formers) - 1) + [False]


def test_the_newest_declaration_of_every_rule_is_the_rule():
    entries = json.loads(DECLARED.read_text())
    assert set(entries) == {f"{artifact}/{name}" for artifact, name in EVERY}
    for artifact, claim in claims():
        for newest in entries.get(f"{artifact}/{claim.name}", [])[-1:]:
            assert newest["rule"] == to_data(claim.test) == to_data(from_data(newest["rule"]))
    assert {claim.declared[-1].commit for name, claim in claims() if name == "memory-capacity" and claim.primary} == {
        "e563983"
    }


def test_claims_compare_rows_that_there_are():
    ngrams = {"ngram-5", "ngram-3"}
    for artifact, claim in claims():
        assert set(claim.rows) <= {row.name for row in all_artifacts()[artifact].rows} | ngrams, claim.name


def test_declaring_appends_what_differs_and_nothing_else(monkeypatch, tmp_path, capsys):
    path = tmp_path / "declared.json"
    entries = json.loads(DECLARED.read_text())
    entries["figure-5/holds-beyond"] = []
    entries["memory-capacity/armt-keeps"][-1]["rule"]["contrasts"][0]["limit"] = 0.5
    path.write_text(json.dumps(entries))
    monkeypatch.setattr("rmtlib.experiments.declare.DECLARED", path)
    monkeypatch.setattr(
        "rmtlib.experiments.declare.subprocess.run",
        lambda *_, **__: SimpleNamespace(stdout="abc1234 2026-11-26T01:00:00+02:00\n"),
    )
    assert main(["HEAD"]) == 0
    after = json.loads(path.read_text())
    (new,) = after["figure-5/holds-beyond"]
    assert (new["commit"], new["declared"]) == ("abc1234", "2026-11-25T23:00:00+00:00")
    assert [entry["commit"] for entry in after["memory-capacity/armt-keeps"]] == ["e563983", "abc1234"]
    assert after["memory-capacity/equal-state"] == entries["memory-capacity/equal-state"]
    capsys.readouterr()
    assert main(["HEAD"]) == 0 and capsys.readouterr().out == "" and json.loads(path.read_text()) == after
