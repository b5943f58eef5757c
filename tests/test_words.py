"""Effects in words, and what is said beside a verdict so that it does not mislead."""

from dataclasses import replace

import pytest
from test_language_tables import three

from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.experiments.view import view_of
from rmtlib.report.claims import Verdict
from rmtlib.report.evidence import most_telling, ours, theirs, warnings
from rmtlib.report.scoreboard import OWN, entries, paper_of, scoreboard
from rmtlib.report.words import Verb, amount, effect_in_words
from rmtlib.runs.spec import SCALES

LOWERS = {"": Verb("lowers loss by {} against", "raises loss by {} against"), "fall": Verb(alone="loses {}")}


def said(weights, effect, half=0.1, limit=0.0, names=None):
    return effect_in_words(weights, limit, effect, half, lambda arm: (names or {}).get(arm, arm), LOWERS)


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (10.262, 8.134, "10.3 ± 8.1"),
        (0.5018, 0.0862, "0.502 ± 0.086"),
        (123.4, 14.2, "123 ± 14"),
        (0.00062, 0.00031, "0.0006 ± 0.0003"),
        (2.0, 0.0, "2.000 ± 0.000"),
        (0.12345, None, "0.123"),
    ],
)
def test_an_amount_has_the_digits_that_its_error_leaves(value, half, text):
    assert amount(value, half) == text


def test_a_difference_says_which_way_and_whether_it_is_clear():
    pair = {"a": 1, "b": -1}
    assert said(pair, -2.0) == "a lowers loss by 2.00 ± 0.10 against b"
    assert said(pair, 2.0) == "a raises loss by 2.00 ± 0.10 against b"
    assert said(pair, 0.05) == "a raises loss by 0.05 ± 0.10 against b (within the error)"
    assert said(pair, -2.0, half=None) == "a lowers loss by 2 against b"
    assert said({"a": -1, "b": 1}, -2.0) == "a raises loss by 2.00 ± 0.10 against b"  # the claim is turned round


def test_a_number_alone_is_said_with_the_limit_of_its_claim():
    assert said({"a: fall": 1}, 0.38, limit=0.12, names={"a: fall": "a"}) == (
        "a loses 0.50 ± 0.10; the claim needs less than 0.12"
    )
    assert said({"a: fall": -1}, -0.5, names={"a: fall": "a"}) == "a loses 0.50 ± 0.10"


def test_a_difference_of_differences_names_both_pairs():
    names = {"a": "A 8, nine", "b": "B 8, nine", "c": "A 24, three", "d": "B 24, three"}
    apart = {"a": 1, "b": -1, "c": -1, "d": 1}
    assert said(apart, -0.7, names=names) == "A 8 less B 8 (nine) is 0.70 ± 0.10 below A 24 less B 24 (three)"
    assert said(apart, 0.7, names=names) == "A 8 less B 8 (nine) is 0.70 ± 0.10 above A 24 less B 24 (three)"


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
@pytest.mark.parametrize("scale", SCALES)
def test_no_claim_is_said_with_the_ids_of_rows(name, scale):
    """Every contrast of every claim, at every scale, in words: no row's id is left in it."""
    view = view_of(name)
    for contrast in (contrast for claim in view.report.claims for contrast in claim.test.contrasts):
        text = effect_in_words(
            contrast.weights, contrast.limit, -0.1, 0.05,
            lambda arm: view.report.label(arm, view.results, scale), view.report.verbs,
        )  # fmt: skip
        for row in (arm.partition(":")[0] for arm in contrast.weights):
            assert "-" not in row or row not in text, text
        assert ": " not in text


@pytest.mark.parametrize(
    ("name", "arm", "small", "paper"),
    [
        (
            "algorithmic",
            "copy-3-rmt-24",
            "RMT with memory 12, copy of 12 symbols in three segments",
            "RMT with memory 24, copy of 24 symbols in three segments",
        ),
        ("quadratic", "trxl-6: released", "Tr-XL with cache 21 in six segments", "Tr-XL with cache 30 in six segments"),
        (
            "attention-maps",
            "reverse-2-trxl-24: cache",
            "Tr-XL with cache 12, reverse of 12 symbols in two segments",
            "Tr-XL with cache 24, reverse of 24 symbols in two segments",
        ),
        ("babilong", "rmt-r-qa2: far", "RMT-R on qa2 at 8 times", "RMT-R on qa2 at 8 times"),
    ],
)
def test_rows_are_named_by_what_they_are_at_the_scale(name, arm, small, paper):
    view = view_of(name)
    for scale, start in (("small", small), ("paper", paper)):
        assert view.report.label(arm, view.results, scale).startswith(start)


def test_the_papers_numbers_are_said_in_the_same_words():
    view = view_of("babilong")
    falls = next(claim for claim in view.report.claims if claim.name == "rmt-falls-on-more-facts")
    assert theirs(view, falls, Verdict(falls, "medium", "not run"))[0].startswith("RMT on qa2 loses 0.55 of exact")


def test_a_difference_with_a_limit_is_said_as_it_was_measured():
    """The effect of a contrast is less its limit; what is said is the difference itself, then what the claim needs."""
    pair = {"a": 1, "b": -1}
    needs = "; the claim needs a difference below -2"
    assert said(pair, 0.5, limit=-2.0) == f"a lowers loss by 1.50 ± 0.10 against b{needs}"
    assert said(pair, 0.5, limit=2.0).startswith("a raises loss by 2.50 ± 0.10 against b; ")
    already = {"": Verb("is worth {} less", "is worth {} more", "")}
    text = effect_in_words({"a": 1}, -2.0, 1.95, 0.1, str, already)
    assert text == f"a is worth 0.05 ± 0.10 less (within the error){needs}"


def test_mixtures_and_shared_ends_are_said_once():
    names = {"a": "A 5, segment 20", "b": "B, segment 20", "c": "C 7, segment 20"}
    assert said({"a": 1, "b": -0.25, "c": -0.75}, -2.0, names=names) == (
        "A 5 lowers loss by 2.00 ± 0.10 against 25 % of B and 75 % of C 7 (segment 20)"
    )
    assert said({"a": 1, "b": -1, "c": 0.2}, -2.0) == "a lowers loss by 2.00 ± 0.10 against b, less 0.2 of c"


@pytest.fixture
def view():
    """RMT beats the baseline; both are worse than counting."""
    rows = {"baseline_seg50": 260.0, "rmt_10_bptt_2_seg50": 240.0, "trxl_10_seg50": 235.0, "trxl_50_seg50": 225.0}
    records = three("wikitext-103", **rows) + three("wikitext-103", spread=0.0, ngram_3=200.0)
    return view_of("wikitext-103", published=records)


def verdict_of(view, name) -> Verdict:
    return most_telling([verdict for verdict in view.verdicts() if verdict.claim.name == name])


def test_rows_are_named_by_their_sizes_at_the_scale_and_the_papers_by_the_papers(view):
    verdict = verdict_of(view, "memory-helps")
    (here,) = ours(view, verdict)
    assert here.startswith("RMT 4, BPTT-2 lowers perplexity by 20") and here.endswith("baseline (segment 20), n = 3")
    assert theirs(view, verdict.claim, verdict) == [
        "RMT 10, BPTT-2 lowers perplexity by 12.4 against baseline (segment 50)"
    ]


def test_a_shut_gate_stands_beside_every_claim_of_that_scale(view):
    shut = "Gate shut: the baseline is no better than counting three words."
    verdict = verdict_of(view, "memory-helps")
    assert warnings(view, replace(verdict, older=False)) == [shut]
    assert warnings(view, replace(verdict, older=True)) == ["Rule declared after these records.", shut]
    assert verdict_of(view, "beats-cache-50").outcome == "not enough runs"  # nothing was measured: nothing to warn of
    assert warnings(view, verdict_of(view, "beats-cache-50")) == []
    assert scoreboard([view]).count(shut) == sum(bool(warnings(view, e.verdict)) for e in entries([view]))


def test_a_tiny_effect_that_holds_says_so(view):
    verdict = verdict_of(view, "memory-helps")
    small = replace(verdict, outcome="holds", effects=(verdict.effects[0]._replace(effect=-0.5),))
    assert "Tiny: 4 % of the effect that the rule was planned for." in warnings(view, small)
    assert not any("Tiny" in note for note in warnings(view, replace(verdict, outcome="holds")))


def test_a_note_of_a_claim_is_shown_with_its_verdict(view):
    verdict = verdict_of(view, "memory-helps")
    noted = replace(verdict, claim=replace(verdict.claim, note="It says nothing of memory."))
    assert warnings(view, noted)[0] == "It says nothing of memory."


def test_the_verdict_at_the_largest_scale_that_tells_is_shown(view):
    small = verdict_of(view, "memory-helps")
    medium = replace(small, scale="medium", outcome="not enough runs", effects=())
    assert most_telling([small, medium]) is small
    assert most_telling([small, decided := replace(medium, outcome="fails")]) is decided
    assert most_telling([small, replace(small, commit="older")]) is small  # the newest rule comes first


def test_a_claims_paper_is_its_sources(view):
    claim = view.report.claims[0]
    assert paper_of(claim) == "RMT" and paper_of(replace(claim, source="this project's question")) == OWN
    assert paper_of(replace(claim, source="taken for granted in ARMT, Figure 6")) == OWN
