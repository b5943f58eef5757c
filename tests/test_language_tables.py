"""The enwik8 and WikiText-103 artifacts: rows, configs, a run from text to record, exact continuation, the report."""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtlib.data.streams import CORPORA
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments import headline
from rmtlib.experiments.language_modelling.artifact import Enwik8, WikiText103
from rmtlib.experiments.language_modelling.figure import apart
from rmtlib.experiments.language_modelling.report import by_scale, ways_to_train
from rmtlib.experiments.language_modelling.rows import ENWIK8, TABLES, WIKITEXT_103, table_row
from rmtlib.experiments.language_modelling.rules import RULES
from rmtlib.experiments.language_modelling.scales import shrunk
from rmtlib.experiments.language_modelling.settings import SPLIT_TOKENS, VOCABULARIES, Params, read_params
from rmtlib.experiments.registry import get_artifact
from rmtlib.experiments.view import view_of
from rmtlib.models.registry import size_of
from rmtlib.report.measurements import Results
from rmtlib.report.pages import beside_fragment, scales_table, settings_fragment
from rmtlib.report.record_pages import record_page
from rmtlib.report.scoreboard import scoreboard
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.records import find_records
from rmtlib.runs.spec import RunConfig
from rmtlib.settings import from_dict, to_params

ARTIFACTS = (Enwik8(), WikiText103())


@pytest.fixture(autouse=True)
def no_files(monkeypatch, tmp_path):
    """As on a machine without data and network: made-up text serves."""
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RMTLIB_DATA", raising=False)


# Rows and settings


def test_the_tables_have_all_rows_of_the_paper():
    assert sum(row.printed is not None for row in ENWIK8) == 14  # the fifteenth quotes Transformer-XL's paper
    assert sum(row.printed is not None for row in WIKITEXT_103) == 49
    for rows in TABLES.values():
        assert len({row.name for row in rows}) == len(rows)
    assert table_row("enwik8", "rmt-10-bptt-2-seg128").printed == "1.228 ± 0.003"
    best = table_row("wikitext-103", "trxl-150-rmt-10-bptt-3-2x-seg150")
    assert best.printed == "23.99 ± 0.09" and "cannot be traced" in best.note and not best.runs


@pytest.mark.parametrize("row", [row for rows in TABLES.values() for row in rows if row.printed and row.runs])
def test_printed_values_are_those_of_the_authors_runs(row):
    """Mean and sample deviation as printed, to the last digit (the paper rounds a little freely)."""
    if row.paper["std"] and len(row.runs) == 1:
        return  # the other runs were not published
    digits = len(row.printed.split()[0].split(".")[1])
    mean = sum(row.runs) / len(row.runs)
    assert abs(mean - row.paper["mean"]) < 1.6 * 10**-digits
    if row.paper["std"]:
        assert torch.tensor(row.runs).std().item() == pytest.approx(row.paper["std"], abs=1.6 * 10**-digits)


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda a: a.name)
def test_configs_of_all_rows_are_complete_and_costed(artifact):
    for scale in artifact.scales:
        for row in artifact.rows:
            config = artifact.config(row.name, scale, 0)
            assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))).id == config.id
            params = read_params(config.params)
            assert not isinstance(params, Params) or params.train.seed == 0
            assert to_params(params) == config.to_json()["params"]
            cost = artifact.cost(config)
            assert cost.tokens > 0 and cost.flops > cost.tokens and cost.memory_bytes > 0 and cost.disk_bytes >= 0


def test_paper_scale_is_the_papers():
    params = from_dict(Params, Enwik8().config("rmt-10-bptt-2-seg128", "paper", 0).params)
    train = params.train
    assert (train.steps, train.batch_size, train.segment_size, train.bptt) == (400_000, 64, 128, 2)
    assert (train.lr, train.clip_norm, train.replay) == (2.5e-4, 0.25, "stored")
    assert params.evaluation == {"segment": 128, "cache": 0, "columns": 10} and set(params.tokens.values()) == {None}
    both = Enwik8().config("trxl-10-rmt-20-bptt-0-seg128", "paper", 0).params  # the loss is WikiText-103's alone
    assert both["train"]["auxiliary"] == 0 and not both["model"]["auxiliary_token"]
    assert Enwik8().config("trxl-512-seg512", "paper", 0).params["evaluation"]["cache"] == 896
    words = from_dict(Params, WikiText103().config("trxl-150-rmt-10-bptt-3-2x-seg150", "paper", 0).params)
    train, model = words.train, words.model
    assert (train.steps, train.batch_size, train.auxiliary, train.bptt) == (400_000, 60, 0.01, 3)
    assert (model.cache, model.memory_tokens, model.auxiliary_token) == (150, 10, True)
    assert WikiText103().config("trxl-50-seg50", "paper", 0).params["train"]["batch_size"] == 128


@pytest.mark.parametrize("artifact, row, count", [
    (Enwik8(), "trxl-40-seg128", 41_055_436), (Enwik8(), "rmt-10-bptt-1-seg128", 41_055_436 + 10 * 512),
    (WikiText103(), "baseline-seg150", 151_107_538), (WikiText103(), "mt-75-seg150", 151_107_538 + 75 * 410),
])  # fmt: skip
def test_models_of_the_paper_scale_have_the_published_size(artifact, row, count):
    params = from_dict(Params, artifact.config(row, "paper", 0).params)
    assert size_of(params.model)["parameters"] == count


def test_settings_are_complete_at_any_depth():
    data = Enwik8().config("baseline-seg128", "smoke", 0).to_json()["params"]
    for part in (data, data["model"], data["train"]):
        part["new"] = part.pop(kept := next(iter(part)))
        with pytest.raises(RmtlibError, match=f"unknown or missing: .*{kept}"):
            from_dict(Params, data)
        part[kept] = part.pop("new")


def test_small_rows_keep_their_proportions():
    assert [shrunk(n, 4) for n in (0, 1, 5, 10, 20, 40, 128, 200)] == [0, 1, 1, 3, 5, 10, 32, 50]
    for artifact in ARTIFACTS:
        settings = [json.dumps(artifact.config(row.name, "small", 0).to_json()["params"]) for row in artifact.rows]
        assert len(set(settings)) == len(artifact.rows)  # no two rows are the same run
        for name in artifact.default_rows("small"):
            assert table_row(artifact.name, name)
    released = Enwik8().config("rmt-20-bptt-2-released-seg128", "small", 0).params
    assert released["train"]["replay"] == "newest" and released["model"]["memory_positions"] == "released"
    assert Enwik8().config("rmt-20-bptt-2-window-seg128", "small", 0).params["train"]["replay"] == "none"


def test_below_paper_scale_wikitext_103_is_wikitext_2_and_says_so():
    for scale, corpus in (("small", "wikitext-2"), ("gpu", "wikitext-2"), ("paper", "wikitext-103")):
        assert WikiText103().config("baseline-seg50", scale, 0).params["corpus"] == corpus
    results = results_of("wikitext-103", [record("wikitext-103", "baseline-seg50", 0, 300.0)])
    assert "WikiText-2" in by_scale("wikitext-103", results, "small").caption


def test_medium_has_the_papers_lengths_and_other_batches_for_every_seed():
    for artifact, name in ((Enwik8(), "rmt-5-bptt-2-seg128"), (WikiText103(), "rmt-10-bptt-2-seg50")):
        row, configs = table_row(artifact.name, name), select(artifact, "medium")
        assert name in {config.row for config in configs} and {config.seed for config in configs} == {0, 1, 2}
        params = from_dict(Params, artifact.config(name, "medium", 1).params)
        assert (params.model.memory_tokens, params.train.segment_size) == (row.memory, row.segment)
        assert (params.train.order, params.train.precision, params.tokens["test"]) == ("rotated", "bf16", None)
        assert params.train.seed == 1
    assert Enwik8().config("trxl-512-seg512", "medium", 0).params["train"]["batch_size"] == 4
    assert WikiText103().config("trxl-150-2x-seg150", "medium", 0).params["train"]["steps"] == 13_000


def test_trials_keep_the_ids_of_the_runs_that_were_made():
    ids = {trial.config.id for artifact in ARTIFACTS for trial in artifact.trials}
    of_settings = {"60c9aafbe6aa", "79fad66e3b59", "0ecdbfc339e8", "658f679db850"}
    assert ids - of_settings == {"06cac6294715", "8ef9776aabca", "24d271f0d074", "6f65ff02281b"} and of_settings < ids
    assert {c.id for artifact in ARTIFACTS for c in select(artifact, "pilot", rows="all")} == ids


def test_all_rows_can_be_asked_for():
    configs = select(Enwik8(), "smoke", 1, "all")
    assert [config.row for config in configs] == [row.name for row in ENWIK8]


@pytest.mark.parametrize("name", ["synthetic-characters", "synthetic-words"])
def test_made_up_text_has_the_size_that_costs_assume(name):
    language = CORPORA[name]()
    assert language.vocab_size == VOCABULARIES[name]
    sizes = {split: len(getattr(language, split)) for split in ("train", "validation", "test")}
    assert sizes == SPLIT_TOKENS[name]


# A run


class Interrupted(RunFolder):
    """A folder that asks to stop after a number of questions about it."""

    def __init__(self, path: Path, after: int):
        super().__init__(path)
        self.left = after

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("artifact, row", [
    (Enwik8(), "rmt-20-bptt-2-seg128"), (WikiText103(), "trxl-150-rmt-10-bptt-1-seg150"),
])  # fmt: skip
def test_a_smoke_run_learns_and_continues_exactly(artifact, row, tmp_path):
    config = artifact.config(row, "smoke", 0)
    whole = artifact.execute(config, RunFolder(tmp_path / "whole"))
    with pytest.raises(Stopped):
        artifact.execute(config, Interrupted(tmp_path / "parts", 12))
    parts = artifact.execute(config, RunFolder(tmp_path / "parts"))
    assert whole == parts
    losses = [loss for _, loss in whole.curves["loss"]]
    assert losses[-1] < losses[0]
    assert whole.metrics["tokens"] == config.params["tokens"]["test"]
    assert whole.tokens == artifact.cost(config).tokens and whole.metrics["unit"] == artifact.unit
    assert len(whole.curves["validation"]) == 2


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda a: a.name)
def test_an_n_gram_row_has_the_text_of_the_neural_rows_and_a_record_that_is_checked(artifact, tmp_path):
    name = next(row.name for row in TABLES[artifact.name] if row.order)
    for scale in artifact.scales:
        ours, neural = (artifact.config(row, scale, 0).params for row in (name, artifact.typical_row))
        assert (ours["corpus"], ours["tokens"]) == (neural["corpus"], neural["tokens"])
    config = artifact.config(name, "smoke", 0)
    result = artifact.execute(config, RunFolder(tmp_path))
    assert result.tokens == artifact.cost(config).tokens
    assert artifact.check_metrics(result.metrics, result.curves, config) is None
    assert result.metrics["value"] < VOCABULARIES[config.params["corpus"]] / 4  # not uniform
    for key in ("nats", "segment", "tokens"):
        wrong = result.metrics | {key: result.metrics[key] + 1}
        assert artifact.check_metrics(wrong, result.curves, config)


def test_an_n_gram_row_is_shown_beside_the_others():
    records = three("enwik8", spread=0.0, ngram_5=2.3) + three("enwik8", baseline_seg128=2.2)
    view = view_of("enwik8", (), records)
    assert "Kneser-Ney 5-gram" in view.tables() and "Kneser-Ney 5-gram 2.300" in view.alt()
    training = view.draw().axes[2]
    assert {text.get_text() for text in training.texts} == {"Kneser-Ney 5-gram", "baseline"}


def test_the_table_says_which_n_grams_a_row_beats():
    counted = three("enwik8", spread=0.0, ngram_5=2.3, ngram_8=2.1)
    learned = three("enwik8", baseline_seg128=2.2, trxl_40_seg128=2.05, rmt_5_bptt_2_seg128=2.4)
    table = by_scale("enwik8", results_of("enwik8", counted + learned), "small")
    assert {row[0]: row[-1] for row in table.rows} == {
        "baseline, segment 32": "ngram-5",
        "Tr-XL 10, segment 32": "ngram-5, ngram-8",
        "RMT 1, BPTT-2, segment 32": "no n-gram",
        "Kneser-Ney 5-gram": "",
        "Kneser-Ney 8-gram": "",
    }
    alone = by_scale("enwik8", results_of("enwik8", learned), "small")
    assert {row[-1] for row in alone.rows} == {"no n-gram was run"}


def test_other_seeds_give_other_models_and_the_same_text(tmp_path):
    values = [
        Enwik8().execute(Enwik8().config("baseline-seg128", "smoke", s), RunFolder(tmp_path / str(s))) for s in (0, 1)
    ]
    assert values[0].metrics["value"] != values[1].metrics["value"]
    assert values[0].metrics["tokens"] == values[1].metrics["tokens"]


def test_a_corpus_that_is_nowhere_is_an_error_in_one_line(tmp_path):
    with pytest.raises(RmtlibError, match="no mirror has enwik8"):
        Enwik8().execute(Enwik8().config("baseline-seg128", "small", 0), RunFolder(tmp_path))


# The report


def record(artifact: str, row: str, seed: int, value: float, scale: str = "small") -> dict:
    config = get_artifact(artifact).config(row, scale, seed)
    params = {"model": {"cache": 0, "memory_tokens": 0}, "train": {"segment_size": 5}, **config.params}
    model, train = params["model"], params["train"]
    metrics = {"unit": "bpc", "value": value, "tokens": 1000, "validation": value, "segment": train["segment_size"]}
    metrics |= {"cache": model["cache"], "memory_tokens": model["memory_tokens"], "state_size": 192, "parameters": 1}
    numbers = {"wall_s": 60.0, "peak_memory_bytes": 10, "peak_host_memory_bytes": 10, "tokens": 5}
    return {
        "schema": 1,
        "run_id": config.id,
        "artifact": artifact,
        "row": row,
        "scale": scale,
        "seed": seed,
        "config": config.to_json(),
        "metrics": metrics,
        "curves": {"loss": [[1, 5.0]], "validation": [[1, 4.0], [2, value]]},
        "data": [{"name": "enwik8", "sha256": "0" * 64, "bytes": 1, "licence": "x", "source": "y"}],
        "packages": {"torch": "2"},
        "hardware": {"cpu": "a processor", "cores": 2},
        "precision": "float32",
        "git": {"commit": "c" * 40, "dirty": False},
        "modules_sha256": "1" * 64,
        "notes": [],
        "finished": "2026-01-02T03:04:05+00:00",
        **numbers,
    }


def three(artifact: str, spread: float = 0.001, **values: float) -> list[dict]:
    """Three seeds of each row (named with _ for -), around its value."""
    return [
        record(artifact, row.replace("_", "-"), seed, value + spread * (seed - 1))
        for row, value in values.items()
        for seed in range(3)
    ]


def results_of(artifact: str, records: list[dict]) -> Results:
    return view_of(artifact, records).results


def verdicts(artifact: str, records: list[dict]) -> dict:
    return {verdict.claim.name: verdict for verdict in view_of(artifact, records).verdicts()}


def test_the_papers_own_values_bear_its_primary_claims_out():
    """Three runs close to every printed mean, and an n-gram that is worse than the baseline."""
    for artifact, ngram in (("enwik8", "ngram-5"), ("wikitext-103", "ngram-3")):
        rows = [row for row in TABLES[artifact] if row.paper["mean"]]
        records = three(artifact, spread=1e-5, **{r.name.replace("-", "_"): r.paper["mean"] for r in rows})
        counted = records[0] | {"row": ngram, "run_id": ngram, "metrics": records[0]["metrics"] | {"value": 50.0}}
        found = verdicts(artifact, [*records, counted])
        decided = {name: verdict.outcome for name, verdict in found.items() if verdict.claim.primary}
        assert decided == dict.fromkeys(RULES[artifact], "holds")
        assert {v.outcome for v in found.values() if not v.claim.primary} == {"described"}
        better = counted | {"metrics": counted["metrics"] | {"value": 0.5}}
        shut = verdicts(artifact, [*records, better])["memory-helps"]
        assert shut.outcome == "undecided" and f"not below {ngram}" in shut.why and shut.p is None


def test_described_claims_have_effects_and_no_verdict():
    good = dict(rmt_20_bptt_0_seg128=3.0, rmt_20_bptt_2_seg128=2.9, trxl_20_seg128=2.95)
    found = verdicts("enwik8", three("enwik8", **good))
    (depth,) = found["more-bptt"].effects
    assert depth.contrast == "rmt-20-bptt-2-seg128 - rmt-20-bptt-0-seg128" and depth.n == (3, 3)
    assert depth.effect == pytest.approx(-0.1) and depth.low < -0.1 < depth.high < 0
    assert found["more-bptt"].outcome == found["beats-equal-memory"].outcome == "described"
    assert found["memory-size-matters-little"].outcome == "not enough runs"
    assert found["memory-helps"].outcome == "not run"
    two = [r for r in three("enwik8", **good) if r["seed"] < 2]
    assert {v.outcome for v in verdicts("enwik8", two).values()} <= {"not enough runs", "not run"}


def test_a_summary_keeps_scales_and_ways_to_train_apart():
    records = [
        record("enwik8", row, 0, value, scale)
        for row, value, scale in (
            ("rmt-20-bptt-2-seg128", 2.5, "small"),
            ("rmt-20-bptt-2-seg128", 1.3, "gpu"),
            ("rmt-20-bptt-2-window-seg128", 2.0, "small"),
        )
    ]
    assert view_of("enwik8", records).summary() == [
        "RMT, small scale: best 2.500 bpc (rmt-20-bptt-2-seg128), worst 2.500; 1 row, 1 run",
        "RMT, gpu scale: best 1.300 bpc (rmt-20-bptt-2-seg128), worst 1.300; 1 row, 1 run",
    ]


def test_captions_say_how_lengths_and_text_differ():
    caption = view_of("wikitext-103", three("wikitext-103", baseline_seg50=250.0)).tables()
    assert "Column small: memory and segment are divided by 2.5 and rounded, to at least 1. Trained and tested on " in (
        caption
    )
    assert "WikiText-2, not WikiText-103" in caption


def test_pages_show_a_usual_row_and_name_the_text():
    view = view_of("wikitext-103", three("wikitext-103", baseline_seg50=250.0))
    assert "Settings of a run of rmt-10-bptt-2-seg50 at each scale.</caption>" in settings_fragment(view)
    assert "WikiText-2" in scoreboard([view])
    assert "small scale, on WikiText-2, runs on this machine: baseline, segment 20" in view.alt()
    assert view.draw().axes[0].get_title() == "small scale, on WikiText-2"


def test_ways_to_train_are_compared_with_the_stored_memory():
    values = dict(rmt_20_bptt_2_seg128=3.0, rmt_20_bptt_2_newest_seg128=3.1, trxl_20_seg128=3.3)

    def ways(records: list[dict]):
        return ways_to_train("enwik8", results_of("enwik8", records), "small")

    table = ways(three("enwik8", **values))
    assert [row[1] for row in table.rows] == ["stored (default)", "newest"]
    assert table.rows[1][3] == "+0.100 ± 0.001" and table.rows[1][4] == "1.00"
    window = ways(three("enwik8", **values, rmt_20_bptt_2_window_seg128=3.2)).rows[2]
    assert window[1] == "window" and float(window[4]) < 0.4
    one = [r for r in three("enwik8", **values) if r["seed"] == 0 or "newest" not in r["row"]]
    assert ways(one).rows[1][3] == "+0.099"  # a single run has no spread
    assert ways(three("enwik8", rmt_20_bptt_2_newest_seg128=3.1)) is None


def test_the_page_lists_rows_that_were_not_run_with_their_cost(tmp_path):
    text = scales_table(view_of("enwik8", (), three("enwik8", baseline_seg128=3.2)), tmp_path).to_html()
    assert "Not run: trxl-512-seg512, " in text and "baseline-seg128" not in text
    assert f"for {len(ENWIK8) - 1} runs" in text


def test_view_of_records():
    records = three("enwik8", rmt_20_bptt_0_seg128=3.0, baseline_seg128=3.2)
    view = view_of("enwik8", records[:3], records)
    assert view.results.series()["small"]["baseline-seg128"].first.std == pytest.approx(0.001)
    html = beside_fragment(view)
    assert (
        "3.000 ± 0.001" in html
        and "1.301" in html
        and html.count("<td>not run</td>") == len(ENWIK8) - 2
        and f"{len(ENWIK8) - 2} rows that were not run" in html
        and "1.06" in html
    )
    assert 'href="../records/baseline-seg128-small-s1-' in html
    assert "baseline, segment 32 3.200 ± 0.001 (3 runs)" in view.alt()  # as it is at this scale
    assert len(view.draw().axes) == 3 and len(view.summary()) >= 1
    lines = list(csv.DictReader(io.StringIO(view.csv())))
    assert {line["source"] for line in lines} == {"here", "published", "paper", "authors"}
    assert sum(line["source"] == "authors" for line in lines) == sum(len(row.runs) for row in ENWIK8)
    assert "not enough runs" in view.claims()
    page = record_page(view, records[0], "published")
    assert "2.9990" in page and "exact match" not in page


def test_training_is_drawn_for_the_default_rows_with_a_label_each():
    records = three("enwik8", rmt_20_bptt_0_seg128=3.0, baseline_seg128=3.2, trxl_40_seg128=3.1)
    training = view_of("enwik8", (), records).draw().axes[2]
    assert {text.get_text() for text in training.texts} == {"baseline", "RMT 5, BPTT-0"}
    assert len(training.lines) == 6 and training.get_title() == "validation in training, 2 of the rows"
    alone = view_of("enwik8", (), records[-3:]).draw().axes[2]
    assert [text.get_text() for text in alone.texts] == ["Tr-XL 10"]


def test_a_run_that_never_validated_to_a_number_is_drawn_all_the_same():
    broken = record("enwik8", "baseline-seg128", 0, 3.2)
    broken["curves"]["validation"] = [[1, None]]
    assert not view_of("enwik8", (), [broken]).draw().axes[2].lines


def test_a_figure_of_all_rows_draws_the_training_of_a_few():
    records = [record("wikitext-103", row.name, 0, 30.0 + i, "gpu") for i, row in enumerate(WIKITEXT_103)]
    training = view_of("wikitext-103", (), records).draw().axes[2]
    assert len(training.texts) == 6
    low, high = training.get_ylim()
    assert all(low / 2 < text.get_position()[1] < 2 * high for text in training.texts)


@given(st.dictionaries(st.text(max_size=3), st.floats(-5, 5), max_size=8), st.floats(0.01, 2))
def test_labels_lie_apart_in_order_about_their_centre(places, gap):
    moved = apart(places, gap)
    order = sorted(places, key=places.__getitem__)
    assert sorted(moved, key=moved.__getitem__) == order
    assert all(moved[b] - moved[a] > gap - 1e-9 for a, b in pairwise(order))
    assert sum(moved.values()) == pytest.approx(sum(places.values()), abs=1e-9)


def test_labels_that_do_not_collide_stay():
    assert apart({"a": 0.0, "b": 0.0, "c": 10.0}, 1.0) == {"a": -0.5, "b": 0.5, "c": 10.0}


def test_view_without_records():
    for artifact in ("enwik8", "wikitext-103"):
        view = view_of(artifact)
        assert view.summary() == ["No runs yet."] and view.draw() and view.alt() and "paper" in view.tables()


@pytest.mark.parametrize(
    ("scale", "sizes"), [("small", [" (here 4)", " (here 20)", " (here 4)"]), ("medium", [""] * 3)]
)
def test_the_front_figure_names_sizes_where_they_are_not_the_papers(scale, sizes, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    records = find_records("wikitext-103", scale=scale, where=("results",))
    lines = headline.memory_gain(view_of("wikitext-103", published=records))
    assert lines.scale == scale and all(lines.ours) and all(lines.paper)
    said = [f" {size}{here}" for size, here in zip((10, 50, 10), sizes, strict=True)]
    assert [label.partition(",")[2] for label in lines.labels] == said


def test_counting_far_from_the_models_is_written_at_the_edge_and_nothing_else(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    records = find_records("enwik8", where=("results",))
    panels = {ax.get_title(): ax for ax in view_of("enwik8", published=records).draw().axes}
    assert list(panels)[0] == "medium scale" and "validation" in list(panels)[2]
    assert sum("validation" in title for title in panels) == 1  # of the largest scale alone
    (five,) = [r["metrics"]["value"] for r in records if (r["row"], r["scale"]) == ("ngram-5", "medium")]
    assert [text.get_text() for text in panels["medium scale"].texts] == [f"at {five:.3f} \N{RIGHTWARDS ARROW}"]
    assert panels["medium scale"].get_xlim()[1] < five
    assert not panels["small scale"].texts
