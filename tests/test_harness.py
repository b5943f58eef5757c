"""RMT and ARMT in lm-evaluation-harness. Skipped without it: pip install 'rmtlib[harness]'."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import ByT5Tokenizer

from rmtlib.cli import main
from rmtlib.data import babilong_texts
from rmtlib.data.text import HFTokenizer
from rmtlib.errors import RmtlibError
from rmtlib.models.config import DecoderConfig
from rmtlib.models.hub import ARMTForCausalLM, ARMTHubConfig, RMTForCausalLM, RMTHubConfig

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

from rmtlib.evaluation.harness import MemoryLM  # noqa: E402

S = 8
DECODER = DecoderConfig(384, 12, 2, 3, positions="rotary", init_std=0.5)  # as many entries as ByT5's bytes
TEXTS = ["Mary went to the kitchen. ", "Where is Mary?", "", "A text of more than four segments of eight bytes."]


@pytest.fixture(params=["rmt", "armt"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    if request.param == "rmt":
        return RMTForCausalLM(RMTHubConfig(vars(DECODER), 3, S)).eval()
    return ARMTForCausalLM(ARMTHubConfig(vars(DECODER), 3, S, d_memory=4)).eval()


@pytest.fixture
def adapter(model: Any) -> MemoryLM:
    return MemoryLM(model, ByT5Tokenizer(), batch_size=3)


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


@torch.no_grad()
def reference(model: Any, adapter: MemoryLM, context: str, continuation: str) -> tuple[float, bool]:
    """From the logits of one call on the whole text."""
    before = adapter.tok_encode(context) or [adapter.eot_token_id]
    after = adapter.tok_encode(continuation)
    logits_TV = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    targets_T = torch.tensor(after)
    return -float(F.cross_entropy(logits_TV, targets_T, reduction="sum")), bool(
        (logits_TV.argmax(-1) == targets_T).all()
    )


def test_likelihoods_are_those_of_the_whole_text_whatever_the_batch(model, adapter):
    pairs = [(context, continuation) for context in TEXTS for continuation in ("kitchen", " in the garden of eight")]
    found = adapter.loglikelihood([asked(*pair) for pair in pairs])
    for pair, (total, greedy) in zip(pairs, found, strict=True):
        expected, is_greedy = reference(model, adapter, pair[0].rstrip(), pair[0][len(pair[0].rstrip()) :] + pair[1])
        assert total == pytest.approx(expected, abs=1e-3)
        assert greedy == is_greedy
    alone = MemoryLM(model, adapter.tokenizer, batch_size=1).loglikelihood([asked(*pair) for pair in pairs])
    assert [total for total, _ in alone] == pytest.approx([total for total, _ in found], abs=1e-3)


def test_what_greedy_decoding_gives_is_said_to_be_greedy(model, adapter):
    """Memory written at the borders of segments of eight decides it, as in generation."""
    context = [10, 20, 30, 40, 50, 60]
    made = model.generate(torch.tensor([context]), max_new_tokens=12, do_sample=False)[0, len(context) :].tolist()
    other = [*made[:-1], (made[-1] + 1) % 384]
    found = adapter._loglikelihood_tokens([(None, context, made), (None, context, other)])
    assert [greedy for _, greedy in found] == [True, False]


def test_a_rolling_likelihood_is_of_every_token_with_memory_throughout(model, adapter):
    found = adapter.loglikelihood_rolling([asked(text) for text in TEXTS if text])
    assert found == pytest.approx([reference(model, adapter, "", text)[0] for text in TEXTS if text], abs=1e-3)


def test_generation_is_that_of_the_model_up_to_the_stop(model, adapter):
    prompt = torch.tensor([adapter.tok_encode(TEXTS[0])])
    made = model.generate(prompt, max_new_tokens=20, do_sample=False)[0, prompt.shape[1] :]
    whole = adapter.tokenizer.decode(made, skip_special_tokens=True)
    (text,) = adapter.generate_until([asked(TEXTS[0], {"until": [], "max_gen_toks": 20})])
    assert text == whole and whole
    (cut,) = adapter.generate_until([asked(TEXTS[0], {"until": [whole[3]], "max_gen_toks": 20})])
    assert cut == whole.split(whole[3])[0]


def test_what_it_cannot_do_is_said_in_a_line(adapter):
    with pytest.raises(RmtlibError, match="has no memory: give the harness --model hf"):
        MemoryLM(torch.nn.Linear(1, 1), ByT5Tokenizer())
    with pytest.raises(RmtlibError, match="answers greedily"):
        adapter.generate_until([asked("a", {"do_sample": True, "temperature": 0.7})])
    with pytest.raises(RmtlibError, match="batch_size is 'auto'"):
        MemoryLM(adapter.model, adapter.tokenizer, batch_size="auto")


def test_without_a_gpu_the_harnesss_own_choice_of_one_is_left_out(monkeypatch, adapter):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert MemoryLM(adapter.model, adapter.tokenizer, device="cuda").device.type == "cpu"


def test_the_harness_reads_the_samples_that_we_write_with_its_own_task(adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setattr(babilong_texts.GPT2Tokenizer, "load", lambda: HFTokenizer("bytes", ByT5Tokenizer()))
    options = ["--lengths", "0k", "--tasks", "qa1", "--samples", "3", "--background", "synthetic", "--write", "."]
    assert main(["evaluate", "babilong", *options]) == 0
    done = lm_eval.simple_evaluate(
        model=adapter, tasks=["babilong_qa1"], metadata={"max_seq_lengths": "0k"}, limit=3, log_samples=True
    )
    samples = done["samples"]["babilong_qa1"]
    assert [sorted(sample["doc"]) for sample in samples] == [["input", "question", "target"]] * 3
    prompt = samples[0]["arguments"][0][0]
    assert "Where is Charlie?" in prompt and prompt.endswith(samples[0]["doc"]["question"])
    assert 0 <= done["results"]["babilong_qa1"]["acc,none"] <= 1
