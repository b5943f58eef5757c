"""One lean causal decoder that holds GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3 weights.

A language model for which memory can be written around it: the caller embeds tokens, puts memory
vectors wherever it wants them, runs the blocks, and projects to the vocabulary only the rows it needs.

Shapes: B batch, T positions (memory and text), S text tokens, D width, H heads, G key-value heads,
E width of a head, P positions already in the key-value cache, V vocabulary, N chosen rows, Q positions whose outputs
are wanted.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.models.config import DecoderConfig
from rmtlib.models.interface import take_rows
from rmtlib.models.names import MAP_NAMES
from rmtlib.models.precision import vocabulary_scores

LEFT_OUT = 2**18
"""From how many left out rows times width squared on the last block is faster on the others alone (a CPU, measured)."""


class KeyValues(NamedTuple):
    """Keys and values of the positions seen so far, one pair a layer, each (B, G, P, E)."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        return self.keys[0].shape[2]


class OpenSegment(NamedTuple):
    """A segment that is being read token by token: the state before it, key-value cache and tokens so far (B, n)."""

    state: Any
    cache: KeyValues | None
    input_ids_Bn: Tensor


def rotary_angles(
    first: int, count: int, width: int, theta: float, device: torch.device, llama3: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine (count, width) of positions first .. first+count-1, in float32 as Hugging Face has them.

    The first half of the sine is negative, so that `rotate` need not turn the sign of what it is multiplied with.
    `llama3`: see `DecoderConfig.rope_llama3`.
    """
    frequency = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    if llama3 is not None:  # low frequencies are slowed down, high ones kept, those between blended
        factor, low, high, positions = llama3
        turns = positions * frequency / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        frequency = kept * frequency + (1 - kept) * frequency / factor
    angle = torch.arange(first, first + count, dtype=torch.float32, device=device)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x_BHTE: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves layout, on the first `angles` columns of each head."""
    cos, sin = (a.to(x_BHTE.dtype) for a in angles)
    width = cos.shape[-1]
    turned = x_BHTE[..., :width] if width < x_BHTE.shape[-1] else x_BHTE
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([second, first], dim=-1) * sin
    return torch.cat([turned, x_BHTE[..., width:]], dim=-1) if width < x_BHTE.shape[-1] else turned


class Attention(nn.Module):
    """Causal self-attention; query, key and value are one map or three, called as `config.names` says."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.names = MAP_NAMES[config.names]
        self.heads, self.kv_heads = config.n_heads, config.n_kv_heads or config.n_heads
        self.d_head = config.d_head
        self.dropout = config.dropout
        widths = [self.heads * self.d_head] + [self.kv_heads * self.d_head] * 2
        if len(self.names.query_key_value) == 1:
            widths = [sum(widths)]
        bias = config.bias if config.qkv_bias is None else config.qkv_bias
        for name, width in zip(self.names.query_key_value, widths, strict=True):
            self.add_module(name, nn.Linear(config.d_model, width, bias=bias))
        self.add_module(self.names.out, nn.Linear(self.heads * self.d_head, config.d_model, bias=config.bias))
        self.q_norm = nn.RMSNorm(self.d_head, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(self.d_head, eps=config.norm_eps) if config.qk_norm else None

    def qkv_maps(self) -> list[nn.Module]:
        """The fused map, or those of query, key and value."""
        return [getattr(self, name) for name in self.names.query_key_value]

    def out_map(self) -> nn.Module:
        """The map from the heads to the width."""
        return getattr(self, self.names.out)

    def forward(
        self,
        x_BTD: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
        rows_BQ: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs (B, T, D), or at `rows_BQ` (B, Q, D), and keys and values of all positions, each (B, G, P+T, E).

        Args:
            angles: cosines and sines of the T new positions; None: nothing is rotated.
            mask: bool (1 or B, 1, T, P+T), True = may look; None: causal.
            past: keys and values of P earlier positions, each (B, G, P, E).
            rows_BQ: the new positions whose outputs are wanted; None: all.
        """
        B, T, _ = x_BTD.shape
        # Query and key are rotated together: one call instead of two. N = H + 2 G
        parts = [linear(x_BTD) for linear in self.qkv_maps()]
        qkv_BTO = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        qkv_BNTE = qkv_BTO.view(B, T, self.heads + 2 * self.kv_heads, self.d_head).transpose(1, 2)
        qk_BNTE, v_BGTE = qkv_BNTE.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q_BHTE, k_BGTE = qk_BNTE.split([self.heads, self.kv_heads], dim=1)
            qk_BNTE = torch.cat([self.q_norm(q_BHTE), self.k_norm(k_BGTE)], dim=1)
        if angles is not None:
            qk_BNTE = rotate(qk_BNTE, angles)
        q_BHTE, k_BGTE = qk_BNTE.split([self.heads, self.kv_heads], dim=1)
        if past is not None and not past[0].shape[2]:
            past = None  # nothing is there: causal without a mask of T x T
        if past is not None:
            k_BGTE, v_BGTE = torch.cat([past[0], k_BGTE], dim=2), torch.cat([past[1], v_BGTE], dim=2)
        if rows_BQ is not None:
            q_BHTE, mask = _only(rows_BQ, q_BHTE, mask, k_BGTE.shape[2])
        elif past is not None and mask is None and T > 1:
            # SDPA aligns its causal mask to the top left, so a block of new rows needs an explicit one.
            P = k_BGTE.shape[2] - T
            mask = torch.ones(T, P + T, dtype=torch.bool, device=x_BTD.device).tril(P)
        mixed_BHTE = F.scaled_dot_product_attention(
            q_BHTE,
            k_BGTE,
            v_BGTE,
            attn_mask=mask,
            is_causal=mask is None and past is None,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self.out_map()(mixed_BHTE.transpose(1, 2).flatten(2)), (k_BGTE, v_BGTE)


def _only(rows_BQ: Tensor, q_BHTE: Tensor, mask: Tensor | None, keys: int) -> tuple[Tensor, Tensor]:
    """The queries of these rows (B, H, Q, E), and what they may look at, of so many keys: (B, 1, Q, K)."""
    (B, H, T, E), at_B1Q1 = q_BHTE.shape, rows_BQ[:, None, :, None]
    if mask is None:
        mask = at_B1Q1 + (keys - T) >= torch.arange(keys, device=rows_BQ.device)
    else:
        mask = mask.expand(B, -1, -1, -1).gather(2, at_B1Q1.expand(-1, -1, -1, keys))
    return q_BHTE.gather(2, at_B1Q1.expand(-1, H, -1, E)), mask


class FeedForward(nn.Module):
    """Two-layer perceptron; `swiglu` gates it as Llama does. The maps are called as `config.names` says."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.names = MAP_NAMES[config.names]
        d_ff = config.d_ff or 4 * config.d_model
        self.activation = config.activation
        self.add_module(self.names.up, nn.Linear(config.d_model, d_ff, bias=config.bias))
        if config.activation == "swiglu":
            self.add_module(self.names.gate, nn.Linear(config.d_model, d_ff, bias=config.bias))
        self.add_module(self.names.down, nn.Linear(d_ff, config.d_model, bias=config.bias))

    def maps(self) -> tuple[nn.Module, nn.Module | None, nn.Module]:
        """The maps up, of the gate (if there is one), and down."""
        up, gate, down = (getattr(self, name, None) for name in (self.names.up, self.names.gate, self.names.down))
        assert up is not None and down is not None
        return up, gate, down

    def forward(self, x_BTD: Tensor) -> Tensor:
        up, gate, down = self.maps()
        if gate is not None:
            return down(F.silu(gate(x_BTD)) * up(x_BTD))
        return down(F.gelu(up(x_BTD), approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class Block(nn.Module):
    """Pre-norm transformer layer, sequential (GPT-2, Llama) or parallel (GPT-NeoX) residual."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.parallel = config.parallel_residual
        self.attention_norm, self.feed_forward_norm = _norm(config), _norm(config)
        self.attention, self.feed_forward = Attention(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        mask: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        rows_BQ: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs (B, T, D), or those of `rows_BQ` (B, Q, D), and keys and values of all positions.

        Rows equal those of all outputs up to rounding. All are computed if that is faster, and with dropout in
        training, so that the random draws keep their meaning.
        """
        if rows_BQ is not None and not self._pays(x_BTD, rows_BQ):
            out_BTD, present = self(x_BTD, angles, mask, past)
            return take_rows(out_BTD, rows_BQ), present
        mixed_BTD, present = self.attention(self.attention_norm(x_BTD), angles, mask, past, rows_BQ)
        if rows_BQ is not None:
            x_BTD = take_rows(x_BTD, rows_BQ)
        after_BTD = x_BTD + self._drop(mixed_BTD)
        fed_BTD = self.feed_forward(self.feed_forward_norm(x_BTD if self.parallel else after_BTD))
        return after_BTD + self._drop(fed_BTD), present

    def _pays(self, x_BTD: Tensor, rows_BQ: Tensor) -> bool:
        """Whether to compute the outputs of these rows alone: not if the calls cost more than the arithmetic."""
        left_out = rows_BQ.shape[0] * (x_BTD.shape[1] - rows_BQ.shape[1])
        return left_out * x_BTD.shape[2] ** 2 >= LEFT_OUT and not (self.training and self.dropout.p > 0)

    def _drop(self, x_BTD: Tensor) -> Tensor:
        return self.dropout(x_BTD) if self.training else x_BTD


def _norm(config: DecoderConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps)


class Decoder(nn.Module):
    """Embedding table, blocks and final norm.

    New weights are normal, biases zero; `DecoderConfig.init_std` says with which deviation.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = (
            nn.Embedding(config.max_positions, config.d_model) if config.positions == "learned" else None
        )
        self.conv = (
            nn.Conv1d(config.d_model, config.d_model, config.conv_taps, bias=False) if config.conv_taps else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = _norm(config)
        self.head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        std = self.config.init_std or 0.02 * (768 / self.config.d_model) ** 0.5
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv1d):  # starts as the identity: the embeddings alone
            nn.init.zeros_(module.weight)
        if isinstance(module, Block) and self.config.init_std is None:
            for last in (module.attention.out_map(), module.feed_forward.maps()[2]):
                nn.init.normal_(last.get_parameter("weight"), std=std / (2 * self.config.n_layers) ** 0.5)

    def embedding_scale(self) -> Tensor:
        """Standard deviation of the embeddings' elements, as memory is drawn."""
        return self.tokens.weight.detach().std()

    def embed(self, input_ids_BS: Tensor) -> Tensor:
        """Token embeddings (B, S, D), with a convolution over the `conv_taps` tokens up to each one added.

        The convolution sees these tokens alone: it does not reach into an earlier segment.
        """
        x_BSD = self.tokens(input_ids_BS)
        if self.conv is None:
            return x_BSD
        padded_BDS = F.pad(x_BSD.transpose(1, 2), (self.config.conv_taps - 1, 0))
        return x_BSD + self.conv(padded_BDS).transpose(1, 2)

    def embed_last(self, input_ids_BS: Tensor, count: int) -> Tensor:
        """The last `count` rows of `embed`, at the cost of these alone."""
        reach = count + max(self.config.conv_taps - 1, 0)
        return self.embed(input_ids_BS[:, -reach:])[:, -count:]

    def angles(self, first: int, count: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Rotary angles of positions first .. first+count-1, or None for learned positions."""
        c = self.config
        if c.positions == "learned":
            return None
        return rotary_angles(first, count, c.rotated_width, c.rope_theta, device, c.rope_llama3)

    def add_positions(self, x_BTD: Tensor, first: int = 0) -> Tensor:
        """Add learned positions first .. first+T-1 (nothing for rotary ones) and apply the input dropout.

        Raises:
            ValueError: more positions than the backbone's table or attention window has.
        """
        last, limit = first + x_BTD.shape[1], self.config.position_limit
        if limit is not None and last > limit:
            bound = "attention window" if limit == self.config.window else "table"
            raise ValueError(f"{last} positions (memory and segment) exceed the {bound} of {limit}")
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding.weight[first:last]
        return self.dropout(x_BTD)

    def forward(
        self,
        x_BTD: Tensor,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        rows_BQ: Tensor | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Run the blocks on embeddings.

        Args:
            x_BTD: embeddings of T new positions, the first one at position `cache.length` (or 0).
            mask: bool, True where a row may look, broadcastable to (B, 1, T, P+T). None: causal, never materialised.
            cache: keys and values of earlier positions of the same segment.
            rows_BQ: of the last block, only the outputs at these positions are computed (see `Block.forward`).

        Returns:
            The final norm's output (B, T, D), of `rows_BQ` (B, Q, D), and the cache grown by T.
        """
        x_BTD = self.add_positions(x_BTD, cache.length if cache is not None else 0)
        return self.run(x_BTD, mask=mask, cache=cache, rows_BQ=rows_BQ)

    def run(
        self,
        x_BTD: Tensor,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        rows_BQ: Tensor | None = None,
        before: Callable[[int, Tensor], Tensor] | None = None,
        after: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Blocks and final norm on embeddings that have positions; other arguments and results as `forward`.

        Memory in each layer: `before(layer, x)` gives what the block reads in place of its input x (B, T, D);
        `after(layer, x)` is given its output, of the last block at `rows_BQ` alone.
        """
        angles = self.angles(cache.length if cache is not None else 0, x_BTD.shape[1], x_BTD.device)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            past = (cache.keys[layer], cache.values[layer]) if cache is not None else None
            is_last = layer == len(self.blocks) - 1
            if before is not None:
                x_BTD = before(layer, x_BTD)
            x_BTD, (k, v) = block(x_BTD, angles, mask, past, rows_BQ if is_last else None)
            if after is not None:
                after(layer, x_BTD)
            keys.append(k)
            values.append(v)
        return self.norm(x_BTD), KeyValues(tuple(keys), tuple(values))

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Vocabulary scores (..., V) of the rows given: select first, this is the most expensive step."""
        return vocabulary_scores(hidden_ND, self.tokens.weight if self.head is None else self.head.weight)
