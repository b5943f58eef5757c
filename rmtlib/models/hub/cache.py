"""Memory during generation: what Hugging Face's `generate` carries from token to token.

Rows with equally many tokens are read together as one open segment. A full segment is closed, which writes its memory,
when the next token comes. So every row of a batch of unequal prompts gets the result that it has alone.

Shapes: B rows, n new columns, D width.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from rmtlib.errors import RmtlibError
from rmtlib.models.generation import SegmentReader
from rmtlib.models.hub.inputs import at_tokens
from rmtlib.models.interface import State, check_finite, join, select


class Group(NamedTuple):
    """Rows of the batch that are read together: their open segment, and how many tokens are in it."""

    rows: list[int]
    segment: Any
    length: int


class MemoryCache(Cache):
    """The `past_key_values` of a model with memory.

    Args:
        model: reads tokens; one whose open segments are `decoder.OpenSegment`s (RMT, ARMT).
        segment_size: S.
        state: memory to start from, of B rows.
        rows: B.
        checked: whether a state that is not finite is an error.
    """

    def __init__(self, model: SegmentReader, segment_size: int, state: State, rows: int, *, checked: bool = True):
        super().__init__(layers=[])
        self.model, self.segment_size, self.checked = model, segment_size, checked
        self.columns = 0
        self.groups = [Group(list(range(rows)), model.open_segment(state), 0)]

    def __deepcopy__(self, memo: dict[int, Any]) -> "MemoryCache":
        """A cache that goes its own way from here. The model is the same, and tensors are never written into."""
        return copy.copy(self)

    def read(self, input_ids_Bn: Tensor, kept_Bn: Tensor) -> Tensor:
        """Read new tokens of each row, those that are kept; returns their outputs (B, n, D), 0 at padding."""
        counts, rows = kept_Bn.sum(1).tolist(), sum(len(group.rows) for group in self.groups)
        if len(counts) != rows:
            raise RmtlibError(f"the cache has {rows} rows, the input {len(counts)}; use the cache of the same batch")
        groups: list[Group] = []
        hidden: dict[int, Tensor] = {}
        for group in self.groups:
            for count in sorted({counts[row] for row in group.rows}):
                part = _take(group, [i for i, row in enumerate(group.rows) if counts[row] == count])
                if count:
                    ids_bn = torch.stack([input_ids_Bn[row, kept_Bn[row]] for row in part.rows])
                    hidden_bnD, part = self._extend(part, ids_bn)
                    hidden |= dict(zip(part.rows, hidden_bnD, strict=True))
                groups.append(part)
        if not hidden:
            raise RmtlibError("the input has no tokens: give at least one that is not padding")
        self.groups, self.columns = groups, self.columns + input_ids_Bn.shape[1]
        nothing_0D = next(iter(hidden.values()))[:0]
        return at_tokens([hidden.get(row, nothing_0D) for row in range(len(counts))], kept_Bn)

    def _extend(self, group: Group, ids_bn: Tensor) -> tuple[Tensor, Group]:
        rows, segment, length = group
        pieces = []
        while ids_bn.shape[1]:
            if length == self.segment_size:
                segment, length = self.model.open_segment(self._close(segment)), 0
            piece_bn, ids_bn = ids_bn.tensor_split([self.segment_size - length], dim=1)
            hidden_bnD, segment = self.model.extend(segment, piece_bn)
            pieces.append(hidden_bnD)
            length += piece_bn.shape[1]
        return torch.cat(pieces, dim=1), Group(rows, segment, length)

    def _close(self, segment: Any) -> State:
        state = self.model.close_segment(segment)
        if self.checked:
            check_finite(state)
        return state

    def state(self) -> State:
        """The memory after all that was read, its last segment closed: the start of a text that continues it."""
        order = torch.tensor([row for group in self.groups for row in group.rows]).argsort()
        joined = join([self._close(group.segment) for group in self.groups])
        return select(joined, order.to(joined[0].device))

    # What Hugging Face's code asks of a cache.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of the batch that have been read, padding included."""
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: no bound."""
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row b becomes what row `beam_idx[b]` was."""
        chosen, groups = beam_idx.tolist(), []
        for group in self.groups:
            at = {row: i for i, row in enumerate(group.rows)}
            rows = [new for new, old in enumerate(chosen) if old in at]
            if rows:
                groups.append(_take(group, [at[chosen[new]] for new in rows])._replace(rows=rows))
        self.groups = groups

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row so many times in succession."""
        self.reorder_cache(torch.arange(sum(len(group.rows) for group in self.groups)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: memory that was written cannot be unwritten."""
        raise RmtlibError("a model with memory cannot take tokens back; generate without an assistant model")


def _take(group: Group, which: Sequence[int]) -> Group:
    """These of the group's rows, in this order."""
    if list(which) == list(range(len(group.rows))):
        return group
    state, cache, ids_bn = group.segment
    index = torch.tensor(which, device=ids_bn.device)
    segment = type(group.segment)(select(state, index), _select(cache, index), ids_bn.index_select(0, index))
    return Group([group.rows[i] for i in which], segment, group.length)


def _select(tensors: Any, index: Tensor) -> Any:
    """The chosen rows of tensors that have the batch first, in tuples of any depth."""
    if tensors is None:
        return None
    if isinstance(tensors, Tensor):
        return tensors.index_select(0, index)
    parts = [_select(x, index) for x in tensors]
    return type(tensors)(*parts) if hasattr(tensors, "_fields") else tuple(parts)
