"""Copy the weights of a Hugging Face GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 or Qwen3 model into a `Decoder`.

The decoder's linear maps keep the backbone's names, e.g. `blocks.0.attention.q_proj`: PEFT's target modules find them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.models.decoder import Decoder, DecoderConfig

GELU = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}


def decoder_from_hf(model: Any) -> Decoder:
    """A decoder with the weights, dtype and device of a Hugging Face causal language model, of a type in `_READERS`.

    Raises:
        RmtlibError: another architecture, or a setting of it that `Decoder` does not have.
    """
    kind = model.config.model_type
    if kind not in _READERS:
        raise RmtlibError(f"backbone type {kind!r} is not supported; use one of {', '.join(_READERS)}")
    if model.get_output_embeddings() is None:
        raise RmtlibError(f"the backbone is a {type(model).__name__}; load it with AutoModelForCausalLM")
    config, weights = _READERS[kind](model.config, {k: v.detach() for k, v in model.state_dict().items()})
    first = next(iter(model.parameters()))
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.to_empty(device=first.device).to(first.dtype)
    decoder.load_state_dict({name: w.clone() for name, w in weights.items()})
    return decoder.train(model.training)


def _refuse(config: Any, **wanted: Any) -> None:
    for name, value in wanted.items():
        if getattr(config, name, value) != value:
            raise RmtlibError(f"the backbone has {name}={getattr(config, name)!r}; the lean decoder only has {value!r}")


def _dropout(config: Any, *names: str) -> float:
    """The one probability of all dropouts of the backbone: `Decoder` has no others."""
    probabilities = {name: getattr(config, name) for name in names}
    if len(set(probabilities.values())) > 1:
        said = ", ".join(f"{name}={p}" for name, p in probabilities.items())
        raise RmtlibError(f"the backbone has {said}; the lean decoder has one dropout: make them equal in its config")
    return float(probabilities[names[0]])


def _activation(name: str) -> Any:
    if name not in GELU:
        raise RmtlibError(f"the backbone's activation {name!r} is not supported; use one of {', '.join(GELU)}")
    return GELU[name]


LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _rope(config: Any) -> dict[str, Any]:
    """Base, rotated share of the heads and scaling of rotary positions."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "llama3"):
        raise RmtlibError(f"the backbone scales its rotary positions ({kind!r}), which the lean decoder does not have")
    return {
        "rope_theta": float(rope.get("rope_theta", 10_000.0)),
        "rotary_fraction": float(rope.get("partial_rotary_factor", 1.0)),
        "rope_llama3": tuple(float(rope[name]) for name in LLAMA3) if kind == "llama3" else None,
    }


def _read_gpt2(c: Any, w: dict[str, Tensor]) -> tuple[DecoderConfig, dict[str, Tensor]]:
    _refuse(c, scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True)
    config = DecoderConfig(
        vocab_size=c.vocab_size,
        d_model=c.n_embd,
        n_layers=c.n_layer,
        n_heads=c.n_head,
        d_ff=c.n_inner,
        max_positions=c.n_positions,
        norm_eps=c.layer_norm_epsilon,
        activation=_activation(c.activation_function),
        tied=c.tie_word_embeddings,
        dropout=_dropout(c, "resid_pdrop", "embd_pdrop", "attn_pdrop"),
        names="gpt2",
    )
    out = {
        "tokens.weight": w["transformer.wte.weight"],
        "position_embedding.weight": w["transformer.wpe.weight"],
        **_renamed(w, "transformer.ln_f", "norm"),
    }
    for i in range(c.n_layer):
        block = _block(w, f"transformer.h.{i}", i, ("ln_1", "ln_2", "attn", "mlp"))
        # GPT-2 stores its linear maps transposed
        out |= {name: x.T if x.ndim == 2 else x for name, x in block.items()}
    return _with_head(config, out, w, "lm_head")


def _read_neox(c: Any, w: dict[str, Tensor]) -> tuple[DecoderConfig, dict[str, Tensor]]:
    _refuse(c, attention_bias=True)
    config = DecoderConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        n_layers=c.num_hidden_layers,
        n_heads=c.num_attention_heads,
        d_ff=c.intermediate_size,
        max_positions=c.max_position_embeddings,
        positions="rotary",
        **_rope(c),
        norm_eps=c.layer_norm_eps,
        activation=_activation(c.hidden_act),
        parallel_residual=c.use_parallel_residual,
        tied=c.tie_word_embeddings,
        dropout=_dropout(c, "hidden_dropout", "attention_dropout"),
        names="gpt_neox",
    )
    out = {"tokens.weight": w["gpt_neox.embed_in.weight"], **_renamed(w, "gpt_neox.final_layer_norm", "norm")}
    for i in range(c.num_hidden_layers):
        block = _block(
            w, f"gpt_neox.layers.{i}", i, ("input_layernorm", "post_attention_layernorm", "attention", "mlp")
        )
        for part in ("weight", "bias"):  # rows lie as (head, q | k | v, width); ours as (q | k | v, head, width)
            name = f"blocks.{i}.attention.query_key_value.{part}"
            heads = block[name].view(c.num_attention_heads, 3, config.d_head, *block[name].shape[1:])
            block[name] = heads.transpose(0, 1).reshape(block[name].shape)
        out |= block
    return _with_head(config, out, w, "embed_out" if "embed_out.weight" in w else "lm_head")


def _read_llama(c: Any, w: dict[str, Tensor]) -> tuple[DecoderConfig, dict[str, Tensor]]:
    """Llama, and what differs from it in a bias (Qwen2), a norm (Qwen3) or the attention window (Mistral)."""
    _refuse(c, mlp_bias=False, hidden_act="silu", attention_dropout=0.0)
    if "model.layers.0.self_attn.o_proj.bias" in w:
        raise RmtlibError("the backbone's attention has a bias on its output, which the lean decoder does not have")
    config = DecoderConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        n_layers=c.num_hidden_layers,
        n_heads=c.num_attention_heads,
        n_kv_heads=c.num_key_value_heads,
        d_ff=c.intermediate_size,
        max_positions=c.max_position_embeddings,
        positions="rotary",
        **_rope(c),
        norm="rms",
        norm_eps=c.rms_norm_eps,
        activation="swiglu",
        bias=False,
        tied=c.tie_word_embeddings,
        dropout=0.0,
        names="llama",
        head_width=getattr(c, "head_dim", None),
        qkv_bias="model.layers.0.self_attn.q_proj.bias" in w,
        qk_norm="model.layers.0.self_attn.q_norm.weight" in w,
        window=getattr(c, "sliding_window", None),
    )
    out = {"tokens.weight": w["model.embed_tokens.weight"], "norm.weight": w["model.norm.weight"]}
    for i in range(c.num_hidden_layers):
        names = ("input_layernorm", "post_attention_layernorm", "self_attn", "mlp")
        out |= _block(w, f"model.layers.{i}", i, names)
    return _with_head(config, out, w, "lm_head")


def _block(w: dict[str, Tensor], theirs: str, i: int, names: tuple[str, str, str, str]) -> dict[str, Tensor]:
    """The weights of block i; `names`: what its two norms, attention and feed-forward layer are called."""
    out: dict[str, Tensor] = {}
    for name, ours in zip(names, ("attention_norm", "feed_forward_norm", "attention", "feed_forward"), strict=True):
        out |= _renamed(w, f"{theirs}.{name}", f"blocks.{i}.{ours}")
    return out


def _renamed(w: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {ours + name.removeprefix(theirs): x for name, x in w.items() if name.startswith(f"{theirs}.")}


def _with_head(
    config: DecoderConfig, out: dict[str, Tensor], w: dict[str, Tensor], head: str
) -> tuple[DecoderConfig, dict[str, Tensor]]:
    if not config.tied:
        out["head.weight"] = w[f"{head}.weight"]
    return config, out


_READERS: dict[str, Callable[[Any, dict[str, Tensor]], tuple[DecoderConfig, dict[str, Tensor]]]] = {
    "gpt2": _read_gpt2,
    "gpt_neox": _read_neox,
    "llama": _read_llama,
    "mistral": _read_llama,
    "qwen2": _read_llama,
    "qwen3": _read_llama,
}
