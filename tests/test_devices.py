"""One run in two processes is the run in one: to rounding, evaluation exactly, with stops and resumes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_algorithmic as algorithmic
import torch
import torch.distributed as dist
from test_rmt import V, make
from test_training import Repeat

from rmtlib.cli import main
from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.algorithmic.source import TaskSource
from rmtlib.experiments.registry import get_artifact
from rmtlib.models.registry import build
from rmtlib.runs import devices
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.records import load_record
from rmtlib.training.checkpoint import load_checkpoint
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.peers import ALONE, Peers
from rmtlib.training.plateau import PlateauConfig
from rmtlib.training.sources import CurriculumSource, StreamSource
from rmtlib.training.stream_config import StreamConfig
from rmtlib.training.trainer import Trainer

B, S = 3, 5  # an odd batch: one process has two samples, the other one
CASES = ("full BPTT", "BPTT-1", "stored", "newest", "none", "a falling rate", "a carried cache")


def task(case: str) -> algorithmic.Params:
    """Of the last two cases: the rate falls at every second validation, the cache of a batch is the next one's."""
    variant = "carried" if case == "a carried cache" else ""
    params = algorithmic.tiny(algorithmic.row("reverse", 2, "trxl", 24, variant), plateau=PlateauConfig(patience=1))
    stages = tuple(replace(stage, steps=5) for stage in params.train.stages)
    config = replace(params.train, stages=stages, batch_size=B, evaluate_every=1, log_every=1)
    return replace(params, train=config, model=replace(params.model, dropout=0.0), enough=(2.0,) * len(stages))


def source(case: str) -> CurriculumSource | StreamSource:
    if case in CASES[-2:]:
        return TaskSource(task(case))
    if "BPTT" in case:
        k = None if case == "full BPTT" else 1
        stages = (Stage(1, 4, 3e-3), Stage(2, 5, 1e-3))
        config = TrainConfig(stages, S - 2, B, 0, bptt_segments=k, evaluate_every=2, log_every=1)
        return CurriculumSource(config, lambda stage, i: Repeat(i))
    settings = StreamConfig(10, S, B, 3e-3, 0, bptt=2, replay=case, evaluate_every=3, log_every=1)  # type: ignore[arg-type]
    text = np.random.default_rng(0).integers(0, V, B * S * 6).astype(np.uint8)  # six segments an epoch
    return StreamSource(settings, Stream(text, before=0))


def train(case: str, folder: Path, peers: Peers = ALONE, stop_after: int | None = None) -> Trainer:
    """To the end, or until a stop that only the first process hears of."""
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return peers.first and stop_after is not None and len(asked) > stop_after

    def score(model: Any, stage: int) -> float:
        return 0.5 if case in CASES[-2:] else float(sum(p.sum() for p in model.parameters()))

    model = build(task(case).model, seed=0).double() if case in CASES[-2:] else make()
    return Trainer(model, source(case), folder, score, should_stop=should_stop, peers=peers).fit()


def both(folder: Path, peers: Peers) -> dict[str, Trainer]:
    """What each of the two processes does: every case whole, then each again with a stop on the way."""
    whole = {case: train(case, folder / case / "whole", peers) for case in CASES}
    for case in CASES:
        with pytest.raises(Stopped):
            train(case, folder / case / "parts", peers, stop_after=3)
    return whole


def second(folder: str, meeting: str) -> None:
    """The second process."""
    _meet(meeting, 1)
    both(Path(folder), Peers(1, 2))


def _meet(meeting: str, rank: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(seconds=90)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Trainer]]]:
    folder = tmp_path_factory.mktemp("two")
    meeting = str(folder / "meeting")
    code = f"import test_devices; test_devices.second({str(folder / 'second')!r}, {meeting!r})"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    other = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    try:
        _meet(meeting, 0)
        whole = both(folder, Peers(0, 2))
        assert other.wait(60) == 0
    finally:
        other.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
    yield folder, whole


def close(actual: Trainer, expected: Trainer) -> None:
    for name, value in expected.model.state_dict().items():
        torch.testing.assert_close(actual.model.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
    for curve in ("loss", "validation", "gradient_norm"):
        np.testing.assert_allclose(actual.curve(curve), expected.curve(curve), rtol=1e-9, err_msg=curve)
    assert actual.state.tokens == expected.state.tokens and actual.state.samples == expected.state.samples


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains(case: str, trained: Any, tmp_path: Path) -> None:
    _, whole = trained
    close(whole[case], train(case, tmp_path))


@pytest.mark.parametrize("case", CASES)
def test_a_stop_in_one_stops_both_and_one_process_continues_from_their_checkpoint(
    case: str, trained: Any, tmp_path: Path
) -> None:
    folder, whole = trained
    with pytest.raises(Stopped):
        train(case, tmp_path, stop_after=3)
    (theirs, state), (ours, expected) = (load_checkpoint(x) for x in (folder / case / "parts", tmp_path))  # type: ignore[misc]
    assert state["step"] == expected["step"] and set(theirs) == set(ours)
    for name, value in ours.items():
        if value.is_floating_point():
            torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-11, msg=name)
    close(train(case, folder / case / "parts"), whole[case])


def test_only_the_first_process_keeps_a_checkpoint(trained: Any) -> None:
    folder, _ = trained
    assert all((folder / case / "whole" / "checkpoint.json").exists() for case in CASES)
    assert not list((folder / "second").rglob("checkpoint*"))


@pytest.mark.parametrize(("count", "size"), [(4, 2), (3, 2), (7, 3), (8, 8)])
def test_every_sample_is_one_process_s(count: int, size: int) -> None:
    parts = [list(range(count))[Peers(rank, size).mine(count)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_processes_is_refused() -> None:
    with pytest.raises(RmtlibError, match="a batch of 2 cannot be shared by 3 processes: use --devices 2"):
        Peers(0, 3).mine(2)


def test_a_whole_run_on_two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Through the command: its record says so, and its evaluation is that of one process."""
    monkeypatch.chdir(tmp_path)
    row = ["memory-capacity", "--scale", "smoke", "--rows", "armt-remember", "--seeds", "1"]
    assert main(["run", *row, "--devices", "2"]) == 0, capsys.readouterr()
    artifact = get_artifact("memory-capacity")
    (config,) = select(artifact, "smoke", 1, "armt-remember")
    record = load_record(run_folder(config) / "record.json")
    alone = artifact.execute(config, RunFolder(tmp_path / "alone" / config.slug))
    assert record["metrics"] == alone.metrics
    np.testing.assert_allclose(record["curves"]["loss"], alone.curves["loss"], rtol=1e-5)
    assert "trained by 2 processes, each with its part of every batch and its own dropout" in record["notes"]
    assert main(["run", *row, "--devices", "2", "--executor", "ray"]) == 2
    assert "leave out --devices" in capsys.readouterr().err


def test_a_stop_ends_the_other_processes_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one may still be writing its checkpoint, and would end with any other that fails."""

    class Stopping:
        def execute(self, config: Any, folder: Any) -> Any:
            raise Stopped("with a checkpoint, of the first one")

    monkeypatch.setattr(devices, "read_config", lambda path: None)
    monkeypatch.setattr(devices, "_meet", lambda *_: Peers(1, 2))
    monkeypatch.setattr(devices, "load_artifact", lambda name: Stopping())
    monkeypatch.setattr(devices.signal, "signal", lambda *_: None)
    assert devices.help_train(str(tmp_path), "any", os.getppid(), 1, 2, str(tmp_path)) == 0


def test_a_process_that_dies_ends_the_run_in_one_line(tmp_path: Path) -> None:
    code = f"""
from rmtlib.runs import devices
from rmtlib.runs.folder import RunFolder
import time
devices._meet = lambda *_: time.sleep(60)  # the other one will not come
with devices.together(RunFolder({str(tmp_path)!r}), "no.such:Artifact", 2):
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: process 1 of 2 ended with status 2"


def test_one_process_needs_no_torch_to_be_a_worker() -> None:
    """Not every artifact trains with it, and importing it takes seconds."""
    code = "import sys, rmtlib.runs.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
