"""Copy the weights of a Hugging Face GPT-2, GPT-NeoX or Llama model into a `Decoder`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.models.decoder import Decoder, DecoderConfig

GELU = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}


def decoder_from_hf(model: Any) -> Decoder:
    """A decoder with the weights, dtype and device of a GPT2LMHeadModel, GPTNeoXForCausalLM or LlamaForCausalLM.

    Raises:
        RmtlibError: another architecture, or a setting of it that `Decoder` does not have.
    """
    kind = model.config.model_type
    if kind not in _READERS:
        raise RmtlibError(f"backbone type {kind!r} is not supported; use one of {', '.join(_READERS)}")
    config, weights = _READERS[kind](model.config, {k: v.detach() for k, v in model.state_dict().items()})
    first = next(iter(model.parameters()))
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.to_empty(device=first.device).to(first.dtype)
    decoder.load_state_dict({name: w.clone() for name, w in weights.items()})
    return decoder


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


def _rope(config: Any) -> tuple[float, float]:
    """Base and rotated share of the heads; only plain rotary positions are supported."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise RmtlibError(f"the backbone scales its rotary positions ({kind!r}), which the lean decoder does not have")
    return float(rope.get("rope_theta", 10_000.0)), float(rope.get("partial_rotary_factor", 1.0))


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
    )
    out = {
        "tokens.weight": w["transformer.wte.weight"],
        "position_embedding.weight": w["transformer.wpe.weight"],
        **_pair("norm", w, "transformer.ln_f"),
    }
    for i in range(c.n_layer):
        theirs, ours = f"transformer.h.{i}", f"blocks.{i}"
        out |= _pair(f"{ours}.attention_norm", w, f"{theirs}.ln_1") | _pair(
            f"{ours}.feed_forward_norm", w, f"{theirs}.ln_2"
        )
        for mine, name in (
            ("attention.qkv", "attn.c_attn"),
            ("attention.out", "attn.c_proj"),
            ("feed_forward.up", "mlp.c_fc"),
            ("feed_forward.down", "mlp.c_proj"),
        ):  # GPT-2 stores its linear maps transposed
            out[f"{ours}.{mine}.weight"] = w[f"{theirs}.{name}.weight"].T
            out[f"{ours}.{mine}.bias"] = w[f"{theirs}.{name}.bias"]
    return _with_head(config, out, w, "lm_head")


def _read_neox(c: Any, w: dict[str, Tensor]) -> tuple[DecoderConfig, dict[str, Tensor]]:
    _refuse(c, attention_bias=True)
    theta, share = _rope(c)
    config = DecoderConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        n_layers=c.num_hidden_layers,
        n_heads=c.num_attention_heads,
        d_ff=c.intermediate_size,
        max_positions=c.max_position_embeddings,
        positions="rotary",
        rotary_fraction=share,
        rope_theta=theta,
        norm_eps=c.layer_norm_eps,
        activation=_activation(c.hidden_act),
        parallel_residual=c.use_parallel_residual,
        tied=c.tie_word_embeddings,
        dropout=_dropout(c, "hidden_dropout", "attention_dropout"),
    )
    out = {"tokens.weight": w["gpt_neox.embed_in.weight"], **_pair("norm", w, "gpt_neox.final_layer_norm")}
    for i in range(c.num_hidden_layers):
        theirs, ours = f"gpt_neox.layers.{i}", f"blocks.{i}"
        out |= _pair(f"{ours}.attention_norm", w, f"{theirs}.input_layernorm")
        out |= _pair(f"{ours}.feed_forward_norm", w, f"{theirs}.post_attention_layernorm")
        out |= _pair(f"{ours}.attention.out", w, f"{theirs}.attention.dense")
        out |= _pair(f"{ours}.feed_forward.up", w, f"{theirs}.mlp.dense_h_to_4h")
        out |= _pair(f"{ours}.feed_forward.down", w, f"{theirs}.mlp.dense_4h_to_h")
        for part in ("weight", "bias"):  # rows lie as (head, q | k | v, width); ours as (q | k | v, head, width)
            rows = w[f"{theirs}.attention.query_key_value.{part}"]
            heads = rows.view(c.num_attention_heads, 3, config.d_head, *rows.shape[1:])
            out[f"{ours}.attention.qkv.{part}"] = heads.transpose(0, 1).reshape(rows.shape)
    return _with_head(config, out, w, "embed_out" if "embed_out.weight" in w else "lm_head")


def _read_llama(c: Any, w: dict[str, Tensor]) -> tuple[DecoderConfig, dict[str, Tensor]]:
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    if head_dim * c.num_attention_heads != c.hidden_size:
        raise RmtlibError(f"the backbone's heads of width {head_dim} do not add up to its width {c.hidden_size}")
    _refuse(c, attention_bias=False, mlp_bias=False, hidden_act="silu", attention_dropout=0.0)
    theta, _ = _rope(c)
    config = DecoderConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        n_layers=c.num_hidden_layers,
        n_heads=c.num_attention_heads,
        n_kv_heads=c.num_key_value_heads,
        d_ff=c.intermediate_size,
        max_positions=c.max_position_embeddings,
        positions="rotary",
        rope_theta=theta,
        norm="rms",
        norm_eps=c.rms_norm_eps,
        activation="swiglu",
        bias=False,
        tied=c.tie_word_embeddings,
        dropout=0.0,
    )
    out = {"tokens.weight": w["model.embed_tokens.weight"], "norm.weight": w["model.norm.weight"]}
    for i in range(c.num_hidden_layers):
        theirs, ours = f"model.layers.{i}", f"blocks.{i}"
        out[f"{ours}.attention_norm.weight"] = w[f"{theirs}.input_layernorm.weight"]
        out[f"{ours}.feed_forward_norm.weight"] = w[f"{theirs}.post_attention_layernorm.weight"]
        out[f"{ours}.attention.qkv.weight"] = torch.cat([w[f"{theirs}.self_attn.{x}_proj.weight"] for x in "qkv"])
        out[f"{ours}.attention.out.weight"] = w[f"{theirs}.self_attn.o_proj.weight"]
        for name in ("up", "gate", "down"):
            out[f"{ours}.feed_forward.{name}.weight"] = w[f"{theirs}.mlp.{name}_proj.weight"]
    return _with_head(config, out, w, "lm_head")


def _pair(ours: str, w: dict[str, Tensor], theirs: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": w[f"{theirs}.{part}"] for part in ("weight", "bias")}


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
}
