"""A fixed tiny run of every kind of model, on a stream and by curriculum: its losses are those of golden.json.

So a change of the numbers is seen, if meant or not. What is missing there is added by ``python tests/test_golden.py``;
to renew a run after a change that is meant, delete its line first, and say in the commit why the numbers changed.
"""

import json
import math
import platform
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_interface import CONFIGS, V

from rmtlib.data.streams import Stream
from rmtlib.models.registry import build
from rmtlib.segments import next_token_labels
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.sources import CurriculumSource, StreamSource
from rmtlib.training.stream_config import StreamConfig
from rmtlib.training.trainer import Trainer

GOLDEN = Path(__file__).with_name("golden.json")
S, BATCH, STEPS = 6, 2, 6
SAME, OTHER = 1e-6, 1e-5
"""Relative tolerance on the platform of golden.json, and on others: weights are drawn in float32, with the machine's
own approximations of logarithm and cosine (other vector instructions make 1e-7). All else is in float64."""


class Sample:
    """Random tokens, the second half of which repeats the first and is to be predicted."""

    def __init__(self, index: int):
        half = np.random.default_rng(index).integers(0, V, 2 * S)
        self.tokens = np.concatenate([half, half])
        self.labels = next_token_labels(self.tokens, np.arange(4 * S) >= 2 * S)


def on_a_stream() -> StreamSource:
    text = Stream(np.random.default_rng(0).integers(0, V, 400) // 2, before=0)
    return StreamSource(StreamConfig(STEPS, S, BATCH, 1e-2, 0, bptt=1, log_every=1, evaluate_every=3), text)


def by_curriculum() -> CurriculumSource:
    stages = (Stage(2, STEPS // 2, 1e-2), Stage(4, STEPS // 2, 1e-2))
    return CurriculumSource(TrainConfig(stages, S, BATCH, 0, log_every=1, evaluate_every=2), lambda _, i: Sample(i))


RUNS = {
    f"{name}, {kind.__name__}": (config, kind)
    for name, config in CONFIGS.items()
    for kind in (on_a_stream, by_curriculum)
}


def losses(name: str, folder: Path) -> list[float]:
    config, kind = RUNS[name]
    model = build(config, seed=0).double()
    trainer = Trainer(model, kind(), folder, lambda model, stage: float(sum(p.sum() for p in model.parameters()))).fit()
    return [loss for *_, loss in trainer.curve("loss")]


def here() -> list[str]:
    return [platform.system(), platform.machine(), ".".join(torch.__version__.split(".")[:2])]


@cache
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", RUNS)
def test_the_losses_of_a_fixed_run_are_those_of_before(name, tmp_path):
    assert name in golden()["losses"], "not in golden.json yet: add it with `python tests/test_golden.py`"
    tolerance = SAME if golden()["platform"] == here() else OTHER
    assert losses(name, tmp_path) == pytest.approx(golden()["losses"][name], rel=tolerance)


def test_no_fixed_run_is_forgotten_and_none_stands_still():
    assert set(golden()["losses"]) <= set(RUNS), "golden.json has runs of models that are no more: delete their lines"
    for name, known in golden()["losses"].items():
        assert len(known) == STEPS and len(set(known)) == STEPS and all(map(math.isfinite, known)), name


if __name__ == "__main__":
    kept = golden() if GOLDEN.exists() else {"platform": here(), "losses": {}}
    for name in RUNS:
        if name not in kept["losses"]:
            with tempfile.TemporaryDirectory() as folder:
                kept["losses"][name] = [round(loss, 10) for loss in losses(name, Path(folder))]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(known)}" for name, known in kept["losses"].items())
    GOLDEN.write_text(f'{{"platform": {json.dumps(kept["platform"])},\n "losses": {{\n{lines}\n }}}}\n')
