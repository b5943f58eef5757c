"""The blocks of a decoder as one batch over layers: weights stacked, matrix products as one `baddbmm`.

Shapes: l layers at once, B batch, T positions, D width, H heads, G key-value heads, E width of a head, O outputs.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.models.decoder import Attention, Block, Decoder, FeedForward, rotate

PLAIN = {Block, Attention, FeedForward, nn.ModuleList, nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Dropout}


def linear(x_lBTD: Tensor, weight_lOD: Tensor, bias_lO: Tensor | None = None) -> Tensor:
    """A linear map of its own for each layer: (l, B, T, O)."""
    rows_lND = x_lBTD.flatten(1, 2)
    if bias_lO is None:
        out_lNO = torch.bmm(rows_lND, weight_lOD.mT)
    else:
        out_lNO = torch.baddbmm(bias_lO[:, None], rows_lND, weight_lOD.mT)
    return out_lNO.unflatten(1, x_lBTD.shape[1:3])


def stackable(decoder: nn.Module) -> TypeGuard[Decoder]:
    """Whether the weights are all that the blocks do: no adapters (LoRA) inside them, no hooks."""
    return isinstance(decoder, Decoder) and all(
        type(part) in PLAIN and not part._forward_hooks and not part._forward_pre_hooks
        for part in decoder.blocks.modules()
    )


class StackedBlocks:
    """All blocks of a decoder, to be run several layers at once, each on an input of its own.

    The weights are stacked when this is made: once for many segments. Gradients reach the blocks' own parameters.
    The decoder must be `stackable`.
    """

    def __init__(self, decoder: Decoder):
        self.decoder, self.config = decoder, decoder.config
        self.depth = len(decoder.blocks)
        parts = [_weights(block) for block in decoder.blocks]
        self.weights = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

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
        c, (count, B, T, _) = self.config, x_lBTD.shape
        H, G = c.n_heads, c.n_kv_heads or c.n_heads
        qkv_lBTNE = linear(x_lBTD, w["qkv.weight"], w.get("qkv.bias")).unflatten(-1, (H + 2 * G, c.d_head))
        if c.qk_norm:
            q, k, v = qkv_lBTNE.split([H, G, G], dim=3)
            qkv_lBTNE = torch.cat(
                [self._head_norm(q, w["q_norm.weight"]), self._head_norm(k, w["k_norm.weight"]), v], 3
            )
        # Layers and batch as one axis N = l B; query and key are rotated together, as in `decoder.Attention`.
        qkv_NHTE = qkv_lBTNE.flatten(0, 1).transpose(1, 2)
        qk, v_NGTE = qkv_NHTE.split([H + G, G], dim=1)
        angles = self.decoder.angles(0, T, x_lBTD.device)
        if angles is not None:
            qk = rotate(qk, angles)
        q_NHTE, k_NGTE = qk.split([H, G], dim=1)
        mixed_NHTE = F.scaled_dot_product_attention(q_NHTE, k_NGTE, v_NGTE, is_causal=True, enable_gqa=H != G)
        mixed_lBTO = mixed_NHTE.transpose(1, 2).flatten(2).unflatten(0, (count, B))
        return linear(mixed_lBTO, w["out.weight"], w.get("out.bias"))

    def _head_norm(self, x_lBTHE: Tensor, scale_lE: Tensor) -> Tensor:
        return F.rms_norm(x_lBTHE, x_lBTHE.shape[-1:], eps=self.config.norm_eps) * scale_lE[:, None, None, None]

    def _feed_forward(self, x_lBTD: Tensor, w: dict[str, Tensor]) -> Tensor:
        up = linear(x_lBTD, w["up.weight"], w.get("up.bias"))
        if self.config.activation == "swiglu":
            up = F.silu(linear(x_lBTD, w["gate.weight"], w.get("gate.bias"))) * up
        else:
            up = F.gelu(up, approximate="tanh" if self.config.activation == "gelu_tanh" else "none")
        return linear(up, w["down.weight"], w.get("down.bias"))


def _weights(block: Any) -> dict[str, Tensor]:
    """A block's weights by the role of their map, whatever its name; query, key and value as one map."""
    attention, (up, gate, down) = block.attention, block.feed_forward.maps()
    roles: dict[str, list[Any]] = {
        "attention_norm": [block.attention_norm],
        "feed_forward_norm": [block.feed_forward_norm],
        "qkv": attention.qkv_maps(),
        "q_norm": [attention.q_norm],
        "k_norm": [attention.k_norm],
        "out": [attention.out_map()],
        "up": [up],
        "gate": [gate],
        "down": [down],
    }
    weights = {}
    for role, modules in roles.items():
        for part in ("weight", "bias"):
            found = [x for module in modules if (x := getattr(module, part, None)) is not None]
            if found:
                weights[f"{role}.{part}"] = found[0] if len(found) == 1 else torch.cat(found)
    return weights
