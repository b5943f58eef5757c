"""Shapes of models, as data: no torch, so that experiments can be listed and planned without it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder. The defaults are GPT-2's kind of block; `models.hf_weights` fills in the other kinds."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None  # None: as many as heads
    d_ff: int | None = None  # None: 4 * d_model
    max_positions: int = 1024  # rows of the position table; no bound for rotary positions
    positions: Literal["learned", "rotary"] = "learned"
    rotary_fraction: float = 1.0  # share of each head's width that is rotated
    rope_theta: float = 10_000.0
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu_tanh"
    bias: bool = True
    parallel_residual: bool = False  # attention and MLP read the same input (GPT-NeoX)
    tied: bool = True  # the output projection is the embedding table
    conv_taps: int = 0  # causal convolution over this many token embeddings; 0: none
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if self.n_heads % (self.n_kv_heads or self.n_heads):
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads
