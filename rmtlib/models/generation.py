"""Generate text with a model that reads segments: new tokens go where training puts answers, before the write block.

The released wrapper appends new tokens behind the write memory, where training never has any, and never starts a
new segment. Here a token that fills its segment closes it (the memory is written), and the next one opens another.

Shapes: B batch (equal prompt lengths), S segment size, n tokens read at once, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.models.interface import check_finite


class SegmentReader(Protocol):
    """A model that can read a segment piece by piece; equal to one `step` over the whole segment."""

    def open_segment(self, state: Any) -> Any: ...
    def extend(self, segment: Any, input_ids_Bn: Tensor) -> tuple[Tensor, Any]: ...
    def close_segment(self, segment: Any) -> Any: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


Chooser = Callable[[Tensor], Tensor]
"""Picks the next token (B) from its scores (B, V)."""


def greedy(logits_BV: Tensor) -> Tensor:
    """The token with the highest score."""
    return logits_BV.argmax(-1)


def sampler(temperature: float, generator: torch.Generator | None = None) -> Chooser:
    """Draw from softmax(scores / temperature).

    Raises:
        RmtlibError: a temperature that is not above 0.
    """
    if not 0 < temperature < float("inf"):
        raise RmtlibError(f"the temperature is a number above 0, not {temperature}; `greedy` is what 0 would be")

    def choose(logits_BV: Tensor) -> Tensor:
        return torch.multinomial((logits_BV.float() / temperature).softmax(-1), 1, generator=generator)[:, 0]

    return choose


@torch.no_grad()
def generate(
    model: SegmentReader,
    prompt_BT: Tensor,
    state: Any,
    segment_size: int,
    max_new_tokens: int,
    *,
    eos_id: int | None = None,
    choose: Chooser = greedy,
) -> Tensor:
    """Read the prompts from `state` on and continue them.

    Args:
        model: in eval mode.
        prompt_BT: token ids of prompts of one length, at least one token each.
        state: memory before the prompt, e.g. ``model.initial_state(B)``.
        segment_size: S, in tokens.
        eos_id: a row that has generated it goes on with it; the call ends when all rows have.
        choose: picks the next token: `greedy`, or a `sampler`.

    Returns:
        New tokens (B, at most `max_new_tokens`).

    Raises:
        RmtlibError: the prompts are empty, or the memory is not finite.
    """
    if not prompt_BT.shape[1]:
        raise RmtlibError("the prompt is empty: give at least one token")
    segment, length = model.open_segment(state), 0
    new_B1 = prompt_BT[:, :0]
    for piece_Bn in prompt_BT.split(segment_size, dim=1):
        if length == segment_size:
            segment, length = _next(model, segment), 0
        hidden_BnD, segment = model.extend(segment, piece_Bn)
        length += piece_Bn.shape[1]
    done_B = torch.zeros(prompt_BT.shape[0], dtype=torch.bool, device=prompt_BT.device)
    for _ in range(max_new_tokens):
        token_B = choose(model.logits(hidden_BnD[:, -1]))
        if eos_id is not None:
            token_B = torch.where(done_B, eos_id, token_B)
            done_B = done_B | (token_B == eos_id)
        new_B1 = torch.cat([new_B1, token_B[:, None]], dim=1)
        if done_B.all() or new_B1.shape[1] == max_new_tokens:
            break
        if length == segment_size:
            segment, length = _next(model, segment), 0
        hidden_BnD, segment = model.extend(segment, token_B[:, None])
        length += 1
    return new_B1


def _next(model: SegmentReader, segment: Any) -> Any:
    """The segment after one that is full."""
    state = model.close_segment(segment)
    if isinstance(state, tuple):  # as models' states are; a reader of another kind may have any
        check_finite(state)
    return model.open_segment(state)
