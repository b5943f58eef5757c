"""Figure, tables, claims and page of memory-capacity, over records of known content."""

import csv
import io

import fakes
import pytest

from rmtlib.data.associative import PairTask
from rmtlib.evaluation.capacity import expected_accuracy
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.capacity.claims import CLAIMS
from rmtlib.experiments.capacity.report import DIGITS
from rmtlib.experiments.capacity.rows import VALUES
from rmtlib.experiments.view import view_of
from rmtlib.report import pages
from rmtlib.report.tables import mean_text

REMEMBER, REWRITE = (1, 5, 10, 16), (1, 10, 100, 500)


def record(row: str, seed: int, accuracy) -> dict:
    """A record of `row`, trained up to 10 pairs; `accuracy` gives the exact match of so many pairs."""
    numbers = REMEMBER if row.endswith("remember") else REWRITE
    made = fakes.record(
        row, seed=seed, accuracy=lambda segments: accuracy(segments - 1), segments=tuple(n + 1 for n in numbers),
        train_segments=11, state_size=1000, parameters=2000, values=16,
    )  # fmt: skip
    return made | {"artifact": "memory-capacity"}


def runs(row: str, *accuracies) -> list[dict]:
    return [record(row, seed, accuracy) for seed, accuracy in enumerate(accuracies)]


def stores(most: float):
    return lambda pairs: expected_accuracy(min(most, pairs), pairs, 16)


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


def findings(records) -> dict:
    return {verdict.claim.name: verdict.finding for verdict in view_of("memory-capacity", records).verdicts()}


def outcomes(records) -> dict[str, str]:
    return {name: finding.outcome for name, finding in findings(records).items()}


def test_main_metrics_are_stored_pairs_and_accuracies():
    results = view_of("memory-capacity", runs("armt-remember", stores(7), stores(8))).results
    series = results.series()["small"]["armt-remember"]
    assert series.metric == "pairs stored" and [p.x for p in series.points] == list(REMEMBER)
    assert series.points[2].mean == pytest.approx(7.5, abs=0.05)
    assert series.points[2].std == pytest.approx(0.707, abs=0.05)
    assert mean_text(series.points[2], DIGITS["pairs stored"]).startswith("7.5 ± 0.7")
    assert series.at_trained_x.x == 10
    exact = results.series("exact match")["small"]["armt-remember"]
    assert exact.points[2].mean == pytest.approx(expected_accuracy(7.5, 10, 16), abs=0.01)
    assert VALUES == PairTask("remember").values


def test_claims_hold_where_the_paper_is_right():
    assert outcomes([*remember(), *rewrite()]) == {claim.name: "holds" for claim in CLAIMS}


@pytest.mark.parametrize(
    ("claim", "records"),
    [
        ("capacity-order", remember(mamba=2.0)),
        ("capacity-order", remember(armt=8.0)),
        ("prmt-no-better", remember(prmt=9.0)),
        ("gamma-needed", rewrite({"armt-nogamma": 0.98})),
        ("gamma-needed", rewrite({"armt": 0.05})),
        ("armt-keeps", rewrite({"armt": 0.7})),
        ("armt-keeps", rewrite({"mamba": 0.97}, learned=0.92)),
    ],
)
def test_claims_fail_where_it_is_not(claim, records):
    assert outcomes(records)[claim] == "fails"


@pytest.mark.parametrize(
    ("claim", "records", "reason"),
    [
        ("capacity-order", remember(armt=9.05), "below, p = 0.29"),
        ("gamma-needed", rewrite({"armt": 0.1}), "p = 0.5"),
        (
            "armt-keeps",
            rewrite(learned=0.6),
            "armt-rewrite has not learned the task: 0.60 after 10 updates, as trained",
        ),
        ("prmt-no-better", remember(prmt=4.42), "more than 10 % above, p = 0.36"),
    ],
)
def test_claims_are_open_where_runs_do_not_tell(claim, records, reason):
    finding = findings(records)[claim]
    assert finding.outcome == "undecided" and reason in finding.statistic


def test_both_halves_of_a_claim_are_shown_if_one_cannot_be_judged():
    records = [r for r in rewrite({"armt": 0.5}) if r["row"] == "armt-rewrite" or r["seed"] < 2]
    finding = findings(records)["armt-keeps"]
    assert finding.outcome == "not enough runs"
    halves = {name: half.outcome for name, half in finding.parts.items()}
    assert halves == {"ARMT keeps": "fails", "RMT and Mamba degrade": "not enough runs"}
    assert "ARMT keeps: " in view_of("memory-capacity", records).claims()


def test_two_runs_are_not_enough():
    few = [r for r in [*remember(), *rewrite()] if r["seed"] < 2]
    assert set(outcomes(few).values()) == {"not enough runs"}
    assert outcomes(remember())["gamma-needed"] == "not run"


def test_figure_tables_and_csv_show_the_same_numbers(tmp_path):
    view = view_of("memory-capacity", remember(), rewrite())
    assert len(view.draw().axes) == 2
    alt = view.alt()
    assert "small scale, remember, runs on this machine: armt (3 runs)" in alt
    assert "small scale, rewrite, published runs: armt (3 runs) 0.99 after 10" in alt
    tables = view.tables("records.html")
    assert "8.9 ± 0.1" in tables and "0.98 ± 0.01" in tables and 'href="records.html#mamba-remember' in tables
    lines = list(csv.DictReader(io.StringIO(view.csv())))
    assert len([line for line in lines if line["metric"] == "exact match"]) == 3 * 4 * (4 + 4)
    line = next(x for x in lines if (x["row"], x["metric"], x["x"]) == ("armt-remember", "pairs stored", "16"))
    assert float(line["value"]) == pytest.approx(16) and line["source"] == "here" and line["x_trained"] == "10"
    said = view.save(tmp_path / "out")
    assert (tmp_path / "out" / "memory-capacity.svg").exists() and "ARMT, remember: stores" in said


def test_without_records_the_page_says_so_and_what_it_would_cost(tmp_path):
    view = view_of("memory-capacity")
    assert "not run" in view.claims() and "not run" in pages.scales_table(view, tmp_path).to_html()
    settings = pages.settings_fragment(view)
    assert "A stage&#x27;s segments are pairs." in settings or "A stage's segments are pairs." in settings
    differing = settings.partition("What differs")[2]
    assert "<td>model.kind</td>" in differing.replace('th scope="row"', "td").replace("/th", "/td")
    assert "evaluation_batch" not in differing  # is the same for all
    assert "perfect recall" in view.tables() and "198,144" in view.tables()  # ARMT's floats at the paper's setting
    assert view.alt() and len(MemoryCapacity.rows) == 20
