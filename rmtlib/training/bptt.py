"""Forward and backward through the segments of a batch: full BPTT, or through exactly k earlier segments.

Shapes: B batch, S segment length, N labelled rows, V vocabulary.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rmtlib.models.layered import LayeredModel
from rmtlib.segments import IGNORE, Segment

State = Any  # a NamedTuple of tensors


class RecurrentModel(Protocol):
    """What training and evaluation need of a model; every model of the package has it."""

    def initial_state(self, batch: int) -> State: ...
    def step(
        self, input_ids_BS: Tensor, state: State, lengths_B: Tensor | None = None, *, write: bool = True
    ) -> tuple[Tensor, State]: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


def read(
    model: RecurrentModel, segments: Iterable[Segment], state: State, count: int
) -> Iterator[tuple[Segment, Tensor]]:
    """Each of the `count` segments with the model's outputs (B, S, D).

    A model that can read several segments at once as a wavefront does so where that is faster.
    """
    segments = iter(segments)
    first = next(segments)
    B, S = first.input_ids_BS.shape
    if isinstance(model, LayeredModel) and model.prefers_wavefront(B, S, count):
        waiting: deque[Segment] = deque()

        def feed() -> Iterator[tuple[Tensor, Tensor | None]]:
            for segment in chain([first], segments):
                waiting.append(segment)
                yield segment.input_ids_BS, segment.lengths_B

        for hidden_BSD in model.forward_diagonal(feed(), state):
            yield waiting.popleft(), hidden_BSD
        return
    for s, segment in enumerate(chain([first], segments)):
        hidden_BSD, state = model.step(segment.input_ids_BS, state, segment.lengths_B, write=s < count - 1)
        yield segment, hidden_BSD


def labelled_loss(model: RecurrentModel, segment: Segment, hidden_BSD: Tensor) -> Tensor:
    """Summed cross-entropy (nats) of the segment's labelled rows.

    Only labelled rows are projected to the vocabulary; a segment without labels costs no projection at all.
    """
    rows_BS = segment.labels_BS != IGNORE
    logits_NV = model.logits(hidden_BSD[rows_BS]).float()
    return F.cross_entropy(logits_NV, segment.labels_BS[rows_BS], reduction="sum")


def segment_loss(model: RecurrentModel, segment: Segment, state: State, write: bool) -> tuple[Tensor, State]:
    """`labelled_loss` of one segment, and the next state."""
    hidden_BSD, state = model.step(segment.input_ids_BS, state, segment.lengths_B, write=write)
    return labelled_loss(model, segment, hidden_BSD), state


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
            grow with the number of segments. Of a model that can `rebuild` states, about 2 sqrt(n) of n are kept.

    Returns:
        The summed loss in nats.
    """
    if bptt_segments is not None and bptt_segments < len(segments) - 1:
        return _truncated(model, segments, scale, bptt_segments)
    start = model.initial_state(segments[0].input_ids_BS.shape[0])
    if recompute and hasattr(model, "rebuild"):
        return _rebuilt(model, segments, start, scale)
    if recompute:
        state, losses = start, []
        for s, segment in enumerate(segments):
            loss, state = _recomputed(model, segment, state, s < len(segments) - 1)
            losses.append(loss)
    else:
        losses = [labelled_loss(model, *pair) for pair in read(model, segments, start, len(segments))]
    total = torch.stack(losses).sum()
    (total * scale).backward()
    return total.item()


def _recomputed(model: RecurrentModel, segment: Segment, state: State, write: bool) -> tuple[Tensor, State]:
    return checkpoint(segment_loss, model, segment, state, write, use_reentrant=False)


def _rebuilt(model: Any, segments: Sequence[Segment], start: State, scale: float) -> float:
    """Full BPTT that keeps about 2 sqrt(n) of n states: what each segment wrote, which is small, is kept instead.

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
                state, written = model.step_to_rebuild(segment.input_ids_BS, state, segment.lengths_B)
                writes.append(written)
    del state
    total = 0.0
    gradients: list[Tensor] = []
    for first in range((n - 1) // stride * stride, -1, -stride):
        states = [kept.pop()]
        with torch.no_grad():
            for written in writes[first : min(first + stride, n) - 1]:
                states.append(model.rebuild(states[-1], written))
        for s in range(first + len(states) - 1, first - 1, -1):
            inputs = type(start)(*(x.detach().requires_grad_() for x in states.pop()))
            with torch.random.fork_rng(_cuda(inputs[0].device), enabled=s < n - 1):
                if s < n - 1:
                    _set_random_states(randomness.pop(), inputs[0].device)
                loss, outputs = segment_loss(model, segments[s], inputs, s < n - 1)
            total += loss.item()
            torch.autograd.backward([loss * scale, *outputs[: len(gradients)]], [torch.ones_like(loss), *gradients])
            gradients = _take_gradients(inputs)
    _hand_back(start, gradients)
    return total


def _random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_states(states: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


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
                _hand_back(start, gradients)
        if s >= k:
            inputs.pop(s - k)
            outputs.pop(s - k - 1)
    return total


def _hand_back(start: State, gradients: list[Tensor]) -> None:
    """Gradient of the initial state's parameters, where it has any."""
    learned = [i for i, x in enumerate(start) if x.requires_grad]
    if learned:
        torch.autograd.backward([start[i] for i in learned], [gradients[i] for i in learned], retain_graph=True)


def _take_gradients(state: State) -> list[Tensor]:
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in state]
    for x in state:
        x.grad = None
    return gradients
