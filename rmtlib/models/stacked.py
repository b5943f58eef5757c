"""The blocks of a decoder as one batch over layers: weights stacked, matrix products as one `baddbmm`.

Shapes: l layers at once, B batch, T positions, D width, H heads, G key-value heads, E width of a head, O outputs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rmtlib.models.decoder import Decoder, rotate


def linear(x_lBTD: Tensor, weight_lOD: Tensor, bias_lO: Tensor | None = None) -> Tensor:
    """A linear map of its own for each layer: (l, B, T, O)."""
    rows_lND = x_lBTD.flatten(1, 2)
    if bias_lO is None:
        out_lNO = torch.bmm(rows_lND, weight_lOD.mT)
    else:
        out_lNO = torch.baddbmm(bias_lO[:, None], rows_lND, weight_lOD.mT)
    return out_lNO.unflatten(1, x_lBTD.shape[1:3])


class StackedBlocks:
    """All blocks of a decoder, to be run several layers at once, each on an input of its own.

    The weights are stacked when this is made: once for many segments. Gradients reach the blocks' own parameters.
    """

    def __init__(self, decoder: Decoder):
        self.decoder, self.config = decoder, decoder.config
        self.depth = len(decoder.blocks)
        names = dict(decoder.blocks[0].named_parameters())
        parts = [dict(block.named_parameters()) for block in decoder.blocks]
        self.weights = {name: torch.stack([part[name] for part in parts]) for name in names}

    def __call__(self, x_lBTD: Tensor, layers: slice) -> Tensor:
        """Outputs of blocks `layers`, each on its row of `x_lBTD`; causal, no padding mask, no dropout."""
        c, w = self.config, {name: x[layers] for name, x in self.weights.items()}
        after = x_lBTD + self._attention(self._norm(x_lBTD, w, "attention_norm"), w)
        return after + self._feed_forward(
            self._norm(x_lBTD if c.parallel_residual else after, w, "feed_forward_norm"), w
        )

    def _norm(self, x_lBTD: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
        width, eps, scale = (x_lBTD.shape[-1],), self.config.norm_eps, w[f"{name}.weight"][:, None, None]
        if self.config.norm == "rms":
            return F.rms_norm(x_lBTD, width, eps=eps) * scale
        return torch.addcmul(w[f"{name}.bias"][:, None, None], F.layer_norm(x_lBTD, width, eps=eps), scale)

    def _attention(self, x_lBTD: Tensor, w: dict[str, Tensor]) -> Tensor:
        c, (count, B, T, D) = self.config, x_lBTD.shape
        H, G = c.n_heads, c.n_kv_heads or c.n_heads
        # Layers and batch as one axis N = l B; query and key are rotated together, as in `decoder.Attention`.
        qkv = linear(x_lBTD, w["attention.qkv.weight"], w.get("attention.qkv.bias"))
        qkv_NHTE = qkv.view(count * B, T, H + 2 * G, c.d_head).transpose(1, 2)
        qk, v_NGTE = qkv_NHTE.split([H + G, G], dim=1)
        angles = self.decoder.angles(0, T, x_lBTD.device)
        if angles is not None:
            qk = rotate(qk, angles)
        q_NHTE, k_NGTE = qk.split([H, G], dim=1)
        mixed_NHTE = F.scaled_dot_product_attention(q_NHTE, k_NGTE, v_NGTE, is_causal=True, enable_gqa=H != G)
        mixed_lBTD = mixed_NHTE.transpose(1, 2).reshape(count, B, T, D)
        return linear(mixed_lBTD, w["attention.out.weight"], w.get("attention.out.bias"))

    def _feed_forward(self, x_lBTD: Tensor, w: dict[str, Tensor]) -> Tensor:
        up = linear(x_lBTD, w["feed_forward.up.weight"], w.get("feed_forward.up.bias"))
        if self.config.activation == "swiglu":
            up = F.silu(linear(x_lBTD, w["feed_forward.gate.weight"], w.get("feed_forward.gate.bias"))) * up
        else:
            up = F.gelu(up, approximate="tanh" if self.config.activation == "gelu_tanh" else "none")
        return linear(up, w["feed_forward.down.weight"], w.get("feed_forward.down.bias"))
