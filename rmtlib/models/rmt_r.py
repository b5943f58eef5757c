"""RMT-R, RMT with retrieval over its past memories (BABILong paper, released branch `babilong_retr`).

    segment s:  [ memory | retrieved | x_1 ... x_S | memory ]  ->  decoder  ->  outputs at the write block
                             ^                                                   = memory of segment s+1
                             +--- attention of the memory (queries) to the memories of all segments before

The read block is twice as long as the write block. The papers name RMT-R and print its scores; what it does is taken
from the released code, whose names "attention" and "top_1" are kept.

Shapes: B batch, M memory tokens, P past memories, R = 2 M tokens of the read block, D width.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.models.blocks import Blocks
from rmtlib.models.hf_decoder import Backbone
from rmtlib.models.interface import State
from rmtlib.models.rmt import RMT

Retrieval = Literal["attention", "top_1"]


class RMTRState(NamedTuple):
    """All that passes from one segment to the next: the read block and the memories written so far, oldest first.

    A sample that has read less than others of its batch has its memories at the end; `absent_BP` is 1 at the places
    before them. While all samples have read equally much it is empty: (B, 0).
    """

    read_BRD: Tensor
    past_BPMD: Tensor
    absent_BP: Tensor


class Retrieve(nn.Module):
    """One head of attention from the memory to past memories, then an MLP, both residual, norms before.

    Args:
        width: D.
        retrieval: "attention" mixes past memories; "top_1" takes for each query the one with the highest score. (The
            released code multiplies scores by 1e5 before the softmax; equal, but for gradients of ties.) Nothing is
            dropped out here; the released attention drops a tenth.
    """

    def __init__(self, width: int, retrieval: Retrieval):
        super().__init__()
        self.retrieval = retrieval
        self.query_norm, self.past_norm, self.feed_forward_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, memory_BMD: Tensor, past_BPMD: Tensor, absent_BP: Tensor) -> Tensor:
        """What the memory finds in the past ones: (B, M, D)."""
        past_BKD = self.past_norm(past_BPMD).flatten(1, 2)
        query_BMD, key_BKD = self.query(self.query_norm(memory_BMD)), self.key(past_BKD)
        scores_BMK = query_BMD @ key_BKD.mT / math.sqrt(query_BMD.shape[-1])
        if absent_BP.shape[1]:
            absent_BK = absent_BP.repeat_interleave(past_BPMD.shape[2], dim=1) > 0
            scores_BMK = scores_BMK.masked_fill(absent_BK[:, None], torch.finfo(scores_BMK.dtype).min)
        if self.retrieval == "attention":
            weights_BMK = scores_BMK.softmax(-1)
        else:
            weights_BMK = F.one_hot(scores_BMK.argmax(-1), scores_BMK.shape[-1]).to(scores_BMK.dtype)
        found_BMD = memory_BMD + self.out(weights_BMK @ self.value(past_BKD))
        return found_BMD + self.down(F.gelu(self.up(self.feed_forward_norm(found_BMD)), approximate="tanh"))


class RMTR(RMT):
    """RMT that reads, beside its memory, what this finds among the memories of earlier segments.

    Args:
        decoder: the backbone.
        memory_tokens: M, of the write block.
        retrieval: how past memories are read; see `Retrieve`.
        past_segments: P, the most past memories that are kept; older ones are dropped. The released code keeps all:
            its state has no bound, and neither has the time of a segment.

    The read block of the first segment is learned whole, 2 M vectors, as released.
    """

    def __init__(
        self, decoder: Backbone, memory_tokens: int, retrieval: Retrieval = "attention", past_segments: int = 128
    ):
        super().__init__(decoder, 2 * memory_tokens)
        if memory_tokens < 1:
            raise ValueError(f"memory_tokens is {memory_tokens}; it must be 1 or more")
        if past_segments < 1:
            raise ValueError(f"past_segments is {past_segments}; it must be 1 or more")
        if retrieval not in ("attention", "top_1"):
            raise ValueError(f"retrieval is {retrieval!r}; it must be 'attention' or 'top_1'")
        self.past_segments = past_segments
        self.retrieve = Retrieve(decoder.config.d_model, retrieval)

    @property
    def memory_tokens(self) -> int:
        """M, of the write block: half of the read block."""
        return self.memory_MD.shape[0] // 2

    def state_size(self) -> int:
        """Floats of a full state, per sample: the read block and `past_segments` memories."""
        return self.memory_MD.numel() * (2 + self.past_segments) // 2

    def initial_state(self, batch: int) -> State:
        """The learned read block, once per sample, and no past."""
        empty = self.memory_MD.new_zeros(batch, 0)
        past_BPMD = empty[..., None, None].expand(-1, -1, self.memory_tokens, self.memory_MD.shape[1])
        return RMTRState(self.memory_MD.expand(batch, -1, -1), past_BPMD, empty)

    def memory_blocks(self, state: RMTRState) -> tuple[Tensor, Tensor]:
        """The read block (B, R, D), and its recurrent half (B, M, D) for the write block."""
        return state.read_BRD, state.read_BRD[:, : self.memory_tokens]

    def next_state(self, written_BMD: Tensor, state: RMTRState, blocks: Blocks) -> RMTRState:
        """Keep what was written, and look it up in all that is kept."""
        past_BPMD, absent_BP = self._keep(written_BMD, state, blocks.lengths)
        found_BMD = self.retrieve(written_BMD, past_BPMD, absent_BP)
        read_BRD = torch.cat([written_BMD, found_BMD], dim=1)
        return RMTRState(blocks.unless_empty(read_BRD, state.read_BRD), past_BPMD, absent_BP)

    def _keep(self, written_BMD: Tensor, state: RMTRState, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """The past with one more memory at its end, or for a sample without text one more empty place before it."""
        past_BPMD, absent_BP, last = state.past_BPMD, state.absent_BP, slice(-self.past_segments, None)
        new_B1MD = written_BMD[:, None]
        if lengths_B is None and not absent_BP.shape[1]:
            return torch.cat([past_BPMD, new_B1MD], dim=1)[:, last], absent_BP
        if not absent_BP.shape[1]:
            absent_BP = absent_BP.new_zeros(past_BPMD.shape[:2])
        grown_BPMD, absent_BP = torch.cat([past_BPMD, new_B1MD], dim=1), F.pad(absent_BP, (0, 1))
        if lengths_B is not None:
            empty_B1 = lengths_B[:, None] == 0
            waiting_BPMD = torch.cat([torch.zeros_like(new_B1MD), past_BPMD], dim=1)
            grown_BPMD = torch.where(empty_B1[..., None, None], waiting_BPMD, grown_BPMD)
            absent_BP = torch.where(empty_B1, F.pad(absent_BP[:, :-1], (1, 0), value=1.0), absent_BP)
        return grown_BPMD[:, last], absent_BP[:, last]
