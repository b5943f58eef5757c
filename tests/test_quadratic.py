"""The artifact quadratic: settings, right steps as counts, runs and exact continuation, costs, checks of records."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_figure_5 import Interrupted

from rmtlib.data.quadratic import PAD, STEPS, QuadraticTask, real_steps
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.answers import answers as right_answers
from rmtlib.experiments.algorithmic.scales import CONSTANT
from rmtlib.experiments.quadratic.artifact import Quadratic
from rmtlib.experiments.quadratic.counts import SOLVED, check_counts, positions
from rmtlib.experiments.quadratic.rows import SOLVERS
from rmtlib.experiments.quadratic.run import count_steps
from rmtlib.experiments.quadratic.settings import Params
from rmtlib.models.registry import build
from rmtlib.models.rmt import RMTState
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.spec import RunConfig
from rmtlib.settings import from_dict
from rmtlib.training.plateau import PlateauConfig

QUADRATIC = Quadratic()
ROWS = [row.name for row in QUADRATIC.rows]


def params(row: str, scale: str) -> Params:
    return from_dict(Params, QUADRATIC.config(row, scale, 0).params)


@pytest.mark.parametrize("scale", QUADRATIC.scales)
@pytest.mark.parametrize("row", ROWS)
def test_configs_are_complete_json_and_give_trainable_settings(row, scale):
    config = QUADRATIC.config(row, scale, 0)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))).id == config.id
    made = params(row, scale)
    assert made.segments == SOLVERS[row].segments and made.segment_sizes[-1] == made.train.segment_size
    assert made.segments * made.train.segment_size == made.tasks[-1].length == 6 * made.width
    cost = QUADRATIC.cost(config)
    assert cost.tokens > 0 and cost.flops > cost.tokens and cost.memory_bytes > 0 and cost.disk_bytes > 0


@pytest.mark.parametrize("scale", ["smoke", "small", "medium", "gpu"])
def test_every_step_fits_at_every_scale(scale):
    made = params("rmt-6", scale)
    for task in made.tasks:
        roots = [-task.roots + 1, -task.roots + 2, -1, 0, 1, task.roots - 2, task.roots - 1]
        for steps in (real_steps(a, b, -task.multiplier) for a in roots for b in roots):
            assert task.tokens(steps).shape == (task.length,)


def test_paper_scale_is_as_released():
    """LM-RMT's run_sqeq.sh and the authors' table of runs: sizes, rate, batch, steps, sets."""
    rmt, cache, one = (params(row, "paper") for row in ("rmt-6", "trxl-6", "baseline-1"))
    counts = [sum(p.numel() for p in build(made.model).parameters()) for made in (rmt, cache, one)]
    assert counts == [1_880_856, 1_877_016, 1_877_016]  # n_all_param there
    assert (rmt.model.memory_tokens, cache.model.cache, one.model.cache) == (30, 30, 0)
    (stage,) = rmt.train.stages
    assert (stage.steps, stage.lr, rmt.train.batch_size, rmt.train.evaluate_every) == (600_000, 1e-4, 32, 12_000)
    assert (rmt.plateau, rmt.train.horizon) == (PlateauConfig(10, 0.5, 1e-6), CONSTANT) and rmt.enough[0] > 1
    assert rmt.train.clip_norm == 0.25 and rmt.model.dropout == 0.1 and rmt.model.init_std == 0.02
    task = rmt.tasks[-1]
    assert task == QuadraticTask(100, 10, 30, fixed=True) and rmt.train_samples == 100_000
    assert (rmt.validation_samples, rmt.test_samples) == (10_000, 20_000)
    assert [made.train.segment_size for made in (rmt, cache, one)] == [30, 30, 180]


class Oracle(torch.nn.Module):
    """Reads one segment and knows the whole sample: predicts the true next token, but for chosen mistakes."""

    def __init__(self, samples, wrong):
        super().__init__()
        self.targets_BT = torch.stack([torch.as_tensor(np.append(s.tokens[1:], PAD)) for s in samples])
        for sample, position in wrong:
            self.targets_BT[sample, position] = 3
        self.read, self.rows = 0, slice(None)

    def initial_state(self, batch):
        self.read = 0
        return RMTState(torch.zeros(batch, 0, 1))

    def step(self, input_ids_BS, state, lengths_B=None, *, write=True, rows_BN=None):
        B, S = input_ids_BS.shape
        wanted_BS = self.targets_BT[:B, self.read : self.read + S]
        self.read += S
        hidden = torch.nn.functional.one_hot(wanted_BS, 24).double()
        return hidden if rows_BN is None else hidden.gather(1, rows_BN[..., None].expand(-1, -1, 24)), state

    def logits(self, hidden):
        return hidden


@pytest.mark.parametrize("segments", [1, 6])
def test_a_wrong_token_counts_against_the_step_that_it_stands_in(segments):
    """A step's first token is the target of the position before it, also across the border of a segment."""
    task = QuadraticTask()
    samples = [task.encode(real_steps(92 - i, 6, -4)) for i in range(6)]
    wrong = [(0, 30), (1, 59), (2, 89), (3, 148), (4, 149), (5, 179)]  # positions whose prediction is wrong
    right_BA = right_answers(Oracle(samples, wrong), samples, 180 // segments, "forced")
    rooted_B = torch.tensor([True] * 4 + [False] * 2)
    counted = count_steps(right_BA, rooted_B, 30, starts_given=False)
    assert right_BA.shape == (6, 150) and counted["tokens"] == 6 * 150 - 6
    assert dict(zip(SOLVED, counted["steps"], strict=True)) == {
        "canonical": 5, "discriminant": 5, "x1": 5, "x2": 5, "answer": 4,
    }  # fmt: skip
    assert counted["with_roots"] == {"n": 4, "steps": [3, 3, 3, 3, 4]}
    released = count_steps(right_BA, rooted_B, 30, starts_given=True)["steps"]
    assert released == [4, 5, 6, 4, 5]  # 59 and 149 belong to the step before: the next one's start is given
    assert check_counts(counted, 6, 30) is None


def test_steps_cover_every_target_once():
    for given in (False, True):
        parts = positions(30, starts_given=given)
        assert [i for part in parts for i in range(150)[part]] == list(range(150)) and len(parts) == len(STEPS) - 1
    assert positions(30, starts_given=True)[-1] == slice(120, 150)  # the last 30 targets: the released answer accuracy


@pytest.mark.parametrize("row", ["rmt-6", "baseline-1"])
def test_a_run_interrupted_in_training_and_testing_equals_one_that_was_not(row, tmp_path):
    config = QUADRATIC.config(row, "smoke", 0)
    whole = QUADRATIC.execute(config, RunFolder(tmp_path / "whole"))
    stops = 0
    for after in (3, 6, 2):
        try:
            QUADRATIC.execute(config, Interrupted(tmp_path / "parts", after))
        except Stopped:
            stops += 1
    parts = QUADRATIC.execute(config, RunFolder(tmp_path / "parts"))
    assert stops >= 2
    assert parts.metrics == whole.metrics and parts.curves == whole.curves and parts.tokens == whole.tokens
    assert whole.tokens == QUADRATIC.cost(config).tokens
    assert set(whole.metrics["test"]) == {"generated", "forced", "released"}
    assert QUADRATIC.check_metrics(whole.metrics, whole.curves, config) is None
    for wrong in ({"state_size": 1}, {"segments": 5}, {"validation": 0.999}, {"test": {}}):
        assert QUADRATIC.check_metrics(whole.metrics | wrong, whole.curves, config), wrong
    (line,) = QUADRATIC.summary([{"row": row, "metrics": whole.metrics}])
    assert line.startswith(f"{SOLVERS[row].label}: ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"steps": [1, 2, 3, 4]}, "steps are"),
        ({"steps": [1, 2, 3, 4, 33]}, "steps are"),
        ({"n": 31}, "n is 31, not 32"),
        ({"with_roots": {"n": 33, "steps": [0] * 5}}, "with_roots is"),
        ({"with_roots": {"n": 20, "steps": [4, 0, 0, 0, 0]}}, "canonical is right 3 times, 4 times among 20"),
        ({"tokens": 32 * 100 + 1}, "tokens are right"),
    ],
)
def test_counts_that_cannot_be_are_refused(change, why):
    good = {"n": 32, "tokens": 100, "steps": [3, 3, 3, 3, 3], "with_roots": {"n": 25, "steps": [3, 3, 3, 3, 3]}}
    assert check_counts(good, 32, 20) is None
    found = check_counts(good | change, 32, 20)
    assert found is not None and why in found


def test_settings_that_do_not_fit_are_refused():
    made = params("rmt-6", "smoke")
    with pytest.raises(ValueError, match="roots are .* there must be one for each of 2 stages"):
        replace(made, roots=(3,))
    data = QUADRATIC.config("rmt-6", "smoke", 0).to_json()["params"]
    with pytest.raises(RmtlibError, match="settings unknown or missing: width"):
        from_dict(Params, {key: value for key, value in data.items() if key != "width"})
