"""What must also hold on a GPU; skipped where there is none."""

import gc
from types import SimpleNamespace

import pytest
import test_hub_promises as hub
import torch
from test_babilong import TOKENIZER
from test_history import S, made, stream
from test_rmt import ids, make
from test_training import Counting, V, batch, gradients, trainer

from rmtlib.evaluation.history import by_history
from rmtlib.evaluation.question_answering import answers_in_text
from rmtlib.models.armt import ARMT
from rmtlib.models.config import DecoderConfig, MambaConfig, TransformerXLConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.mamba import Mamba
from rmtlib.models.rmt import RMT
from rmtlib.models.transformer_xl import TransformerXL
from rmtlib.training import bptt
from rmtlib.training.captured import WARM_UPS, Captured
from rmtlib.training.curriculum import Stage
from rmtlib.training.trainer import autocast

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
def test_step_equals_the_cpu(mask):
    model = make(mask=mask)
    x, lengths = ids(3, 9), torch.tensor([9, 0, 4])
    hidden, state = model.step(x, model.initial_state(3), lengths)
    model.cuda()
    hidden_gpu, state_gpu = model.step(x.cuda(), model.initial_state(3), lengths.cuda())
    torch.testing.assert_close(hidden_gpu[[0]].cpu(), hidden[[0]])
    torch.testing.assert_close(hidden_gpu[2, :4].cpu(), hidden[2, :4])
    torch.testing.assert_close(state_gpu.memory_BMD.cpu(), state.memory_BMD)


@pytest.mark.parametrize("recompute", [False, True])
def test_bf16_gradients_are_those_of_float32_up_to_its_precision(recompute):
    model = make().float().cuda()
    segments = [s.to("cuda") for s in batch([25, 13], {1, 4})]
    exact = gradients(model, lambda: bptt.backward(model, segments))
    with autocast(torch.device("cuda"), "bf16"):
        rough = gradients(model, lambda: bptt.backward(model, segments, recompute=recompute))
    a, b = torch.cat([g.flatten() for g in exact]), torch.cat([g.flatten() for g in rough])
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99


@pytest.mark.parametrize("kind", ["rmt", "armt"])
def test_wrapped_models_read_train_and_generate_as_on_the_cpu(kind):
    model = hub.make(kind, bptt=1)
    x, mask = hub.ids(3, 19), torch.ones(3, 19, dtype=torch.long)
    mask[1, :7] = 0
    settings = dict(attention_mask=mask, max_new_tokens=9, num_beams=2)
    logits, made = model(x, attention_mask=mask).logits, model.generate(x, **settings)
    expected = hub.gradients(model.train(), model(x, labels=x).loss)
    model.cuda().eval()
    x, settings["attention_mask"] = x.cuda(), mask.cuda()
    torch.testing.assert_close(model(x, attention_mask=settings["attention_mask"]).logits.cpu(), logits)
    assert torch.equal(model.generate(x, **settings).cpu(), made)
    found = hub.gradients(model.train(), model(x, labels=x).loss)
    hub.assert_same_gradients({name: gradient.cpu() for name, gradient in found.items()}, expected)


@pytest.mark.parametrize("kind", ["rmt", "armt", "backbone"])
def test_nats_by_history_equal_the_cpu(kind):
    model = made(kind)
    expected = by_history(model, stream(), S, 4, batch=5)
    found = by_history(model.cuda(), stream(), S, 4, batch=5, device="cuda")
    rounding = dict(rel=1e-6)  # of float32, in which the scores are
    assert found.nats == pytest.approx(expected.nats, **rounding) and found.off == pytest.approx(
        expected.off, **rounding
    )
    assert found.swapped == pytest.approx(expected.swapped, **rounding)


@pytest.mark.parametrize("memory_tokens", [0, 3])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_answers_in_text_are_those_of_the_cpu_and_most_of_them_in_bf16(memory_tokens, precision):
    torch.manual_seed(0)
    config = DecoderConfig(TOKENIZER.vocab_size, 32, 2, 4, n_kv_heads=2, positions="rotary", tied=False)
    model = RMT(Decoder(config), memory_tokens).eval()
    with torch.no_grad():  # away from new weights, with which every answer would be much the same
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    tokens = torch.randint(TOKENIZER.vocab_size, (6, 50), dtype=torch.int32).numpy()
    samples = [
        SimpleNamespace(tokens=row, prompt_length=length) for row, length in zip(tokens, (50, 41) * 3, strict=True)
    ]
    expected = answers_in_text(model, samples, 16, TOKENIZER, 4)
    assert len(set(expected)) > 3
    with autocast(torch.device("cuda"), precision):
        found = answers_in_text(model.cuda(), samples, 16, TOKENIZER, 4, device="cuda")
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    assert same == len(samples) if precision == "float32" else same >= len(samples) / 2


@pytest.mark.parametrize("kind", ["rmt", "armt", "mamba", "transformer-xl", "compiled transformer-xl"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "parts", [((25, 13),), ((25, 13), (25, 13), (5, 5))], ids=["one part", "three parts of two shapes"]
)
def test_a_step_as_a_graph_is_the_step(kind, precision, parts):
    xl = TransformerXLConfig(V, d_model=32, n_layers=2, n_heads=2, d_head=16, d_ff=64, memory_tokens=2, cache=3)
    models = {
        "rmt": lambda: make().float(),
        "armt": lambda: ARMT(Decoder(DecoderConfig(V, 32, 2, 2, positions="rotary", dropout=0.1)), 2, 8),
        "mamba": lambda: Mamba(MambaConfig(V, 32, 2)),
        "transformer-xl": lambda: TransformerXL(xl),
    }
    torch.manual_seed(0)
    model = models[kind.removeprefix("compiled ")]().cuda().train()
    if kind.startswith("compiled"):
        model.compile_layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    add = lambda segments: bptt.accumulate(model, segments, scale=0.1)  # noqa: E731
    fast = Captured(model, add)

    def step(call, whole):
        optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(1)  # of dropout's masks
        with autocast(torch.device("cuda"), precision):
            loss = sum(call(segments).item() for segments in whole)
        return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    for i in range(WARM_UPS + 4):
        torch.manual_seed(100 + i)
        drawn = [
            [
                s._replace(input_ids_BS=torch.randint(0, V, s.input_ids_BS.shape))
                for s in batch(list(lengths), {0, 1, 4})
            ]
            for lengths in parts
        ]
        loss, gradients = step(fast, [[s.to("cpu") for s in segments] for segments in drawn])
        expected, plain = step(add, [[s.to("cuda") for s in segments] for segments in drawn])
        assert loss == pytest.approx(expected, rel=1e-3 if precision == "bf16" else 1e-5)
        assert gradients.keys() == plain.keys()
        for name, gradient in gradients.items():
            close = dict(rtol=0.05, atol=2e-3) if precision == "bf16" else dict(rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(gradient, plain[name], **close)
        optimizer.step()  # the next step has other weights
    assert fast.possible and len(fast.graphs) == len(set(parts))


LARGE = 1024  # samples, so that a pass needs some gigabytes, against which what other tests left is little


@pytest.fixture
def limit():
    """Sets how many bytes of the GPU this process may have; the test's end gives all back."""
    total = torch.cuda.mem_get_info()[1]
    yield lambda size: torch.cuda.set_per_process_memory_fraction(size / total)
    torch.cuda.set_per_process_memory_fraction(1.0)


def of_length(tmp_path, lengths):
    """A trainer whose step i reads samples of lengths[i] tokens, and its gradient of a step."""
    model = RMT(Decoder(DecoderConfig(V, 256, 2, 4, positions="rotary")), 4).cuda()
    made = trainer(tmp_path, model=model, batch_size=LARGE, stages=(Stage(4, len(lengths), 1e-3),))
    made.source.sample = lambda stage, i: Counting(lengths[i // LARGE])

    def gradient(step):
        made._backward(made.source.next_batch(0, step, step * LARGE))
        return [p.grad.clone() for p in model.parameters()]

    return made, gradient


def room():
    """Bytes that this process has of the GPU, once what it does not use is given back."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_reserved()


def test_a_step_that_does_not_fit_into_the_memory_is_done_in_parts(tmp_path, limit):
    made, gradient = of_length(tmp_path, [12])
    before = room()
    whole = gradient(0)
    needed = torch.cuda.max_memory_reserved() - before
    limit(room() + 0.6 * needed)
    parts = gradient(0)
    assert made.state.micro_batch in (LARGE // 2, LARGE // 4)
    assert made.state.notes[0] == f"out of memory in stage 1, step 0: micro-batch {LARGE // 2}"
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_step_that_does_not_fit_beside_the_graphs_is_done_without_them(tmp_path, limit):
    made, gradient = of_length(tmp_path, [18, *[12] * (WARM_UPS + 1), 18])
    before = room()
    expected = gradient(0)
    needed = torch.cuda.max_memory_reserved() - before
    for step in range(1, WARM_UPS + 2):
        gradient(step)
    assert len(made.source.captured.graphs) == 1
    limit(room() + 0.6 * needed)
    found = gradient(WARM_UPS + 2)
    assert made.state.micro_batch == LARGE
    assert made.state.notes == ["out of memory in stage 1, step 0: no CUDA graphs in this stage"]
    assert not made.source.captured.graphs
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_recorded_trains_on_with_dropout(capsys):
    model = ARMT(Decoder(DecoderConfig(V, 32, 2, 2, positions="rotary", dropout=0.1)), 2, 8).cuda().train()

    def waiting(segments):
        loss = bptt.accumulate(model, segments)
        loss.item()  # looks at a value
        return loss

    fast, segments = Captured(model, waiting), [s.to("cpu") for s in batch([25, 13], {1, 4})]
    for _ in range(WARM_UPS + 3):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        assert fast(segments).isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert not fast.possible and capsys.readouterr().out.startswith("note: no CUDA graph")
    del fast
    before = room()
    torch.empty(2**28, device="cuda")
    assert room() == before  # torch gives memory back again: it knows that the recording is over
