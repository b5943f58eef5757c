"""Reading all segments of a batch: their outputs, their loss, or the loss with truncated gradients.

Shapes: B batch, S segment length, T tokens of all segments, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rmtlib.models.hub.truncated import truncated_loss
from rmtlib.models.interface import State
from rmtlib.models.reading import ReadsDiagonally, labelled_loss, segment_loss, wanted_rows
from rmtlib.segments import Segment


def read_outputs(
    model: Any, segments: Sequence[Segment], state: State, recompute: bool
) -> tuple[Tensor, Tensor, State]:
    """Outputs at all positions (B, T, D), the summed loss of those with labels, and the state after the last.

    `recompute`: keep the states between segments alone and read each segment again in the backward pass.
    """
    parts, losses = [], []

    def use(segment: Segment, hidden_BSD: Tensor) -> None:
        losses.append(labelled_loss(model, segment, wanted_rows(segment, hidden_BSD)))
        parts.append(hidden_BSD)

    if _as_wavefront(model, segments, recompute):
        state = _read_wavefront(model, segments, state, use)
    else:
        for segment in segments:
            hidden_BSD, state = _run(recompute, model.step, segment.input_ids_BS, state, segment.lengths_B)
            use(segment, hidden_BSD)
    return torch.cat(parts, dim=1), torch.stack(losses).sum(), state


def read_loss(
    model: Any, segments: Sequence[Segment], state: State, recompute: bool, bptt: int | None
) -> tuple[Tensor, State]:
    """The summed loss, with only labelled rows projected to the vocabulary, and the state after the last segment.

    `recompute` as in `read_outputs`; `bptt`: through how many earlier segments the gradient goes, None: all.
    """
    losses = []

    def loss_of(segment: Segment, state: State) -> tuple[Tensor, State]:
        return _run(recompute, segment_loss, model, segment, state)

    def use(segment: Segment, hidden_BSD: Tensor) -> None:
        losses.append(labelled_loss(model, segment, wanted_rows(segment, hidden_BSD)))

    if bptt is not None and bptt < len(segments) - 1:
        return truncated_loss(model, loss_of, segments, state, bptt)
    if _as_wavefront(model, segments, recompute):
        state = _read_wavefront(model, segments, state, use)
    else:
        for segment in segments:
            loss, state = loss_of(segment, state)
            losses.append(loss)
    return torch.stack(losses).sum(), state


def _run(recompute: bool, function: Callable[..., Any], *arguments: Any) -> Any:
    return checkpoint(function, *arguments, use_reentrant=False) if recompute else function(*arguments)


def _as_wavefront(model: Any, segments: Sequence[Segment], recompute: bool) -> bool:
    """Whether to read all segments as a wavefront over layers and segments: if the model can, and it is faster."""
    batch, length = segments[0].input_ids_BS.shape
    able = isinstance(model, ReadsDiagonally) and not recompute
    return able and model.prefers_wavefront(batch, length, len(segments))


def _read_wavefront(
    model: ReadsDiagonally, segments: Sequence[Segment], state: State, use: Callable[[Segment, Tensor], None]
) -> State:
    """`use` each segment with its outputs (B, S, D), in order; returns the state after the last."""
    outputs = model.forward_diagonal(((each.input_ids_BS, each.lengths_B) for each in segments), state)
    for segment in segments:
        use(segment, next(outputs))
    try:
        next(outputs)
    except StopIteration as end:
        return end.value
    raise AssertionError("more outputs than segments")
