"""Recurrent Memory Transformer (Bulatov et al. 2022, section 3): memory tokens around each segment.

    segment s:   [ read memory | x_1 ... x_S | write memory ]  ->  decoder  ->  outputs at the write block
                        ^                                                              |
                        +------------------- memory of segment s+1 <-------------------+

Shapes: B batch, S segment length, M memory tokens, D width, T = M + S + M positions, V vocabulary.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.models.adapters import HasMemory
from rmtlib.models.blocks import Blocks
from rmtlib.models.decoder import OpenSegment
from rmtlib.models.hf_decoder import Backbone
from rmtlib.models.interface import LanguageModel, State

MemoryMask = Literal["causal", "bidirectional"]


class RMTState(NamedTuple):
    """All that passes from one segment to the next: the memory (B, M, D)."""

    memory_BMD: Tensor


class RMT(HasMemory, LanguageModel):
    """RMT around a decoder, with an explicit state: ``hidden, state = model.step(input_ids, state)``.

    The same memory vectors enter at both ends of the segment; the outputs at the right end are the next
    memory. The right end follows the text, so under causal attention it can summarise it.

    Args:
        decoder: the backbone.
        memory_tokens: M. Zero gives the backbone alone, with no recurrence: the baseline.
        memory_mask: "causal" as in the Hugging Face code behind the BABILong results: the decoder's own mask.
            "bidirectional" as in the RMT paper's Figure 6d: inside the read block and inside the write block
            every memory token sees every other.

    The initial memory is a parameter of M distinct vectors drawn at the scale of the token embeddings.

    Raises:
        ValueError: a negative `memory_tokens`, or another mask.
    """

    def __init__(self, decoder: Backbone, memory_tokens: int, memory_mask: MemoryMask = "causal"):
        super().__init__()
        if memory_tokens < 0:
            raise ValueError(f"memory_tokens is {memory_tokens}; it must be 0 or more")
        if memory_mask not in ("causal", "bidirectional"):
            raise ValueError(f"memory_mask is {memory_mask!r}; it must be 'causal' or 'bidirectional'")
        self.decoder = decoder
        self.memory_mask = memory_mask
        scale = decoder.embedding_scale()
        self.memory_MD = nn.Parameter(torch.randn(memory_tokens, decoder.config.d_model) * scale)

    @property
    def memory_tokens(self) -> int:
        return self.memory_MD.shape[0]

    def state_size(self) -> int:
        """Floats carried from segment to segment, per sample."""
        return self.memory_MD.numel()

    def initial_state(self, batch: int) -> RMTState:
        """The learned memory, once per sample."""
        return RMTState(self.memory_MD.expand(batch, -1, -1))

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of chosen rows of `hidden`."""
        return self.decoder.logits(hidden)

    def memory_blocks(self, state: State) -> tuple[Tensor, Tensor]:
        """What stands in the read block (B, R, D) and in the write block (B, M, D); here the same memory."""
        return state.memory_BMD, state.memory_BMD

    def next_state(self, written_BMD: Tensor, state: State, blocks: Blocks) -> State:
        """The state after the outputs at the write block. Samples of length 0 keep theirs."""
        return RMTState(blocks.unless_empty(written_BMD, state.memory_BMD))

    def step(
        self,
        input_ids_BS: Tensor,
        state: State,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Read one segment.

        Args:
            input_ids_BS: token ids, right-padded.
            state: memory before the segment.
            lengths_B: real tokens of each sample, 0 to S; None if every sample is full. A sample of length 0
                keeps its state; padding never changes a sample's outputs or state.
            write: False leaves out the write block and returns the state as it was (for the last segment).
            rows_BN: text positions whose outputs are wanted; None: all. The last layer then computes these and the
                write block alone, which gives the same up to rounding (see `Block.forward`).

        Returns:
            The decoder's outputs at the text positions (B, S, D), or at `rows_BN` (B, N, D), undefined in rows of
            padding, and the next state.

        Raises:
            ValueError: read block, segment and write block have more positions than the backbone.
        """
        text_BSD = self.decoder.embed(input_ids_BS)
        read_BRD, write_BMD = (x.to(text_BSD.dtype) for x in self.memory_blocks(state))
        blocks = Blocks(read_BRD.shape[1], input_ids_BS.shape[1], write_BMD.shape[1] * write, lengths_B)
        x_BTD = blocks.arrange(torch.cat([read_BRD, text_BSD] + [write_BMD] * write, dim=1))
        rows_BQ = None if rows_BN is None else blocks.chosen(rows_BN)
        hidden_BTD, _ = self.decoder(x_BTD, mask=self._mask(blocks), rows_BQ=rows_BQ)
        text_BSD, written_BMD = blocks.split(hidden_BTD, rows_BN)
        if not blocks.write:
            return text_BSD, state
        written_BMD = written_BMD.clone()  # a view would keep the whole segment alive
        return text_BSD, self.next_state(written_BMD, state, blocks)

    def _mask(self, blocks: Blocks, past: int = 0) -> Tensor | None:
        """The attention mask (1 or B, 1, T, P+T), True = may look, of these blocks after `past` positions.

        None: the decoder's own causal mask.
        """
        if self.memory_mask == "causal" or not self.memory_tokens:
            return None
        return F.pad(blocks.mask(self.memory_MD.device), (past, 0), value=True)[:, None]

    # Token by token, for generation: open_segment, extend as often as wanted, close_segment; equal to one step.

    def open_segment(self, state: State) -> OpenSegment:
        """Start a segment: put the read block into a key-value cache."""
        read_BRD, _ = self.memory_blocks(state)
        _, cache = self.decoder(read_BRD, mask=self._mask(Blocks(read_BRD.shape[1], 0, 0)))
        ids_B0 = torch.empty(read_BRD.shape[0], 0, dtype=torch.long, device=read_BRD.device)
        return OpenSegment(state, cache, ids_B0)

    def extend(self, segment: OpenSegment, input_ids_Bn: Tensor) -> tuple[Tensor, OpenSegment]:
        """Read n more tokens of an open segment; returns their outputs (B, n, D) and the grown segment."""
        seen_Bn = torch.cat([segment.input_ids_Bn, input_ids_Bn], dim=1)
        x_BnD = self.decoder.embed_last(seen_Bn, input_ids_Bn.shape[1])
        hidden_BnD, cache = self.decoder(x_BnD, cache=segment.cache)
        return hidden_BnD, OpenSegment(segment.state, cache, seen_Bn)

    def close_segment(self, segment: OpenSegment) -> State:
        """Append the write block and return the next state."""
        if not segment.input_ids_Bn.shape[1]:
            return segment.state
        assert segment.cache is not None
        _, write_BMD = self.memory_blocks(segment.state)
        blocks = Blocks(0, 0, write_BMD.shape[1])
        mask = self._mask(blocks, segment.cache.length)
        hidden_BMD, _ = self.decoder(write_BMD, mask=mask, cache=segment.cache)
        return self.next_state(hidden_BMD, segment.state, blocks)
