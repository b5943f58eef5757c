"""RMT with Hugging Face conventions: wrapping and reading; the rest is in test_hub_promises.py."""

import pytest
import torch
from test_decoder import hf_model
from transformers import GPT2Config, GPT2Model

from rmtlib import RMTForCausalLM
from rmtlib.errors import NotHere, RmtlibError

S, M = 8, 3


@pytest.fixture
def model() -> RMTForCausalLM:
    torch.manual_seed(1)
    wrapped = RMTForCausalLM.from_backbone(hf_model("gpt2"), memory_tokens=M, segment_size=S)
    return wrapped.double().eval()


def ids(*shape, seed=0):
    return torch.randint(0, 101, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["gpt2", "neox-parallel", "llama-tied"])
def test_without_memory_a_wrapped_backbone_is_the_backbone(kind):
    backbone = hf_model(kind)
    wrapped = RMTForCausalLM.from_backbone(backbone, memory_tokens=0, segment_size=20).eval()
    x = ids(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(x).logits, backbone(x).logits, rtol=0, atol=1e-4)


def test_initial_memory_is_distinct_and_has_the_scale_of_the_embeddings():
    backbone = hf_model("llama-tied")
    wrapped = RMTForCausalLM.from_backbone(backbone, memory_tokens=300, segment_size=S)
    memory = wrapped.initial_state(2).memory_BMD
    assert torch.equal(memory[0], memory[1]) and len(memory[0].unique(dim=0)) == 300
    torch.testing.assert_close(memory.std(), backbone.get_input_embeddings().weight.std(), rtol=0.05, atol=0)


def test_loss_is_that_of_the_logits_across_segment_borders(model):
    x = ids(3, 21)
    labels = x.clone()
    labels[:, ::4] = -100
    logits = model(x).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(model(x, labels=labels).loss, expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(model, side):
    x, lengths = ids(3, 21), [21, 5, 12]
    mask = torch.zeros_like(x)
    for b, n in enumerate(lengths):
        mask[b, -n:] = 1 if side == "left" else mask[b, -n:]
        mask[b, :n] = 1 if side == "right" else mask[b, :n]
    logits = model(x, attention_mask=mask).logits
    for b, _ in enumerate(lengths):
        alone = x[b][mask[b].bool()][None]
        torch.testing.assert_close(logits[b][mask[b].bool()], model(alone).logits[0], rtol=0, atol=1e-12)


def test_a_text_continues_from_the_state_of_an_earlier_call(model):
    x = ids(2, 4 * S)
    whole = model(x)
    first = model(x[:, : 2 * S])
    rest = model(x[:, 2 * S :], state=first.state)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits)
    torch.testing.assert_close(rest.state.memory_BMD, whole.state.memory_BMD)


def test_a_wrapped_model_is_ready_to_use_and_keeps_the_special_tokens():
    backbone = hf_model("gpt2").train()
    wrapped = RMTForCausalLM.from_backbone(backbone, memory_tokens=M, segment_size=S)
    assert not wrapped.training and wrapped.config.eos_token_id == backbone.config.eos_token_id
    assert wrapped.generation_config.eos_token_id == backbone.generation_config.eos_token_id
    x = ids(2, 10)
    assert torch.equal(wrapped.generate(x, max_new_tokens=5), wrapped.generate(x, max_new_tokens=5))


def test_empty_input_is_refused(model):
    with pytest.raises(RmtlibError, match="the input has no tokens"):
        model(ids(2, 4), attention_mask=torch.zeros(2, 4, dtype=torch.long))


@pytest.mark.parametrize(
    "x, more, said",
    [
        (torch.zeros(4, dtype=torch.long), {}, r"input_ids have shape \(4,\), not \(batch, tokens\)"),
        (torch.zeros(1, 4), {}, "input_ids are torch.float32, not token ids"),
        (torch.zeros(0, 4, dtype=torch.long), {}, "input_ids are an empty batch"),
        (torch.zeros(1, 4, dtype=torch.long), {"attention_mask": torch.ones(1, 3)}, "attention_mask has shape"),
        (torch.zeros(1, 4, dtype=torch.long), {"labels": torch.zeros(1, 3, dtype=torch.long)}, "labels have shape"),
    ],
)
def test_what_is_no_batch_of_token_ids_is_refused_in_one_line(model, x, more, said):
    with pytest.raises(RmtlibError, match=said) as error:
        model(x, **more)
    assert "\n" not in str(error.value)


def test_a_backbone_without_a_map_to_the_vocabulary_is_refused():
    body = GPT2Model(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(RmtlibError, match="backbone type 'gpt2' is no causal language model"):
        RMTForCausalLM.from_backbone(body)


def test_an_unknown_backbone_is_a_one_line_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotHere, match="backbone 'no/such-model' cannot be loaded") as caught:
        RMTForCausalLM.from_backbone("no/such-model")
    assert "\n" not in str(caught.value)
