"""Settings: read as they were written, checked, and what a run of them costs."""

import json
import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rmtlib.errors import RmtlibError
from rmtlib.experiments.algorithmic import run as algorithmic_run
from rmtlib.experiments.algorithmic import settings as algorithmic
from rmtlib.experiments.attention import settings as attention
from rmtlib.experiments.babilong import run as babilong_run
from rmtlib.experiments.babilong import settings as babilong
from rmtlib.experiments.babilong_time import run as babilong_time_run
from rmtlib.experiments.babilong_time import settings as babilong_time
from rmtlib.experiments.capacity import run as capacity_run
from rmtlib.experiments.capacity import settings as capacity
from rmtlib.experiments.language_modelling import run as language_run
from rmtlib.experiments.language_modelling import settings as language_modelling
from rmtlib.experiments.lora import run as lora_run
from rmtlib.experiments.lora import settings as lora
from rmtlib.experiments.quadratic import settings as quadratic
from rmtlib.experiments.registry import all_artifacts, get_artifact
from rmtlib.experiments.segments import run as segments_run
from rmtlib.experiments.segments import settings as segments
from rmtlib.models.size import transformer_xl_weights
from rmtlib.runs.artifact import select
from rmtlib.runs.cost import PROCESS_BYTES
from rmtlib.runs.spec import RunConfig
from rmtlib.settings import from_dict, to_params

FAMILIES = {
    "figure-5": babilong,
    "babilong": babilong,
    "babilong-time": babilong_time,
    "memory-capacity": capacity,
    "lm-segments": segments,
    "enwik8": language_modelling,
    "wikitext-103": language_modelling,
    "lora-wikitext-2": lora,
    "algorithmic": algorithmic,
    "algorithmic-long": algorithmic,
    "attention-maps": attention,
    "quadratic": quadratic,
}
RUNS = {
    babilong: babilong_run,
    babilong_time: babilong_time_run,
    capacity: capacity_run,
    segments: segments_run,
    language_modelling: language_run,
    lora: lora_run,
    algorithmic: algorithmic_run,
    quadratic: algorithmic_run,
}
WITH_NGRAMS = (language_modelling, segments)
ARTIFACTS = all_artifacts()
RESULTS = sorted((Path(__file__).parent.parent / "results").rglob("*.json"))


def read(config: RunConfig):
    if FAMILIES[config.artifact] in WITH_NGRAMS:
        return FAMILIES[config.artifact].read_params(config.params)
    return from_dict(FAMILIES[config.artifact].Params, config.params)


@pytest.fixture(params=[True, False], ids=["pydantic", "plain"])
def checker(request, monkeypatch):
    """With pydantic, and on a machine without it."""
    if not request.param:
        monkeypatch.setitem(sys.modules, "pydantic", None)
    return request.param


def test_published_settings_keep_their_run_id(checker):
    assert RESULTS
    for path in RESULTS:
        config = RunConfig.from_json(json.loads(path.read_text())["config"])
        assert replace(config, params=to_params(read(config))).id == config.id, path


def test_rmt_and_armt_have_held_on_a_gpu_what_is_planned():
    """`runs.cost.ACTIVATIONS` against the published runs: within a fifth."""
    held = []
    for path in RESULTS:
        record = json.loads(path.read_text())
        memory = record["artifact"] == "babilong" and record["row"].startswith(("rmt", "armt"))
        if memory and record["hardware"]["gpu"]:
            planned = get_artifact("babilong").cost(RunConfig.from_json(record["config"])).memory_bytes - PROCESS_BYTES
            held.append((record["row"], record["peak_memory_bytes"] / planned))
    assert {row for row, _ in held} == {"rmt-qa1", "armt-qa1"}
    assert all(0.8 < part < 1.2 for _, part in held), held


def test_every_config_is_read_as_it_was_made(checker):
    for artifact in ARTIFACTS.values():
        for scale in artifact.scales:
            for row in artifact.rows_at(scale):
                config = artifact.with_all_files(row.name, scale, 1)
                assert replace(config, params=to_params(read(config))).id == config.id


@pytest.mark.parametrize(
    "change, said",
    [
        ({"batch_size": "eight"}, "train.batch_size is 'eight': input should be a valid integer"),
        ({"batch_size": 8.5}, "train.batch_size is 8.5: input should be a valid integer"),
        ({"batch_size": True}, "train.batch_size is True: input should be a valid integer"),
        ({"precision": "fp8"}, "train.precision is 'fp8': input should be 'float32' or 'bf16'"),
        ({"lr": math.nan}, "train.lr is nan: input should be a finite number"),
        ({"lr": "0.1"}, "train.lr is '0.1': input should be a valid number"),
        ({"lr": None}, "train.lr is None: input should be a valid number"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_field_and_what_it_can_be(change, said):
    params = ARTIFACTS["enwik8"].config("rmt-10-bptt-2-seg128", "smoke", 0).to_json()["params"]
    with pytest.raises(RmtlibError) as error:
        from_dict(language_modelling.Params, params | {"train": params["train"] | change})
    assert str(error.value) == said


@pytest.mark.parametrize(
    "part, change, said",
    [
        ("train", {"batch_size": 0}, "settings in train: batch_size is 0; it must be 1 or more"),
        ("train", {"steps": 0}, "steps is 0"),
        ("train", {"segment_size": -1}, "segment_size is -1"),
        ("train", {"evaluate_every": 0}, "evaluate_every is 0"),
        ("train", {"log_every": 0}, "log_every is 0"),
        ("train", {"lr": -1.0}, "lr is -1.0; it must be 0 or more"),
        ("model", {"n_heads": 0}, "settings in model: n_heads is 0"),
        ("model", {"d_model": 0}, "d_model is 0"),
        ("model", {"memory_tokens": -2}, "memory_tokens is -2; it must be 0 or more"),
        ("model", {"dropout": 2.0}, "dropout is 2.0"),
        ("evaluation", {"columns": 0}, "it must have a segment, a cache and columns"),
        ("evaluation", {"segments": 8}, "it must have a segment, a cache and columns"),
        ("tokens", {"test": -5}, "they must count train, validation, test from 1 up"),
        ("tokens", {"trian": 5}, "they must count train, validation, test from 1 up"),
        (None, {"corpus": "nosuch"}, "corpus is 'nosuch'; it must be one of enwik8, "),
    ],
)
def test_values_out_of_bounds_are_one_line_also_without_pydantic(part, change, said, checker):
    params = ARTIFACTS["enwik8"].config("rmt-10-bptt-2-seg128", "smoke", 0).to_json()["params"]
    wrong = params | (change if part is None else {part: params[part] | change})
    with pytest.raises(RmtlibError, match=said):
        from_dict(language_modelling.Params, wrong)


def test_bounds_hold_in_the_other_families(checker):
    params = ARTIFACTS["memory-capacity"].config("mamba-remember", "smoke", 0).to_json()["params"]
    for change, said in (
        ({"evaluation_batch": 0}, "evaluation_batch is 0"),
        ({"key_sizes": []}, "one for each of 2 stages"),
    ):
        with pytest.raises(RmtlibError, match=said):
            from_dict(capacity.Params, params | change)
    params["train"]["stages"][0]["steps"] = 0
    with pytest.raises(RmtlibError, match=r"train\.stages\[0\]: steps is 0"):
        from_dict(capacity.Params, params)
    params = ARTIFACTS["figure-5"].config("qa1", "smoke", 0).to_json()["params"]
    with pytest.raises(RmtlibError, match="stages is empty"):
        from_dict(babilong.Params, params | {"train": params["train"] | {"stages": []}})
    with pytest.raises(RmtlibError, match="backbone is 'x'; it must be gpt2, "):
        from_dict(babilong.Params, params | {"backbone": "x"})
    with pytest.raises(RmtlibError, match="test_samples has 'far'; its names must be numbers of segments"):
        from_dict(babilong.Params, params | {"test_samples": {"far": 4}})


def test_wrong_values_are_found_at_any_depth():
    params = ARTIFACTS["memory-capacity"].config("mamba-remember", "smoke", 0).to_json()["params"]
    params["train"]["stages"][1]["steps"] = "many"
    with pytest.raises(RmtlibError, match=r"train\.stages\[1\]\.steps is 'many'"):
        from_dict(capacity.Params, params)
    params["train"]["stages"][1]["steps"] = 6
    params["model"]["backbone"]["expand"] = 2.5
    with pytest.raises(RmtlibError, match=r"model\.backbone\.expand is 2\.5"):
        from_dict(capacity.Params, params)


def test_unknown_and_missing_fields_are_named(checker):
    params = ARTIFACTS["enwik8"].config("rmt-10-bptt-2-seg128", "smoke", 0).to_json()["params"]
    model = {("rate" if key == "dropout" else key): value for key, value in params["model"].items()}
    with pytest.raises(RmtlibError, match="unknown or missing: model.dropout, model.rate"):
        from_dict(language_modelling.Params, params | {"model": model})
    with pytest.raises(RmtlibError, match="bptt is -1"):  # the class's own check
        from_dict(language_modelling.Params, params | {"train": params["train"] | {"bptt": -1}})


@dataclass(frozen=True)
class Inner:
    size: int
    start: float = field(default=0.02, metadata={"since": 2})


@dataclass(frozen=True)
class Outer:
    inner: Inner
    parts: tuple[Inner, ...]
    note: str = "always written"
    more: tuple[int, ...] = field(default=(), metadata={"since": 3})


def test_a_later_field_at_its_default_leaves_the_id_as_it_was(checker):
    old = {"inner": {"size": 1}, "parts": [{"size": 2}], "note": "always written"}
    settings = from_dict(Outer, old)
    assert settings == Outer(Inner(1), (Inner(2),)) and to_params(settings) == old
    new = Outer(Inner(1, 0.05), (), more=(1,))
    assert to_params(new) == {
        "inner": {"size": 1, "start": 0.05},
        "parts": [],
        "note": "always written",
        "more": [1],
    }
    assert from_dict(Outer, to_params(new)) == new
    with pytest.raises(RmtlibError, match="missing: note"):  # a default alone makes no field optional
        from_dict(Outer, {"inner": {"size": 1}, "parts": []})


# Costs


@pytest.mark.parametrize("name", [name for name in ARTIFACTS if name != "attention-maps"])  # has algorithmic's models
def test_arithmetic_counts_are_those_of_the_models(name):
    """Parameters of every row at every scale, and the states where arithmetic gives them too."""
    artifact, family, seen = ARTIFACTS[name], FAMILIES[name], set()
    for scale in artifact.scales:
        for row in artifact.rows_at(scale):
            params = read(artifact.with_all_files(row.name, scale, 0))
            if isinstance(params, tuple(family.NGramParams for family in WITH_NGRAMS)):
                continue
            key = repr((params.kind, params.backbone, params.memory_tokens) if family is babilong else params.model)
            if family is lora and params.tuning is not None and params.tuning.lora is not None:
                pytest.importorskip("peft")
            if key in seen or "parameters" not in (counted := RUNS[family].model_size(params)):
                continue
            seen.add(key)
            if name in ("memory-capacity", "lm-segments"):
                weights, state = params.model.parameters, params.model.state_size
                assert counted["state_size"] == state, (row.name, scale)
            elif family is quadratic:
                weights = transformer_xl_weights(params.model)
            else:
                weights = family.weights(params)
            assert weights == pytest.approx(counted["parameters"], rel=1e-9), (row.name, scale)
    assert seen


def test_recomputation_costs_a_forward_pass_more():
    params = read(ARTIFACTS["memory-capacity"].config("armt-remember", "gpu", 0))
    plain = replace(params, train=replace(params.train, recompute=False))
    always = replace(params, train=replace(params.train, recompute_from=0))
    assert 1.25 < capacity.cost(always).flops / capacity.cost(plain).flops < 4 / 3
    assert capacity.cost(always).memory_bytes < capacity.cost(plain).memory_bytes


@pytest.mark.parametrize("artifact", ["memory-capacity", "lm-segments", "figure-5"])
@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_stages_recompute_only_if_a_gpu_would_not_hold_them(artifact, scale):
    cost = {"memory-capacity": capacity.cost, "lm-segments": segments.cost, "figure-5": babilong.cost}[artifact]
    for row in ARTIFACTS[artifact].rows_at(scale):
        params = read(ARTIFACTS[artifact].config(row.name, scale, 0))
        if isinstance(params, segments.NGramParams):
            continue
        assert cost(params).memory_bytes < 80e9, row.name
        plain = replace(params, train=replace(params.train, recompute=False))
        if any(params.train.recomputes(stage) for stage in params.train.stages):
            assert cost(plain).memory_bytes > 60e9, row.name
        else:
            assert cost(plain) == cost(params), row.name


def test_paper_scale_in_bf16_is_other_runs_that_differ_in_nothing_else():
    enwik8, rows = get_artifact("enwik8"), "ngram-5,rmt-5-bptt-2-seg128"
    (count, exact), (same, rough) = (select(enwik8, "paper", 1, rows, None, chosen)[::-1] for chosen in (None, "bf16"))
    assert count == same and exact.id != rough.id  # nothing is computed in float32 when counting
    assert rough.params["train"] == exact.params["train"] | {"precision": "bf16"}
    assert rough.params | {"train": 0} == exact.params | {"train": 0}
    assert exact.params["train"]["precision"] == "float32"
    assert enwik8.cost(rough).precision == "bf16" and enwik8.cost(rough).memory_bytes < enwik8.cost(exact).memory_bytes
    tuned = select(get_artifact("lora-wikitext-2"), "paper", 1, "all", None, "bf16")
    everywhere = json.dumps([config.to_json() for config in tuned])
    assert '"precision": "bf16"' in everywhere and "float32" not in everywhere


@pytest.mark.parametrize(
    ("scale", "precision", "why"), [("small", "bf16", "scale small has its own"), ("paper", "fp8", "use bf16")]
)
def test_precision_is_a_choice_of_paper_scale_alone(scale, precision, why):
    with pytest.raises(RmtlibError, match=why):
        select(get_artifact("enwik8"), scale, None, None, None, precision)
