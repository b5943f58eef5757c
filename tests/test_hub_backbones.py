"""Models with memory around any backbone: saved, resized, adapted with PEFT, generating."""

import peft
import pytest
import torch
from test_backbones import ids, other
from test_decoder import hf_model

from rmtlib.models.hub import ARMTForCausalLM, RMTForCausalLM

KINDS = {"olmo2": "q_proj", "gemma3_text": "q_proj", "bloom": "query_key_value", "qwen2": "q_proj", "gpt2": "c_attn"}
PAIRS = [(RMTForCausalLM, kind) for kind in KINDS] + [(ARMTForCausalLM, kind) for kind in ("bloom", "qwen2")]
each_pair = pytest.mark.parametrize(("cls", "kind"), PAIRS, ids=lambda x: getattr(x, "__name__", x))


def backbone(kind):
    return hf_model(kind) if kind in ("qwen2", "gpt2") else other(kind)


def wrapped(cls, kind, of=None):
    torch.manual_seed(3)
    return cls.from_backbone(of or backbone(kind), memory_tokens=3, segment_size=9)


def lora(kind):
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=[KINDS[kind]])


def assert_saved(model, folder):
    model.save_pretrained(folder)
    again = type(model).from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(again(ids(2, 20)).logits, model(ids(2, 20)).logits)
    assert list(again.state_dict()) == list(model.state_dict())


@each_pair
def test_any_backbone_is_saved_and_loaded_also_resized(cls, kind, tmp_path):
    model = wrapped(cls, kind)
    assert_saved(model, tmp_path / "as it is")
    model.resize_token_embeddings(120)
    assert model(torch.full((1, 5), 110)).logits.shape == (1, 5, 120)
    assert_saved(model, tmp_path / "resized")


@each_pair
def test_memory_and_adapters_are_trained_saved_and_merged(cls, kind, tmp_path):
    tuned, x = peft.get_peft_model(wrapped(cls, kind), lora(kind)), ids(2, 20)
    tuned(input_ids=x, labels=x).loss.backward()
    trained = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    assert any("memory_MD" in name for name in trained) and all(p.grad is not None for p in trained.values())
    with torch.no_grad():
        for p in trained.values():
            p -= 0.5 * p.grad
    tuned.eval().save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(wrapped(cls, kind), tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = tuned(x).logits
        assert (expected - wrapped(cls, kind)(x).logits).abs().max() > 1e-3
        torch.testing.assert_close(again(x).logits, expected)
        options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
        made = tuned.generate(input_ids=x[:, :5], **options)
        merged = tuned.merge_and_unload()
        torch.testing.assert_close(merged(x).logits, expected, rtol=0, atol=1e-4)
        assert torch.equal(merged.generate(x[:, :5], **options), made)
    assert_saved(merged, tmp_path / "merged")


@pytest.mark.parametrize("cls", [RMTForCausalLM, ARMTForCausalLM])
def test_gradient_checkpointing_reads_segments_again_around_hugging_faces_own_module(cls):
    model, x, found, calls = wrapped(cls, "bloom").train(), ids(2, 20), [], []
    model.core.decoder.layers()[0].register_forward_hook(lambda *_: calls.append(1))
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        calls.clear()
        loss = model(x, labels=x).loss
        found.append(torch.autograd.grad(loss, list(model.parameters())))
        assert len(calls) == (6 if model.gradient_checkpointing else 3)  # three segments
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@each_pair
def test_memory_around_an_adapted_backbone_is_saved_with_it(cls, kind, tmp_path):
    adapted = peft.get_peft_model(backbone(kind), lora(kind))
    assert_saved(wrapped(cls, kind, of=adapted), tmp_path)
