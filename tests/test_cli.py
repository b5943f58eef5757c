"""The command line: what it prints, its exit status, and one clear line for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from fake_artifact import STEPS, Fake

from rmtlib.cli import main
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.registry import ARTIFACTS, get_artifact
from rmtlib.notebooks import execute, parse_parameters, read_parameters
from rmtlib.runs import artifact as artifact_module
from rmtlib.runs import plan as plan_module
from rmtlib.runs import provenance
from rmtlib.runs.artifact import select
from rmtlib.runs.records import load_record, write_record
from rmtlib.runs.spec import PILOT, Cost, Once, RunConfig, Trial

TESTS = Path(__file__).parent
PYTHONPATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])  # this checkout, wherever another is installed


@pytest.fixture(autouse=True)
def fake(tmp_path, monkeypatch):
    """An empty project folder in which there is one artifact, the fake one."""
    monkeypatch.chdir(tmp_path)
    for name in list(ARTIFACTS):
        monkeypatch.delitem(ARTIFACTS, name)
    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("FAKE_ORDERS", raising=False)
    return tmp_path


@pytest.fixture
def rmtlib(capsys):
    """Run a command line; (exit status, standard output, standard error)."""

    def call(*arguments):
        status = main(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return call


# Mistakes


def test_a_missing_package_of_an_extra_is_one_line(rmtlib, monkeypatch):
    monkeypatch.setattr(Fake, "summary", lambda *_: import_module("no_such_package"))
    status, _, error = rmtlib("run", "fake", "--scale", "smoke", "--rows", "base", "--seeds", "1")
    assert status == 2 and error.endswith(
        "error: this needs no_such_package, which is not installed: pip install 'rmtlib[all]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "figure-6"], ["figure-6", "fake"]),
        (["plan", "figure-6"], ["figure-6", "fake"]),
        (["status", "figure-6"], ["figure-6", "fake"]),
        (["publish", "figure-6"], ["figure-6", "fake"]),
        (["run", "fake", "--scale", "huge"], ["huge", "smoke, small, gpu, paper"]),
        (["run", "fake", "--seeds", "three"], ["--seeds", "three", "whole number"]),
        (["run", "fake", "--seeds", "0"], ["--seeds", "whole number from 1 up"]),
        (["run", "fake", "--seeds", "-1"], ["--seeds"]),
        (["run", "fake", "--seeds", "1.5"], ["--seeds", "whole number"]),
        (["run", "fake", "--tasks", "qa1,qa9"], ["qa9", "qa1, qa2"]),
        (["run", "fake", "--rows", "x*"], ["x*", "qa1, qa2, base"]),
        (["run", "fake", "--rows", "q"], ["'q'", "'q*' would match qa1, qa2"]),
        (["run", "fake", "--rows", "ase"], ["'ase'", "did you mean base?"]),
        (["run", "fake", "--rows", "qa4"], ["'qa4'", "did you mean qa2 or qa1?"]),
        (["run", "fake", "--rows", ","], ["','", "commas"]),
        (["run", "fake", "--rows", "base", "--tasks", "qa1"], ["base", "qa1", "both"]),
        (["run", "fake", "--jobs", "0"], ["--jobs"]),
        (["run", "fake", "--time-budget", "soon"], ["--time-budget", "seconds", "soon"]),
        (["run", "fake", "--time-budget", "nan"], ["--time-budget"]),
        (["run", "fake", "--frehs"], ["--frehs"]),
        (["status", "fake", "two\nlines", "\x1b[31m"], ["unrecognized arguments", "two?lines ?[31m"]),
        (["run"], ["ARTIFACT"]),
        (["rnu", "fake"], ["rnu", "run", "plan"]),
        ([], ["COMMAND"]),
        (["publish", "fake"], ["nothing to publish", "rmtlib run fake"]),
        (["verify"], ["results"]),
        (["data", "nonsense"], ["nonsense", "babi-qa1-train"]),
        (["notebook", "fake"], ["notebooks/fake.ipynb"]),
        (["notebook", "../fake"], ["../fake"]),
        (["notebook", "fake", "-p", "A"], ["-p"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(rmtlib, arguments, parts):
    status, out, err = rmtlib(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err[:-1].isprintable()
    for part in parts:
        assert part in err
    assert not Path("runs").exists()


def test_help_lists_the_commands_and_not_the_workers(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "worker" not in out
    for command in ("run", "plan", "status", "publish", "verify", "data", "notebook"):
        assert f"\n    {command} " in out


def test_an_error_from_the_disk_is_one_line(rmtlib, monkeypatch):
    Path("notebooks").mkdir()
    monkeypatch.setattr("rmtlib.runs.plan.status", lambda *_: os.listdir("/nowhere/at/all"))
    status, _, err = rmtlib("status")
    assert (status, err) == (2, "error: No such file or directory: /nowhere/at/all\n")


# Choosing runs


def chosen(*arguments):
    return [(config.row, config.seed) for config in select(get_artifact("fake"), *arguments)]


def test_selection():
    assert chosen("small") == [("qa1", 0), ("qa1", 1)]
    assert chosen("small", 1, "qa*") == [("qa1", 0), ("qa2", 0)]
    assert chosen("small", "1", "base, qa1") == [("qa1", 0), ("base", 0)]
    assert chosen("small", 1, "*", "qa2") == [("qa2", 0)]
    assert chosen("small", 1, "", "qa2,qa1") == [("qa1", 0), ("qa2", 0)]


def test_empty_options_mean_the_defaults(rmtlib, monkeypatch):
    monkeypatch.setattr(artifact_module, "has_gpu", lambda: False)
    status, out, _ = rmtlib(
        "plan", "fake", "--json", "--scale", "", "--seeds", "", "--rows", "", "--tasks", "", "--jobs", ""
    )
    assert status == 0
    found = json.loads(out)
    assert found["scale"] == "small" and [run["row"] for run in found["runs"]] == ["qa1", "qa1"]
    monkeypatch.setattr(artifact_module, "has_gpu", lambda: True)
    assert select(get_artifact("fake"), "")[0].scale == "gpu"


def test_trials_are_a_scale_of_their_own(rmtlib, monkeypatch):
    assert "fake has no trials: use one of smoke, small" in rmtlib("plan", "fake", "--scale", "pilot")[2]
    params = {"steps": STEPS, "sizes": [1]}
    trials = [
        Trial("short", "as before", RunConfig("fake", "qa1", PILOT, 100, params)),
        Trial("longer", "does it help?", RunConfig("fake", "qa1", PILOT, 100, params | {"steps": STEPS + 1})),
        Trial("other", "another row", RunConfig("fake", "base", PILOT, 101, params)),
    ]
    monkeypatch.setattr(Fake, "trials", tuple(trials))
    artifact = get_artifact("fake")
    assert select(artifact, PILOT) == select(artifact, PILOT, None, "all") == [trial.config for trial in trials]
    assert select(artifact, PILOT, None, "qa1") == [trial.config for trial in trials[:2]]
    assert select(artifact, PILOT, None, "lo*,base") == [trial.config for trial in trials[1:]]
    for options, said in (({"rows": "x"}, "short, longer, other"), ({"seeds": 1}, "its own task and seed")):
        with pytest.raises(RmtlibError, match=said):
            select(artifact, PILOT, **options)
    status, out, _ = rmtlib("run", "fake", "--scale", "pilot", "--rows", "all", "--json")
    assert status == 0 and len(json.loads(out)["runs"]) == 3
    make_clean("runs")
    assert len(json.loads(rmtlib("publish", "fake", "--json")[1])["published"]) == 3
    assert rmtlib("verify")[0] == 0
    assert sorted(run["seed"] for run in json.loads(rmtlib("status", "--json")[1]) if run["published"]) == [
        100,
        100,
        101,
    ]


@pytest.mark.parametrize("scale, seed", [("small", 100), (PILOT, 0), (PILOT, 2)])
def test_a_trial_is_no_result(scale, seed):
    with pytest.raises(ValueError, match="a trial has scale 'pilot' and a seed that no result is made with"):
        Trial("a", "b", RunConfig("fake", "qa1", scale, seed, {}))


@pytest.mark.parametrize("seeds", [True, 1.0, 0, "x", -3])
def test_seeds_from_python_are_checked_too(seeds):
    with pytest.raises(RmtlibError, match="seeds is how many"):
        select(get_artifact("fake"), "small", seeds)


def test_only_run_prepares(rmtlib, monkeypatch):
    calls = []
    monkeypatch.setattr(Fake, "prepare", lambda self, scale, rows: calls.append((scale, rows)))
    rmtlib("plan", "fake", "--scale", "small")
    assert calls == []
    rmtlib("run", "fake", "--scale", "small", "--seeds", "1", "--rows", "qa*")
    assert calls == [("small", ["qa1", "qa2"])]


# run, plan, status, publish, verify, data


def test_run_prints_what_the_results_show(rmtlib):
    status, out, err = rmtlib("run", "fake", "--scale", "small")
    assert status == 0
    assert out.splitlines()[:3] == ["2 fakes", "a second line", "a third line"]
    assert "runs/fake" in out
    assert "2 to train" in err


def test_run_as_json_is_one_document(rmtlib):
    status, out, _ = rmtlib("run", "fake", "--scale", "small", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["artifact"] == "fake" and found["scale"] == "small" and found["summary"][0] == "2 fakes"
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    for run in found["runs"]:
        assert load_record(run["record"])["metrics"] == run["metrics"]


def test_a_stopped_run_has_its_own_status(rmtlib, monkeypatch):
    monkeypatch.setenv("FAKE_ORDERS", "slow")
    status, out, err = rmtlib("run", "fake", "--scale", "small", "--time-budget", "0.8")
    assert status == 75
    assert out == ""
    assert err.splitlines()[-1].startswith("time budget of 0.8 s used: 0 of 2 runs finished; the same command")


def test_plan_tells_time_memory_disk_and_state(rmtlib, monkeypatch):
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1e9)
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    monkeypatch.setenv("FAKE_ORDERS", "killed")
    rmtlib("run", "fake", "--scale", "small", "--seeds", "1")
    status, out, _ = rmtlib("plan", "fake", "--scale", "small", "--json", "--jobs", "1")
    assert status == 0
    found = json.loads(out)
    assert [run["state"] for run in found["runs"]] == ["partial", "to do"]
    first, second = found["runs"]
    assert second["seconds"] == pytest.approx(1e9 / (1e9 * plan_module.CPU_EFFICIENCY))
    assert second["tokens"] == 2000 and second["memory_bytes"] == 2**20 and second["disk_bytes"] == 2**10
    done = first["done"]
    assert 0 < done <= 0.25
    assert found["total"]["seconds"] == pytest.approx(first["seconds"] * (2 - done))
    assert found["total"]["disk_bytes"] == 2**10 and found["total"]["runs"] == 2
    assert found["device"] and "measured now" in found["device"]
    status, out, _ = rmtlib("plan", "fake", "--scale", "small")
    assert "partial" in out and "to do" in out and "left to do" in out and found["device"] in out
    assert not any(Path("runs").rglob("record.json"))


def test_a_scale_for_a_gpu_without_one_is_warned_of_with_its_time(rmtlib, monkeypatch):
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1e5)
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    said = "warning: scale gpu is meant for a GPU and there is none here: about 13 h 53 min on this CPU; --scale small"
    assert said in rmtlib("run", "fake", "--scale", "gpu", "--seeds", "1")[2]
    assert "warning" not in rmtlib("run", "fake", "--scale", "gpu", "--seeds", "1")[2]  # nothing left to train
    assert "warning" not in rmtlib("run", "fake", "--scale", "small", "--seeds", "1")[2]
    monkeypatch.setattr(provenance, "has_gpu", lambda: True)
    assert "warning" not in rmtlib("run", "fake", "--scale", "gpu", "--seeds", "2")[2]


def test_bf16_on_a_processor_without_units_for_it_is_warned_of(rmtlib, monkeypatch):
    plain = Fake.cost
    monkeypatch.setattr(Fake, "cost", lambda self, config: replace(plain(self, config), precision="bf16"))
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1e9)
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    monkeypatch.setattr(provenance, "multiplies_bf16", lambda: False)
    said = "warning: 2 runs compute in bf16, for which this processor has no units"
    assert said in rmtlib("plan", "fake", "--scale", "small")[1]
    assert "warning: 1 run computes in bf16" in rmtlib("run", "fake", "--scale", "small", "--seeds", "1")[2]
    assert "bf16" not in rmtlib("run", "fake", "--scale", "small", "--seeds", "1")[2]  # nothing left to train
    monkeypatch.setattr(provenance, "multiplies_bf16", lambda: True)
    assert "bf16," not in rmtlib("plan", "fake", "--scale", "small")[1]


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("model name\t: X\nflags\t\t: fpu avx512f amx_bf16\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("model name\t: says nothing\n", True),
    ],
)
def test_which_processors_multiply_bf16(monkeypatch, cpuinfo, has):
    monkeypatch.setattr(Path, "read_text", lambda self: cpuinfo)
    assert provenance.multiplies_bf16() is has


def test_plan_says_where_published_runs_had_other_settings(rmtlib, monkeypatch):
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1e9)
    run = json.loads(rmtlib("run", "fake", "--scale", "small", "--seeds", "1", "--json")[1])["runs"][0]
    record = load_record(run["record"])
    record["config"]["params"]["steps"] = 3
    other = RunConfig.from_json(record["config"])
    write_record(Path("results/fake") / f"{other.slug}.json", record | {"run_id": other.id})
    out = rmtlib("plan", "fake", "--scale", "small")[1]
    assert "warning: 1 of 2 runs: other settings here than in the published records, e.g. qa1 seed 0 in steps" in out


def test_plan_prefers_what_was_measured(rmtlib, monkeypatch):
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1 / 0)
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    found = json.loads(rmtlib("run", "fake", "--scale", "small", "--seeds", "1", "--json")[1])
    (record,) = [load_record(each["record"]) for each in found["runs"]]
    found = json.loads(rmtlib("plan", "fake", "--scale", "small", "--rows", "qa*", "--json")[1])
    assert found["device"] is None
    assert [run["state"] for run in found["runs"]] == ["finished", "to do", "to do", "to do"]
    assert [run["memory_basis"] for run in found["runs"]] == ["measured", "computed", "computed", "computed"]
    assert found["runs"][0]["memory_bytes"] == record["peak_memory_bytes"]
    assert " measured" in rmtlib("plan", "fake", "--scale", "small")[1]
    for run in found["runs"]:
        assert run["seconds"] == pytest.approx(record["wall_s"])  # all fakes cost the same
    assert "of this row" in found["runs"][1]["basis"] and "other rows" in found["runs"][2]["basis"]


def test_plan_takes_the_speed_of_other_runs_on_such_a_machine(rmtlib, monkeypatch):
    """Of the same processor and precision; of a scale that has no records, bf16 without any is an upper bound."""
    fake = get_artifact("fake")
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1e9)
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    run = json.loads(rmtlib("run", "fake", "--scale", "small", "--seeds", "1", "--json")[1])["runs"][0]
    configs = select(fake, "smoke", 1)
    alone = plan_module.plan(fake, configs)["runs"][0]
    assert (alone["seconds"], alone["basis"]) == (pytest.approx(5.0), "computed")
    helped = plan_module.plan(fake, configs, others=[fake])
    assert helped["device"] is None and "other scales and artifacts in float32" in helped["runs"][0]["basis"]
    assert helped["runs"][0]["seconds"] == pytest.approx(
        load_record(run["record"])["wall_s"]
    )  # all fakes cost the same
    on_gpu = plan_module.plan(fake, select(fake, "gpu", 1), others=[fake])
    assert on_gpu["runs"][0]["basis"] == "computed"  # a CPU's records say nothing of a GPU
    hardware = provenance.hardware
    monkeypatch.setattr(provenance, "hardware", lambda: {"cpu": "another one", "gpu": None})
    other = plan_module.plan(fake, configs, others=[fake])
    assert other["runs"][0]["basis"] == "computed"
    monkeypatch.setattr(provenance, "hardware", hardware)
    monkeypatch.setattr(type(fake), "times_training", False)
    assert plan_module.plan(fake, configs, others=[fake])["runs"][0]["basis"] == "computed"
    cost = type(fake).cost
    monkeypatch.setattr(type(fake), "cost", lambda self, config: replace(cost(self, config), precision="bf16"))
    monkeypatch.setattr(plan_module, "_costs", {})
    bound = plan_module.plan(fake, configs, others=[fake])
    assert bound["runs"][0]["basis"] == "computed, an upper bound for bf16"


def test_the_time_of_a_run_is_told_by_those_that_are_most_like_it(monkeypatch):
    """Small models take more time a FLOP: ALIKE runs of a thousand FLOP a token against as many of a million."""
    runs = [
        (Cost(10, 10 * flops, 0, 0), {"wall_s": seconds, "hardware": {"cpu": "a core"}})
        for flops, seconds in ((1e3, 1.0), (1e6, 20.0))
        for _ in range(plan_module.ALIKE)
    ]
    for flops, seconds in ((2e3, 2.0), (5e5, 10.0)):
        found = plan_module._by_nearest(Cost(10, 10 * flops, 0, 0), runs)
        assert found is not None and found[0] == pytest.approx(seconds)
        assert f"{plan_module.ALIKE} finished runs of other scales" in found[1]


def test_other_rows_tell_the_time_of_their_precision_alone():
    """The n-gram rows of a table are float64 and train nothing that a neural row could be compared with."""
    record = {
        "row": "5-gram",
        "run_id": "a",
        "wall_s": 9.0,
        "tokens": 1,
        "precision": "float64",
        "hardware": {"cpu": "x"},
    }
    planned = {"a": Cost(1, 1.0, 0, 0)}
    assert plan_module._measured(Cost(1, 1.0, 0, 0, "bf16"), "rmt", [record], planned) is None
    assert plan_module._measured(Cost(1, 1.0, 0, 0, "float64"), "rmt", [record], planned)[0] == 9.0


def test_plan_counts_once_what_the_first_run_makes_for_all(rmtlib, monkeypatch):
    monkeypatch.setattr(plan_module, "core_flops", lambda: 1e9)
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    artifact, there = type(get_artifact("fake")), []
    made = Cost(tokens=7_000_000, flops=2e9, memory_bytes=1, disk_bytes=0)
    monkeypatch.setattr(artifact, "once", lambda self, config: Once("the decoder", "a key", made, bool(there)))
    before = json.loads(rmtlib("plan", "fake", "--scale", "small", "--jobs", "2", "--json")[1])
    assert [one["name"] for one in before["once"]] == ["the decoder"] and before["once"][0]["seconds"] == 10.0
    assert "the decoder" in rmtlib("plan", "fake", "--scale", "small")[1]
    there.append(True)
    after = json.loads(rmtlib("plan", "fake", "--scale", "small", "--jobs", "2", "--json")[1])
    assert after["once"] == [] and before["total"]["seconds"] - after["total"]["seconds"] == pytest.approx(10.0)
    assert before["total"]["tokens"] - after["total"]["tokens"] == 7_000_000


def test_plan_for_the_papers_scale_states_its_assumption(rmtlib, monkeypatch):
    monkeypatch.setattr(provenance, "has_gpu", lambda: False)
    status, out, _ = rmtlib("plan", "fake", "--scale", "paper")
    assert status == 0
    assert "H200" in out and "33 TFLOP/s in float32" in out and "there is none here" in out
    assert "left to do" in out
    in_bf16 = plan_module.device_assumption(get_artifact("fake"), "gpu", "bf16")
    assert "790 TFLOP/s bf16" in in_bf16["text"] and in_bf16["flops"] > plan_module.GPU_FLOAT32


def test_plan_warns_of_a_small_disk(rmtlib, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    assert "warning: these runs need 2.0 kB of disk" in rmtlib("plan", "fake", "--scale", "paper")[1]


def test_core_speed_is_measured_quickly():
    started = time.monotonic()
    assert 1e8 < plan_module.core_flops() < 1e13
    assert time.monotonic() - started < 5


def test_status_shows_every_state(rmtlib, monkeypatch):
    status, out, _ = rmtlib("status")
    assert status == 0 and out.startswith("no runs here and no published records") and "rmtlib plan" in out
    monkeypatch.setenv("FAKE_ORDERS", "killed not-seed-0")
    rmtlib("run", "fake", "--scale", "small")
    status, out, _ = rmtlib("status", "--json")
    found = json.loads(out)
    assert status == 0
    assert [(run["row"], run["seed"], run["state"], run["published"]) for run in found] == [
        ("qa1", 0, "finished", None),
        ("qa1", 1, "partial", None),
    ]
    assert 0 < found[1]["done"] < 1 and found[1]["stage"].startswith("stage 1, step ")
    text = rmtlib("status", "fake")[1]
    assert "finished" in text and "partial" in text


def test_status_names_a_damaged_run_and_still_shows_the_others(rmtlib):
    rmtlib("run", "fake", "--scale", "small")
    path = Path("runs/fake") / select(get_artifact("fake"), "small")[0].slug / "record.json"
    path.write_text("{")
    status, out, err = rmtlib("status")
    assert status == 2
    assert "finished" in out and "damaged" in out
    assert err.count("\n") == 1 and str(path) in err


def make_clean(folder):
    """Re-seal the records of this (perhaps dirty) checkout as clean ones."""
    from rmtlib.runs.records import write_record

    for path in Path(folder).rglob("record.json"):
        write_record(path, load_record(path) | {"git": {"commit": "c" * 40, "dirty": False}})


def test_publish_then_verify_then_tamper(rmtlib):
    rmtlib("run", "fake", "--scale", "small")
    make_clean("runs")
    status, out, _ = rmtlib("publish", "fake", "--json")
    assert status == 0
    published = json.loads(out)["published"]
    assert sorted(published) == sorted(str(path) for path in Path("results/fake").glob("*.json"))
    assert len(published) == 2
    assert rmtlib("verify") == (0, "2 records in results/ are as they were written\n", "")
    assert json.loads(rmtlib("verify", "--json")[1]) == {
        "folder": "results",
        "records": 2,
        "problems": [],
        "not_recomputed": [],
    }
    assert {run["published"] for run in json.loads(rmtlib("status", "--json")[1])} == set(published)
    path = Path(published[0])
    path.write_text(path.read_text().replace('"loss": 0.5', '"loss": 0.4'))
    status, out, err = rmtlib("verify")
    assert status == 2
    assert str(path) in out and "changed after it was written" in err and err.count("\n") == 1


def test_publish_refuses_dirty_and_unfinished_runs_but_publishes_the_rest(rmtlib, monkeypatch):
    rmtlib("run", "fake", "--scale", "small", "--seeds", "1")
    make_clean("runs")
    monkeypatch.setenv("FAKE_ORDERS", "killed")
    rmtlib("run", "fake", "--scale", "small")
    status, out, err = rmtlib("publish", "fake")
    assert status == 2
    assert "published: results/fake/qa1-small-s0-" in out
    assert "not published: qa1-small-s1-" in out and "not finished" in err
    assert rmtlib("publish", "fake", "--scale", "small", "--seeds", "1")[0] == 0
    assert rmtlib("publish", "fake", "--scale", "small", "--tasks", "qa2")[0] == 2  # never trained


def test_data_lists_the_files(rmtlib, monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RMTLIB_DATA", "")
    status, out, _ = rmtlib("data", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    assert status == 0
    assert found["babi-qa1-train"]["bytes"] == 944248 and found["babi-qa1-train"]["state"] == "absent"
    assert "babi-qa1-train" in rmtlib("data")[1]


def test_data_fetches_by_pattern_or_says_where_it_looked(rmtlib, monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RMTLIB_DATA", "")
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    status, _, err = rmtlib("data", "gpt2-*")
    assert status == 2
    assert "gpt2-encoder" in err and err.count("\n") == 1


# Notebooks


def notebook(path, *cells, parameters='SCALE = "small"\nSEEDS: int | None = None\nRATE = 0.5\nFAST = True\nANY = None'):
    empty = {"cell_type": "code", "execution_count": None, "outputs": [], "metadata": {}}
    made = [empty | {"id": "parameters", "source": parameters, "metadata": {"tags": ["parameters"]}}]
    made += [empty | {"id": f"cell-{index}", "source": cell} for index, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = Path(path)
    path.parent.mkdir(exist_ok=True)
    whole = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(whole))
    return path


def test_parameters_are_read_with_their_types():
    found = read_parameters(notebook("notebooks/a.ipynb"))
    assert {name: each.type for name, each in found.items()} == {
        "SCALE": "str | None",
        "SEEDS": "int | None",
        "RATE": "float | None",
        "FAST": "bool | None",
        "ANY": None,
    }
    assert found["RATE"].default == 0.5


def test_parameters_are_typed_and_empty_ones_left_alone():
    path = notebook("notebooks/a.ipynb")
    given = {"SCALE": "1", "SEEDS": "3", "RATE": "1e-3", "FAST": "False", "ANY": "qa1,qa2"}
    assert parse_parameters(path, list(given.items())) == {
        "SCALE": "1",
        "SEEDS": 3,
        "RATE": 0.001,
        "FAST": False,
        "ANY": "qa1,qa2",
    }
    assert parse_parameters(path, [("SEEDS", ""), ("ANY", "[1]"), ("SCALE", "None")]) == {
        "ANY": [1],
        "SCALE": None,
    }


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("SEDS", "3", ["SEDS", "SCALE, SEEDS, RATE, FAST, ANY"]),
        ("SEEDS", "three", ["SEEDS", "int", "three"]),
        ("SEEDS", "1.5", ["SEEDS", "int"]),
        ("RATE", "fast", ["RATE", "float"]),
        ("FAST", "maybe", ["FAST", "bool"]),
    ],
)
def test_a_wrong_parameter_is_one_line_before_anything_starts(rmtlib, name, value, parts):
    notebook("notebooks/a.ipynb")
    status, _, err = rmtlib("notebook", "a", "-p", name, value)
    assert status == 2
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert not Path("out").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"cells": []}', '{"cells": 3}'])
def test_a_damaged_notebook_is_one_line(rmtlib, content):
    Path("notebooks").mkdir()
    Path("notebooks/a.ipynb").write_text(content)
    status, _, err = rmtlib("notebook", "a")
    assert status == 2
    assert "notebooks/a.ipynb" in err and err.count("\n") == 1


def test_a_missing_notebook_names_the_others(rmtlib):
    notebook("notebooks/a.ipynb")
    assert "there are a" in rmtlib("notebook", "b")[2]


def test_the_source_is_never_overwritten(rmtlib):
    path = notebook("notebooks/a.ipynb")
    before = path.read_bytes()
    status, _, err = rmtlib("notebook", "a", "--out", "notebooks/a.ipynb")
    assert status == 2 and "source itself" in err
    assert path.read_bytes() == before


RUN = """from fake_artifact import Fake
from rmtlib.runs.artifact import select
from rmtlib.runs.scheduler import run

records = run(Fake(), select(Fake(), SCALE, SEEDS))"""


def test_a_notebook_runs_and_a_failed_one_never_replaces_it(rmtlib):
    pytest.importorskip("papermill")
    notebook(
        "notebooks/a.ipynb",
        RUN,
        "print(len(records), RATE, type(SEEDS).__name__)\nassert RATE < 1, 'too fast'",
    )
    status, out, err = rmtlib("notebook", "a", "-p", "SEEDS", "1", "-p", "RATE", "")
    assert (status, out) == (0, "out/a/a.ipynb\n")
    assert "1 run, 1 to train" in err  # the cell's progress, shown while it runs
    assert "WARNING" not in err and "unknown parameter" not in err
    good = Path(out.strip()).read_text()
    outputs = "".join(str(cell.get("outputs")) for cell in json.loads(good)["cells"])
    assert "1 0.5 int" in outputs
    assert "finished in" in outputs and "measuring" not in outputs  # of the progress, its last state alone
    assert not Path("out/a/a.partial.ipynb").exists()
    status, _, err = rmtlib("notebook", "a", "-p", "SEEDS", "1", "-p", "RATE", "2.0")
    assert status == 2
    assert err.splitlines()[-1] == (
        "error: notebooks/a.ipynb, cell 4: AssertionError: too fast; see out/a/a.partial.ipynb"
    )
    assert Path("out/a/a.ipynb").read_text() == good
    assert "too fast" in Path("out/a/a.partial.ipynb").read_text()


def test_ctrl_c_in_a_notebook_stops_its_training_with_a_checkpoint():
    pytest.importorskip("papermill")
    notebook("notebooks/a.ipynb", RUN)
    process = subprocess.Popen(
        [sys.executable, TESTS / "fake_artifact.py", "notebook", "a", "-p", "SEEDS", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"FAKE_ORDERS": "slow"},
    )
    folder = Path("runs/fake") / select(get_artifact("fake"), "small")[0].slug
    deadline = time.monotonic() + 120
    while not (folder / "progress.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "stopped by Ctrl-C: 0 of 1 runs finished; the same command continues" in err.splitlines()[-1]
    assert (folder / "checkpoint.json").exists()
    assert not Path("out/a/a.ipynb").exists()


def test_errors_of_cells_keep_their_kind(monkeypatch):
    papermill = pytest.importorskip("papermill")
    from papermill.exceptions import PapermillExecutionError

    path = notebook("notebooks/a.ipynb")

    def fails(name, value):
        def execute_notebook(*arguments, **more):
            raise PapermillExecutionError(2, 1, "", name, value, [])

        monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
        execute(path, "out/a.ipynb", quiet=True)

    with pytest.raises(Stopped, match="^time budget used$"):
        fails("Stopped", "time budget\nused")
    with pytest.raises(RmtlibError, match="cell 3: unknown scale; see out/a.partial.ipynb"):
        fails("RmtlibError", "unknown scale")
    with pytest.raises(Stopped, match="interrupted in cell 3"):
        fails("KeyboardInterrupt", "")
