"""PRMT, parallel-memory RMT: an ablation of ARMT (Rodkin et al. 2024, Appendix F.2).

    [ memory | text | memory ] as in RMT, but every layer puts its own memory into both blocks: its own outputs at the
    right block of the previous segment.

Shapes: L layers, l some of them, B batch, M memory tokens, T positions, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmtlib.models.blocks import Blocks
from rmtlib.models.hf_decoder import Backbone
from rmtlib.models.layered import LayeredModel


class PRMTState(NamedTuple):
    """Every layer's memory (L, B, M, D)."""

    memory_LBMD: Tensor


class PRMT(LayeredModel):
    """RMT with a memory in each layer: layer l's memory is its own output of the previous segment, not the top layer's.

    The initial memories are parameters, drawn from N(0, 1) as in the released code.
    """

    has_read_block = True

    def __init__(self, decoder: Backbone, memory_tokens: int):
        super().__init__(decoder, memory_tokens)
        self.memory_LMD = nn.Parameter(torch.randn(decoder.config.n_layers, memory_tokens, decoder.config.d_model))

    def initial_state(self, batch: int) -> PRMTState:
        """The learned memories, once per sample."""
        return PRMTState(self.memory_LMD[:, None].expand(-1, batch, -1, -1))

    def memory_block(self, batch: int) -> Tensor:
        """Only keeps the room: layer 0 overwrites it, and with it the positions' embeddings."""
        return self.memory_LMD.new_zeros(batch, self.memory_tokens, self.memory_LMD.shape[2])

    def read_memory(self, x_lBTD: Tensor, state: PRMTState, layers: slice, blocks: Blocks) -> Tensor:
        """Put the layer's memory over both blocks."""
        memory_lBMD = state.memory_LBMD.to(x_lBTD.dtype)
        if blocks.write:
            x_lBTD = x_lBTD.scatter(2, blocks.write_positions(x_lBTD), memory_lBMD)
        if blocks.read:
            x_lBTD = torch.cat([memory_lBMD, x_lBTD[:, :, blocks.read :]], dim=2)
        return x_lBTD

    def write_memory(self, x_lBMD: Tensor, state: PRMTState, layers: slice, blocks: Blocks) -> PRMTState:
        """Keep the outputs at the write block."""
        return PRMTState(blocks.unless_empty(x_lBMD, state.memory_LBMD))
