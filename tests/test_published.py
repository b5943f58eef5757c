"""Published checkpoints: written by a command, small, sealed, verified against their records, and loaded by name."""

import json
from pathlib import Path

import pytest
import torch

from rmtlib.cli import main
from rmtlib.errors import RmtlibError
from rmtlib.experiments.attention.explore import answer_own, open_model
from rmtlib.experiments.published import (
    load_checkpoint,
    memory_table,
    own_pairs,
    own_symbols,
    published_names,
    stream_table,
)
from rmtlib.experiments.registry import get_artifact
from rmtlib.runs import weights
from rmtlib.runs.folder import run_folder
from rmtlib.runs.weights import MOST_BYTES, publish_weights, verify_weights
from rmtlib.runs.worker import work
from rmtlib.training.checkpoint import load_checkpoint as load_run

ROOT = Path(__file__).parents[1]
CONFIG = get_artifact("algorithmic").config("reverse-2-rmt-24", "smoke", 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project with one finished run and its published record."""
    from rmtlib.runs.records import load_record, write_record

    project = tmp_path_factory.mktemp("project")
    folder = run_folder(CONFIG, project / "runs")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_json()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signal.signal", lambda *_: None)
        work(folder, "rmtlib.experiments.algorithmic.artifact:Algorithmic", None)
    record = load_record(folder / "record.json") | {"git": {"commit": None, "dirty": False}}
    for path in (folder / "record.json", project / "results" / "algorithmic" / f"{CONFIG.slug}.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, record)
    return project


@pytest.fixture
def project(finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def publish(project, name="small"):
    return publish_weights(
        get_artifact("algorithmic"), CONFIG, name, runs_dir=project / "runs", results_dir=project / "results"
    )


def test_weights_in_float32_are_those_of_the_run(project):
    card = json.loads(publish(project).read_text())
    assert card["dtype"] == "float32" and card["own_record"] and card["metrics"] == card["metrics_of_run"]
    tensors, _ = load_run(run_folder(CONFIG, project / "runs"))
    model = load_checkpoint("small", project / "results").model
    for name, x in model.state_dict().items():
        assert torch.equal(x, tensors[f"model.{name}"])
    assert verify_weights(project / "results") == []


def test_weights_that_are_too_large_are_rounded_and_tested_again(project, monkeypatch):
    size = json.loads(publish(project).read_text())["bytes"]
    monkeypatch.setattr(weights, "MOST_BYTES", size - 1)
    card = json.loads(publish(project).read_text())
    assert card["dtype"] == "bfloat16" and card["bytes"] < 0.7 * size
    assert card["metrics"]["test"]["generated"]["n"] == card["metrics_of_run"]["test"]["generated"]["n"]
    assert card["metrics"]["stage_steps"] == card["metrics_of_run"]["stage_steps"]  # nothing was trained
    model = load_checkpoint("small", project / "results").model
    for name, x in load_run(run_folder(CONFIG, project / "runs"))[0].items():
        if name.startswith("model."):
            assert torch.equal(model.state_dict()[name.removeprefix("model.")], x.bfloat16().float())
    monkeypatch.setattr(weights, "MOST_BYTES", 100)
    with pytest.raises(RmtlibError, match="more than 100: choose a smaller run"):
        publish(project)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place: (place / "small.safetensors").write_bytes(b"x"), "does not have the sha256 of its card"),
        (lambda place: (place / "small.safetensors").unlink(), "cannot be read"),
        (lambda place: _edit(place / "small.json", dtype="float16"), "was changed after it was written"),
        (lambda place: (place.parent / "algorithmic" / f"{CONFIG.slug}.json").unlink(), "a record that does not exist"),
        (lambda place: (place / "other.safetensors").write_bytes(b"x"), "has no card"),
    ],
)
def test_verify_finds_what_is_wrong(project, spoil, said, capsys, monkeypatch):
    publish(project)
    spoil(project / "results" / "checkpoints")
    (problem,) = verify_weights(project / "results")
    assert said in problem and "\n" not in problem
    monkeypatch.chdir(project)
    assert main(["verify"]) == 2
    out = capsys.readouterr().out
    assert said in out and "published checkpoints have" not in out


def _edit(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_only_a_published_and_clean_run_is_taken(project):
    published = project / "results" / "algorithmic" / f"{CONFIG.slug}.json"
    text = published.read_text()
    published.unlink()
    with pytest.raises(RmtlibError, match="publish the record first"):
        publish(project)
    published.write_text(text)
    from rmtlib.runs.records import load_record, write_record

    path = run_folder(CONFIG, project / "runs") / "record.json"
    write_record(path, load_record(path) | {"git": {"commit": "0" * 40, "dirty": True}})
    with pytest.raises(RmtlibError, match="uncommitted code"):
        publish(project)
    for name in ("../mine", "a/b", "..", ""):
        with pytest.raises(RmtlibError, match="give a name without folders"):
            publish(project, name)
    path.unlink()
    with pytest.raises(RmtlibError, match=r"has no record: train this run first \(rmtlib run algorithmic\)"):
        publish(project)


def test_the_command_publishes_one_by_name(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    which = ["--scale", "smoke", "--rows", "reverse-2-rmt-24", "--seeds", "1"]
    assert main(["publish", "algorithmic", *which, "--checkpoint", "mine"]) == 0
    assert "results/checkpoints/mine.json" in capsys.readouterr().out
    assert published_names() == ["mine"]
    assert "per-token accuracy" in str(load_checkpoint("mine"))
    with pytest.raises(RmtlibError, match="no published checkpoint is called 'yours': there are mine"):
        load_checkpoint("yours")


def test_the_projects_own_checkpoints_are_whole_small_and_of_several_families():
    assert verify_weights(ROOT / "results") == []
    assert all(path.stat().st_size <= MOST_BYTES for path in (ROOT / "results" / "checkpoints").iterdir())
    kinds = {type(load_checkpoint(name, ROOT / "results").model).__name__ for name in published_names(ROOT / "results")}
    assert kinds >= {"TransformerXL", "PRMT", "ARMT", "Mamba"}


@pytest.mark.parametrize("name", ["remember-armt", "remember-mamba"])
def test_every_model_of_pairs_answers_pairs_of_ones_own(name):
    trained = load_checkpoint(name, ROOT / "results")
    said = answer_own(trained, *own_pairs(trained, [(3, 4)], asked=3))
    assert "to answer 4 102   answered 4 102" in str(said) and len(said.maps) == (0 if "mamba" in name else 2)


def test_the_published_rmt_answers_a_sample_of_ones_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    trained = load_checkpoint("reverse-2-rmt-24")
    symbols = [int(digit) for digit in "314159265358979323846264"]
    read = answer_own(trained, *own_symbols(trained, symbols))
    assert (read.predicted[-1] - 2).tolist() == symbols[::-1]
    empty = answer_own(_forgetful(trained), *own_symbols(trained, symbols))
    assert (empty.predicted[-1] - 2).tolist() != symbols[::-1]  # it is the memory that carries them
    with pytest.raises(RmtlibError, match="reads 24 symbols from 0 to 9"):
        own_symbols(trained, [1, 2, 3])
    with pytest.raises(RmtlibError, match="take a model of memory-capacity"):
        own_pairs(trained, [(1, 2)], 1)


def _forgetful(trained):
    """The same model, whose state never changes."""
    from types import SimpleNamespace

    class Model:
        def __getattr__(self, name):
            return getattr(trained.model, name)

        def step(self, ids, state, **more):
            return trained.model.step(ids, trained.model.initial_state(1), **more)

    return SimpleNamespace(params=trained.params, model=Model())


def test_pairs_of_ones_own_are_laid_out_as_in_the_data():
    trained = load_checkpoint("remember-prmt", ROOT / "results")
    segments, targets = own_pairs(trained, [(3, 4), (5, 12)], asked=3)
    assert [x[0].tolist() for x in segments] == [[3, 100, 4, 102], [5, 100, 12, 102], [3, 101, 4, 102]]
    assert targets[-1][0].tolist() == [-100, 4, 102, -100]
    with pytest.raises(RmtlibError, match="no pair has the key 7"):
        own_pairs(trained, [(3, 4)], asked=7)
    for wrong in ((16, 4), (3, 16), (-1, 4)):
        with pytest.raises(RmtlibError, match="keys from 0 to 15 and values from 0 to 15, not "):
            own_pairs(trained, [(3, 4), wrong], asked=3)


def test_tables_show_what_is_carried_and_that_it_stays_as_large():
    trained = load_checkpoint("remember-prmt", ROOT / "results")
    segments, _ = own_pairs(trained, [(3, 4), (5, 12)], asked=3)
    rows = memory_table(trained, segments).rows
    assert [row[0] for row in rows] == ["1", "2", "3"] and rows[0][1] == "memory 2×1×4×64"
    stream = stream_table(trained, steps=(1, 3, 9)).rows
    assert [row[0] for row in stream] == ["1", "3", "9"]
    assert {row[2] for row in stream} == {f"{trained.model.state_size():,}"}


def test_explore_takes_the_published_model_and_trains_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    monkeypatch.setattr("rmtlib.experiments.attention.explore.find_records", lambda *_, **__: [])
    trained = open_model("reverse", 2, "rmt")
    assert "reverse-2-rmt-24" in trained.source and trained.params.tasks[-1].size == 24
    assert not any(tmp_path.iterdir())
