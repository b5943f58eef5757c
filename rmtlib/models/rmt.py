"""Recurrent Memory Transformer (Bulatov et al. 2022, section 3): memory tokens around each segment.

    segment s:   [ read memory | x_1 ... x_S | write memory ]  ->  decoder  ->  outputs at the write block
                        ^                                                              |
                        +------------------- memory of segment s+1 <-------------------+

Shapes: B batch, S segment length, M memory tokens, D width, T = M + S + M positions, V vocabulary.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rmtlib.models.decoder import Decoder, KeyValues
from rmtlib.models.interface import LanguageModel

MemoryMask = Literal["causal", "bidirectional"]


class RMTState(NamedTuple):
    """All that passes from one segment to the next: the memory (B, M, D)."""

    memory_BMD: Tensor


class OpenSegment(NamedTuple):
    """A segment that is being read token by token: its starting state, key-value cache and tokens so far (B, n)."""

    state: RMTState
    cache: KeyValues
    input_ids_Bn: Tensor


class RMT(LanguageModel):
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
    """

    def __init__(self, decoder: Decoder, memory_tokens: int, memory_mask: MemoryMask = "causal"):
        super().__init__()
        if memory_tokens < 0:
            raise ValueError(f"memory_tokens is {memory_tokens}; it must be 0 or more")
        if memory_mask not in ("causal", "bidirectional"):
            raise ValueError(f"memory_mask is {memory_mask!r}; it must be 'causal' or 'bidirectional'")
        self.decoder = decoder
        self.memory_mask = memory_mask
        scale = decoder.tokens.weight.detach().std()
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

    @staticmethod
    def detach(state: RMTState) -> RMTState:
        """The same state, cut from its graph: no gradient passes to earlier segments."""
        return RMTState(state.memory_BMD.detach())

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of chosen rows of `hidden`."""
        return self.decoder.logits(hidden)

    def step(
        self, input_ids_BS: Tensor, state: RMTState, lengths_B: Tensor | None = None, *, write: bool = True
    ) -> tuple[Tensor, RMTState]:
        """Read one segment.

        Args:
            input_ids_BS: token ids, right-padded.
            state: memory before the segment.
            lengths_B: real tokens of each sample, 0 to S; None where every sample is full. A sample of length 0
                keeps its state; padding never changes a sample's outputs or state.
            write: False leaves out the write block and returns the state as it was (for the last segment).

        Returns:
            The decoder's outputs at the text positions (B, S, D), undefined in rows of padding, and the next state.
        """
        M, S = self.memory_tokens, input_ids_BS.shape[1]
        write = write and M > 0
        x_BTD, order_BT = self._layout(self.decoder.embed(input_ids_BS), state.memory_BMD, lengths_B, write)
        mask = self._mask(order_BT, S, write, x_BTD.device) if self.memory_mask == "bidirectional" and M else None
        hidden_BTD, _ = self.decoder(x_BTD, mask=mask)
        text_BSD = hidden_BTD[:, M : M + S]
        if not write:
            return text_BSD, state
        if lengths_B is None:
            return text_BSD, RMTState(hidden_BTD[:, M + S :].clone())  # a view would keep the whole segment alive
        at_BM = M + lengths_B[:, None] + torch.arange(M, device=x_BTD.device)
        written_BMD = hidden_BTD.gather(1, at_BM[..., None].expand(-1, -1, hidden_BTD.shape[-1]))
        return text_BSD, RMTState(torch.where(lengths_B[:, None, None] > 0, written_BMD, state.memory_BMD))

    def _layout(
        self, text_BSD: Tensor, memory_BMD: Tensor, lengths_B: Tensor | None, write: bool
    ) -> tuple[Tensor, Tensor | None]:
        """[read | text | write | padding]: the write block follows each sample's last real token.

        Padding thus stands behind everything, where causal attention never looks and no position is shifted.
        Also returns which column of [read | text and padding | write] stands at each position (B, T).
        """
        memory_BMD = memory_BMD.to(text_BSD.dtype)
        x_BTD = torch.cat([memory_BMD, text_BSD] + [memory_BMD] * write, dim=1)
        if lengths_B is None or not write:
            return x_BTD, None
        M, S = self.memory_tokens, text_BSD.shape[1]
        t_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        end_B1 = M + lengths_B[:, None]
        order_BT = torch.where(t_T < end_B1, t_T, torch.where(t_T < end_B1 + M, t_T - end_B1 + M + S, t_T - M))
        return x_BTD.gather(1, order_BT[..., None].expand_as(x_BTD)), order_BT

    def _mask(self, order_BT: Tensor | None, S: int, write: bool, device: torch.device) -> Tensor:
        """Causal, but all-to-all inside the read and inside the write block: (1 or B, 1, T, T), True = may look."""
        M = self.memory_tokens
        T = M + S + M * write
        block_T = torch.zeros(T, dtype=torch.long, device=device)
        block_T[:M], block_T[M + S :] = 1, 2
        block_BT = block_T[None] if order_BT is None else block_T[order_BT]
        same_BTT = (block_BT[:, :, None] == block_BT[:, None, :]) & (block_BT[:, :, None] > 0)
        return (same_BTT | torch.ones(T, T, dtype=torch.bool, device=device).tril())[:, None]

    # Token by token, for generation: open_segment, extend as often as wanted, close_segment; equal to one step.

    def open_segment(self, state: RMTState) -> OpenSegment:
        """Start a segment: put the read block into a key-value cache."""
        memory_BMD = state.memory_BMD
        M = self.memory_tokens
        mask = memory_BMD.new_ones(M, M, dtype=torch.bool) if self.memory_mask == "bidirectional" else None
        _, cache = self.decoder(memory_BMD, mask=mask)
        return OpenSegment(
            state, cache, torch.empty(memory_BMD.shape[0], 0, dtype=torch.long, device=memory_BMD.device)
        )

    def extend(self, segment: OpenSegment, input_ids_Bn: Tensor) -> tuple[Tensor, OpenSegment]:
        """Read n more tokens of an open segment; returns their outputs (B, n, D) and the grown segment."""
        seen = torch.cat([segment.input_ids_Bn, input_ids_Bn], dim=1)
        reach = input_ids_Bn.shape[1] + max(self.decoder.config.conv_taps - 1, 0)
        x_BnD = self.decoder.embed(seen[:, -reach:])[:, -input_ids_Bn.shape[1] :]
        hidden_BnD, cache = self.decoder(x_BnD, cache=segment.cache)
        return hidden_BnD, OpenSegment(segment.state, cache, seen)

    def close_segment(self, segment: OpenSegment) -> RMTState:
        """Append the write block and return the next state."""
        memory_BMD = segment.state.memory_BMD
        M, P = self.memory_tokens, segment.cache.length
        mask = memory_BMD.new_ones(M, P + M, dtype=torch.bool) if self.memory_mask == "bidirectional" else None
        hidden_BMD, _ = self.decoder(memory_BMD, mask=mask, cache=segment.cache)
        return RMTState(hidden_BMD)
