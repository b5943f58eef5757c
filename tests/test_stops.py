"""Stopped or killed at any moment of its preparation, a run continues as if nothing had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_artifact import Fake

from rmtlib.errors import Stopped
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.language_modelling.artifact import Enwik8
from rmtlib.runs.artifact import Artifact, reference, select
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.records import load_record
from rmtlib.runs.scheduler import run
from rmtlib.runs.spec import Result, RunConfig
from rmtlib.runs.storage import write_json

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("artifact", "row"),
    [(MemoryCapacity(), "armt-remember"), (Enwik8(), "rmt-5-bptt-1-seg128")],
    ids=["memory-capacity", "enwik8"],
)
def test_a_stop_before_the_first_step_loses_nothing(
    artifact: Artifact, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop twice before it begins, then left alone."""
    monkeypatch.delenv("RMTLIB_DATA", raising=False)
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    (config,) = select(artifact, "smoke", 1, row)
    for _ in range(2):
        folder = RunFolder(tmp_path / "stopped")
        folder.request_stop()
        with pytest.raises(Stopped):
            artifact.execute(config, folder)
    stopped, whole = (artifact.execute(config, RunFolder(tmp_path / name)) for name in ("stopped", "whole"))
    assert stopped.metrics == whole.metrics and stopped.curves == whole.curves


class ObstinateEnwik8(Enwik8):
    """Takes every exception in its preparation for a failed attempt, inside `exec`, as importing a dataclass does."""

    def execute(self, config: RunConfig, folder: Any) -> Result:
        for _ in range(1000):
            try:
                exec("import time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.05)")
            except Exception:
                continue
        return super().execute(config, folder)


def test_no_fallback_in_the_preparation_survives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal is no mirror that fails, for which another one or a simulator could stand in."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    (config,) = select(ObstinateEnwik8(), "smoke", 1, "rmt-5-bptt-1-seg128")
    with pytest.raises(Stopped):
        run(ObstinateEnwik8(), [config], runs_dir=tmp_path, quiet=True)
    (log,) = [path.read_text() for path in tmp_path.rglob("worker.log")]
    assert log.splitlines()[-1] == "stopped: stopped while it prepared its data"


@pytest.mark.parametrize("blow", ["SIGKILL", "SIGTERM"])
def test_struck_at_every_change_of_a_file_a_run_continues(
    blow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the caches and in the run's folder: one worker for each of the first changes, then for ever fewer."""
    monkeypatch.delenv("RMTLIB_DATA", raising=False)
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    artifact = Enwik8()
    (config,) = select(artifact, "smoke", 1, "rmt-5-bptt-1-seg128")
    folder = run_folder(config, tmp_path / "struck")
    write_json(folder / "config.json", config.to_json())
    command = [sys.executable, TESTS / "interrupted.py", "worker", reference(artifact), folder, blow, tmp_path]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    struck = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    ends = [int(line) for line in struck.stdout.split()]
    assert ends and ends[-1] == 0, struck.stderr[-2000:]
    # A signal to a worker that does not listen yet ends it as well.
    assert len(ends) > 5 and set(ends[:-1]) <= ({-signal.SIGKILL} if blow == "SIGKILL" else {75, -signal.SIGTERM})
    whole = artifact.execute(config, RunFolder(tmp_path / "whole"))
    record = load_record(folder / "record.json")
    assert record["metrics"] == whole.metrics and record["curves"] == whole.curves
    assert record["hardware"]["threads"] == 1 and record["micro_batch"] == whole.micro_batch > 0


@pytest.mark.parametrize("blow", ["SIGKILL", "SIGTERM"])
def test_a_command_struck_at_every_change_of_a_file_can_be_called_again(blow: str, tmp_path: Path) -> None:
    """From its first folder on; a worker that a killed command leaves behind is waited for."""
    config = Fake().config("qa1", "smoke", 0)
    folder = run_folder(config, tmp_path / "runs")
    command = [sys.executable, TESTS / "interrupted.py", "command", "fake_artifact:Fake", folder, blow, tmp_path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    struck = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    ends = [int(line) for line in struck.stdout.split()]
    assert len(ends) > 4 and ends[-1] == 0 and not {1, 2} & set(ends), struck.stderr[-2000:]
    record = load_record(folder / "record.json")
    assert record["metrics"]["loss"] == 0.5 and record["run_id"] == config.id
