"""How many weights a model has, by arithmetic: for plans, which import no torch. `registry.size_of` counts them."""

from rmtlib.models.config import DecoderConfig, MambaConfig, TransformerXLConfig


def decoder_weights(c: DecoderConfig) -> int:
    """Of a decoder with as many key heads as heads and an ungated feed-forward layer."""
    D, d_ff = c.d_model, c.d_ff or 4 * c.d_model
    norm = 2 * D if c.norm == "layer" else D
    biases = 5 * D + d_ff if c.bias else 0
    block = 4 * D * D + 2 * D * d_ff + biases + 2 * norm
    tables = c.vocab_size * D * (1 if c.tied else 2) + (c.max_positions * D if c.positions == "learned" else 0)
    return c.n_layers * block + tables + c.conv_taps * D * D + norm


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
