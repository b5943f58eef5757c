"""Rehearsals: what is made smaller and what is not; every row of the large scales builds; stops and failures."""

import importlib
from dataclasses import replace

import pytest
from fake_artifact import Fake
from toy_artifact.artifact import Toy

from rmtlib.cli import main
from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.settings import MISTRAL
from rmtlib.experiments.registry import ARTIFACTS, all_artifacts
from rmtlib.runs.rehearsal import NOT_HERE, rehearsal_of, rehearse, smaller
from rmtlib.settings import from_dict

LARGE = [(name, scale) for name in ARTIFACTS for scale in ("gpu", "paper") if scale in all_artifacts()[name].scales]
SETTINGS = {"babilong": "rmtlib.experiments.babilong"}  # of another artifact of the family
RUNS = SETTINGS | dict.fromkeys(("quadratic", "attention-maps"), "rmtlib.experiments.algorithmic")
SHAPE = ("model", "backbone", "shape", "kind", "memory", "memory_tokens", "memory_mask", "d_memory")


def read_params(name, params):
    settings = importlib.import_module(f"{SETTINGS.get(name, ARTIFACTS[name].rpartition('.')[0])}.settings")
    return getattr(settings, "read_params", lambda given: from_dict(settings.Params, given))(params)


@pytest.mark.parametrize(("name", "scale"), LARGE)
def test_every_row_of_a_large_scale_builds_at_full_size_without_memory_and_has_a_plan(name, scale):
    artifact = all_artifacts()[name]
    run = importlib.import_module(f"{RUNS.get(name, ARTIFACTS[name].rpartition('.')[0])}.run")
    built = set()
    for row in artifact.rows_at(scale):
        config = artifact.config(row.name, scale, 0)
        given = config.to_json()["params"]
        params = read_params(name, given)
        shape = str([given.get(key) for key in SHAPE] + [(given.get("tuning") or {}).get("lora")])
        if {"train", "tuning", "shape"} & set(given) and shape not in built:  # not a count of n-grams
            built.add(shape)
            sizes = run.model_size(params)
            assert all(count >= 0 for count in sizes.values()) and sizes, row.name
        plan = artifact.cost(config)
        assert plan.flops >= 0 and plan.memory_bytes > 0, row.name


@pytest.mark.parametrize(("name", "scale"), LARGE)
def test_every_row_can_be_rehearsed_with_its_own_model_precision_and_segments(name, scale):
    artifact = all_artifacts()[name]
    for row in artifact.rows_at(scale):
        config = artifact.config(row.name, scale, 0)
        small = rehearsal_of(artifact, config)
        for key in ("model", "backbone", "shape", "reads", "memory_tokens", "precision", "tokenizer"):
            assert small.params.get(key) == config.params.get(key), (row.name, key)
        for part in ("train", "tuning"):
            ours, theirs = small.params.get(part), config.params.get(part)
            if ours and "train" in ours:
                ours, theirs = ours["train"], theirs["train"]
            for key in ("segment_size", "precision", "recompute", "lr", "bptt", "bptt_segments") if ours else ():
                assert ours.get(key) == theirs.get(key), (row.name, key)
        recomputes = []
        for made in (config, small):
            given = made.to_json()["params"]
            train = given.get("train") or (given.get("tuning") or {}).get("train", {})
            stages = [stage["segments"] for stage in train.get("stages", ()) if train["recompute"]]
            recomputes.append([segments >= train.get("recompute_from", 0) for segments in stages])
        assert recomputes[0] == recomputes[1], row.name
        plan = artifact.cost(small)
        bound = 200e12 if config.params.get("backbone") == MISTRAL else 40e12
        assert plan.flops <= bound, f"{row.name} takes {plan.flops:.1e} FLOP: too long for a CPU"
        assert plan.flops <= artifact.cost(config).flops


def test_counts_become_small_and_nothing_grows():
    params = {
        "train": {"stages": [{"segments": 4, "steps": 100, "lr": 0.1}] * 3, "batch_size": 32, "warmup": 0.2},
        "tokens": {"train": None, "test": 100},
        "test_samples": {"2": 200, "64": 10},
        "evaluation_batch": 1,
        "model": {"memory_tokens": 16, "steps_of_something": 5},
    }
    assert smaller(params) == {
        "train": {"stages": [{"segments": 2, "steps": 1, "lr": 0.1}] * 3, "batch_size": 2, "warmup": 0.2},
        "tokens": {"train": 4000, "test": 100},
        "test_samples": {"2": 1},
        "evaluation_batch": 1,
        "model": {"memory_tokens": 16, "steps_of_something": 5},
    }
    assert smaller({"stages": [{"steps": 100}]}) == {"stages": [{"steps": 2}]}
    assert smaller({"train": {"stages": [{"steps": 100}] * 2}}, 3) == {"train": {"stages": [{"steps": 3}] * 2}}
    assert smaller({"steps": 100, "lr": 0.1}) == {"steps": 3, "lr": 0.1}


def test_a_run_is_stopped_after_a_step_and_continued_in_a_process_of_its_own(tmp_path):
    (line,) = rehearse(Fake(), [Fake().config("qa1", "small", seed) for seed in (0, 1)])
    assert (line["row"], line["outcome"]) == ("qa1", "stopped and continued")
    assert line["peak_memory"] > 2**20 and line["real"]["tokens"] == 2000
    (line,) = rehearse(Toy(), [Toy().config("slow", "smoke", 0)])
    assert line["outcome"] == "finished"  # it never asks whether to stop


@pytest.mark.parametrize(
    ("orders", "outcome"),
    [
        ("error", "no data here: bring some"),
        ("killed", "killed, most likely for lack of memory"),
        ("raise", "ValueError: something odd"),
        ("module", "LookupError: ('no module', <module"),
    ],
)
def test_what_fails_is_one_line(monkeypatch, orders, outcome):
    monkeypatch.setenv("FAKE_ORDERS", orders)
    (line,) = rehearse(Fake(), [Fake().config("qa1", "small", 0)])
    assert outcome in line["outcome"] and "\n" not in line["outcome"]


def test_settings_that_do_not_fit_together_are_said_before_anything_starts(monkeypatch):
    class Odd(Fake):
        def rehearsed(self, params):
            raise RmtlibError("no")

    (line,) = rehearse(Odd(), [Fake().config("qa1", "small", 0)])
    assert line["outcome"] == "its settings do not fit together: no"


def test_the_command_prints_a_table_and_fails_if_a_row_does(monkeypatch, capsys):
    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    assert main(["rehearse", "fake", "--scale", "small"]) == 0
    assert "stopped and continued" in capsys.readouterr().out
    monkeypatch.setenv("FAKE_ORDERS", "error")
    assert main(["rehearse", "fake", "--scale", "small"]) == 2
    assert "error: 1 of 1 rows failed: fake qa1" in capsys.readouterr().err


def test_what_cannot_be_had_here_is_said_once_and_is_no_failure(monkeypatch, capsys):
    """Of two rows with one pretrained backbone the second one is not even started."""
    monkeypatch.setenv("FAKE_ORDERS", "absent")

    def config(row, backbone):
        made = Fake().config(row, "small", 0)
        return replace(made, params={**made.params, "backbone": backbone})

    first, second = config("qa1", "gpt2"), config("qa2", "gpt2")
    lines = rehearse(Fake(), [first, second, config("qa3", {"d_model": 8})])
    assert next(lines)["outcome"] == f"{NOT_HERE}: no weights here: connect to the hub"
    monkeypatch.setenv("FAKE_ORDERS", "")
    assert next(lines)["outcome"].startswith(NOT_HERE)
    assert next(lines)["outcome"] == "stopped and continued"

    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    monkeypatch.setenv("FAKE_ORDERS", "absent")
    assert main(["rehearse", "fake", "--scale", "small"]) == 0
    said = capsys.readouterr()
    assert NOT_HERE in said.out and "1 of 1 rows were not rehearsed" in said.err
