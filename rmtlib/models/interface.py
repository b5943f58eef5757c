"""The one contract of every model: an explicit state, and five calls.

    state = model.initial_state(batch)
    for segment in segments:
        hidden, state = model.step(segment, state)

A state is an immutable NamedTuple of tensors; nothing recurrent hides in a module. The name of each field ends with its
shape (`memory_BMD`, `cache_LBPD`), so that the functions below find the batch axis of any state: the B of that suffix.

Shapes: B batch, S segment length, D width, N chosen rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.errors import RmtlibError
from rmtlib.segments import IGNORE

State = Any
"""A NamedTuple of tensors, each named by its shape."""


class RecurrentModel(Protocol):
    """What training, evaluation, streaming and generation need of a model. Every model of the package has it."""

    def initial_state(self, batch: int) -> State:
        """The state before the first segment."""
        ...

    def step(
        self,
        input_ids_BS: Tensor,
        state: State,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Read one segment: the outputs at its positions (B, S, D), and the next state.

        `lengths_B` counts each sample's real tokens (None: all are real); padding changes neither outputs nor state.
        `write=False` says that the next state will not be read: the work for it is left out, the state stays as it was.
        `rows_BN`: the outputs are wanted at these positions alone, and are (B, N, D); N may be 0. Work for others may
        be left out, so that outputs, state and gradients are equal up to rounding, not bitwise.
        """
        ...

    def nll(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Negative log-likelihood (N) in nats of one target a row of `hidden`, 0 for the target IGNORE."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of chosen rows of `hidden` (..., D)."""
        ...

    def state_size(self) -> int:
        """Floats that pass from segment to segment, per sample."""
        ...


class LanguageModel(nn.Module):
    """Base of the models whose scores are plain logits.

    For generation (`models.generation`) a segment is read piece by piece: opened, extended, closed. This is that of a
    model for which a segment's border means nothing; one that puts something around a segment has its own.
    """

    def step(self, *args: Any, **kwargs: Any) -> tuple[Tensor, State]:
        """As `RecurrentModel.step`."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of chosen rows of `hidden` (..., D)."""
        raise NotImplementedError

    def nll(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Negative log-likelihood (N) in nats, 0 for the target IGNORE; computed in float32 or higher."""
        logits_NV = self.logits(hidden_ND)
        exact = torch.promote_types(logits_NV.dtype, torch.float32)
        return F.cross_entropy(logits_NV.to(exact), targets_N, ignore_index=IGNORE, reduction="none")

    def open_segment(self, state: State) -> Any:
        """The state itself: there is nothing to read before the text."""
        return state

    def extend(self, segment: Any, input_ids_Bn: Tensor) -> tuple[Tensor, Any]:
        """Read n more tokens; returns their outputs (B, n, D) and the segment so far."""
        return self.step(input_ids_Bn, segment)

    def close_segment(self, segment: Any) -> State:
        """The state after what was read."""
        return segment


def take_rows(x_BTD: Tensor, rows_BN: Tensor) -> Tensor:
    """The rows (B, N, D) at these positions of each sample."""
    return x_BTD.gather(1, rows_BN[..., None].expand(-1, -1, x_BTD.shape[2]))


def batch_axis(field: str) -> int:
    """The axis of the batch in a field of a state: 1 for "cache_LBPD"."""
    return field.rsplit("_", 1)[1].index("B")


def batch_size(state: State) -> int:
    """B of a state."""
    return state[0].shape[batch_axis(state._fields[0])]


def detach(state: State) -> State:
    """The same state, cut from its graph: no gradient passes to earlier segments."""
    return type(state)(*(x.detach() for x in state))


def select(state: State, samples: slice | Tensor) -> State:
    """The state of some samples of the batch, in that order: a slice, or a tensor of indices."""
    axes = [batch_axis(field) for field in state._fields]
    if isinstance(samples, slice):
        return type(state)(*(x[(slice(None),) * axis + (samples,)] for x, axis in zip(state, axes, strict=True)))
    return type(state)(*(x.index_select(axis, samples) for x, axis in zip(state, axes, strict=True)))


def first_of(state: State, count: int) -> State:
    """The state of the batch's first `count` samples."""
    return state if batch_size(state) == count else select(state, slice(0, count))


def join(states: Sequence[State]) -> State:
    """The state of a batch from those of its parts, in order."""
    if len(states) == 1:
        return states[0]
    axes = [batch_axis(field) for field in states[0]._fields]
    return type(states[0])(*(torch.cat(xs, dim=axis) for axis, *xs in zip(axes, *states, strict=True)))


def check_state(state: State, fresh: State) -> None:
    """Raises RmtlibError unless `state` has the fields and shapes of `fresh`, which `initial_state` gave."""
    fits = type(state) is type(fresh)
    if fits and (given := batch_size(state)) != (rows := batch_size(fresh)):
        raise RmtlibError(f"the state has {given} rows, the input {rows}; choose rows with interface.select")
    if not fits or any(x.shape != y.shape for x, y in zip(state, fresh, strict=True)):
        raise RmtlibError("the state is of another model, or its memory has another size; take a state of this model")


def check_finite(state: State, tokens: int | None = None) -> None:
    """Refuse a state that has overflowed: call it at the end of a long reading, as it waits for a GPU.

    Args:
        tokens: how many were read, for the message.

    Raises:
        RmtlibError: an entry is infinite or not a number.
    """
    broken = [field for field, x in zip(state._fields, state, strict=True) if not bool(x.isfinite().all())]
    if broken:
        after = "" if tokens is None else f" after {tokens:,} tokens"
        raise RmtlibError(
            f"the memory is not finite{after} ({', '.join(broken)}): it has overflowed. "
            "Start anew from initial_state and read in float32; for an ARMT take DeltaRule(bounded=True)"
        )
