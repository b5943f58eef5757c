"""The lean decoder equals Hugging Face's GPT-2, GPT-NeoX and Llama, and its cache equals one pass."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch.nn import functional as F

from rmtlib.errors import RmtlibError
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.generation import sampler
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.rmt import RMT
from rmtlib.models.stacked import StackedBlocks, stackable
from rmtlib.settings import to_params

V, T = 101, 40
SPECIAL = dict(bos_token_id=0, eos_token_id=0)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def hf_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=V, n_embd=48, n_layer=3, n_head=4, n_positions=64, **SPECIAL)
        model = transformers.GPT2LMHeadModel(config)
    elif kind.startswith("neox"):
        config = transformers.GPTNeoXConfig(
            vocab_size=V, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
            max_position_embeddings=64, use_parallel_residual=kind == "neox-parallel", **SPECIAL,
        )  # fmt: skip
        model = transformers.GPTNeoXForCausalLM(config)
    else:
        more = {"qwen3": {"head_dim": 16}, "mistral": {"sliding_window": T, "head_dim": 8}}.get(kind, {})
        config = transformers.AutoConfig.for_model(
            kind.split("-")[0], vocab_size=V, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=80, max_position_embeddings=64, pad_token_id=None,
            tie_word_embeddings=kind == "llama-tied",
            rope_parameters=LLAMA3 if kind == "llama-3" else {"rope_type": "default", "rope_theta": 5000.0},
            **SPECIAL, **more,
        )  # fmt: skip
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # new models have zero biases and unit norms, which would hide a swapped one
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


KINDS = [
    "gpt2",
    "neox-parallel",
    "neox-sequential",
    "llama-tied",
    "llama-untied",
    "llama-3",
    "mistral",
    "qwen2",
    "qwen3",
]


def exact_norms(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face computes RMS norms in float32 whatever the model's dtype; here float64 stays float64."""
    for part in model.modules():
        if type(part).__name__.endswith("RMSNorm") and part.weight.dtype == torch.float64:
            monkeypatch.setattr(
                type(part), "forward", lambda self, x: F.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_logits_equal_hugging_face(kind, dtype, bound, monkeypatch):
    model = hf_model(kind).to(dtype)
    exact_norms(model, monkeypatch)
    decoder = decoder_from_hf(model).eval()
    ids = torch.randint(0, V, (3, T))
    with torch.no_grad():
        hidden, _ = decoder(decoder.embed(ids))
        difference = (decoder.logits(hidden) - model(ids).logits).abs().max()
    assert difference <= bound


@pytest.mark.parametrize("kind", KINDS)
def test_reading_in_pieces_with_a_cache_equals_one_pass(kind):
    decoder = decoder_from_hf(hf_model(kind).double()).eval()
    x = decoder.embed(torch.randint(0, V, (2, T)))
    with torch.no_grad():
        whole, _ = decoder(x)
        parts, cache = [], None
        for piece in x.split([7, 1, 20, 12], dim=1):
            hidden, cache = decoder(piece, cache=cache)
            parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)


def test_no_mask_is_made_for_plain_causal_attention(monkeypatch):
    seen = []
    original = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, **kwargs):
        seen.append((kwargs["attn_mask"], kwargs["is_causal"]))
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    decoder = Decoder(DecoderConfig(vocab_size=V, d_model=16, n_layers=2, n_heads=2))
    decoder(decoder.embed(torch.randint(0, V, (2, T))))
    assert seen == [(None, True)] * 2


def test_convolution_is_causal_and_starts_as_the_identity():
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(vocab_size=V, d_model=16, n_layers=1, n_heads=2, conv_taps=4)).double()
    ids = torch.randint(0, V, (1, 12))
    torch.testing.assert_close(decoder.embed(ids), decoder.tokens(ids))
    torch.nn.init.normal_(decoder.conv.weight)
    changed = ids.clone()
    changed[0, 5] = (ids[0, 5] + 1) % V
    moved = (decoder.embed(ids) - decoder.embed(changed)).abs().sum(-1)[0] > 1e-9
    assert moved.tolist() == [5 <= t <= 8 for t in range(12)]  # itself and the three after it


def test_positions_beyond_the_table_are_refused():
    decoder = Decoder(DecoderConfig(vocab_size=V, d_model=16, n_layers=1, n_heads=2, max_positions=8))
    with pytest.raises(ValueError, match="9 positions .* exceed the table of 8"):
        decoder(torch.zeros(1, 9, 16))


def test_unsupported_backbones_are_named():
    bert = transformers.BertModel(
        transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9
        )
    )
    with pytest.raises(RmtlibError, match="'bert' is not supported; use one of gpt2, gpt_neox, llama, mistral,"):
        decoder_from_hf(bert)
    scaled = hf_model("llama-tied")
    scaled.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(RmtlibError, match="scales its rotary positions"):
        decoder_from_hf(scaled)


def test_a_head_of_odd_width_cannot_be_rotated():
    with pytest.raises(ValueError, match="a head has 7 numbers, which are rotated in pairs"):
        DecoderConfig(10, 21, 1, 3, positions="rotary")
    DecoderConfig(10, 21, 1, 3, positions="learned")


def test_dropouts_that_differ_are_refused():
    backbone = hf_model("gpt2")
    backbone.config.attn_pdrop = 0.0
    with pytest.raises(RmtlibError, match="resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.0; the lean decoder has one"):
        decoder_from_hf(backbone)
    neox, llama = hf_model("neox-parallel"), hf_model("llama-tied")
    neox.config.hidden_dropout = llama.config.attention_dropout = 0.1
    for model in (neox, llama):
        with pytest.raises(RmtlibError, match="dropout=0.1"):
            decoder_from_hf(model)
    neox.config.attention_dropout = 0.1
    assert decoder_from_hf(neox).config.dropout == 0.1


def test_new_weights_are_those_of_gpt2_at_its_width_or_have_one_deviation_as_hugging_faces_neox():
    shape = DecoderConfig(vocab_size=400, d_model=96, n_layers=4, n_heads=4, positions="rotary", tied=False)
    gpt2, neox = Decoder(shape), Decoder(replace(shape, init_std=0.02))
    config = transformers.GPTNeoXConfig(
        vocab_size=400, hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384, **SPECIAL
    )
    theirs = decoder_from_hf(transformers.GPTNeoXForCausalLM(config))
    for (name, ours), (_, peer) in zip(neox.named_parameters(), theirs.named_parameters(), strict=True):
        assert ours.std().item() == pytest.approx(peer.std().item(), rel=0.05), name
        assert ours.mean().item() == pytest.approx(peer.mean().item(), abs=0.002), name
    std = 0.02 * 8**0.5  # the width is an eighth of GPT-2's
    block = gpt2.blocks[0]
    for weight, expected in ((gpt2.tokens.weight, std), (block.feed_forward.down.weight, std / 8**0.5)):
        assert weight.std().item() == pytest.approx(expected, rel=0.05)
    memory = RMT(neox, 200).memory_MD
    assert memory.std().item() == pytest.approx(0.02, rel=0.05)  # the initial memory is drawn at the embeddings' scale


def test_an_attention_window_is_held_up_to_its_size_and_refused_beyond():
    decoder = decoder_from_hf(hf_model("mistral"))
    assert decoder.config.position_limit == T
    decoder(torch.zeros(1, T, 48))
    with pytest.raises(ValueError, match=f"{T + 1} positions .* exceed the attention window of {T}"):
        decoder(torch.zeros(1, T + 1, 48))


NAMES = {
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "neox-parallel": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
}


@pytest.mark.parametrize("kind", NAMES)
def test_linear_maps_have_the_backbones_names(kind):
    linear = {name.rsplit(".", 1)[-1] for name, part in decoder_from_hf(hf_model(kind)).blocks.named_modules()
              if isinstance(part, torch.nn.Linear)}  # fmt: skip
    assert linear == NAMES[kind]
    of_hf = {name.rsplit(".", 1)[-1] for name, _ in hf_model(kind).named_modules()}
    assert linear <= of_hf


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_blocks_equal_the_blocks_one_by_one(kind):
    decoder = decoder_from_hf(hf_model(kind)).double().eval()
    assert stackable(decoder)
    x = torch.randn(3, 2, 11, 48, dtype=torch.float64)
    angles = decoder.angles(0, 11, x.device)
    plain = torch.stack([block(row, angles)[0] for block, row in zip(decoder.blocks, x, strict=True)])
    stacked = StackedBlocks(decoder)(x, slice(0, 3))
    torch.testing.assert_close(stacked, plain, rtol=0, atol=1e-10)
    weights = list(decoder.blocks.parameters())
    ours, theirs = (torch.autograd.grad(y.square().sum(), weights) for y in (stacked, plain))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_three_maps_equal_the_fused_one_and_old_settings_keep_their_names():
    shape = DecoderConfig(V, 16, 2, 4, n_kv_heads=2)
    assert not set(to_params(shape)) & {
        "names",
        "head_width",
        "qkv_bias",
        "qk_norm",
        "window",
        "rope_llama3",
        "init_std",
    }
    fused, apart = Decoder(shape).double(), Decoder(replace(shape, names="llama")).double()
    weights = {}
    for name, x in fused.state_dict().items():
        for ours, theirs in (("out", "o_proj"), ("up", "up_proj"), ("down", "down_proj")):
            name = name.replace(f".{ours}.", f".{theirs}.")
        if ".qkv." in name:
            parts = x.split([16, 8, 8])
            weights |= {name.replace("qkv", f"{k}_proj"): part for k, part in zip("qkv", parts, strict=True)}
        else:
            weights[name] = x
    apart.load_state_dict(weights)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    torch.testing.assert_close(apart(x)[0], fused(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [{"positions": "absolute"}, {"norm": "batch"}, {"activation": "relu"}, {"n_kv_heads": 0}, {"positions": None}],
)  # fmt: skip
def test_settings_that_no_decoder_has_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        DecoderConfig(vocab_size=10, d_model=8, n_layers=1, n_heads=2, **wrong)


@pytest.mark.parametrize("temperature", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(RmtlibError, match="the temperature is a number above 0, not"):
        sampler(temperature)
