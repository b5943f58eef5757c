"""Likelihood of a text that is read as a stream: bits per character and perplexity.

Every token is a target exactly once, whatever the number of columns.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from rmtlib.data.streams import Stream, evaluation_segments
from rmtlib.errors import Stopped
from rmtlib.models.interface import RecurrentModel, check_finite


class Likelihood(NamedTuple):
    """Summed negative log-likelihood in nats, and how many tokens it is of."""

    nats: float
    tokens: int

    @property
    def bits(self) -> float:
        """Bits per token: for characters, bits per character."""
        return self.nats / self.tokens / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp of the nats per token: to be compared only with that of the same tokens."""
        return math.exp(self.nats / self.tokens)


@torch.no_grad()
def likelihood(
    model: RecurrentModel,
    stream: Stream,
    segment_size: int,
    *,
    columns: int = 10,
    device: torch.device | str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
) -> Likelihood:
    """The likelihood of a stream under a model in eval mode.

    Args:
        segment_size: S; with a model whose state reaches no further than its segment this is the context, so a
            smaller one gives a worse score.
        columns: contiguous parts of the stream, each read from the initial state (10 in the released evaluation).
        should_stop: asked at every segment.

    Raises:
        Stopped: `should_stop` said so; nothing is kept.
        RmtlibError: the state has overflowed.
    """
    columns = min(columns, len(stream))
    state = model.initial_state(columns)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    tokens = 0
    for segment in evaluation_segments(stream, columns, segment_size):
        if should_stop():
            raise Stopped("stopped during an evaluation, which starts over")
        segment = segment.to(device)
        labelled = segment.labelled()
        hidden_BND, state = model.step(segment.input_ids_BS, state, rows_BN=labelled.rows_BN)
        nats += model.nll(labelled.select(hidden_BND), labelled.targets_K).double().sum()
        tokens += len(labelled.targets_K)
    check_finite(state, tokens)
    return Likelihood(nats.item(), tokens)
