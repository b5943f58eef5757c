"""Figure, tables and claims of the algorithmic tasks, over records of known content."""

import csv
import io

import fakes
import pytest

from rmtlib.experiments.algorithmic.figure import curve
from rmtlib.experiments.algorithmic.rows import TABLES, task_row
from rmtlib.experiments.algorithmic.rules import RULES, arms
from rmtlib.experiments.registry import get_artifact
from rmtlib.experiments.view import view_of
from rmtlib.report.pages import scales_table, settings_fragment


def counted(accuracy: float, n: int, size: int) -> dict:
    """Counts of samples whose every token is right, or none, but for one sample that makes up the rest."""
    right = round(accuracy * n * size)
    whole, rest = divmod(right, size)
    by_correct = [0] * (size + 1)
    by_correct[size], by_correct[rest] = whole, by_correct[rest] + (whole < n)
    by_correct[0] += n - sum(by_correct)
    return {"n": n, "samples_by_correct": by_correct, "correct_by_position": [whole + (k < rest) for k in range(size)]}


def record(row: str, seed: int, accuracy: float, artifact: str = "algorithmic", scale: str = "small") -> dict:
    """A record of `row` whose answers have so many right tokens, whatever the decoding."""
    config = get_artifact(artifact).config(row, scale, seed)
    size = {"copy": 24, "reverse": 12, "retrieval": 1}[row.partition("-")[0].rstrip("0123456789")]
    tested = counted(accuracy, 200, size)
    segments = task_row(artifact, row).segments
    metrics = {
        "test": {"generated": tested, "forced": counted(1.0, 200, size), "released": tested},
        "segments": segments, "segment_size": 12, "answer_size": size, "chance": 0.1, "validation": accuracy,
        "stage_steps": [100, 200], "parameters": 1000, "state_size": 64, "train_tokens": 10_000,
    }  # fmt: skip
    return fakes.record(row, seed=seed, scale=scale) | {
        "artifact": artifact, "row": row, "run_id": config.id, "config": config.to_json(), "metrics": metrics,
        "curves": {"loss": [[1, 10, 2.0]], "validation": [[2, 200, accuracy]]},
        "finished": "2027-01-02T03:04:05+00:00",
    }  # fmt: skip


def runs(row: str, *accuracies: float, **more) -> list[dict]:
    return [record(row, seed, accuracy, **more) for seed, accuracy in enumerate(accuracies)]


def as_published(artifact: str = "algorithmic", **changed: tuple[float, ...]) -> list[dict]:
    """Three runs of every row that a rule compares, around the authors' mean."""
    names = dict.fromkeys(arm for rule in RULES[artifact].values() for arm in rule.runs)
    made = []
    for name in names:
        mean = task_row(artifact, name).paper["mean"]
        values = changed.get(name.replace("-", "_"), (mean, max(mean - 0.01, 0), min(mean + 0.01, 1)))
        made += runs(name, *values, artifact=artifact, scale="small" if artifact == "algorithmic" else "gpu")
    return made


def verdicts(records: list[dict], artifact: str = "algorithmic") -> dict:
    return {verdict.claim.name: verdict for verdict in view_of(artifact, records).verdicts()}


def test_arms_are_the_accuracy_of_generated_answers_by_seed():
    records = runs("reverse-2-rmt-24", 0.25, 0.5)
    assert arms(reversed(records)) == {"reverse-2-rmt-24": [0.25, 0.5]}


@pytest.mark.parametrize("artifact", RULES)
def test_primary_claims_hold_where_the_authors_are_right(artifact):
    found = verdicts(as_published(artifact), artifact)
    assert {name: found[name].outcome for name in RULES[artifact]} == dict.fromkeys(RULES[artifact], "holds")


@pytest.mark.parametrize(
    ("claim", "changed", "outcome"),
    [
        ("copy-gap-grows", {"copy_9_trxl_8": (1.0, 0.99, 1.0)}, "undecided"),
        ("copy-gap-grows", {"copy_9_rmt_8": (0.1, 0.11, 0.09)}, "fails"),
        ("copy-gap-grows", {"copy_3_rmt_24": (0.1, 0.11, 0.09)}, "undecided"),  # gate
        ("reverse-rmt-above", {"reverse_4_rmt_12": (0.5, 0.52, 0.51)}, "fails"),
        ("reverse-rmt-above", {"reverse_4_trxl_12": (0.1, 0.1, 0.11)}, "undecided"),  # gate
        ("half-memory-suffices", {"reverse_4_rmt_6": (0.7, 0.72, 0.71)}, "fails"),
        ("half-memory-suffices", {"reverse_4_rmt_12": (0.5, 0.52, 0.51)}, "undecided"),  # gate
    ],
)
def test_primary_claims_follow_the_records(claim, changed, outcome):
    assert verdicts(as_published(**changed))[claim].outcome == outcome


def test_figure_tables_and_csv_show_the_same_numbers(tmp_path):
    here = [*runs("reverse-2-rmt-24", 1.0), *runs("reverse-4-rmt-12", 0.9), *runs("copy-3-baseline", 0.125)]
    view = view_of("algorithmic", here, runs("reverse-2-trxl-24", 0.75, 0.85, 0.8))
    assert len(view.draw().axes) == 3  # a panel for each task
    alt = view.alt()
    assert "small scale, runs on this machine, reverse of 24, RMT: 1.00 in 2 segments, 0.90 in 4 segments." in alt
    assert "published runs, reverse of 24, Tr-XL: 0.80 in 2 segments" in alt
    tables = view.tables("records")
    assert "0.800 ± 0.050" in tables and "0.783 (0.394 to 0.959, 4 runs)" in tables
    assert 'href="records/reverse-4-rmt-12-small-s0' in tables
    lines = list(csv.DictReader(io.StringIO(view.csv())))
    line = next(x for x in lines if (x["row"], x["metric"]) == ("copy-3-baseline", "per-token accuracy"))
    assert float(line["value"]) == 0.125 and line["source"] == "here" and 0.08 < float(line["low"]) < 0.125
    authors = [x for x in lines if x["source"] == "authors"]
    assert len(authors) == sum(bool(row.paper) for row in TABLES["algorithmic"])
    assert "reverse in 4 segments" in view.report.caption(view.results)
    assert view.save(tmp_path / "out") and (tmp_path / "out" / "algorithmic.svg").exists()


@pytest.mark.parametrize("artifact", TABLES)
def test_without_records_the_page_says_so(artifact, tmp_path):
    view = view_of(artifact)
    assert "not run" in view.claims() and "not run" in scales_table(view, tmp_path).to_html()
    assert view.draw().axes and view.alt() and "authors" in view.tables()
    if artifact == "algorithmic":
        assert "model.memory_tokens" in settings_fragment(view)


def test_a_curve_has_one_row_for_each_number_of_segments():
    assert [row.name for row in curve("algorithmic", "copy", 24, "rmt")] == [
        "copy-3-rmt-24", "copy-6-rmt-12", "copy-9-rmt-8",
    ]  # fmt: skip
    assert [row.memory for row in curve("algorithmic", "retrieval", 4, "trxl")] == [5, 3, 2]


def test_the_authors_long_runs_are_kept_one_by_one():
    row = task_row("algorithmic-long", "copy240-6-rmt-60")
    assert row.paper["single"] == [0.989, 0.978, 1.0, 0.563] and row.paper["runs"] == 4
    assert "0.989, 0.978, 1.000, 0.563" in view_of("algorithmic-long").tables()
