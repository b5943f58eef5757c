"""Figure, tables, claims and page of quadratic, over records of known content."""

import csv
import io

import fakes
import pytest

from rmtlib.experiments.quadratic.artifact import Quadratic
from rmtlib.experiments.quadratic.counts import SOLVED
from rmtlib.experiments.quadratic.figure import ANSWERS, RELEASED, STEPS_RIGHT, STYLES
from rmtlib.experiments.quadratic.rows import SOLVERS
from rmtlib.experiments.quadratic.rules import LEVEL_WITHIN, RULES, arms
from rmtlib.experiments.view import view_of
from rmtlib.report import pages
from rmtlib.report.figures import style_of

N, ROOTED = 1000, 800


def counted(answers: float, steps: float) -> dict:
    """Counts of `answers` right answers of all, and `steps` of every other step; those without roots are right."""
    rights = [*[steps] * (len(SOLVED) - 1), answers]
    return {
        "n": N,
        "tokens": 140 * N,
        "steps": [round(N * right) for right in rights],
        "with_roots": {"n": ROOTED, "steps": [max(round(N * right) - (N - ROOTED), 0) for right in rights]},
    }


def record(row: str, seed: int, answers: float, released: float | None = None, scale: str = "medium") -> dict:
    config = Quadratic().config(row, scale, seed)
    released = answers if released is None else released
    test = {
        "generated": counted(answers, 0.995),
        "released": counted(released, 0.996),
        "forced": counted(0.998, 0.999),
    }
    metrics = {"test": test, "segments": SOLVERS[row].segments, "validation": 0.99, "state_size": 0}
    made = fakes.record("qa1", scale=scale, seed=seed)
    return made | {
        "artifact": "quadratic", "row": row, "metrics": metrics, "run_id": config.id, "config": config.to_json(),
    }  # fmt: skip


def runs(row: str, *answers: float, **more) -> list[dict]:
    return [record(row, seed, right, **more) for seed, right in enumerate(answers)]


def study(one=(0.999, 0.995, 0.998), trxl=(0.95, 0.91, 0.94), rmt=(0.985, 0.99, 0.988)) -> list[dict]:
    return [*runs("baseline-1", *one), *runs("trxl-6", *trxl), *runs("rmt-6", *rmt)]


def verdicts(records) -> dict:
    return {verdict.claim.name: verdict for verdict in view_of("quadratic", records).verdicts()}


def test_arms_are_shares_of_right_answers_by_seed():
    found = arms([record("rmt-6", 1, 0.9, 0.95), record("rmt-6", 0, 0.8, 0.85)])
    assert found["rmt-6"] == [0.8, 0.9] and found["rmt-6: released"] == [0.85, 0.95]
    assert found["rmt-6: with roots"] == [600 / 800, 700 / 800] and found["rmt-6: forced"] == [0.998] * 2
    assert found["rmt-6: canonical"] == found["rmt-6: x2"] == [0.995] * 2 and "rmt-6: answer" not in found


def test_primary_claims_hold_where_the_paper_is_right():
    found = verdicts(study())
    assert {name: found[name].outcome for name in RULES} == dict.fromkeys(RULES, "holds")
    assert found["rmt-solves"].outcome == "described" and found["rmt-solves"].effects[0].effect < 0
    assert found["with-roots"].effects[0].effect < 0
    assert len(found["each-step"].effects) == len(SOLVED)
    assert found["nothing-without-memory"].outcome == "not enough runs"
    assert pytest.approx(0.0307, abs=1e-4) == LEVEL_WITHIN


@pytest.mark.parametrize(
    ("claim", "records", "outcome"),
    [
        ("rmt-above-cache", study(trxl=(0.999, 0.998, 0.997)), "fails"),
        ("rmt-above-cache", study(trxl=(0.984, 0.99, 0.988)), "undecided"),
        ("rmt-as-one-segment", study(rmt=(0.93, 0.94, 0.935)), "fails"),
        ("rmt-as-one-segment", study(one=(0.5, 0.52, 0.51), rmt=(0.5, 0.52, 0.51)), "undecided"),
        ("rmt-as-one-segment", [r for r in study() if r["seed"] < 2], "not enough runs"),
        ("rmt-as-one-segment", runs("trxl-6", 0.9), "not run"),
    ],
)
def test_primary_claims_follow_the_records(claim, records, outcome):
    assert verdicts(records)[claim].outcome == outcome


def test_a_shut_gate_says_that_nothing_was_learned():
    shut = verdicts(study(one=(0.5, 0.52, 0.51)))["rmt-above-cache"]
    assert shut.outcome == "undecided" and "not learned even in one segment" in shut.why


def test_figure_tables_and_csv_show_the_same_numbers(tmp_path):
    records = [*study(), *runs("rmt-6", 0.6, released=0.7, scale="small")]
    view = view_of("quadratic", records)
    assert len(view.draw().axes) == 6
    alt = view.alt()
    assert "medium scale, runs on this machine: Baseline, one segment (3 runs) 0.997 ± 0.002 of the answers" in alt
    assert "canonical 0.99" in alt and "Tr-XL, six segments 0.95, 0.9125, 0.9406" in alt
    tables = view.tables("records")
    assert "0.933 ± 0.021" in tables and "0.600 [0.569, 0.630]" in tables and 'href="records/rmt-6' in tables
    assert "0.93 ± 0.02" in tables and "not in the paper" in tables
    lines = list(csv.DictReader(io.StringIO(view.csv())))
    ours = [line for line in lines if line["source"] == "here"]
    assert len([line for line in ours if line["metric"] == STEPS_RIGHT]) == 10 * len(SOLVED)
    small = {line["metric"]: float(line["value"]) for line in ours if line["scale"] == "small" and not line["x"]}
    assert small[ANSWERS] == 0.6 and small[RELEASED] == 0.7
    assert [float(line["value"]) for line in lines if line["source"] == "authors" and line["row"] == "trxl-6"] == [
        0.95, 0.9125, 0.9406,
    ]  # fmt: skip
    said = view.save(tmp_path / "out")
    assert (tmp_path / "out" / "quadratic.svg").exists() and "of the answers right" in said


def test_without_records_the_page_says_so_and_what_it_would_cost(tmp_path):
    view = view_of("quadratic")
    assert "not run" in view.claims() and "not run" in pages.scales_table(view, tmp_path).to_html()
    settings = pages.settings_fragment(view)
    assert "they end where steps of the solution end" in settings and "model.cache" in settings
    assert view.alt() and len(view.draw().axes) == 3


def test_every_row_has_a_style_of_its_own():
    assert [style_of(STYLES, row) for row in SOLVERS] and len(set(STYLES.values())) == len(STYLES) == len(SOLVERS)
