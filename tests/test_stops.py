"""Stopped before its first training step, a run continues as if nothing had been: through the real scheduler."""

import os
from pathlib import Path
from typing import Any

import pytest

from rmtlib.errors import Stopped
from rmtlib.experiments.babilong.artifact import Figure5
from rmtlib.experiments.language_modelling.artifact import Enwik8
from rmtlib.runs.artifact import Artifact, select
from rmtlib.runs.scheduler import run
from rmtlib.runs.spec import Result, RunConfig


def stop_if_ordered(folder: Any) -> None:
    """As if the signal had come while data were being prepared."""
    if "STOP_AT_ONCE" in os.environ:
        folder.request_stop()


class StoppingFigure5(Figure5):
    def execute(self, config: RunConfig, folder: Any) -> Result:
        stop_if_ordered(folder)
        return super().execute(config, folder)


class StoppingEnwik8(Enwik8):
    def execute(self, config: RunConfig, folder: Any) -> Result:
        stop_if_ordered(folder)
        return super().execute(config, folder)


@pytest.mark.parametrize(
    ("artifact", "row"), [(StoppingFigure5, "qa1"), (StoppingEnwik8, "rmt-5-bptt-1-seg128")], ids=str
)
def test_a_stop_before_the_first_step_loses_nothing(
    artifact: type[Artifact], row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped twice, then left alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    stopping = artifact()
    configs = select(stopping, "smoke", 1, row)
    monkeypatch.setenv("STOP_AT_ONCE", "1")
    for _ in range(2):
        with pytest.raises(Stopped):
            run(stopping, configs, quiet=True)
    monkeypatch.delenv("STOP_AT_ONCE")
    stopped, whole = run(stopping, configs, quiet=True)[0], run(stopping, configs, runs_dir="whole", quiet=True)[0]
    assert stopped["metrics"] == whole["metrics"] and stopped["curves"] == whole["curves"]
