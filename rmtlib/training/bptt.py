"""BPTT-k: backpropagation through time, cut after exactly k earlier segments.

    The loss of segment s reaches the parameters through segments s-k .. s, from the detached state before s-k; if
    s-k <= 0, also through the initial state. Nothing earlier gets a gradient. (k is that of the rows "BPTT-k" in the
    tables of Bulatov et al. 2022.)

Two ways to it, which agree as long as the weights stay and nothing is random (tests compare them):

    accumulate      all losses of a batch at one update. Every segment is read once, in a graph of its own; the
                    gradient at its input state is handed back to the graph before, k times.
    replayed_loss   the loss of one segment, the others' updates having come before. The k earlier segments are read
                    again with today's weights, in one graph.

`window_loss` is neither: k+1 segments in one graph with all their losses, so that a loss reaches 0 to k segments back.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.models.interface import RecurrentModel, State, detach
from rmtlib.models.reading import labelled_loss, read, segment_loss
from rmtlib.segments import Segment
from rmtlib.training.graphs import backpropagate, hand_back, leaves, take_gradients
from rmtlib.training.recompute import Rebuilds, rebuilt_backward, recomputed_loss
from rmtlib.training.stream_config import Replay


def backward(model: RecurrentModel, segments: Sequence[Segment], **options: Any) -> float:
    """`accumulate` with the summed loss as a number."""
    return accumulate(model, segments, **options).item()


def accumulate(
    model: RecurrentModel,
    segments: Sequence[Segment],
    *,
    scale: float | Tensor = 1.0,
    bptt_segments: int | None = None,
    recompute: bool = False,
) -> Tensor:
    """Run the segments and add the gradient of ``scale * loss`` to the parameters.

    Args:
        segments: all segments of the batch, in order; a later one may have only the first samples of the one before,
            if the others have ended.
        scale: factor of the summed loss, e.g. 1 / number of labels.
        bptt_segments: k. None: all segments (full BPTT, "no gradient stopping").
        recompute: with full BPTT, run each segment again in the backward pass instead of keeping its activations
            (see `training.recompute`); without effect where `bptt_segments` cuts.

    Returns:
        The summed loss in nats.
    """
    start = model.initial_state(len(segments[0].input_ids_BS))
    if bptt_segments is not None and bptt_segments < len(segments) - 1:
        return _truncated_backward(model, segments, start, scale, bptt_segments)
    if recompute and isinstance(model, Rebuilds):
        return rebuilt_backward(model, segments, start, scale)
    if recompute:
        state, losses = start, []
        for s, segment in enumerate(segments):
            loss, state = recomputed_loss(model, segment, state, s < len(segments) - 1)
            losses.append(loss)
    else:
        all_go_on = len({len(segment.input_ids_BS) for segment in segments}) == 1
        reading = read(model, segments, start, len(segments), diagonally=None if all_go_on else False)
        losses = [labelled_loss(model, *pair) for pair in reading]
    total = torch.stack(losses).sum()
    backpropagate([total * scale])
    return total.detach()


def carried_backward(
    model: RecurrentModel, segments: Sequence[Segment], start: State, scale: float = 1.0
) -> tuple[float, State]:
    """`backward` with full BPTT from a given state; returns the summed loss, and the state after all segments."""
    state, losses = start, []
    for segment in segments:
        loss, state = segment_loss(model, segment, state)
        losses.append(loss)
    total = torch.stack(losses).sum()
    backpropagate([total * scale])
    return total.item(), detach(state)


def _truncated_backward(
    model: RecurrentModel, segments: Sequence[Segment], start: State, scale: float | Tensor, k: int
) -> Tensor:
    """BPTT-k at one forward pass a segment instead of k+1; graphs that no later loss reaches are dropped."""
    outputs, inputs = {-1: start}, {}
    total = torch.zeros((), dtype=torch.float64, device=segments[0].input_ids_BS.device)
    for s, segment in enumerate(segments):
        inputs[s] = leaves(outputs[s - 1])
        loss, outputs[s] = segment_loss(model, segment, inputs[s], s < len(segments) - 1)
        total += loss.detach()  # read once, at the end: a number for each segment would make the host wait
        if len(segment.labelled().targets_K):
            backpropagate([loss * scale], retain_graph=True)
            for earlier in range(s - 1, max(s - k, 0) - 1, -1):
                hand_back(outputs[earlier], take_gradients(inputs[earlier + 1]))
            gradients = take_gradients(inputs[max(s - k, 0)])
            if s <= k:
                hand_back(start, gradients)
        if s >= k:
            inputs.pop(s - k)
            outputs.pop(s - k - 1)
    return total


class Read(NamedTuple):
    """A segment of a stream, and the detached state before it; None stands for the initial state."""

    segment: Segment
    state: State | None


def replayed_loss(
    model: RecurrentModel, recent: Sequence[Read], replay: Replay, auxiliary: float = 0.0
) -> tuple[Tensor, Tensor, State]:
    """The loss of the last of `recent` with gradient through all of them.

    Args:
        recent: up to k earlier segments and the current one, oldest first; every position has a label.
        replay: where reading again starts (see `StreamConfig`).
        auxiliary: weight of the model's auxiliary loss.

    Returns:
        The loss to differentiate, the mean loss per token without the auxiliary one (nats), and the next state.
    """
    oldest, newest = recent[0].state, recent[-1].state
    state = model.initial_state(len(recent[0].segment.input_ids_BS)) if oldest is None else oldest
    if replay in ("newest", "released") and newest is not None and len(recent) > 1:
        if not sum(x.numel() for field, x in zip(newest._fields, newest, strict=True) if not _is_cache(field)):
            raise RmtlibError(f"replay {replay!r} needs a memory, this model passes on a cache alone: use 'stored'")
        state = with_cache_of(newest, state)
    for segment, stored in recent[:-1]:
        if replay == "released" and stored is not None:
            state = with_cache_of(state, stored)
        _, state = model.step(segment.input_ids_BS, state, rows_BN=segment.input_ids_BS[:, :0])  # no output is read
    return _mean_loss(model, recent[-1].segment, state, auxiliary)


def window_loss(
    model: RecurrentModel, segments: Sequence[Segment], state: State | None, auxiliary: float = 0.0
) -> tuple[Tensor, Tensor, State]:
    """The mean loss of successive segments in one graph; returns the same as `replayed_loss`."""
    state = model.initial_state(len(segments[0].input_ids_BS)) if state is None else state
    losses, plain = [], []
    for segment in segments:
        loss, mean, state = _mean_loss(model, segment, state, auxiliary)
        losses.append(loss)
        plain.append(mean)
    return torch.stack(losses).mean(), torch.stack(plain).mean(), state


def _mean_loss(model: Any, segment: Segment, state: State, auxiliary: float) -> tuple[Tensor, Tensor, State]:
    hidden_BSD, state = model.step(segment.input_ids_BS, state)
    mean = model.nll(hidden_BSD.flatten(0, 1), segment.labels_BS.flatten()).mean()
    if not auxiliary:
        return mean, mean, state
    if not hasattr(model, "auxiliary_loss"):
        raise RmtlibError(f"{type(model).__name__} has no auxiliary loss: use auxiliary 0")
    return mean + auxiliary * model.auxiliary_loss(state), mean, state


def _is_cache(field: str) -> bool:
    """Whether a field of a state holds what was read, not what was written: no gradient passes through it."""
    return field.startswith("cache_")


def with_cache_of(state: State, other: State) -> State:
    """`state`, but with the cache of `other` if it has one."""
    return state._replace(**{field: getattr(other, field) for field in state._fields if _is_cache(field)})
