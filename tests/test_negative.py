"""The page of negative results is made from records: what fails is on it, what does not is not called so."""

from test_capacity_report import rewrite
from test_language_tables import three

from rmtlib.experiments.view import view_of
from rmtlib.report.negative import fragments, gates_table, given_up_table

KEEPS = "memory-capacity-armt-keeps"


def parts(view, page="", trials=None):
    return fragments([view], trials or {}, page)


def test_a_failing_claim_is_shown_even_if_the_page_does_not_explain_it():
    view = view_of("memory-capacity", published=rewrite(far={"armt": 0.3}))
    found = parts(view)
    assert "fails" in found[KEEPS] and found[KEEPS] in found["rest"]
    assert "rest" in found and parts(view, page=f"{KEEPS}.md")["rest"] == ""  # said once


def test_a_claim_that_holds_is_not_said_to_fail():
    found = parts(view_of("memory-capacity", published=rewrite()))
    assert found["rest"] == "" and "fails" not in found[KEEPS]


def test_models_that_counting_beats_are_listed_with_both_numbers():
    rows = {"baseline_seg50": 260.0, "rmt_10_bptt_2_seg50": 240.0, "trxl_10_seg50": 235.0}
    worse = three("wikitext-103", **rows) + three("wikitext-103", spread=0.0, ngram_3=200.0)
    better = three("wikitext-103", **rows) + three("wikitext-103", spread=0.0, ngram_3=300.0)
    (row,) = gates_table([view_of("wikitext-103", published=worse)]).rows
    assert row[:2] == ("wikitext-103", "small") and "260" in row[3] and "200" in row[3]
    assert "ngram-3" not in row[3]
    assert gates_table([view_of("wikitext-103", published=better)]).rows == ()


def test_effects_against_the_paper_are_those_whose_interval_is_on_the_other_side():
    rows = {"trxl_50_seg50": 225.0, "rmt_10_bptt_4_seg50": 250.0}
    text = parts(view_of("wikitext-103", published=three("wikitext-103", **rows)))["against"]
    assert "raises perplexity by 25" in text
    rows["rmt_10_bptt_4_seg50"] = 200.0
    assert "There is none" in parts(view_of("wikitext-103", published=three("wikitext-103", **rows)))["against"]


def test_given_up_trials_are_those_without_a_record():
    view = view_of("algorithmic")
    growing = next(trial for trial in view.artifact.trials if trial.name == "copy-3-rmt-24-growing")
    names = [row[1] for row in given_up_table([view], {}).rows]
    assert names == ["copy-3-rmt-24-growing", "retrieval-3-rmt-3-drilled", "retrieval-3-trxl-3-drilled"]
    left = given_up_table([view], {"algorithmic": [{"run_id": growing.config.id}]}).rows
    assert [row[1] for row in left] == names[1:]


def test_what_records_say_is_escaped():
    records = [r | {"finished": "<b>"} for r in rewrite(far={"armt": 0.3})]
    assert "<b>ARMT" not in parts(view_of("memory-capacity", published=records))[KEEPS]
