"""The artifact lora-wikitext-2: configs, equal tokens, all rows at smoke, continuation, checks, tables, claims."""

import copy
import json
import math
from collections import Counter

import pytest
import torch
from test_figure_5 import Interrupted

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.lora.artifact import LoRAWikiText2
from rmtlib.experiments.lora.averages import derived, study_averages
from rmtlib.experiments.lora.claims import CLAIMS
from rmtlib.experiments.lora.figure import STYLES, kind
from rmtlib.experiments.lora.rows import STUDY, TABLE_2
from rmtlib.experiments.lora.rules import RMT, RULES, arms
from rmtlib.experiments.lora.run import build_model, open_texts
from rmtlib.experiments.lora.scales import settings
from rmtlib.experiments.lora.settings import Params
from rmtlib.experiments.view import view_of
from rmtlib.models.decoder import Decoder
from rmtlib.models.size import DECODERS, decoder_weights
from rmtlib.report.figures import style_of
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.spec import RunConfig
from rmtlib.settings import from_dict, to_params

pytest.importorskip("peft")

LORA = LoRAWikiText2()
ROWS = list(STUDY)
CONTROLLED = [name for name, row in STUDY.items() if row.tuning and not row.published]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for the module: the small decoder of the scale smoke is trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMTLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def results(cache, tmp_path_factory):
    """What `execute` makes of every row at smoke."""
    folder = tmp_path_factory.mktemp("runs")
    return {row: LORA.execute(LORA.config(row, "smoke", 0), RunFolder(folder / row)) for row in ROWS}


def record(row: str, result, seed: int = 0, scale: str = "smoke") -> dict:
    """The record that a run leaves."""
    config = LORA.config(row, "smoke", seed)
    return {
        "artifact": LORA.name, "row": row, "scale": scale, "seed": seed, "run_id": config.id, "data": result.data,
        "config": config.to_json(), "metrics": copy.deepcopy(result.metrics), "curves": result.curves,
        "finished": "2026-12-01T00:00:00+00:00",
    }  # fmt: skip


def params(row: str, scale: str) -> Params:
    return from_dict(Params, LORA.config(row, scale, 0).params)


@pytest.mark.parametrize("scale", LORA.scales)
@pytest.mark.parametrize("row", ROWS)
def test_configs_are_complete_json_with_costs(row, scale):
    config = LORA.config(row, scale, 1)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))).id == config.id
    assert config.seed == (0 if row == "backbone" else 1)
    cost = LORA.cost(config)
    assert cost.tokens > 0 and cost.flops > cost.tokens and cost.memory_bytes > 0


@pytest.mark.parametrize("scale", LORA.scales)
def test_every_controlled_row_is_trained_on_as_many_tokens_of_the_same_segments(scale):
    tuned = [params(row, scale).tuning for row in CONTROLLED]
    one, whole = params("lora", scale).tuning.train.segment_size, params("lora-window-2seg", scale).tuning
    assert len({t.tokens for t in tuned}) == 1 and (whole.train.segment_size, whole.segments) == (2 * one, 1)
    assert {t.train.segment_size for row, t in zip(CONTROLLED, tuned, strict=True) if "window" not in row} == {one}
    assert len({t.chunk * t.train.segment_size for t in tuned if t.chunk != 6}) == 1  # of text, in every step
    assert len({t.text for t in tuned}) == 1 and len({t.train.precision for t in tuned}) == 1
    read = {(r.text, r.tokens) for row in CONTROLLED for r in params(row, scale).readings}
    assert len(read) == 1


def test_paper_scale_is_the_studys_script():
    row = params("published-lora-rmt-2seg-4mem", "paper")
    train = row.tuning.train
    assert (row.backbone, train.batch_size, train.segment_size, train.weight_decay) == ("gpt2", 1, 1016, 0.01)
    assert (train.stages[0].lr, train.warmup, train.horizon, row.tuning.labels) == (1e-4, 0.1, 1.0, "last")
    assert (row.tuning.lora.rank, row.tuning.lora.alpha, row.tuning.lora.dropout) == (16, 32, 0.1)
    full = params("published-full-rmt-5seg-32mem", "paper")
    assert full.tuning.lora is None and full.tuning.train.segment_size == 1024 - 64
    assert full.tuning.train.stages[0].steps / train.stages[0].steps == pytest.approx(3 / 10)
    assert full.tuning.train.horizon > 1e6 and 5 * full.tuning.train.segment_size >= 4096


def test_at_medium_the_rows_that_decide_whether_memory_helps_have_three_seeds():
    seeds = Counter(config.row for config in select(LoRAWikiText2(), "medium"))
    decided = {row for claim in CLAIMS if claim.name == "beats-tuned" for row in claim.rows}
    assert {row for row, count in seeds.items() if count == 3} == decided and seeds["full"] == 1


def test_every_memory_of_table_2_has_a_controlled_row():
    assert {f"lora-rmt-2seg-{memory}mem" for memory in TABLE_2} <= set(STUDY)


def test_all_positions_fit_into_gpt2s_table():
    for row, study in STUDY.items():
        for scale in ("gpu", "paper"):
            p = params(row, scale)
            if p.backbone == "gpt2":
                assert all(r.segment + 2 * study.tokens <= 1024 for r in p.readings)
                assert p.tuning is None or p.tuning.train.segment_size + 2 * study.tokens <= 1024


def test_the_ceiling_reads_no_longer_contexts_than_the_backbone_knows():
    windows = {s: [r.window for r in params("lora", s).readings if "window of" in r.name] for s in LORA.scales}
    assert windows == {"smoke": [32, 64], "small": [64, 128], "medium": [512, 1024], "gpu": [896], "paper": [896]}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_runs_at_smoke_and_its_numbers_are_what_its_sums_give(row, results):
    result, config = results[row], LORA.config(row, "smoke", 0)
    assert LORA.check_metrics(result.metrics, result.curves, config) is None
    readings, study = result.metrics["readings"], STUDY[row]
    assert list(readings) == [reading.name for reading in params(row, "smoke").readings]
    assert readings["test"]["tokens"] == 1280 and math.isfinite(readings["test"]["bits_per_byte"])
    assert {part["name"] for part in result.data} >= {"small decoder", "synthetic text", "bpe-300-synthetic"}
    if study.tuning and not study.published:
        assert result.metrics["train_tokens"] == params(row, "smoke").tuning.tokens
    assert result.tokens == pytest.approx(LORA.cost(config).tokens, rel=0.7)
    if study.tuning == "lora":
        assert result.metrics["trained_parameters"] < 0.6 * result.metrics["parameters"]


def test_memories_other_than_the_own_change_later_segments_alone(results):
    for row in (RMT, "lora-rmt-4seg-4mem", "lora-armt-2seg-4mem"):
        readings = results[row].metrics["readings"]
        for whose in ("memory off", "memory shuffled", "memory other"):
            own, other = readings["test"]["by_segment"], readings[whose]["by_segment"]
            assert own[0] == pytest.approx(other[0], rel=1e-6)
            assert all(a[0] != pytest.approx(b[0], rel=1e-9) for a, b in zip(own[1:], other[1:], strict=True))


@pytest.mark.parametrize("row", ["lora-rmt-2seg-4mem", "lora-armt-2seg-4mem", "published-lora-rmt-2seg-4mem"])
def test_a_run_interrupted_in_training_and_reading_equals_one_that_was_not(row, results, tmp_path):
    config, stops = LORA.config(row, "smoke", 0), 0
    for after in (2, 3, 3, 10):
        try:
            LORA.execute(config, Interrupted(tmp_path / "parts", after))
        except Stopped:
            stops += 1
    parts = LORA.execute(config, RunFolder(tmp_path / "parts"))
    assert stops >= 3
    assert parts.metrics == results[row].metrics and parts.curves == results[row].curves


def test_another_seed_is_another_run_of_the_same_backbone(results, tmp_path):
    other = LORA.execute(LORA.config(RMT, "smoke", 1), RunFolder(tmp_path))
    assert other.data[0]["sha256"] == results[RMT].data[0]["sha256"]
    assert other.metrics["readings"]["test"]["nats"] != results[RMT].metrics["readings"]["test"]["nats"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m["readings"].pop("memory off"), "readings are not the settings'"),
        (lambda m: m["readings"]["test"].update(perplexity=3.0), "perplexity is 3.0, its sums give"),
        (lambda m: m["readings"]["test"].update(nats=3.0), "its parts add up to"),
        (lambda m: m["readings"]["test"].update(bytes=0), "bytes is 0"),
        (lambda m: m.update(validation=1.0), "validation is 1.0, the best of its curve is"),
        (lambda m: m.update(state_size=7), "state_size is 7, the settings give 128"),
        (lambda m: m.update(train_tokens=7), "train_tokens is 7, the settings give 768"),
    ],
)
def test_changed_numbers_are_found(change, why, results):
    metrics = copy.deepcopy(results[RMT].metrics)
    change(metrics)
    assert why in LORA.check_metrics(metrics, results[RMT].curves, LORA.config(RMT, "smoke", 0))


def test_the_studys_averages_are_not_the_perplexity_of_the_text():
    """Two windows of 10 and 1 tokens, of 1 and 3 nats a token."""
    windows = [[10.0, 10], [3.0, 1]]
    found = derived({"nats": 13.0, "tokens": 11, "words": 5, "bytes": 20, "windows": windows}, "last")
    assert found["perplexity"] == pytest.approx(math.exp(13 / 11))
    assert found["word_perplexity"] == pytest.approx(math.exp(13 / 5))
    assert found["bits_per_byte"] == pytest.approx(13 / 20 / math.log(2))
    averages = study_averages(windows)
    assert averages["window losses"] == pytest.approx(math.exp(2.0))
    assert averages["window perplexities"] == pytest.approx((math.e + math.exp(3)) / 2)
    assert averages["sums over 100"] == pytest.approx((math.e + math.exp(3)) / 100)
    assert "bits_per_byte" not in derived({"nats": 1.0, "tokens": 1, "words": 1, "bytes": 1}, "inside")


def test_a_tokeniser_of_another_backbone_is_one_line():
    made = to_params(settings(RMT, "smoke", 0)) | {"tokenizer": "bpe-290-synthetic"}
    with pytest.raises(RmtlibError, match="'bpe-290-synthetic' has 290 entries, the backbone's vocabulary 300"):
        open_texts(from_dict(Params, made))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"backbone": "gpt3"}, "backbone is 'gpt3'; it must be one of gpt2, smollm2"),
        ({"memory_tokens": 0}, "memory is 'rmt' with 0 tokens; a memory has at least one"),
        ({"batch": 0}, "batch is 0; it must be 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changed, why):
    with pytest.raises(RmtlibError, match=why):
        from_dict(Params, to_params(settings(RMT, "smoke", 0)) | changed)


def test_a_text_shorter_than_a_window_is_one_line_and_leaves_no_reading(tmp_path):
    made = to_params(settings(RMT, "smoke", 0))
    made["readings"][1]["tokens"] = 20
    with pytest.raises(RmtlibError, match="the text has 20 tokens, fewer than a window of 32"):
        LORA.execute(RunConfig(LORA.name, RMT, "smoke", 0, made), RunFolder(tmp_path))
    assert list(json.loads((tmp_path / "readings.json").read_text())["readings"]) == ["test"]


def test_damaged_readings_are_one_line(tmp_path):
    (tmp_path / "readings.json").write_text('{"weights": ')
    with pytest.raises(RmtlibError, match=r"readings.json is damaged .* delete it, and the texts are read anew"):
        LORA.execute(LORA.config("backbone", "smoke", 0), RunFolder(tmp_path))


def test_shapes_of_pretrained_backbones_are_theirs():
    """SmolLM2-135M has 134,515,008 weights, GPT-2 124,439,808."""
    with torch.device("meta"):
        counts = {n: sum(p.numel() for p in Decoder(shape).parameters()) for n, shape in DECODERS.items()}
    assert counts == {"gpt2": 124_439_808, "smollm2": 134_515_008}
    assert {name: decoder_weights(shape) for name, shape in DECODERS.items()} == counts


def test_a_backbone_at_the_scale_gpu_is_what_this_machine_has(monkeypatch):
    for gpt2, state, backbone in ((True, "cached", "gpt2"), (False, "cached", "smollm2"), (False, "absent", "gpt2")):
        monkeypatch.setattr("rmtlib.runs.backbones.has_gpt2", lambda gpt2=gpt2: gpt2)
        monkeypatch.setattr("rmtlib.data.sources.state", lambda name, state=state: state)
        assert params(RMT, "gpu").backbone == params(RMT, "gpu").tokenizer == backbone
        assert LORA.with_all_files(RMT, "gpu", 0).params["backbone"] == "gpt2"


@pytest.mark.parametrize(("hub", "fetched"), [(True, ["gpt2"]), (False, ["gpt2", "smollm2-135m-instruct"])])
def test_the_scale_gpu_asks_the_hub_for_gpt2_and_falls_back_to_smollm2(hub, fetched, monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        if not hub:
            raise RmtlibError("the hub cannot be asked")

    monkeypatch.setattr("rmtlib.runs.backbones.has_gpt2", lambda: False)
    monkeypatch.setattr("rmtlib.models.backbones.load_hf", load)
    monkeypatch.setattr("rmtlib.data.sources.fetch", asked.append)
    LORA.prepare("gpu", [])
    assert asked == fetched


def test_gpt2_is_looked_for_under_the_name_that_it_is_loaded_by(monkeypatch):
    """The hub's cache has a folder for each name of a repository, also for two names of the same one."""
    asked = []
    monkeypatch.setattr("rmtlib.data.sources.state", lambda name: "cached")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: asked.append(repo) or "a path")
    assert params(RMT, "gpu").backbone == asked[0]


# What is shown.


@pytest.fixture(scope="module")
def records(results):
    return [record(row, result) for row, result in results.items()]


def test_tables_figure_and_summary_show_what_was_run(records, tmp_path):
    view = view_of(LORA.name, records)
    tables = view.tables("records")
    test = {r["row"]: r["metrics"]["readings"]["test"] for r in records}
    assert f"{test[RMT]['bits_per_byte']:.4f}" in tables and f"{test['lora']['perplexity']:.2f}" in tables
    for words in ("29.94", "24.29", "19.18", "How much of the gain is memory", "window perplexities"):
        assert words in tables
    assert len(view.draw().axes) == 3 and f"{RMT} {test[RMT]['bits_per_byte']:.3f}" in view.alt()
    assert "LoRA without memory" in view.report.caption(view.results)
    assert "with shuffled memory" in view.save(tmp_path / "out")
    assert "not run" in view_of(LORA.name).claims() and view_of(LORA.name).draw()


def test_every_row_has_a_style():
    for row in ROWS:
        assert style_of(STYLES, kind(row))
    assert len(set(STYLES.values())) == len(STYLES)


def shifted(records, row: str, reading: str, factor: float) -> list[dict]:
    """Small-scale records of three seeds; in one row a reading's nats are multiplied, with a little noise."""
    made = []
    for each in records:
        for seed in range(1 if each["row"] == "backbone" else 3):
            new = copy.deepcopy(each) | {"scale": "small", "seed": seed}
            for name, found in new["metrics"]["readings"].items():
                change = (factor if (each["row"], name) == (row, reading) else 1.0) * (1 + 1e-4 * seed)
                for key in ("bits_per_byte", "nats"):
                    if key in found:
                        found[key] *= change
                found["perplexity"] = found["perplexity"] ** change
            made.append(new)
    return made


@pytest.mark.parametrize(
    ("row", "reading", "factor", "claim", "outcome"),
    [
        (RMT, "test", 0.9, "beats-tuned", "holds"),
        (RMT, "test", 1.1, "beats-tuned", "fails"),
        (RMT, "memory shuffled", 1.1, "memory-is-read", "holds"),
        (RMT, "memory shuffled", 0.9, "memory-is-read", "fails"),
        (RMT, "test", 0.9, "beats-zero-shot", "holds"),
        (RMT, "test", 0.99, "beats-zero-shot", "fails"),
    ],
)
def test_primary_claims_follow_the_records(row, reading, factor, claim, outcome, records):
    view = view_of(LORA.name, shifted(records, row, reading, factor))
    assert {v.claim.name: v.outcome for v in view.verdicts()}[claim] == outcome


def test_arms_are_numbers_of_one_scale_by_seed(records):
    found = arms(records)
    assert set(RULES) and all(arm in found for rule in RULES.values() for arm in rule.runs)
    readings = {r["row"]: r["metrics"]["readings"] for r in records}
    ratio = readings[RMT]["test"]["perplexity"] / readings["backbone"]["test"]["perplexity"]
    assert found[f"{RMT}: of zero-shot"] == [pytest.approx(ratio)]
    assert "lora: of zero-shot" not in arms([r for r in records if r["row"] != "backbone"])


def test_models_start_from_the_seed_alone():
    torch.manual_seed(5)
    decoder = Decoder(settings(RMT, "smoke", 0).decoder)
    made = [build_model(settings(RMT, "smoke", seed), copy.deepcopy(decoder)).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(x, made[1][name]) for name, x in made[0].items())
    assert not torch.equal(made[0]["memory_MD"], made[2]["memory_MD"])
