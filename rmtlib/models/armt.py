"""Associative Recurrent Memory Transformer (Rodkin et al. 2024, section 2), and PRMT, its ablation (Appendix F.2).

    ARMT, layer l, segment s:

        [ text | memory tokens ] --> + read(A_l) --> block l --> outputs --> layer l+1
                                       ^                            |
                                       +----- A_l, z_l <-- write ---+ at the memory tokens

    The same learned memory tokens end every segment at layer 0; what goes on to the next segment are the layers'
    associations alone.

    PRMT: [ memory | text | memory ] as RMT, but every layer puts its own memory into both blocks: its own outputs
    at the right block of the previous segment.

Shapes: L layers, l some of them, B batch, S segment length, M memory tokens, T positions, D width, E key width,
K key features.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmtlib.models import delta_rule
from rmtlib.models.decoder import Decoder
from rmtlib.models.delta_rule import NU, Association, DeltaRule, Written
from rmtlib.models.layered import Frame, LayeredModel, join_layers
from rmtlib.models.stacked import linear


class ARMTState(NamedTuple):
    """The layers' associations: matrices A' (L, B, K, D) and normalisations z (L, B, K), in float32."""

    matrix_LBKD: Tensor
    norm_LBK: Tensor


class ARMT(LayeredModel):
    """ARMT around a decoder, with an explicit state: ``hidden, state = model.step(input_ids, state)``.

    Untrained it equals the backbone: values start as zeros, so what is read is zero.

    Args:
        decoder: the backbone.
        memory_tokens: M.
        d_memory: E; an association has K = 6 E key features.
        rule: the update. The default reads the paper; the released code is DeltaRule("batched", "released").
        normalised: whether phi is divided by its length (experimental branch of the released code).
    """

    def __init__(
        self,
        decoder: Decoder,
        memory_tokens: int,
        d_memory: int = 64,
        rule: DeltaRule | None = None,
        *,
        normalised: bool = False,
    ):
        super().__init__(decoder, memory_tokens)
        if d_memory < 1:
            raise ValueError(f"d_memory is {d_memory}; it must be 1 or more")
        self.rule, self.normalised = rule or DeltaRule(), normalised
        L, D = decoder.config.n_layers, decoder.config.d_model
        self.memory_MD = nn.Parameter(torch.randn(memory_tokens, D) * decoder.tokens.weight.detach().std())
        bound = D**-0.5  # as nn.Linear draws its weights
        self.query_LED = nn.Parameter(torch.empty(L, d_memory, D).uniform_(-bound, bound))
        self.key_LED = nn.Parameter(torch.empty(L, d_memory, D).uniform_(-bound, bound))
        self.value_LDD = nn.Parameter(torch.zeros(L, D, D))
        self.beta_L1D = nn.Parameter(torch.empty(L, 1, D).uniform_(-bound, bound))
        self.beta_bias_L1 = nn.Parameter(torch.empty(L, 1).uniform_(-bound, bound))

    def initial_state(self, batch: int) -> ARMTState:
        """Nothing stored."""
        L, E, D = self.query_LED.shape
        return ARMTState(*delta_rule.empty((L, batch), 2 * NU * E, D, self.query_LED))

    def memory_block(self, batch: int) -> Tensor:
        """The learned memory tokens, once per sample."""
        return self.memory_MD.expand(batch, -1, -1)

    def enter(self, x_lBTD: Tensor, state: ARMTState, layers: slice, frame: Frame) -> Tensor:
        """Add to every position, memory tokens included, what its query finds (equation 4)."""
        queries = self._features(x_lBTD, self.query_LED[layers], state)
        return x_lBTD + delta_rule.read(Association(*state), queries).to(x_lBTD.dtype)

    def leave(self, x_lBTD: Tensor, state: ARMTState, layers: slice, frame: Frame) -> ARMTState:
        """Write the memory tokens (equations 1 to 3)."""
        return ARMTState(*delta_rule.add(Association(*state), self._written(x_lBTD, state, layers, frame)))

    def step_to_rebuild(
        self, input_ids_BS: Tensor, state: ARMTState, lengths_B: Tensor | None = None
    ) -> tuple[ARMTState, Written]:
        """The next state, and what leads to it: small, where the state is large (see `rebuild`)."""
        frame = Frame(False, True, None if lengths_B is None else lengths_B[None])
        _, parts, _ = self._climb(self._layout(input_ids_BS, frame), state, frame, leave=self._written)
        written = join_layers(parts)
        return self.rebuild(state, written), written

    @staticmethod
    def rebuild(state: ARMTState, written: Written) -> ARMTState:
        """The state after a segment from that before it, bitwise as `step_to_rebuild` gave it."""
        return ARMTState(*delta_rule.add(Association(*state), written))

    def _written(self, x_lBTD: Tensor, state: ARMTState, layers: slice, frame: Frame) -> Written:
        memory_lBMD = self.write_block(x_lBTD, frame)
        keys = self._features(memory_lBMD, self.key_LED[layers], state)
        if frame.lengths_lB is not None:  # a zero key changes nothing
            keys = keys * (frame.lengths_lB > 0)[..., None, None]
        values = linear(memory_lBMD, self.value_LDD[layers]).to(keys.dtype)
        betas = linear(memory_lBMD, self.beta_L1D[layers], self.beta_bias_L1[layers])[..., 0].to(keys.dtype).sigmoid()
        return delta_rule.write(Association(*state), keys, values, betas, self.rule)

    def _features(self, x_lBTD: Tensor, weight_lED: Tensor, state: ARMTState) -> Tensor:
        return delta_rule.dpfp(linear(x_lBTD, weight_lED).to(state.norm_LBK.dtype), normalised=self.normalised)


class PRMTState(NamedTuple):
    """Every layer's memory (L, B, M, D)."""

    memory_LBMD: Tensor


class PRMT(LayeredModel):
    """Parallel-memory RMT: layer l's memory is its own output of the previous segment, not the top layer's.

    The initial memories are parameters, drawn from N(0, 1) as in the released code.
    """

    has_read_block = True

    def __init__(self, decoder: Decoder, memory_tokens: int):
        super().__init__(decoder, memory_tokens)
        self.memory_LMD = nn.Parameter(torch.randn(decoder.config.n_layers, memory_tokens, decoder.config.d_model))

    def initial_state(self, batch: int) -> PRMTState:
        """The learned memories, once per sample."""
        return PRMTState(self.memory_LMD[:, None].expand(-1, batch, -1, -1))

    def memory_block(self, batch: int) -> Tensor:
        """Only keeps the places: layer 0 overwrites it, and with it the positions' embeddings."""
        return self.memory_LMD.new_zeros(batch, self.memory_tokens, self.memory_LMD.shape[2])

    def enter(self, x_lBTD: Tensor, state: PRMTState, layers: slice, frame: Frame) -> Tensor:
        """Put the layer's memory over both blocks."""
        memory_lBMD = state.memory_LBMD.to(x_lBTD.dtype)
        if frame.write:
            x_lBTD = x_lBTD.scatter(2, self.write_places(x_lBTD, frame), memory_lBMD)
        if frame.read:
            x_lBTD = torch.cat([memory_lBMD, x_lBTD[:, :, self.memory_tokens :]], dim=2)
        return x_lBTD

    def leave(self, x_lBTD: Tensor, state: PRMTState, layers: slice, frame: Frame) -> PRMTState:
        """Keep the outputs at the write block."""
        memory_lBMD = self.write_block(x_lBTD, frame)
        if frame.lengths_lB is not None:
            memory_lBMD = torch.where(frame.lengths_lB[..., None, None] > 0, memory_lBMD, state.memory_LBMD)
        return PRMTState(memory_lBMD)
