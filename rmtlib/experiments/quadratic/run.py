"""Train one model on quadratic equations and count the steps that it solves."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rmtlib.data.quadratic import PAD
from rmtlib.evaluation.counted import Decoding
from rmtlib.experiments.algorithmic.run import HELD_OUT_SEED
from rmtlib.experiments.algorithmic.run import execute as execute_task
from rmtlib.experiments.quadratic.counts import positions
from rmtlib.experiments.quadratic.settings import Params
from rmtlib.runs.spec import Result

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


def count_steps(right_BA: Tensor, rooted_B: Tensor, width: int, *, starts_given: bool) -> dict[str, Any]:
    """What a record keeps, see `counts`.

    Args:
        right_BA: which positions that have a target are right.
        rooted_B: which equations have real roots.
    """
    steps = [right_BA[:, part].all(1) for part in positions(width, starts_given=starts_given)]
    return {
        "n": len(right_BA),
        "tokens": int(right_BA.sum()),
        "steps": [int(right_B.sum()) for right_B in steps],
        "with_roots": {"n": int(rooted_B.sum()), "steps": [int((right_B & rooted_B).sum()) for right_B in steps]},
    }


def execute(params: Params, folder: "RunFolder") -> Result:
    """Train, then test with teacher forcing, with all that the model itself has written, and as released."""
    task = params.tasks[-1]
    answers = (task.sample("test", i, HELD_OUT_SEED).tokens[-task.width] for i in range(params.test_samples))
    rooted_B = torch.tensor([int(first) != PAD for first in answers])

    def count(right_BA: Tensor, decoding: Decoding) -> dict[str, Any]:
        return count_steps(right_BA, rooted_B, task.width, starts_given=decoding == "released")

    return execute_task(params, folder, count)
