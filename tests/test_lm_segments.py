"""The lm-segments artifact: complete configs, the released settings, samples, runs, exact continuation, costs."""

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest
from test_figure_5 import Interrupted

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.segments.artifact import LMSegments
from rmtlib.experiments.segments.rows import NGRAM
from rmtlib.experiments.segments.run import open_text, window
from rmtlib.experiments.segments.settings import NGramParams, Params, read_params
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.spec import RunConfig
from rmtlib.settings import from_dict

SEGMENTS = LMSegments()
NEURAL = [row.name for row in SEGMENTS.rows if row.name != NGRAM]


def params(row: str, scale: str, seed: int = 0) -> Params | NGramParams:
    return read_params(SEGMENTS.with_all_files(row, scale, seed).params)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One decoder for all runs of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMTLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def results(cache, tmp_path_factory):
    """Row -> the result of its run at smoke scale."""
    folder = tmp_path_factory.mktemp("runs")
    names = [*NEURAL, NGRAM]
    return {row: SEGMENTS.execute(SEGMENTS.config(row, "smoke", 0), RunFolder(folder / row)) for row in names}


@pytest.mark.parametrize("scale", SEGMENTS.scales)
@pytest.mark.parametrize("row", [*NEURAL, NGRAM])
def test_configs_are_complete_json_and_give_trainable_settings(row, scale):
    config = SEGMENTS.with_all_files(row, scale, 0)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))).id == config.id
    made = params(row, scale)
    assert made.histories > made.train_segments > 1
    assert (made.histories, made.train_segments) == (15, 8) or scale == "smoke"
    cost = SEGMENTS.cost(config)
    assert cost.tokens > 0 and cost.flops > cost.tokens and cost.memory_bytes > 0


def test_paper_scale_is_the_released_script():
    rmt, armt = params("rmt", "paper"), params("armt", "paper")
    assert (rmt.model.memory_tokens, armt.model.memory_tokens, armt.model.d_memory) == (16, 16, 96)
    assert armt.model.backbone == "gpt2" and armt.tokenizer == "gpt2" and not armt.model.normalised
    train = armt.train
    assert (train.stages[-1].segments, train.stages[-1].steps, train.stages[-1].lr) == (8, 36_000, 1e-4)
    assert (train.batch_size, train.weight_decay, train.segment_size) == (32, 0.01, 128)
    assert [stage.segments for stage in train.stages] == [1, 2, 4, 8]


@pytest.mark.parametrize("scale", SEGMENTS.scales)
def test_rows_differ_in_their_memory_alone(scale):
    rows = {row: params(row, scale) for row in NEURAL}
    like = {repr(replace(p, model=rows["backbone"].model, context=1)) for p in rows.values()}
    assert len(like) == 1
    assert len({repr(p.model.backbone) for p in rows.values()}) == 1
    assert rows["backbone-window"].context == rows["rmt"].train_segments
    counted = params(NGRAM, scale)
    assert (counted.text, counted.tokens, counted.histories) == (
        rows["rmt"].text,
        rows["rmt"].tokens,
        rows["rmt"].histories,
    )


def test_samples_depend_on_seed_and_index_and_on_nothing_of_the_model():
    text = Stream(np.arange(1000, dtype=np.uint16), 7)
    one, other = (params(row, "smoke").train for row in ("armt", "backbone-window"))
    for index in range(20):
        a, b = window(text, one, 1, index), window(text, other, 1, index)
        assert a.tokens.tolist() == b.tokens.tolist() and len(a.tokens) == 3 * 8
        assert a.labels.tolist() == [x + 1 for x in a.tokens.tolist()] or a.tokens[0] == 7
    starts = {int(window(text, one, 1, index).labels[0]) for index in range(50)}
    assert len(starts) > 40 and starts != {int(window(text, replace(one, seed=1), 1, i).labels[0]) for i in range(50)}
    with pytest.raises(RmtlibError, match="the training text of 20 tokens is shorter than a window of 24: use more"):
        window(text.head(20), one, 1, 0)


def test_every_row_runs_and_its_bits_are_those_of_its_nats_and_bytes(results):
    text = open_text(params("rmt", "smoke"))
    ids = text.splits["test"].ids
    size = sum(int(text.token_bytes_V[i]) for i in ids[5 * 8 : 400])  # the targets have five segments before them
    for row, result in results.items():
        metrics = result.metrics
        assert [point["segment"] for point in metrics["segments"]] == [1, 2, 3, 4, 5, 6]
        assert (metrics["bytes"], metrics["tokens"], metrics["train_segments"]) == (size, 360, 3)
        for point in metrics["segments"]:
            assert point["bits_per_byte"] == pytest.approx(point["nats"] / log(2) / size)
        assert SEGMENTS.check_metrics(metrics, result.curves, SEGMENTS.config(row, "smoke", 0)) is None
        assert result.tokens == pytest.approx(SEGMENTS.cost(SEGMENTS.config(row, "smoke", 0)).tokens, rel=0.15)


def test_bytes_of_segments_are_those_of_their_text(cache):
    from rmtlib.models.backbones import load_tokenizer

    made = params("rmt", "smoke")
    text, (tokenizer, _) = open_text(made), load_tokenizer(made.tokenizer)
    stream = text.splits["test"]
    for first in range(0, 400, 40):
        part = (first, first + 40)
        assert text.bytes_of(stream, part) == len(tokenizer.decode(stream.ids[slice(*part)].tolist()).encode())


def test_memory_makes_a_difference_only_where_there_is_one(results):
    def spread(row, key="nats"):
        values = [point[key] for point in results[row].metrics["segments"]]
        return max(values) - min(values)

    assert spread("backbone") == spread(NGRAM) == 0
    assert spread("rmt") > 0 and spread("armt") > 0
    for row in ("rmt", "armt"):
        metrics = results[row].metrics
        first, *others = metrics["segments"]
        assert metrics["memory_off"]["nats"] == pytest.approx(first["nats"], rel=1e-5)
        assert any(abs(point["swapped_nats"] - point["nats"]) > 1e-4 for point in others)
    window = [point["nats"] for point in results["backbone-window"].metrics["segments"]]
    assert len(set(window)) == 3 and window[2:] == [window[2]] * 4  # it reads three segments at once
    assert "swapped_nats" not in results["backbone"].metrics["segments"][1]


@pytest.mark.parametrize("row", ["armt", "backbone-window"])
def test_a_run_interrupted_in_training_and_testing_equals_one_that_was_not(row, results, tmp_path):
    config, stops = SEGMENTS.config(row, "smoke", 0), 0
    for after in (5, 9, 2):
        try:
            SEGMENTS.execute(config, Interrupted(tmp_path / "parts", after))
        except Stopped:
            stops += 1
    parts, whole = SEGMENTS.execute(config, RunFolder(tmp_path / "parts")), results[row]
    assert stops >= 2
    assert parts.metrics == whole.metrics and parts.curves == whole.curves and parts.tokens == whole.tokens


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bytes": 1000}, "its nats over its bytes are"),
        ({"tokens": 0}, "tokens of the test are 0"),
        ({"tokens": 368}, "tokens is 368, the settings give 360"),
        ({"train_segments": 8}, "train_segments is 8, the settings give 3"),
        ({"state_size": 1}, "state_size is 1, the settings give"),
        ({"parameters": 1}, "parameters is 1, the settings give"),
        ({"validation": 1.0}, "the best of its last stage's curve is"),
        ({"segments": []}, "segments are not those of the settings, 1 to 6"),
        ({"memory_off": None}, "memory_off is None"),
        ({"memory_off": {"nats": 1.0, "bits_per_byte": 2.0}}, "bits_per_byte is 2.0 without memory"),
    ],
)
def test_numbers_that_cannot_be_are_found(change, said, results):
    metrics = json.loads(json.dumps(results["rmt"].metrics)) | change
    assert said in SEGMENTS.check_metrics(metrics, results["rmt"].curves, SEGMENTS.config("rmt", "smoke", 0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "war-and-peace"}, "text is 'war-and-peace'; it must be one of synthetic, wikitext-2-raw"),
        ({"histories": 0}, "histories is 0; it must be 1 or more"),
        ({"histories": 2}, "histories is 2 and training has 3 segments"),
        ({"context": 2}, "context is 2; a model with memory reads one segment at a time"),
        ({"evaluation_batch": 1}, "evaluation_batch is 1; it must be 2 or more"),
        ({"tokens": {"train": 10}}, "they must count train, validation, test"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(change, said):
    with pytest.raises(RmtlibError) as refused:
        from_dict(Params, SEGMENTS.config("rmt", "smoke", 0).to_json()["params"] | change)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_segment_of_no_tokens_is_refused():
    data = SEGMENTS.config("rmt", "smoke", 0).to_json()["params"]
    data["train"]["segment_size"] = 0
    with pytest.raises(RmtlibError, match="segment_size is 0; it must be 1 or more"):
        from_dict(Params, data)


def test_a_test_text_of_too_few_segments_is_refused_before_training(cache, tmp_path):
    data = SEGMENTS.config("rmt", "smoke", 0).to_json()["params"]
    data["tokens"]["test"] = 40
    config = RunConfig("lm-segments", "rmt", "smoke", 0, data)
    with pytest.raises(RmtlibError, match="the test text of 40 tokens has 5 segments of 8, fewer than 6"):
        SEGMENTS.execute(config, RunFolder(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_without_wikitext_103_the_gpu_scale_reads_wikitext_2(monkeypatch):
    monkeypatch.setattr("rmtlib.experiments.segments.artifact.sources.state", lambda name: "absent")
    here = read_params(SEGMENTS.config("armt", "gpu", 0).params)
    assert (here.text, here.model.backbone) == ("wikitext-2-raw", "smollm2")
    assert params("armt", "gpu").text == "wikitext-103-words"
    assert {read_params(c.params).text for c in select(SEGMENTS, "gpu", 1)} == {"wikitext-2-raw"}


def test_the_plan_counts_the_small_decoder_once_until_it_is_kept(monkeypatch, tmp_path):
    """All rows and seeds of a scale start from one; a count of n-grams and a pretrained backbone need none."""
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    made = [SEGMENTS.once(SEGMENTS.with_all_files(row, "medium", seed)) for row in NEURAL for seed in (0, 1)]
    assert len({one.key for one in made}) == 1 and not made[0].there
    train = params("rmt", "medium").model.backbone.train
    assert made[0].cost.tokens == train.steps * train.batch_size * train.segment_size
    assert made[0].cost.flops > 6 * made[0].cost.tokens * 256 * 256 * 4 * 12 and made[0].cost.precision == "bf16"
    assert SEGMENTS.once(SEGMENTS.config(NGRAM, "medium", 0)) is None
    assert SEGMENTS.once(SEGMENTS.with_all_files("rmt", "gpu", 0)) is None
    kept = params("rmt", "medium").model.backbone
    kept.home.mkdir(parents=True)
    (kept.home / "about.json").write_text("{}")
    assert SEGMENTS.once(SEGMENTS.with_all_files("rmt", "medium", 0)).there
