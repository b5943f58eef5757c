"""Reading a batch segment by segment, and the loss of what was read.

Shapes: B batch, S segment length, D width, N labelled rows.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from rmtlib.models.interface import RecurrentModel, State
from rmtlib.segments import IGNORE, Segment


@runtime_checkable
class ReadsDiagonally(Protocol):
    """What a model offers that can read several segments at once, as a wavefront over layers and segments."""

    def prefers_wavefront(self, batch: int, length: int, count: int) -> bool: ...
    def forward_diagonal(
        self, segments: Iterable[tuple[Tensor, Tensor | None]], state: State
    ) -> Generator[Tensor, None, State]: ...


def read(
    model: RecurrentModel, segments: Iterable[Segment], state: State, count: int
) -> Iterator[tuple[Segment, Tensor]]:
    """Each of the `count` segments with the model's outputs (B, S, D); as a wavefront if that is faster."""
    segments = iter(segments)
    first = next(segments)
    B, S = first.input_ids_BS.shape
    if isinstance(model, ReadsDiagonally) and model.prefers_wavefront(B, S, count):
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
    """Summed negative log-likelihood (nats) of the segment's labelled rows.

    Only labelled rows are scored: a segment without labels costs no projection to the vocabulary.
    """
    rows_BS = segment.labels_BS != IGNORE
    nll_N = model.nll(hidden_BSD[rows_BS], segment.labels_BS[rows_BS])
    # A plain sum adds in another order than cross-entropy does: published losses would differ in their last digit.
    return F.nll_loss(-nll_N[:, None], torch.zeros_like(nll_N, dtype=torch.long), reduction="sum")


def segment_loss(model: RecurrentModel, segment: Segment, state: State, write: bool = True) -> tuple[Tensor, State]:
    """`labelled_loss` of one segment, and the next state."""
    hidden_BSD, state = model.step(segment.input_ids_BS, state, segment.lengths_B, write=write)
    return labelled_loss(model, segment, hidden_BSD), state
