"""Full backpropagation through time in less memory (activation checkpointing, Chen et al. 2016).

Segments are run again in the backward pass.

Plain: only the states between segments are kept. For a model whose state is large and what a segment writes into it
is small (`Rebuilds`), about 2 sqrt(n) of n states are kept, and the others are built anew from what was written.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rmtlib.models.interface import RecurrentModel, State, first_of
from rmtlib.models.reading import segment_loss
from rmtlib.segments import Segment
from rmtlib.training.graphs import backpropagate, hand_back, take_gradients


@runtime_checkable
class Rebuilds(Protocol):
    """What a model offers whose next state follows from the one before and something small."""

    def step_to_rebuild(
        self, input_ids_BS: Tensor, state: State, lengths_B: Tensor | None = None
    ) -> tuple[State, Any]: ...
    def rebuild(self, state: State, written: Any) -> State: ...


def recomputed_loss(model: RecurrentModel, segment: Segment, state: State, write: bool) -> tuple[Tensor, State]:
    """`segment_loss` that keeps its inputs alone and runs the segment again in the backward pass."""
    return checkpoint(segment_loss, model, segment, state, write, use_reentrant=False)


def rebuilt_backward(model: Any, segments: Sequence[Segment], start: State, scale: float | Tensor) -> Tensor:
    """The gradient of ``scale * loss`` from about 2 sqrt(n) of n states; returns the summed loss in nats.

    On the way back the states between two kept ones are built anew by the same additions, so that they are bitwise
    the first ones. (Taking the writes away from the last state would keep one, but what is left of a large entry that
    was not yet there is rounding error, which reading divides by as small a normalisation.)
    """
    n = len(segments)
    stride = math.isqrt(n - 1) + 1
    state, kept, writes, randomness = start, [], [], []
    with torch.no_grad():
        for s, segment in enumerate(segments):
            if s % stride == 0:
                kept.append(state)
            if s < n - 1:
                randomness.append(_random_states(segment.input_ids_BS.device))
                running = first_of(state, len(segment.input_ids_BS))
                state, written = model.step_to_rebuild(segment.input_ids_BS, running, segment.lengths_B)
                writes.append(written)
    torch.clear_autocast_cache()  # of weights: casts made without a graph would hide them from the passes below
    del state
    total = torch.zeros((), dtype=torch.float64, device=start[0].device)
    gradients: list[Tensor] = []
    for first in range((n - 1) // stride * stride, -1, -stride):
        states = [kept.pop()]
        with torch.no_grad():
            between = slice(first, min(first + stride, n) - 1)
            for segment, written in zip(segments[between], writes[between], strict=True):
                states.append(model.rebuild(first_of(states[-1], len(segment.input_ids_BS)), written))
        for s in range(first + len(states) - 1, first - 1, -1):
            inputs = type(start)(*(x.detach().requires_grad_() for x in states.pop()))
            with torch.random.fork_rng(_cuda(inputs[0].device), enabled=s < n - 1):
                if s < n - 1:
                    _set_random_states(randomness.pop(), inputs[0].device)
                loss, outputs = segment_loss(model, segments[s], inputs, s < n - 1)
            total += loss.detach()
            backpropagate([loss * scale, *outputs[: len(gradients)]], [None, *gradients])
            gradients = take_gradients(inputs)
    hand_back(start, gradients)
    return total


def _random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_states(states: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
