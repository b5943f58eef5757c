"""Associative Recurrent Memory Transformer (Rodkin et al. 2024, section 2).

    layer l, segment s:

        [ text | memory tokens ] --> + read(A_l) --> block l --> outputs --> layer l+1
                                       ^                            |
                                       +----- A_l, z_l <-- write ---+ at the memory tokens

    The same learned memory tokens end every segment at layer 0; what goes on to the next segment are the layers'
    associations alone.

Shapes: L layers, l some of them, B batch, S segment length, M memory tokens, T positions, D width, E key width,
K key features.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmtlib.models import delta_rule
from rmtlib.models.blocks import Blocks
from rmtlib.models.config import DeltaRule
from rmtlib.models.delta_rule import Association, Written
from rmtlib.models.hf_decoder import Backbone
from rmtlib.models.layered import LayeredModel, join_layers
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
        d_memory: E; an association has K = 2 nu E key features.
        rule: the update. The default reads the paper, bounded; the released code is DeltaRule("batched", "released").
        normalised: whether phi is divided by its length (experimental branch of the released code).
    """

    def __init__(
        self,
        decoder: Backbone,
        memory_tokens: int,
        d_memory: int = 64,
        rule: DeltaRule | None = None,
        *,
        normalised: bool = False,
    ):
        super().__init__(decoder, memory_tokens)
        if d_memory < 1:
            raise ValueError(f"d_memory is {d_memory}; it must be 1 or more")
        self.rule, self.normalised = rule or DeltaRule(bounded=True), normalised
        if self.rule.nu > 2 * d_memory:
            raise ValueError(f"nu is {self.rule.nu}; it must be at most {2 * d_memory}, twice d_memory")
        L, D = decoder.config.n_layers, decoder.config.d_model
        self.memory_MD = nn.Parameter(torch.randn(memory_tokens, D) * decoder.embedding_scale())
        bound = D**-0.5  # as nn.Linear draws its weights
        self.query_LED = nn.Parameter(torch.empty(L, d_memory, D).uniform_(-bound, bound))
        self.key_LED = nn.Parameter(torch.empty(L, d_memory, D).uniform_(-bound, bound))
        self.value_LDD = nn.Parameter(torch.zeros(L, D, D))
        self.beta_L1D = nn.Parameter(torch.empty(L, 1, D).uniform_(-bound, bound))
        self.beta_bias_L1 = nn.Parameter(torch.empty(L, 1).uniform_(-bound, bound))

    def initial_state(self, batch: int) -> ARMTState:
        """Nothing stored."""
        L, E, D = self.query_LED.shape
        return ARMTState(*delta_rule.empty((L, batch), 2 * self.rule.nu * E, D, self.query_LED))

    def memory_block(self, batch: int) -> Tensor:
        """The learned memory tokens, once per sample."""
        return self.memory_MD.expand(batch, -1, -1)

    def read_memory(self, x_lBTD: Tensor, state: ARMTState, layers: slice, blocks: Blocks) -> Tensor:
        """Add to every position, memory tokens included, what its query finds (equation 4)."""
        queries = self._features(x_lBTD, self.query_LED[layers], state)
        found_lBTD = delta_rule.read(Association(*state), queries, bounded=self.rule.bounded)
        return x_lBTD + found_lBTD.to(x_lBTD.dtype)

    def write_memory(self, x_lBMD: Tensor, state: ARMTState, layers: slice, blocks: Blocks) -> ARMTState:
        """Write the memory tokens (equations 1 to 3)."""
        return ARMTState(*delta_rule.add(Association(*state), self._written(x_lBMD, state, layers, blocks)))

    def step_to_rebuild(
        self, input_ids_BS: Tensor, state: ARMTState, lengths_B: Tensor | None = None
    ) -> tuple[ARMTState, Written]:
        """The next state, and what leads to it, which is far smaller (see `rebuild`)."""
        blocks = self._blocks(input_ids_BS, lengths_B)
        x_BTD = self._embed(input_ids_BS, blocks)
        none_BN = input_ids_BS[:, :0]  # no output is wanted
        written = join_layers(self.run_layers(x_BTD, state, blocks, None, self._written, none_BN)[1])
        return self.rebuild(state, written), written

    @staticmethod
    def rebuild(state: ARMTState, written: Written) -> ARMTState:
        """The state after a segment from that before it, bitwise as `step_to_rebuild` gave it."""
        return ARMTState(*delta_rule.add(Association(*state), written))

    def _written(self, x_lBMD: Tensor, state: ARMTState, layers: slice, blocks: Blocks) -> Written:
        keys = self._features(x_lBMD, self.key_LED[layers], state)
        if blocks.lengths is not None:  # a zero key changes nothing
            keys = keys * (blocks.lengths > 0)[..., None, None]
        values = _mapped(x_lBMD, self.value_LDD[layers]).to(keys.dtype)
        betas = _mapped(x_lBMD, self.beta_L1D[layers], self.beta_bias_L1[layers])[..., 0].to(keys.dtype).sigmoid()
        return delta_rule.write(Association(*state), keys, values, betas, self.rule)

    def _features(self, x_lBTD: Tensor, weight_lED: Tensor, state: ARMTState) -> Tensor:
        x_lBTE = _mapped(x_lBTD, weight_lED).to(state.norm_LBK.dtype)
        return delta_rule.dpfp(x_lBTE, nu=self.rule.nu, normalised=self.normalised)


def _mapped(x_lBTD: Tensor, weight_lOD: Tensor, bias_lO: Tensor | None = None) -> Tensor:
    """`linear` in the weights' type: between its layers a backbone may have float32 (Mamba)."""
    return linear(x_lBTD.to(weight_lOD.dtype), weight_lOD, bias_lO)
