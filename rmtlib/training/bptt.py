"""Forward and backward through the segments of a batch: full BPTT, or through exactly k earlier segments.

Shapes: B batch, S segment length, N labelled rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rmtlib.segments import IGNORE, Segment

State = Any  # a NamedTuple of tensors


class RecurrentModel(Protocol):
    """What training and evaluation need of a model; every model of the package has it."""

    def initial_state(self, batch: int) -> State: ...
    def step(
        self, input_ids_BS: Tensor, state: State, lengths_B: Tensor | None = None, *, write: bool = True
    ) -> tuple[Tensor, State]: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


def segment_loss(model: RecurrentModel, segment: Segment, state: State, write: bool) -> tuple[Tensor, State]:
    """Summed cross-entropy (nats) of the segment's labelled rows, and the next state.

    Only labelled rows are projected to the vocabulary; a segment without labels costs no projection at all.
    """
    hidden_BSD, state = model.step(segment.input_ids_BS, state, segment.lengths_B, write=write)
    rows_BS = segment.labels_BS != IGNORE
    logits_NV = model.logits(hidden_BSD[rows_BS]).float()
    return F.cross_entropy(logits_NV, segment.labels_BS[rows_BS], reduction="sum"), state


def backward(
    model: RecurrentModel,
    segments: Sequence[Segment],
    *,
    scale: float = 1.0,
    bptt_segments: int | None = None,
    recompute: bool = False,
) -> float:
    """Run the segments and add the gradient of ``scale * loss`` to the parameters.

    Args:
        segments: all segments of the batch, in order.
        scale: factor of the summed loss, e.g. 1 / number of labels.
        bptt_segments: k: the loss of segment s reaches segments s-k .. s and, where s-k <= 0, the initial state;
            nothing earlier. None: all of them (full BPTT, "no gradient stopping").
        recompute: keep only the states and run each segment again in the backward pass, so that memory does not
            grow with the number of segments.

    Returns:
        The summed loss in nats.
    """
    if bptt_segments is not None and bptt_segments < len(segments) - 1:
        return _truncated(model, segments, scale, bptt_segments)
    run: Callable = _recomputed if recompute else segment_loss
    state = model.initial_state(segments[0].input_ids_BS.shape[0])
    losses = []
    for s, segment in enumerate(segments):
        loss, state = run(model, segment, state, s < len(segments) - 1)
        losses.append(loss)
    total = torch.stack(losses).sum()
    (total * scale).backward()
    return total.item()


def _recomputed(model: RecurrentModel, segment: Segment, state: State, write: bool) -> tuple[Tensor, State]:
    return checkpoint(segment_loss, model, segment, state, write, use_reentrant=False)


def _truncated(model: RecurrentModel, segments: Sequence[Segment], scale: float, k: int) -> float:
    """BPTT-k without replaying segments: each segment is a graph of its own, cut at its input state.

    The loss of segment s goes back through graph s, then the gradient at its input state is handed to graph s-1,
    and so on, k times. Graphs older than that are dropped. Equal to running segments s-k .. s from the detached
    state of segment s-k for every s, at one forward pass a segment instead of k+1.
    """
    start = model.initial_state(segments[0].input_ids_BS.shape[0])
    outputs, inputs = {-1: start}, {}
    total = 0.0
    for s, segment in enumerate(segments):
        inputs[s] = type(start)(*(x.detach().requires_grad_() for x in outputs[s - 1]))
        loss, outputs[s] = segment_loss(model, segment, inputs[s], s < len(segments) - 1)
        total += loss.item()
        if (segment.labels_BS != IGNORE).any():
            (loss * scale).backward(retain_graph=True)
            gradients = _take_gradients(inputs[s])
            for earlier in range(s - 1, max(s - k, 0) - 1, -1):
                torch.autograd.backward(outputs[earlier], gradients, retain_graph=True)
                gradients = _take_gradients(inputs[earlier])
            if s <= k:
                torch.autograd.backward(start, gradients, retain_graph=True)
        if s >= k:
            inputs.pop(s - k)
            outputs.pop(s - k - 1)
    return total


def _take_gradients(state: State) -> list[Tensor]:
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in state]
    for x in state:
        x.grad = None
    return gradients
