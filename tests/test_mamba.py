"""Mamba: equal to Hugging Face's, chunks equal to the whole forward and backward, padding, generation."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rmt import ids
from test_training import batch, gradients

from rmtlib.errors import RmtlibError
from rmtlib.models import mamba
from rmtlib.models import selective_scan as ss
from rmtlib.models.generation import generate
from rmtlib.models.mamba import Mamba, MambaConfig, mamba_from_hf
from rmtlib.training import bptt

V, D, L = 37, 24, 3


def make(**kwargs) -> Mamba:
    torch.manual_seed(0)
    model = Mamba(MambaConfig(V, D, L, state_size=5, **kwargs)).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def read(model, x, sizes, state=None):
    state = state or model.initial_state(len(x))
    outputs = []
    for piece in x.split(sizes, dim=1):
        hidden, state = model.step(piece, state)
        outputs.append(hidden)
    return torch.cat(outputs, dim=1), state


def hf_mamba(**kwargs):
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=L, state_size=5, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, **kwargs,
    )  # fmt: skip
    model = transformers.MambaForCausalLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize(
    "kwargs", [{}, {"use_bias": True, "use_conv_bias": False, "tie_word_embeddings": False, "conv_kernel": 3}]
)
def test_equals_hugging_face(kwargs):
    """Logits, and the gradient of every weight."""
    theirs = hf_mamba(**kwargs)
    ours, x = mamba_from_hf(theirs).eval(), ids(2, 33)
    hidden, _ = ours.step(x, ours.initial_state(2))
    logits, expected = ours.logits(hidden), theirs(x).logits
    assert (logits - expected).abs().max() < 1e-4
    logits.sin().sum().backward()
    expected.sin().sum().backward()
    with torch.no_grad():  # their gradients under our names: as the weights of a converted model
        for p in theirs.parameters():
            p.copy_(p.grad)
    gradients_of_theirs = dict(mamba_from_hf(theirs).named_parameters())
    assert gradients_of_theirs.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients_of_theirs[name].data, rtol=1e-3, atol=1e-4, msg=name)


def test_state_and_size_of_the_papers_small_model():
    model = Mamba(MambaConfig(128, 128, 4, state_size=32))
    assert model.state_size() == sum(x.numel() for x in model.initial_state(1)) == 4 * 256 * 32 + 4 * 256 * 3
    assert 500_000 < sum(p.numel() for p in model.parameters()) < 560_000


@pytest.mark.parametrize("options", [{}, {"use_bias": True, "tie_word_embeddings": False}])
def test_new_weights_start_as_hugging_faces_if_asked(options):
    """Mean and deviation of every weight; PyTorch's own differ in the projections in and the convolution's bias."""
    torch.manual_seed(0)
    shape = transformers.MambaConfig(vocab_size=400, hidden_size=128, num_hidden_layers=2, state_size=32, **options)
    theirs = mamba_from_hf(transformers.MambaForCausalLM(shape))
    close: dict[str, bool] = {}
    for init in ("huggingface", "torch"):
        ours = Mamba(replace(theirs.config, init=init))
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            error = max(abs(a.std() - b.std()), abs(a.mean() - b.mean()))
            close[f"{init} {name}"] = bool(error <= 0.25 * b.std() + 1e-6)
    assert [name for name, near in close.items() if not near and name.startswith("huggingface")] == []
    other = {name.rsplit("layers.0.")[-1] for name, near in close.items() if not near and "layers.1" not in name}
    assert other >= {"into.weight", "select.weight", "conv.bias"} and "conv.weight" not in other


def test_other_models_are_refused():
    with pytest.raises(RmtlibError, match="model type 'gpt2'"):
        mamba_from_hf(
            transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=V, n_embd=D, n_layer=1, n_head=2))
        )


@contextmanager
def scanned(chunks):
    """The scan joins pairs of steps in chunks of at most so many numbers."""
    before = ss.CHUNK_ELEMENTS["cpu"]
    ss.CHUNK_ELEMENTS["cpu"] = chunks
    yield
    ss.CHUNK_ELEMENTS["cpu"] = before


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), chunks=st.sampled_from([1, 1000, 2**20]))
def test_chunks_equal_the_whole(sizes, chunks):
    """Outputs, state and the gradients of every weight, whatever the chunks (of the text, and inside the scan)."""
    model, x = make(), ids(2, sum(sizes), seed=len(sizes))
    found = []
    for pieces in ([x.shape[1]], sizes):
        model.zero_grad(set_to_none=True)
        with scanned(chunks):
            hidden, state = read(model, x, pieces)
            (hidden.sin().sum() + sum(s.cos().sum() for s in state)).backward()
        found.append([hidden, *state, *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
def test_one_token_takes_the_recurrence_and_equals_the_scan(monkeypatch, bias):
    model, x = make(conv_bias=bias), ids(3, 7)
    calls: list[int] = []
    by_token = mamba.selective_scan_by_token
    monkeypatch.setattr(mamba, "selective_scan_by_token", lambda *a: calls.append(1) or by_token(*a))
    found = []
    for pieces in (7, 1):
        model.zero_grad(set_to_none=True)
        hidden, state = read(model, x, pieces)
        assert len(calls) == (0 if pieces == 7 else 7 * len(model.layers))
        (hidden.sin().sum() + sum(s.cos().sum() for s in state)).backward()
        found.append([hidden, *state, *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(0, 20), chunks=st.sampled_from([1, 100, 2**20]), seed=st.integers(0, 1000))
def test_scan_equals_its_definition(tokens, chunks, seed):
    random = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=random)  # noqa: E731
    inputs = [normal(2, tokens, 4), normal(2, tokens, 4).abs(), -normal(4, 3).exp(), normal(2, tokens, 3)]
    inputs = [x.requires_grad_() for x in [*inputs, normal(2, tokens, 3), normal(2, 4, 3)]]
    weights = normal(2, tokens, 4), normal(2, 4, 3)
    found = []
    for form in (ss.selective_scan, ss.selective_scan_by_token):
        with scanned(chunks):
            outputs = form(*inputs)
            total = sum((w * y).sum() for w, y in zip(weights, outputs, strict=True))
            gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
        found.append([*outputs, *gradients])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_padding_changes_nothing(lengths, seed):
    model, B = make(), len(lengths)
    _, state = read(model, ids(B, 6, seed=1), [6])
    x = ids(B, 7, seed=seed)
    hidden, new = model.step(x, state, torch.tensor(lengths))
    for b, n in enumerate(lengths):
        before = type(state)(*(s[:, b : b + 1] for s in state))
        alone, after = model.step(x[b : b + 1, :n], before) if n else (hidden[b : b + 1, :0], before)
        torch.testing.assert_close(hidden[b, :n], alone[0], rtol=0, atol=1e-12)
        for s, t in zip(new, after, strict=True):
            torch.testing.assert_close(s[:, b : b + 1], t, rtol=0, atol=1e-12 if n else 0.0)


def test_the_last_chunk_may_leave_the_state():
    model, x = make(), ids(2, 6)
    state = model.initial_state(2)
    assert all(a is b for a, b in zip(model.step(x, state, write=False)[1], state, strict=True))


def test_generation_equals_teacher_forcing():
    model, text = make(), ids(3, 7)
    for _ in range(9):
        hidden, _ = read(model, text, [text.shape[1]])
        text = torch.cat([text, model.logits(hidden[:, -1]).argmax(-1, keepdim=True)], dim=1)
    assert generate(model, text[:, :7], model.initial_state(3), 6, 9).tolist() == text[:, 7:].tolist()


@pytest.mark.parametrize("options", [{"recompute": True}, {"bptt_segments": 9}])
def test_bptt_through_chunks(options):
    model, segments = make(), batch([25, 18, 25], {1, 4})
    plain = gradients(model, lambda: bptt.backward(model, segments))
    other = gradients(model, lambda: bptt.backward(model, segments, **options))
    for a, b in zip(plain, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_state_stays_float32_under_bf16_autocast():
    model = make().float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden, state = read(model, ids(2, 20), [7, 7, 6])
    assert {s.dtype for s in state} == {torch.float32} and bool(hidden.isfinite().all())
