"""Any causal language model of transformers as the backbone: Hugging Face's module behind the decoder's calls."""

import json
from dataclasses import asdict

import pytest
import torch
import transformers
from test_decoder import SPECIAL, exact_norms, hf_model
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.models.armt import ARMT
from rmtlib.models.decoder import Decoder
from rmtlib.models.generation import generate
from rmtlib.models.hf_decoder import HFDecoder, backbone_from_config, backbone_from_hf
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.mamba import mamba_from_hf
from rmtlib.models.prmt import PRMT
from rmtlib.models.rmt import RMT

V, S, M = 101, 7, 3
SMALL = dict(
    vocab_size=V, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=64, pad_token_id=None, **SPECIAL,
)  # fmt: skip
OTHERS = {
    "gemma": dict(head_dim=8, num_key_value_heads=2),
    "gemma2": dict(head_dim=8, num_key_value_heads=2, sliding_window=9, query_pre_attn_scalar=8),
    "gemma3_text": dict(head_dim=8, num_key_value_heads=2, sliding_window=9, query_pre_attn_scalar=8),
    "phi": {},
    "olmo2": {},
    "cohere": dict(num_key_value_heads=2, logit_scale=0.3),
    "granite": dict(num_key_value_heads=2, logits_scaling=3.0, embedding_multiplier=2.0),
    "gptj": dict(rotary_dim=4),
    "bloom": {},
    "falcon": {},
    "opt": dict(ffn_dim=48, word_embed_proj_dim=32),
    "mixtral": dict(num_local_experts=3, num_key_value_heads=2),
    "mamba": dict(state_size=4),
    "stablelm": dict(num_key_value_heads=2),
}
NO_MASK = {"bloom", "mamba"}


def other(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SMALL | OTHERS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def ids(batch: int, length: int = S, seed: int = 1) -> Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def around(cls, decoder, seed: int = 2, **options):
    torch.manual_seed(seed)
    model = cls(decoder, M, **options).eval()
    with torch.no_grad():
        for p in model.parameters(recurse=False):
            p.add_(0.1 * torch.randn_like(p))
    return model


def read(model, segments, state=None):
    state, outputs = state or model.initial_state(len(segments[0][0])), []
    for x, lengths in segments:
        hidden, state = model.step(x, state, lengths)
        outputs.append(hidden)
    return outputs, state


@pytest.mark.parametrize("kind", OTHERS)
def test_any_causal_model_gives_its_own_logits(kind, caplog):
    model = other(kind)
    decoder = backbone_from_hf(model)
    assert isinstance(decoder, HFDecoder) and f"{kind!r} is not supported" in caplog.text
    x = ids(2, 20)
    with torch.no_grad():
        hidden, _ = decoder(decoder.embed(x))
        torch.testing.assert_close(decoder.logits(hidden), model(x).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", OTHERS)
def test_token_by_token_equals_a_step_and_padding_changes_nothing(kind):
    model = around(RMT, backbone_from_hf(other(kind)))
    x, lengths = ids(2, 12), torch.tensor([12, 5])
    with torch.no_grad():
        state = model.step(ids(2, 12, seed=3), model.initial_state(2))[1]
        whole, after = model.step(x, state)
        segment, parts = model.open_segment(state), []
        for piece in x.split([1, 7, 1, 3], dim=1):
            hidden, segment = model.extend(segment, piece)
            parts.append(hidden)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.close_segment(segment)[0], after[0], rtol=0, atol=1e-5)
        padded, padded_state = model.step(x, state, lengths)
        alone, alone_state = model.step(x[1:, :5], type(state)(state[0][1:]))
        torch.testing.assert_close(padded[1:, :5], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(padded_state[0][1:], alone_state[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(padded[:1], whole[:1], rtol=0, atol=1e-5)
        rows = torch.tensor([[3, 0], [4, 2]])
        chosen, _ = model.step(x, state, lengths, rows_BN=rows)
        torch.testing.assert_close(chosen, padded.gather(1, rows[..., None].expand(-1, -1, 32)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("memory_mask", ["causal", "bidirectional"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "neox-sequential"])
def test_rmt_over_the_module_equals_rmt_over_the_lean_decoder(kind, memory_mask, monkeypatch):
    backbone = hf_model(kind).double()
    exact_norms(backbone, monkeypatch)
    lean, generic = (
        around(RMT, d, memory_mask=memory_mask).double() for d in (decoder_from_hf(backbone), HFDecoder(backbone))
    )
    segments = [(ids(2, seed=s), torch.tensor([S, 4])) for s in range(3)]
    (ours, state), (theirs, expected) = read(generic, segments), read(lean, segments)
    torch.testing.assert_close(state[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[2][:1], theirs[2][:1], rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(s[0].sum(), m.memory_MD)[0] for m, s in ((generic, state), (lean, expected))]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    prompt = ids(2, 10)
    made = [generate(m, prompt, m.initial_state(2), S, 12).tolist() for m in (generic, lean)]
    assert made[0] == made[1]


@pytest.mark.parametrize("cls", [ARMT, PRMT])
@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "neox-parallel"])
def test_memory_in_each_layer_of_the_module_equals_that_of_the_lean_decoder(kind, cls, monkeypatch):
    backbone = hf_model(kind).double()
    exact_norms(backbone, monkeypatch)
    options = {"d_memory": 4} if cls is ARMT else {}
    lean, generic = (around(cls, d, **options).double() for d in (decoder_from_hf(backbone), HFDecoder(backbone)))
    segments = [(ids(2, seed=s), torch.tensor([S, 4])) for s in range(3)]
    (ours, state), (theirs, expected) = read(generic, segments), read(lean, segments)
    for a, b in zip([ours[2][:1], *state], [theirs[2][:1], *expected], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    gradients = [
        torch.autograd.grad(s[0].sum(), list(m.parameters(recurse=False)), allow_unused=True)
        for m, s in ((generic, state), (lean, expected))
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    prompt = ids(2, 10)
    made = [generate(m, prompt, m.initial_state(2), S, 12).tolist() for m in (generic, lean)]
    assert made[0] == made[1]
    rows = torch.tensor([[3, 0], [1, 2]])
    torch.testing.assert_close(
        generic.step(prompt[:, :S], state, rows_BN=rows)[0],
        generic.step(prompt[:, :S], state)[0].gather(1, rows[..., None].expand(-1, -1, 48)),
    )
    reader = generic.forward_diagonal(segments, generic.initial_state(2))
    for made_BSD, expected_BSD in zip(reader, ours, strict=True):
        torch.testing.assert_close(made_BSD, expected_BSD)


@pytest.mark.parametrize("kind", OTHERS)
def test_armt_reads_every_layer_or_says_that_it_cannot(kind):
    model = around(ARMT, backbone_from_hf(other(kind)), d_memory=4)
    (first, _), state = read(model, [(ids(2), None), (ids(2), None)])
    assert state[0].abs().flatten(1).sum(1).gt(0).all()  # every layer has written
    again, _ = model.step(ids(2), state)
    assert (again - first).abs().max() > 1e-4  # and is read


@pytest.mark.parametrize("kind", OTHERS)
def test_a_mask_of_memory_blocks_is_used_or_refused(kind):
    causal, both = (around(RMT, backbone_from_hf(other(kind)), memory_mask=m) for m in ("causal", "bidirectional"))
    x, state = ids(2, 3), causal.initial_state(2)
    if kind in NO_MASK:
        with pytest.raises(RmtlibError, match="takes no mask of the caller's; use memory_mask='causal'"):
            both.step(x, state)
        return
    (a, _), (b, _) = causal.step(x, state), both.step(x, state)
    assert (a - b).abs().max() > 1e-4
    if kind.startswith("gemma") and kind != "gemma":
        with pytest.raises(RmtlibError, match="exceed the backbone's attention window of 9"):
            both.step(ids(2, 6), state)


@pytest.mark.parametrize("kind", ["gemma3_text", "mixtral", "mamba"])
def test_it_is_rebuilt_from_a_config_of_plain_values(kind):
    model = around(RMT, backbone_from_hf(other(kind)))
    config = json.loads(json.dumps(asdict(model.decoder.config)))
    again = around(RMT, backbone_from_config(config), seed=5)
    again.load_state_dict(model.state_dict())
    segments = [(ids(2, seed=s), None) for s in range(2)]
    with torch.no_grad():
        assert torch.equal(read(again, segments)[0][1], read(model, segments)[0][1])


def test_the_lean_decoder_is_rebuilt_by_the_same_call():
    for kind in ("qwen3", "llama-3"):
        decoder = decoder_from_hf(hf_model(kind))
        again = backbone_from_config(json.loads(json.dumps(asdict(decoder.config))))
        assert isinstance(again, Decoder)
        again.load_state_dict(decoder.state_dict())
        x = torch.randn(1, 9, 48)
        torch.testing.assert_close(again(x)[0], decoder(x)[0])


def test_settings_that_the_lean_decoder_lacks_lead_to_the_module(caplog):
    llama = hf_model("llama-tied")
    assert isinstance(backbone_from_hf(llama), Decoder) and not caplog.text
    assert isinstance(backbone_from_hf(llama, "eager"), Decoder)
    scaled = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0}
    config = transformers.LlamaConfig(**SMALL, rope_parameters=scaled)
    assert isinstance(backbone_from_hf(transformers.LlamaForCausalLM(config)), HFDecoder)
    assert "scales its rotary positions ('linear')" in caplog.text
    with pytest.raises(RmtlibError, match="attn_implementation 'no such': ") as error:
        backbone_from_hf(llama, "no such")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("training", [True, False])
def test_a_decoder_is_in_the_mode_of_the_model_it_is_of(training):
    """Hugging Face's are in eval mode: dropout would make what is read with them random."""
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)
    assert decoder_from_hf(transformers.GPT2LMHeadModel(config).train(training)).training == training
    mamba = transformers.MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4)
    assert mamba_from_hf(transformers.MambaForCausalLM(mamba).train(training)).training == training


def test_what_is_no_causal_model_is_refused():
    t5 = transformers.T5Model(transformers.T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, vocab_size=9, d_kv=8))
    with pytest.raises(RmtlibError, match="'t5' is no causal language model"):
        backbone_from_hf(t5)
    config = transformers.OPTConfig(**SMALL | OTHERS["opt"] | dict(word_embed_proj_dim=16))
    with pytest.raises(RmtlibError, match="embeddings of width 16 and outputs of 32"):
        backbone_from_hf(transformers.OPTForCausalLM(config))


def test_more_positions_than_the_backbone_has_are_refused():
    decoder = backbone_from_hf(other("phi"))
    assert decoder.config.position_limit == 64
    with pytest.raises(ValueError, match="65 positions .* exceed the backbone's 64"):
        decoder(torch.zeros(1, 65, 32))


def test_it_trains_with_the_backbones_gradient_checkpointing_as_without_and_in_bfloat16():
    model = around(RMT, backbone_from_hf(other("olmo2")))
    model.decoder.model.gradient_checkpointing_enable()
    assert model.train().decoder.training

    def gradients():
        outputs, _ = read(model, [(ids(2, seed=s), None) for s in range(2)])
        return torch.autograd.grad(model.logits(outputs[1]).sum(), [model.memory_MD, model.decoder.tokens.weight])

    checkpointed = gradients()
    model.decoder.model.gradient_checkpointing_disable()
    for a, b in zip(checkpointed, gradients(), strict=True):
        torch.testing.assert_close(a, b)
    model.bfloat16()
    assert all(x.isfinite().all() and x.dtype == torch.bfloat16 for x in gradients())
    for cls, more in ((RMT, {}), (ARMT, {"d_memory": 4})):
        mamba = around(cls, backbone_from_hf(other("mamba")), **more).bfloat16()  # float32 between its layers
        outputs, _ = read(mamba, [(ids(2, seed=s), None) for s in range(2)])
        assert mamba.logits(outputs[1]).dtype == torch.bfloat16
    layered = around(ARMT, backbone_from_hf(other("olmo2")), d_memory=4).train()
    layered.decoder.model.gradient_checkpointing_enable()
    with pytest.raises(RmtlibError, match="a memory in each layer cannot be trained with the backbone's gradient"):
        layered.step(ids(1), layered.initial_state(1))
