"""PEFT on models with memory: familiar targets, memory trained and saved by default, round trip, merging, errors."""

import json
import warnings
from dataclasses import asdict

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_backbones import other
from test_decoder import V, hf_model
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.models.adapters import MEMORY
from rmtlib.models.armt import ARMT
from rmtlib.models.hf_decoder import HFDecoder, backbone_from_config, backbone_from_hf
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.hub import ARMTForCausalLM, RMTForCausalLM
from rmtlib.models.prmt import PRMT
from rmtlib.models.rmt import RMT
from rmtlib.models.stacked import stackable

S, M = 7, 3
TARGETS = {"gpt2": ["c_attn", "c_proj"], "neox-parallel": ["query_key_value", "dense"], "qwen2": ["q_proj", "v_proj"]}
MODELS = {
    "RMT": lambda decoder: RMT(decoder, M),
    "ARMT": lambda decoder: ARMT(decoder, M, 4),
    "PRMT": lambda decoder: PRMT(decoder, M),
}


def ids(batch: int, length: int = S, seed: int = 1) -> Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def bare(name: str, kind: str = "qwen2") -> torch.nn.Module:
    decoder = decoder_from_hf(hf_model(kind))
    torch.manual_seed(2)
    return MODELS[name](decoder).double().eval()


def wrapped(kind: str, memory_tokens: int = M) -> RMTForCausalLM:
    torch.manual_seed(2)
    return RMTForCausalLM.from_backbone(hf_model(kind), memory_tokens=memory_tokens, segment_size=S).double()


def around_bloom() -> RMT:
    decoder = backbone_from_hf(other("bloom"))
    torch.manual_seed(2)
    return RMT(decoder, M).eval()


def lora(*targets: str, **options) -> "peft.LoraConfig":
    return peft.LoraConfig(r=2, lora_alpha=8, target_modules=list(targets), **options)


def adapted(model: torch.nn.Module, *targets: str, **options) -> torch.nn.Module:
    return peft.get_peft_model(model, lora(*targets, **options)).eval()


def scores(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Of two segments; the second depends on the memory."""
    state = model.initial_state(len(x))
    hidden, state = model.step(x, state)
    again, _ = model.step(x.flip(1), state)
    return model.logits(torch.cat([hidden, again], 1))


def train(model: torch.nn.Module) -> dict[str, Tensor]:
    """Two large steps: the first moves LoRA's B, the second its A too. Returns the gradients of the last one."""
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(scores(model, ids(4)).flatten(0, 1), ids(4, 2 * S, seed=9).flatten())
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        with torch.no_grad():
            for name, p in weights.items():
                p -= 0.3 * gradients[name]
    return gradients


@pytest.mark.parametrize("name", MODELS)
def test_adapters_and_memory_are_trained_and_nothing_else(name):
    model = bare(name)
    before = {k: x.clone() for k, x in model.state_dict().items()}
    own = set(dict(model.named_parameters(recurse=False)))
    tuned = adapted(model, "q_proj", "v_proj", task_type="CAUSAL_LM")
    gradients = train(tuned)
    assert all(x.abs().sum() > 0 for x in gradients.values())
    trained = {k.split("base_model.model.", 1)[1] for k in gradients}
    assert {k.rsplit(".", 1)[1] for k in trained if MEMORY in k} == own
    assert {k.split(".")[4] for k in trained if "lora_" in k} == {"q_proj", "v_proj"}
    moved = (".base_layer", f"{MEMORY}.original_module.")
    after = {k.replace(moved[0], "").replace(moved[1], ""): x for k, x in model.state_dict().items()}
    for k, x in before.items():
        assert torch.equal(after[k], x), k


@pytest.mark.parametrize("name", MODELS)
def test_disabled_adapters_give_the_untouched_model_and_merged_ones_the_adapted(name):
    plain, tuned = bare(name), adapted(bare(name), "q_proj", "up_proj")
    names = list(plain.state_dict())
    x = ids(3)
    train(tuned)
    with torch.no_grad():
        expected = scores(tuned, x)
        assert (expected - scores(plain, x)).abs().max() > 0.01
        with tuned.disable_adapter():
            assert torch.equal(scores(tuned, x), scores(plain, x))
        assert torch.equal(scores(tuned, x), expected)
        tuned.merge_adapter()
        torch.testing.assert_close(scores(tuned, x), expected, rtol=0, atol=1e-10)
        tuned.unmerge_adapter()
        merged = tuned.merge_and_unload()
        torch.testing.assert_close(scores(merged, x), expected, rtol=0, atol=1e-10)
    assert list(merged.state_dict()) == names  # memory too has its plain names again
    assert type(merged) is type(plain) and not hasattr(merged, "peft_config")


@pytest.mark.parametrize("kind", TARGETS)
def test_an_adapter_is_loaded_on_a_fresh_wrapped_backbone(kind, tmp_path):
    tuned = adapted(wrapped(kind), *TARGETS[kind])
    train(tuned)
    tuned.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [MEMORY]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        again = peft.PeftModel.from_pretrained(wrapped(kind), tmp_path).eval()
    x = ids(2, 3 * S - 2)
    with torch.no_grad():
        torch.testing.assert_close(again.base_model(x).logits, tuned.base_model(x).logits, rtol=0, atol=1e-5)
        assert (again.base_model(x).logits - wrapped(kind)(x).logits).abs().max() > 0.01
        merged, expected = again.merge_and_unload(), tuned.base_model(x).logits
        torch.testing.assert_close(merged(x).logits, expected, rtol=0, atol=1e-5)
    assert list(merged.state_dict()) == list(wrapped(kind).state_dict())


def test_two_adapters_each_have_their_own_memory(tmp_path):
    first, second = (adapted(bare("RMT"), "q_proj") for _ in range(2))
    for steps, tuned in enumerate((first, second), 1):
        for _ in range(steps):
            train(tuned)
        tuned.save_pretrained(tmp_path / str(steps))
    both = peft.PeftModel.from_pretrained(bare("RMT"), tmp_path / "1", adapter_name="one")
    both.load_adapter(tmp_path / "2", "two")
    x = ids(2)
    with torch.no_grad():
        for name, tuned in (("one", first), ("two", second), ("one", first)):
            both.set_adapter(name)
            torch.testing.assert_close(scores(both, x), scores(tuned, x), rtol=0, atol=1e-5)
    both.add_adapter("three", lora("q_proj"))
    both.set_adapter("three")
    with pytest.raises(RmtlibError, match="adapter in use has no memory: give its config modules_to_save"):
        scores(both, x)


def test_memory_can_be_trained_alone_with_a_target_of_ones_own_to_save():
    tuned = adapted(wrapped("qwen2"), "q_proj", modules_to_save=["decoder.norm"])
    assert set(tuned.peft_config["default"].modules_to_save) == {"decoder.norm", MEMORY}
    names = {n for n, p in tuned.named_parameters() if p.requires_grad and "lora_" not in n}
    assert {n.rsplit(".", 1)[1] for n in names} == {"weight", "memory_MD"}


@pytest.mark.parametrize("name", ["ARMT", "PRMT"])
def test_the_wavefront_is_right_with_adapters_inside(name):
    tuned = adapted(bare(name), "q_proj", "down_proj")
    train(tuned)
    model = tuned.get_base_model()
    segments = [(ids(2, seed=s), torch.tensor([S, 3])) for s in range(4)]
    assert not stackable(model.decoder) and not model.prefers_wavefront(1, S, 4)

    def wavefront(state):
        outputs, reader = [], model.forward_diagonal(segments, state)
        while True:
            try:
                outputs.append(next(reader))
            except StopIteration as stop:
                return outputs, stop.value

    with torch.no_grad():
        state, outputs = model.initial_state(2), []
        for x, lengths in segments:
            hidden, state = model.step(x, state, lengths)
            outputs.append(hidden)
        for _ in range(2):  # with adapters inside, and merged: then the layers are stacked
            made, last = wavefront(model.initial_state(2))
            for a, b in zip([*made, *last], [*outputs, *state], strict=True):
                real = (slice(None), slice(3)) if a.shape[:2] == (2, S) else ...  # rows of padding are undefined
                torch.testing.assert_close(a[real], b[real], rtol=0, atol=1e-9)
            model = tuned.merge_and_unload()
            assert stackable(model.decoder)


def test_adapters_first_then_memory_around_the_adapted_backbone():
    backbone = peft.get_peft_model(hf_model("llama-tied"), lora("q_proj", "v_proj", task_type="CAUSAL_LM"))
    decoder = backbone_from_hf(backbone)
    assert isinstance(decoder, HFDecoder)
    model = RMT(decoder, M).eval()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "memory_MD" in trained and all("lora_" in name for name in trained - {"memory_MD"}) and len(trained) > 1
    gradients = train(model)
    assert all(x.abs().sum() > 0 for x in gradients.values())
    x = ids(2, 11)
    with torch.no_grad():
        torch.testing.assert_close(decoder.logits(decoder(decoder.embed(x))[0]), backbone(x).logits, rtol=0, atol=1e-5)
        again = RMT(backbone_from_config(json.loads(json.dumps(asdict(decoder.config)))), M).eval()
        again.load_state_dict(model.state_dict())
        assert torch.equal(scores(again, x), scores(model, x))
    virtual = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(RmtlibError, match="an adapter of virtual tokens is no part of a backbone"):
        backbone_from_hf(peft.get_peft_model(hf_model("gpt2"), virtual))


def test_adapters_go_into_hugging_faces_own_module_too(tmp_path):
    plain, tuned = around_bloom(), adapted(around_bloom(), "query_key_value")
    train(tuned)
    tuned.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(around_bloom(), tmp_path).eval()
    x = ids(2)
    with torch.no_grad():
        expected = scores(tuned, x)
        assert (expected - scores(plain, x)).abs().max() > 0.001
        torch.testing.assert_close(scores(again, x), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(scores(tuned.merge_and_unload(), x), expected, rtol=0, atol=1e-5)


def test_unknown_targets_and_adapters_of_other_models_are_errors_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"Target modules \{'c_atn'\} not found") as unknown:
        adapted(wrapped("gpt2"), "c_atn")
    assert "\n" not in str(unknown.value)
    adapted(wrapped("gpt2"), "c_attn").save_pretrained(tmp_path / "gpt2")
    adapted(wrapped("gpt2", 5), "c_attn").save_pretrained(tmp_path / "other memory")
    deeper = hf_model("gpt2")
    deeper.transformer.h.append(deeper.transformer.h[0])
    deeper.config.n_layer = 4
    deeper = RMTForCausalLM.from_backbone(deeper, memory_tokens=M, segment_size=S)
    adapted(deeper, "c_attn").save_pretrained(tmp_path / "deeper")
    for folder, said in (("other memory", "of another memory"), ("deeper", "it is of another backbone")):
        with pytest.raises(RmtlibError, match=said) as error:
            peft.PeftModel.from_pretrained(wrapped("gpt2"), tmp_path / folder)
        assert "\n" not in str(error.value)
    with pytest.raises(RmtlibError, match="the adapter lacks .*c_attn.lora_A.default.weight"):
        peft.PeftModel.from_pretrained(deeper, tmp_path / "gpt2")


def test_adapters_without_this_memory_are_errors_in_one_line(tmp_path):
    """Of the backbone alone, of the other kind of memory, and with the memory's values taken out of the file."""
    plain = peft.get_peft_model(hf_model("gpt2"), lora("c_attn"))
    plain.save_pretrained(tmp_path / "plain")
    armt = ARMTForCausalLM.from_backbone(hf_model("gpt2"), memory_tokens=M, segment_size=S, d_memory=4)
    adapted(armt, "c_attn").save_pretrained(tmp_path / "armt")
    adapted(wrapped("gpt2"), "c_attn").save_pretrained(tmp_path / "without")
    file = tmp_path / "without" / "adapter_model.safetensors"
    save_file({k: x for k, x in load_file(file).items() if MEMORY not in k}, file)
    for folder, said in (
        ("plain", "lacks: it is of another"),
        ("armt", "or kind of memory"),
        ("without", "without memory"),
    ):
        with pytest.raises(RmtlibError, match=said) as error:
            peft.PeftModel.from_pretrained(wrapped("gpt2"), tmp_path / folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "saved", "there"),
    [
        ("gpt2", "wte", "tokens"),
        ("gpt2", "ln_f", "norm"),
        ("llama", "lm_head", "head"),
        ("llama", "embed_tokens", "tokens"),
    ],
)
def test_modules_are_trained_as_a_whole_by_their_names_here(kind, saved, there, tmp_path):
    """They are trained, kept apart from the model's own, saved and loaded."""
    targets = ("c_attn",) if kind == "gpt2" else ("q_proj",)
    with pytest.raises(RmtlibError, match=f"modules_to_save has '{saved}', .* it is called '{there}'"):
        adapted(wrapped(kind), *targets, modules_to_save=[saved])
    model, x = adapted(wrapped(kind), *targets, modules_to_save=[there]), ids(2, 3 * S)
    before = scores(model, x)
    trained = train(model)
    assert any(f".{there}.modules_to_save.default" in name for name in trained)
    after = scores(model, x)
    assert not torch.allclose(before, after)
    with model.disable_adapter():
        torch.testing.assert_close(scores(model, x), before)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(scores(peft.PeftModel.from_pretrained(wrapped(kind), tmp_path), x), after)
    torch.testing.assert_close(scores(model.merge_and_unload(), x), after)


def test_names_that_are_not_there_are_not_passed_over():
    for more, said in (
        ({"modules_to_save": ["lm_head"]}, "the output map is the table of embeddings"),
        ({"modules_to_save": ["classifier"]}, "no module here ends in it$"),
    ):
        with pytest.raises(RmtlibError, match=said):
            adapted(wrapped("gpt2"), "c_attn", **more)
    with pytest.raises(RmtlibError, match="target_modules has 'lm_head', .* the table of embeddings"):
        adapted(wrapped("gpt2"), "c_attn", "lm_head")


@pytest.mark.parametrize("config", [peft.LoHaConfig, peft.LoKrConfig, peft.IA3Config, peft.VeraConfig])
def test_other_adapters_are_merged_and_unloaded_too(config):
    more = {"feedforward_modules": []} if config is peft.IA3Config else {"r": 2}
    settings, x = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"], **more}, ids(2, 3 * S)
    for how in ("merge_and_unload", "unload"):
        model = peft.get_peft_model(wrapped("llama"), config(**settings))
        train(model)
        adapted_scores = scores(model, x)
        bare_model = getattr(model, how)()
        assert "memory_MD" in dict(bare_model.core.named_parameters(recurse=False))
        if how == "merge_and_unload":
            torch.testing.assert_close(scores(bare_model, x), adapted_scores, rtol=1e-4, atol=1e-4)


def test_transformers_own_switch_brings_the_memory_back_too():
    model, x = wrapped("llama"), ids(2, 3 * S)
    model.add_adapter(lora("q_proj"))
    model.set_adapter("default")
    with torch.no_grad():
        model.core.memory_MD.add_(1.0)
    changed = scores(model, x)
    model.disable_adapters()
    assert not torch.allclose(scores(model, x), changed)
    model.enable_adapters()
    torch.testing.assert_close(scores(model, x), changed)
