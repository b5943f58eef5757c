"""How many weights a model has, by arithmetic: for plans, which import no torch. `registry.size_of` counts them."""

from rmtlib.models.config import DecoderConfig, DeltaRule, MambaConfig, RWKVConfig, TransformerXLConfig
from rmtlib.models.names import MAP_NAMES

DECODERS = {  # shapes of pretrained ones, for costs and for what a record's counts have to be
    "gpt2": DecoderConfig(50_257, d_model=768, n_layers=12, n_heads=12),
    "smollm2": DecoderConfig(
        49_152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, d_ff=1536, positions="rotary", norm="rms",
        activation="swiglu", bias=False, names="llama",
    ),
}  # fmt: skip


def decoder_weights(c: DecoderConfig) -> int:
    """Of a decoder whose biases are all there or none, without norms of queries and keys."""
    D, d_ff, heads = c.d_model, c.d_ff or 4 * c.d_model, c.n_heads * c.d_head
    qkv = qkv_width(c)
    norm = 2 * D if c.norm == "layer" else D
    gated = c.activation == "swiglu"
    biases = qkv + 2 * D + d_ff * (1 + gated) if c.bias else 0
    block = D * qkv + heads * D + (2 + gated) * D * d_ff + biases + 2 * norm
    tables = c.vocab_size * D * (1 if c.tied else 2) + (c.max_positions * D if c.positions == "learned" else 0)
    return c.n_layers * block + tables + c.conv_taps * D * D + norm


def qkv_width(c: DecoderConfig) -> int:
    """Outputs of a block's maps to query, key and value together."""
    return (c.n_heads + 2 * (c.n_kv_heads or c.n_heads)) * c.d_head


def lora_weights(c: DecoderConfig, rank: int) -> int:
    """Of adapters on query, key and value of every block, which are one map or three."""
    maps = len(MAP_NAMES[c.names].query_key_value)
    return c.n_layers * rank * (maps * c.d_model + qkv_width(c))


def armt_weights(c: DecoderConfig, d_memory: int) -> int:
    """Of ARMT's layers besides the decoder and the memory tokens."""
    return c.n_layers * (c.d_model**2 + 2 * c.d_model * d_memory + c.d_model + 1)


def armt_state(layers: int, width: int, d_memory: int, nu: int = DeltaRule.nu) -> int:
    """Floats of ARMT's memory, a sample: matrix and normalisation of each layer."""
    return layers * 2 * nu * d_memory * (width + 1)


def retrieval_weights(width: int) -> int:
    """Of RMT-R's attention to past memories: four maps, an MLP, three norms."""
    return 12 * width**2 + 15 * width


def transformer_xl_weights(c: TransformerXLConfig) -> int:
    """Of a Transformer-XL with its memory tokens and its (adaptive) softmax."""
    D, inner = c.d_model, c.n_heads * c.d_head
    layer = 5 * D * inner + 2 * D * c.d_ff + c.d_ff + 5 * D
    extra = (len(c.cutoffs) + c.auxiliary_token) * (D + 1)
    return c.n_layers * layer + 2 * inner + c.vocab_size * (D + 1) + extra + c.memory_tokens * D


def mamba_weights(c: MambaConfig) -> int:
    """Of a Mamba without biases of its projections."""
    D, inner, rank, N = c.d_model, c.d_inner, c.rank, c.state_size
    scan = inner * N + inner + inner * (rank + 2 * N) + (rank + 1) * inner
    layer = D + 2 * D * inner + inner * (c.conv_taps + c.conv_bias) + scan + inner * D
    return c.n_layers * layer + c.vocab_size * D * (1 if c.tied else 2) + D


def rwkv_weights(c: RWKVConfig) -> int:
    """Of an RWKV-5."""
    D = c.d_model
    time, channel = 5 * D**2 + 8 * D, D**2 + 2 * D * c.inner_width + 2 * D
    return c.n_layers * (time + channel + 4 * D) + 2 * c.vocab_size * D + 4 * D
