"""What the notebooks' lessons share: what a state holds, and the loss of one sample that is read segment by segment."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmtlib.segments import IGNORE


def shapes(state: Any) -> str:
    """The parts of a state that hold anything: memory 1×2×16, cache 2×1×4×16."""
    parts = [(name.rpartition("_")[0], x.shape) for name, x in zip(state._fields, state, strict=True) if x.numel()]
    return ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in parts) or "nothing"


def sample_loss(model: Any, segments: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean loss in nats of the positions that have a target.

    Its gradient goes back through the memory into all earlier segments.

    Args:
        segments: token ids (B, S) of each segment.
        targets: of each segment (B, S), IGNORE where nothing is asked.
    """
    state, losses = model.initial_state(len(segments[0])), []
    for input_ids_BS, targets_BS in zip(segments, targets, strict=True):
        hidden_BSD, state = model.step(input_ids_BS, state)
        if (asked_BS := targets_BS != IGNORE).any():
            losses.append(model.nll(hidden_BSD[asked_BS], targets_BS[asked_BS]))
    return torch.cat(losses).mean()
