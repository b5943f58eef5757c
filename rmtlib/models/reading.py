"""Reading a batch segment by segment, and the loss of what was read.

Shapes: B batch, S segment length, D width, N rows of a sample whose outputs are wanted, K labels.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from rmtlib.models.interface import RecurrentModel, State, first_of, take_rows
from rmtlib.segments import Segment


@runtime_checkable
class ReadsDiagonally(Protocol):
    """What a model offers that can read several segments at once, as a wavefront over layers and segments."""

    def prefers_wavefront(self, batch: int, length: int, count: int) -> bool: ...
    def forward_diagonal(
        self, segments: Iterable[tuple[Tensor, Tensor | None]], state: State
    ) -> Generator[Tensor, None, State]: ...


def read(
    model: RecurrentModel, segments: Iterable[Segment], state: State, count: int, *, diagonally: bool | None = None
) -> Generator[tuple[Segment, Tensor], None, State]:
    """Each of the `count` segments with the model's outputs at its `labelled().rows_BN`: (B, N, D).

    Args:
        segments: each of as many samples as the one before, or of the first ones of these: the others have ended.
        diagonally: whether to read as a wavefront, for models that are `ReadsDiagonally`, all segments being of as many
            samples; None: if it is faster.

    Returns:
        The generator's value is the state after the last segment that was written.
    """
    segments = iter(segments)
    first = next(segments)
    B, S = first.input_ids_BS.shape
    if diagonally is None:
        diagonally = isinstance(model, ReadsDiagonally) and model.prefers_wavefront(B, S, count)
    if diagonally:
        assert isinstance(model, ReadsDiagonally), f"{type(model).__name__} cannot read as a wavefront"
        waiting: deque[Segment] = deque()

        def feed() -> Iterator[tuple[Tensor, Tensor | None]]:
            for segment in chain([first], segments):
                waiting.append(segment)
                yield segment.input_ids_BS, segment.lengths_B

        reading = model.forward_diagonal(feed(), state)
        while True:
            try:
                hidden_BSD = next(reading)
            except StopIteration as end:
                return end.value
            segment = waiting.popleft()
            yield segment, wanted_rows(segment, hidden_BSD)
    for s, segment in enumerate(chain([first], segments)):
        hidden_BND, state = _step(model, segment, state, s < count - 1)
        yield segment, hidden_BND
    return state


def wanted_rows(segment: Segment, hidden_BSD: Tensor) -> Tensor:
    """Of all outputs of a segment those at its `labelled().rows_BN`: (B, N, D)."""
    rows_BN = segment.labelled().rows_BN
    return hidden_BSD if rows_BN is None else take_rows(hidden_BSD, rows_BN)


def labelled_loss(model: RecurrentModel, segment: Segment, hidden_BND: Tensor) -> Tensor:
    """Summed negative log-likelihood (nats) of the segment's labelled rows, from what `read` gave.

    Only labelled rows are scored (and those that fill them up): a segment without labels costs no projection to the
    vocabulary.
    """
    labelled = segment.labelled()
    nll_K = model.nll(labelled.select(hidden_BND), labelled.targets_K)
    # A plain sum adds in another order than cross-entropy does: published losses would differ in their last digit.
    return F.nll_loss(-nll_K[:, None], torch.zeros_like(nll_K, dtype=torch.long), reduction="sum")


def segment_loss(model: RecurrentModel, segment: Segment, state: State, write: bool = True) -> tuple[Tensor, State]:
    """`labelled_loss` of one segment, and the next state."""
    hidden_BND, state = _step(model, segment, state, write)
    return labelled_loss(model, segment, hidden_BND), state


def _step(model: RecurrentModel, segment: Segment, state: State, write: bool) -> tuple[Tensor, State]:
    rows_BN, state = segment.labelled().rows_BN, first_of(state, len(segment.input_ids_BS))
    return model.step(segment.input_ids_BS, state, segment.lengths_B, write=write, rows_BN=rows_BN)
