"""The memory-capacity artifact: complete configs, the paper's settings, runs, exact continuation, costs."""

import json

import pytest
from test_figure_5 import Interrupted

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.capacity.run import execute
from rmtlib.experiments.capacity.settings import Params
from rmtlib.models.registry import build, size_of
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.queue import missing
from rmtlib.runs.spec import RunConfig
from rmtlib.settings import from_dict

CAPACITY = MemoryCapacity()
ROWS = [row.name for row in CAPACITY.rows]


def params(row: str, scale: str) -> Params:
    return from_dict(Params, CAPACITY.config(row, scale, 0).params)


@pytest.mark.parametrize(
    ("scale", "row"), [(scale, row.name) for scale in CAPACITY.scales for row in CAPACITY.rows_at(scale)]
)
def test_configs_are_complete_json_and_give_trainable_settings(row, scale):
    config = CAPACITY.config(row, scale, 0)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))).id == config.id
    made = params(row, scale)
    assert made.segment_sizes[-1] == made.train.segment_size == made.key_sizes[-1] + 3
    stages = zip(made.train.stages, made.key_sizes, strict=True)
    assert all(stage.segments <= 16**k for stage, k in stages) or made.task == "rewrite"
    assert max(made.test_pairs) > made.train_pairs and made.train_pairs in made.test_pairs or scale == "smoke"
    assert max(made.test_pairs) <= 16 ** made.key_sizes[-1] or made.task == "rewrite"
    cost = CAPACITY.cost(config)
    assert cost.tokens > 0 and cost.flops > cost.tokens and cost.memory_bytes > 0 and cost.disk_bytes > 0


@pytest.mark.parametrize("row", [row.name for row in CAPACITY.rows if row.name.endswith("remember")])
def test_estimated_sizes_are_those_of_the_models(row):
    for scale in ("small", "medium", "gpu"):
        if row not in {each.name for each in CAPACITY.rows_at(scale)}:
            continue
        settings = params(row, scale).model
        model = build(settings.model())
        assert settings.state_size == model.state_size()
        assert settings.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.05)


def test_the_papers_models_and_state_sizes():
    """As the released scripts make them: about 500k parameters; ARMT's state is 3 or 6 times Mamba's, not the same."""
    count = {
        row: size_of(params(f"{row}-remember", "paper").model.model())["parameters"] for row in ("armt", "rmt", "mamba")
    }
    assert count == {"armt": 563_460, "rmt": 431_360 + 32 * 128, "mamba": pytest.approx(532_000, rel=0.02)}
    states = {row: params(f"{row}-remember", "paper").model.state_size for row in ("armt", "rmt", "mamba", "prmt")}
    assert states == {"armt": 4 * 384 * 129, "rmt": 4096, "mamba": 32_768 + 3072, "prmt": 4 * 4 * 128}


def test_the_large_models_of_medium_are_the_papers_with_states_alike():
    medium = {model: params(f"{model}-large-remember", "medium") for model in ("armt", "mamba")}
    sizes = {model: made.model.state_size for model, made in medium.items()}
    assert sizes == {"armt": 4 * 72 * 129, "mamba": params("mamba-remember", "paper").model.state_size}
    assert all([stage.segments for stage in made.train.stages] == [3, 10, 20] for made in medium.values())
    assert [(config.row, config.seed) for config in select(CAPACITY, "medium", None, "*-large-*")] == [
        ("armt-large-remember", 0),
        ("mamba-large-remember", 0),
    ]


def test_the_queue_trains_what_one_scale_alone_has(tmp_path):
    left, _ = missing([CAPACITY], "medium", runs_dir=tmp_path, results_dir=tmp_path)
    assert sum("-large-" in entry.config.row for entry in left) == 2


def test_paper_scale_is_the_released_curriculum():
    remember, rewrite = params("armt-remember", "paper"), params("rmt-rewrite", "paper")
    assert [stage.segments for stage in remember.train.stages] == [1, 2, 3, 5, 10, 20, 40, 50, 50, 200]
    assert remember.key_sizes == (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
    assert [stage.steps for stage in remember.train.stages] == [2000, *[10_000] * 8, 15_000]
    assert [stage.segments for stage in rewrite.train.stages] == [1, 2, 3, 5, 10, 20, 40, 50]
    train = remember.train
    assert (train.batch_size, train.weight_decay, train.horizon, remember.clip_value) == (512, 1e-3, 2.0, 1.0)
    assert remember.train_samples == 1_000_000 and not params("prmt-remember", "paper").vary_pairs


@pytest.mark.parametrize("scale", CAPACITY.scales)
def test_another_order_of_the_feature_map_has_as_many_features(scale):
    usual, other = (params(f"{model}-remember", scale).model for model in ("armt", "armt-dpfp-1"))
    assert other.delta_rule.nu == 1 and other.d_memory == 3 * usual.d_memory
    assert other.state_size == usual.state_size


def test_unknown_parameters_are_refused_at_any_depth():
    data = CAPACITY.config("armt-remember", "smoke", 0).to_json()["params"]
    data["model"]["rule"]["order"] = data["model"]["rule"].pop("update")
    with pytest.raises(RmtlibError, match="DeltaRule settings unknown or missing: model.rule.order, model.rule.update"):
        from_dict(Params, data)


def test_rows_can_be_chosen_by_task_and_pattern():
    assert {c.row for c in select(CAPACITY, "smoke", tasks="rewrite")} == {r for r in ROWS if r.endswith("rewrite")}
    assert [c.row for c in select(CAPACITY, "smoke", rows="mamba-*")] == ["mamba-remember", "mamba-rewrite"]
    with pytest.raises(RmtlibError, match="unknown task 'forget'"):
        select(CAPACITY, "smoke", tasks="forget")


@pytest.mark.parametrize("row", ["armt-remember", "rmt-rewrite", "prmt-remember", "mamba-rewrite"])
def test_a_run_interrupted_in_training_and_testing_equals_one_that_was_not(row, tmp_path):
    config = CAPACITY.config(row, "smoke", 0)
    whole = CAPACITY.execute(config, RunFolder(tmp_path / "whole"))
    stops = 0
    for after in (5, 9, 2):
        try:
            CAPACITY.execute(config, Interrupted(tmp_path / "parts", after))
        except Stopped:
            stops += 1
    parts = CAPACITY.execute(config, RunFolder(tmp_path / "parts"))
    assert stops == 3
    assert parts.metrics == whole.metrics and parts.curves == whole.curves and parts.tokens == whole.tokens
    assert [p["pairs"] for p in whole.metrics["exact_match"]] == [1, 3, 8]
    assert abs(whole.tokens / CAPACITY.cost(config).tokens - 1) < 0.35  # the number of pairs is drawn
    record = {"row": row, "metrics": whole.metrics}
    (line,) = CAPACITY.summary([record])
    assert line.startswith(next(each.label for each in CAPACITY.rows if each.name == row))


def test_a_fixed_set_serves_training_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    settings = CAPACITY.config("rmt-remember", "smoke", 0).to_json()["params"] | {"train_samples": 20}
    result = execute(from_dict(Params, settings), RunFolder(tmp_path / "run"))
    assert len(list((tmp_path / "cache" / "associative").glob("*/pairs.npy"))) == 2 and result.tokens > 0
