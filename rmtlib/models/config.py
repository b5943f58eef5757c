"""Shapes of models, as data: no torch, so that experiments can be listed and planned without it."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from rmtlib.models.names import MAP_NAMES
from rmtlib.settings import at_least, one_of


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder. The defaults are GPT-2's kind of block; `models.hf_weights` fills in others.

    `init_std`: standard deviation of all new weights; 0.02 is that of Hugging Face's GPT-NeoX. None: as GPT-2's at its
    width of 768 and in proportion to 1/sqrt(width) at others, residual outputs scaled down by the depth.
    `names`: the family whose names the linear maps have (`models.names`); "llama" has query, key and value apart.
    `rope_llama3`: Llama 3's scaling of rotary positions: factor, low and high frequency factor, positions before it.
    `window`: the backbone's sliding attention window. The decoder has none, so that longer segments are refused.
    """

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
    init_std: float | None = field(default=None, metadata={"since": 2})
    names: Literal["rmtlib", "llama", "gpt2", "gpt_neox"] = field(default="rmtlib", metadata={"since": 3})
    head_width: int | None = field(default=None, metadata={"since": 3})  # None: d_model / n_heads
    qkv_bias: bool | None = field(default=None, metadata={"since": 3})  # None: as `bias`
    qk_norm: bool = field(default=False, metadata={"since": 3})  # RMS norm of each head's query and key (Qwen3)
    window: int | None = field(default=None, metadata={"since": 3})
    rope_llama3: tuple[float, ...] | None = field(default=None, metadata={"since": 3})

    def __post_init__(self) -> None:
        at_least(self, 1, "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "max_positions")
        at_least(self, 1, "head_width", "window")
        _check_dropout(self.dropout)
        one_of(self, positions=("learned", "rotary"), norm=("layer", "rms"))
        one_of(self, activation=("gelu", "gelu_tanh", "swiglu"))
        if self.rope_llama3 is not None and len(self.rope_llama3) != 4:
            raise ValueError(f"rope_llama3 is {self.rope_llama3!r}; it must be four numbers")
        if self.names not in MAP_NAMES:
            raise ValueError(f"names is {self.names!r}; it must be one of {', '.join(MAP_NAMES)}")
        if self.head_width is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        if self.n_heads % (self.n_kv_heads or self.n_heads):
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.positions == "rotary" and self.rotated_width == self.d_head and self.d_head % 2:
            raise ValueError(f"a head has {self.d_head} numbers, which are rotated in pairs: make them even")

    @property
    def d_head(self) -> int:
        return self.head_width or self.d_model // self.n_heads

    @property
    def rotated_width(self) -> int:
        """How many numbers of a head rotary positions turn."""
        return int(self.d_head * self.rotary_fraction)

    @property
    def position_limit(self) -> int | None:
        """Most positions of a segment, memory included; None: no bound."""
        table = self.max_positions if self.positions == "learned" else None
        return min((limit for limit in (table, self.window) if limit is not None), default=None)


@dataclass(frozen=True)
class HFDecoderConfig:
    """What it takes to build a `models.hf_decoder.HFDecoder` without its weights, as plain values for a JSON file.

    Attributes:
        hf: the backbone's own config, of its `to_dict`.
        max_positions: most positions of a segment, memory included; None: no bound.
        attention: transformers' `attn_implementation`.
        adapters: the configs of PEFT adapters inside the backbone, by name, of their `to_dict`.
        keeps_keys: whether keys and values of earlier positions continue a segment. If not (Mamba and hybrids, which
            keep a state instead), all its positions are run again for each token.
        tied: whether the output projection is the embedding table.
    """

    hf: dict[str, Any]
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    max_positions: int | None
    attention: str = "sdpa"
    adapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    keeps_keys: bool = True
    tied: bool = False

    @property
    def position_limit(self) -> int | None:
        """Most positions of a segment, memory included; None: no bound."""
        return self.max_positions


@dataclass(frozen=True)
class TransformerXLConfig:
    """Shape and memory of a Transformer-XL with memory tokens (RMT paper, appendix A).

    If the released code is broken or the paper silent, the default is named first.

    Attributes:
        recurrent: False drops the write block: the Memory Transformer, whose prefix is the same in every segment.
        cache: how much each layer keeps of its inputs (Transformer-XL's mem_len).
        cache_counts: "tokens": the cache holds text positions alone, as the paper counts them ("cache 70 + 5
            memory tokens"). "positions": it holds the last positions of the whole sequence, read and write tokens
            included, as released.
        memory_sees_cache: whether read and write tokens attend to the cache; False as in the released runs.
        memory_positions: the position term between memory tokens of a block that look forward. "signed": of their
            true, negative distance. "content": none. "released": what Transformer-XL's shift leaves there, zero for
            the next token and the following query's farthest distances beyond it (no model was meant to use them).
        initial_memory: "copied": M copies of one N(0, 1) vector, as released; "distinct": M vectors.
        cutoffs: first ids of the clusters of an adaptive softmax; empty for a plain one.
        auxiliary_token: one more output entry, which the auxiliary loss predicts from written memory.
        init_std: standard deviation of new weights; 0.02 is the published one, for widths of 410 and 512.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_ff: int
    dropout: float = 0.1
    memory_tokens: int = 0
    recurrent: bool = True
    cache: int = 0
    cache_counts: Literal["tokens", "positions"] = "tokens"
    memory_sees_cache: bool = False
    memory_positions: Literal["signed", "content", "released"] = "signed"
    initial_memory: Literal["copied", "distinct"] = "copied"
    cutoffs: tuple[int, ...] = ()
    auxiliary_token: bool = False
    init_std: float = 0.02

    def __post_init__(self) -> None:
        at_least(self, 1, "vocab_size", "d_model", "n_layers", "n_heads", "d_head", "d_ff")
        at_least(self, 0, "memory_tokens", "cache")
        _check_dropout(self.dropout)
        if self.d_model % 2:
            raise ValueError(f"d_model is {self.d_model}; sinusoidal positions need an even width")
        one_of(self, cache_counts=("tokens", "positions"), memory_positions=("signed", "content", "released"))
        one_of(self, initial_memory=("copied", "distinct"))
        if self.auxiliary_token and not (self.memory_tokens and self.recurrent):
            raise ValueError("auxiliary_token needs memory tokens that are written")


@dataclass(frozen=True)
class DeltaRule:
    """How ARMT writes its memory (Rodkin et al. 2024, equations 1 to 3, and variants of the released code).

    Attributes:
        update: "sequential" as in equations (1)-(3), "batched" as in the released code.
        gamma: "paper": equation (2), of any size and sign; "released": clipped to [0, 1], with EPS added to z.phi(k)
            once something is stored; "off": gamma = 1, the uncorrected rule of Figure 4a.
        detach_gamma: no gradient through gamma (Appendix F.1; always so in the released code).
        bounded: keep what "paper" gives within bounds (see `models.delta_rule`), without which it overflows on long
            streams. A model's default is True. The rows of memory capacity have the equations as they stand.
        nu: order of the feature map DPFP: an association has 2 nu features for each of a key's d_memory numbers.

    Raises:
        ValueError: a value that is not among these.
    """

    update: Literal["sequential", "batched"] = "sequential"
    gamma: Literal["paper", "released", "off"] = "paper"
    detach_gamma: bool = True
    bounded: bool = field(default=False, metadata={"since": 2})
    nu: int = field(default=3, metadata={"since": 4})

    def __post_init__(self) -> None:
        at_least(self, 1, "nu")
        if self.update not in ("sequential", "batched"):
            raise ValueError(f"update is {self.update!r}; it must be 'sequential' or 'batched'")
        if self.gamma not in ("paper", "released", "off"):
            raise ValueError(f"gamma is {self.gamma!r}; it must be 'paper', 'released' or 'off'")


@dataclass(frozen=True)
class RMTConfig:
    """An RMT around a new decoder; see `models.rmt.RMT`."""

    backbone: DecoderConfig
    memory_tokens: int
    memory_mask: Literal["causal", "bidirectional"] = "causal"


@dataclass(frozen=True)
class RMTRConfig:
    """An RMT-R around a new decoder; see `models.rmt_r.RMTR`."""

    backbone: DecoderConfig
    memory_tokens: int
    retrieval: Literal["attention", "top_1"] = "attention"
    past_segments: int = 128


@dataclass(frozen=True)
class ARMTConfig:
    """An ARMT around a new decoder; see `models.armt.ARMT`."""

    backbone: DecoderConfig
    memory_tokens: int
    d_memory: int = 64
    rule: DeltaRule = DeltaRule(bounded=True)
    normalised: bool = False


@dataclass(frozen=True)
class PRMTConfig:
    """A PRMT around a new decoder; see `models.prmt.PRMT`."""

    backbone: DecoderConfig
    memory_tokens: int


@dataclass(frozen=True)
class MambaConfig:
    """Shape of a Mamba model; the defaults are Hugging Face's.

    `init`: how new weights are drawn. "torch": embeddings N(0, 1/D), linear maps and convolution as PyTorch draws them.
    "huggingface": as MambaForCausalLM; embeddings, head, `into` and `select` N(0, 0.1^2), no bias at first. Step sizes,
    decays, the convolution's weights and the projection out are the same in both.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    state_size: int = 16
    expand: int = 2
    conv_taps: int = 4
    dt_rank: int | None = None  # None: ceil(d_model / 16)
    bias: bool = False  # of the projections in and out
    conv_bias: bool = True
    norm_eps: float = 1e-5
    tied: bool = True
    init: Literal["torch", "huggingface"] = field(default="torch", metadata={"since": 2})

    def __post_init__(self) -> None:
        at_least(self, 1, "vocab_size", "d_model", "n_layers", "state_size", "expand", "conv_taps", "dt_rank")
        if self.init not in ("torch", "huggingface"):
            raise ValueError(f"init is {self.init!r}; it must be 'torch' or 'huggingface'")

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def rank(self) -> int:
        return self.dt_rank or math.ceil(self.d_model / 16)


@dataclass(frozen=True)
class RWKVConfig:
    """Shape of an RWKV-5; see `models.rwkv`. `d_ff`: inner width of the channel mix; None: 3.5 widths, as released."""

    vocab_size: int
    d_model: int
    n_layers: int
    head_width: int = 64
    d_ff: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "vocab_size", "d_model", "n_layers", "head_width", "d_ff")
        if self.d_model % self.head_width:
            raise ValueError(f"d_model {self.d_model} is not a multiple of head_width {self.head_width}")

    @property
    def n_heads(self) -> int:
        return self.d_model // self.head_width

    @property
    def inner_width(self) -> int:
        return self.d_ff or max(int(3.5 * self.d_model) // 32 * 32, 32)


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (Hu et al. 2021): W x + (alpha / rank) B A dropout(x), with W frozen.

    `targets`: names of the linear maps that get adapters; none: query, key and value, as in the LoRA study.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        at_least(self, 1, "rank")
        _check_dropout(self.dropout)
