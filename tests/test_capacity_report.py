"""Figure, tables, claims and page of memory-capacity, over records of known content."""

import csv
import io

import fakes
import pytest

from rmtlib.data.associative import PairTask
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.capacity.figure import STYLES
from rmtlib.experiments.capacity.report import DIGITS
from rmtlib.experiments.capacity.rows import VALUES
from rmtlib.experiments.capacity.rules import RULES
from rmtlib.experiments.view import view_of
from rmtlib.report import pages
from rmtlib.report.figures import style_of
from rmtlib.report.tables import mean_text

REMEMBER, REWRITE = (1, 5, 10, 16), (1, 10, 100, 500)


def record(row: str, seed: int, accuracy) -> dict:
    """A record of `row`, trained up to 10 pairs; `accuracy` gives the exact match of so many pairs."""
    numbers = REMEMBER if row.endswith("remember") else REWRITE
    made = fakes.record(
        row, seed=seed, accuracy=lambda segments: accuracy(segments - 1), segments=tuple(n + 1 for n in numbers),
        train_segments=11, state_size=1000, parameters=2000, values=16,
    )  # fmt: skip
    for point in made["metrics"]["exact_match"]:
        point["pairs"] = point["segments"] - 1
    return made | {"artifact": "memory-capacity"}


def runs(row: str, *accuracies) -> list[dict]:
    return [record(row, seed, accuracy) for seed, accuracy in enumerate(accuracies)]


def stores(most: float):
    """The exact match of a model that stores `most` pairs and guesses the others among 16 values."""
    return lambda pairs: (share := min(most / pairs, 1)) + (1 - share) / 16


def remember(armt=16.0, mamba=9.0, rmt=4.0, prmt=4.0) -> list[dict]:
    stored = {"armt": armt, "mamba": mamba, "rmt": rmt, "prmt": prmt}
    return [
        r for model, k in stored.items() for r in runs(f"{model}-remember", *[stores(k - d) for d in (0, 0.1, 0.2)])
    ]


def rewrite(far=None, learned=0.99) -> list[dict]:
    """Right at `learned` up to the trained 10 updates, then `far` by model."""
    far = {"armt": 0.99, "mamba": 0.6, "rmt": 0.5, "armt-nogamma": 0.1} | (far or {})
    return [
        r for model, a in far.items()
        for r in runs(f"{model}-rewrite", *[lambda n, a=a, d=d: learned if n <= 10 else a - d for d in (0, 0.01, 0.02)])
    ]  # fmt: skip


def verdicts(records) -> dict:
    return {verdict.claim.name: verdict for verdict in view_of("memory-capacity", records).verdicts()}


def equal_state(armt=15.9) -> list[dict]:
    return runs("armt-equal-remember", *[stores(armt - d) for d in (0, 0.1, 0.2)])


def test_main_metrics_are_stored_pairs_and_accuracies():
    results = view_of("memory-capacity", runs("armt-remember", stores(7), stores(8))).results
    series = results.series()["small"]["armt-remember"]
    assert series.metric == "pairs stored" and [p.x for p in series.points] == list(REMEMBER)
    assert series.points[2].mean == pytest.approx(7.5, abs=0.05)
    assert series.points[2].std == pytest.approx(0.707, abs=0.05)
    assert mean_text(series.points[2], DIGITS["pairs stored"]).startswith("7.5 ± 0.7")
    assert series.at_trained_x.x == 10
    exact = results.series("exact match")["small"]["armt-remember"]
    assert exact.points[2].mean == pytest.approx(stores(7.5)(10), abs=0.01)
    assert VALUES == PairTask("remember").values


def test_primary_claims_hold_where_the_paper_is_right():
    found = verdicts([*remember(), *rewrite(), *equal_state()])
    assert {name: found[name].outcome for name in RULES} == dict.fromkeys(RULES, "holds")
    assert found["gamma-needed"].outcome == "described" and found["gamma-needed"].effects[0].effect < -0.8
    assert found["varied-length"].outcome == "not enough runs" and found["others-degrade"].outcome == "described"


@pytest.mark.parametrize(
    ("claim", "records", "outcome"),
    [
        ("equal-state", [*remember(), *equal_state(8.0)], "fails"),
        ("rmt-stores-least", remember(mamba=2.0), "fails"),
        ("rmt-stores-least", remember(mamba=4.05), "undecided"),
        ("armt-keeps", rewrite({"armt": 0.7}), "fails"),
        ("armt-keeps", rewrite(learned=0.6), "undecided"),
        ("armt-keeps", [r for r in rewrite() if r["seed"] < 2], "not enough runs"),
        ("armt-keeps", remember(), "not run"),
    ],
)
def test_primary_claims_follow_the_records(claim, records, outcome):
    assert verdicts(records)[claim].outcome == outcome


def test_a_claim_of_two_halves_shows_both():
    verdict = verdicts(remember(mamba=2.0))["rmt-stores-least"]
    assert [effect.contrast for effect in verdict.effects] == [
        "rmt-remember - armt-remember",
        "rmt-remember - mamba-remember",
    ]
    assert verdict.effects[0].effect < 0 < verdict.effects[1].effect


def test_a_record_older_than_its_rule_is_named():
    old, new = rewrite(), [r | {"finished": "2027-01-01T00:00:00+00:00"} for r in rewrite()]
    assert verdicts([r | {"finished": "2025-01-01T00:00:00+00:00"} for r in old])["armt-keeps"].older
    assert not verdicts(new)["armt-keeps"].older
    claims = view_of("memory-capacity", old).claims()
    assert "rule of commit e563983; rule declared after these records" in claims


def test_figure_tables_and_csv_show_the_same_numbers(tmp_path):
    view = view_of("memory-capacity", remember(), rewrite())
    assert len(view.draw().axes) == 2
    alt = view.alt()
    assert "small scale, remember, runs on this machine: armt (3 runs)" in alt
    assert "small scale, rewrite, published runs: armt (3 runs) 0.99 after 10" in alt
    tables = view.tables("records")
    assert "8.9 ± 0.1" in tables and "0.98 ± 0.01" in tables and 'href="records/mamba-remember' in tables
    lines = list(csv.DictReader(io.StringIO(view.csv())))
    assert len([line for line in lines if line["metric"] == "exact match"]) == 3 * 4 * (4 + 4)
    line = next(x for x in lines if (x["row"], x["metric"], x["x"]) == ("armt-remember", "pairs stored", "16"))
    assert float(line["value"]) == pytest.approx(16) and line["source"] == "here" and line["x_trained"] == "10"
    said = view.save(tmp_path / "out")
    assert (tmp_path / "out" / "memory-capacity.svg").exists() and "ARMT, remember: stores" in said


def test_models_that_are_asked_other_keys_stand_in_the_tables_alone():
    (large,) = runs("armt-large-remember", stores(15.0))
    large["metrics"]["train_segments"] = 17
    view = view_of("memory-capacity", [*remember(), large])
    assert "armt-large" not in view.alt() and "layers" not in view.report.caption(view.results)
    tables = view.tables()
    assert "armt-large (1 run, trained to 16)" in tables and "armt (3 runs, trained to 10)" in tables


def test_without_records_the_page_says_so_and_what_it_would_cost(tmp_path):
    view = view_of("memory-capacity")
    assert "not run" in view.claims() and "not run" in pages.scales_table(view, tmp_path).to_html()
    settings = pages.settings_fragment(view)
    assert "A stage&#x27;s segments are pairs." in settings or "A stage's segments are pairs." in settings
    differing = settings.partition("What differs")[2]
    assert "<td>model.kind</td>" in differing.replace('th scope="row"', "td").replace("/th", "/td")
    assert "evaluation_batch" not in differing  # is the same for all
    assert "perfect recall" in view.tables() and "198,144" in view.tables()  # ARMT's floats at the paper's setting
    assert view.alt()


def test_every_row_has_a_style_of_its_own():
    for row in MemoryCapacity.rows:
        assert style_of(STYLES, row.name.rpartition("-")[0])
    assert len(set(STYLES.values())) == len(STYLES)
