"""Mamba's loops in C: equal to their definitions, whatever the shapes and threads, not missed without a compiler."""

import logging
import math
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mamba import ids, read

from rmtlib.models import compiled, short_convolution
from rmtlib.models import selective_scan as ss
from rmtlib.models.mamba import Mamba, MambaConfig
from rmtlib.models.short_convolution import convolve_silu

needs_compiler = pytest.mark.skipif(not shutil.which(os.environ.get("CC") or "cc"), reason="no C compiler")
CHANNELS = st.sampled_from([1, 4, 15, 16, 17, 33])


def inputs(batch, tokens, channels, states, seed=0):
    random = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    maps = normal(batch, tokens, states), normal(batch, tokens, states)
    found = normal(batch, tokens, channels), normal(batch, tokens, channels).abs(), -normal(channels, states).exp()
    return [x.requires_grad_() for x in (*found, *maps, normal(batch, channels, states))]


def results(function, given):
    """Outputs, and the gradients of all inputs, of a sum with fixed weights."""
    outputs = function(*given)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(total, given, allow_unused=True, materialize_grads=True)]


def in_float64(given):
    return [x.detach().double().requires_grad_() for x in given]


def assert_near(found, exact):
    """As near as float32 comes to sums whose terms are as large as the largest result."""
    for ours, theirs in zip(found, exact, strict=True):
        largest = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=2e-6 * largest)


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(0, 3),
    tokens=st.sampled_from([0, 1, 2, 15, 16, 17, 40]),
    channels=CHANNELS,
    states=st.sampled_from([1, 5, 16]),
    seed=st.integers(0, 1000),
)
def test_the_scan_equals_its_definition(batch, tokens, channels, states, seed):
    """That of float64; inputs that are not contiguous among them."""
    given = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs(batch, tokens, channels, states, seed)]
    assert_near(results(ss.selective_scan, given), results(ss.selective_scan_by_token, in_float64(given)))


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(batch=st.integers(0, 3), tokens=st.integers(1, 9), channels=CHANNELS, taps=st.integers(1, 6), bias=st.booleans())
def test_the_convolution_equals_its_definition(batch, tokens, channels, taps, bias):
    """That of float64: PyTorch's convolution and silu."""
    random = torch.Generator().manual_seed(tokens)
    shapes = [(batch, channels, tokens + taps - 1), (channels, 1, taps), (channels,)]
    seen, *weights = (3 * torch.randn(shape, generator=random) for shape in shapes)
    given = [x.requires_grad_() for x in (seen.mT, *weights[: 1 + bias])]
    convolve = convolve_silu if bias else lambda x, w: convolve_silu(x, w, None)
    assert_near(results(convolve, given), results(convolve, in_float64(given)))


@needs_compiler
def test_they_are_taken_for_float32_on_a_cpu_alone(monkeypatch):
    calls: list[str] = []
    call = compiled.on_samples
    for module in (ss, short_convolution):
        monkeypatch.setattr(module, "on_samples", lambda name, *a: calls.append(name) or call(name, *a))
    model, x = Mamba(MambaConfig(37, 24, 1)), ids(3, 7)
    read(model, x, [7])[0].sum().backward()
    assert calls == ["convolve_forward", "scan_forward", "scan_backward", "convolve_backward"]
    read(model.double(), x, [7])[0].sum().backward()
    read(model.to("meta", torch.float32), x.to("meta"), [7])
    read(Mamba(MambaConfig(37, 24, 1)), x, [1] * 7)  # token by token
    assert len(calls) == 4


@needs_compiler
def test_threads_change_no_bit():
    threads, found = torch.get_num_threads(), []
    seen, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((5, 43, 20), (20, 1, 4), (20,)))
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(results(ss.selective_scan, inputs(5, 40, 20, 16)))
            found[-1] += results(convolve_silu, [seen, weight, bias])
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*found, strict=True):
        assert torch.equal(one, three)


@needs_compiler
def test_inputs_stay_as_they_are():
    given = inputs(2, 20, 17, 5)
    before = [x.detach().clone() for x in given]
    results(ss.selective_scan, given)
    assert all(map(torch.equal, given, before))


@needs_compiler
def test_decays_are_exact_from_one_to_zero_and_infinite_beyond_float32():
    """One token with no input leaves each state times exp(dt A)."""
    beyond = torch.tensor([-90.0, -1e4, -math.inf, 89.0, 1e4, math.inf, math.nan])
    exponents = torch.cat([torch.linspace(-86, 88, 80_001), torch.tensor([0.0, -1e-8]), beyond])
    zero, one = torch.zeros(1, 1, len(exponents)), torch.ones(1, 1, len(exponents))
    maps = torch.zeros(1, 1, 1)
    _, decayed = ss.selective_scan(zero, one, exponents[:, None], maps, maps, one.mT.contiguous())
    inside, outside = decayed[0, :, 0].split([80_003, 7])
    off = (inside.double() / exponents[:80_003].double().exp() - 1).abs()
    assert off.max() < 2 * torch.finfo(torch.float32).eps
    assert inside[80_001] == 1  # no time has passed: the state stays to the bit
    assert outside[:3].tolist() == [0.0] * 3 and outside[3:6].tolist() == [math.inf] * 3 and outside[6].isnan()


@needs_compiler
def test_silu_and_its_gradient_hold_far_out():
    seen = torch.tensor([-1e38, -200.0, -87.0, -1e-30, 0.0, 3e7, 1e30]).view(1, 7, 1).requires_grad_()
    exact = seen.detach().double().requires_grad_()
    found = results(lambda x: convolve_silu(x, torch.ones(1, 1, 1), None), [seen])
    assert_near(found, results(torch.nn.functional.silu, [exact]))
    torch.testing.assert_close(found[1].flatten()[-2:], torch.linspace(-1, 1, 7)[-2:])


@needs_compiler
def test_tensors_without_values_and_wide_states_are_left_to_pytorch():
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    y, state = ss.selective_scan(*(mode.from_tensor(x.detach()) for x in inputs(2, 5, 3, 4)))
    assert y.shape == (2, 5, 3) and state.shape == (2, 3, 4)
    wide = inputs(1, 3, 2, ss.MOST_STATES + 1)
    assert_near(results(ss.selective_scan, wide), results(ss.selective_scan_by_token, in_float64(wide)))


@needs_compiler
@pytest.mark.parametrize("sizes", [[21, 19], [1, 16, 23], [40]])
def test_chunks_of_a_text_equal_the_whole(sizes):
    torch.manual_seed(0)
    model, x = Mamba(MambaConfig(37, 24, 2)), ids(3, 40)
    whole, last = read(model, x, [40])
    hidden, state = read(model, x, sizes)
    torch.testing.assert_close(hidden, whole)
    torch.testing.assert_close(state.scan_LBIN, last.scan_LBIN)


@pytest.mark.parametrize("what", ["no-such-compiler", "false", 'gcc "'])
def test_without_a_compiler_pytorch_computes_and_it_is_said(what, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CC", what)
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert compiled.library.__wrapped__(compiled.SOURCE) is None
    assert len(caplog.messages) == 1 and "Mamba's loops are not compiled" in caplog.messages[0]
    monkeypatch.setattr(compiled, "library", lambda source: None)
    given = inputs(2, 20, 17, 5)
    exact = results(ss.selective_scan_by_token, in_float64(given))
    assert_near(results(ss.selective_scan, given), exact)
    read(Mamba(MambaConfig(37, 24, 1)), ids(3, 7), [7])[0].sum().backward()


def test_a_cache_that_cannot_be_written_compiles_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "file"))
    assert compiled.library.__wrapped__(compiled.SOURCE) is None


@needs_compiler
def test_a_library_is_made_once_for_each_source_and_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    make, run = compiled.library.__wrapped__, compiled.subprocess.run
    calls: list[list[str]] = []
    monkeypatch.setattr(compiled.subprocess, "run", lambda command, **kw: calls.append(command) or run(command, **kw))
    source = tmp_path / "one.c"
    for text, count in (("int one(void) { return 1; }", 1), ("int one(void) { return 2; }", 2)):
        source.write_text(text)
        assert make(source).one() == make(source).one() == count
        assert len(calls) == count
    monkeypatch.setattr(compiled, "_processor", lambda: "another")
    assert make(source).one() == 2
    made = list((tmp_path / "compiled").iterdir())
    assert len(calls) == len(made) == 3


@needs_compiler
def test_a_library_that_was_cut_short_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }")
    assert compiled.library.__wrapped__(source) is not None
    (made,) = (tmp_path / "cache" / "compiled").iterdir()
    whole = made.read_bytes()
    made.unlink()  # the loaded one stays as it is
    made.write_bytes(whole[:100])
    assert compiled.library.__wrapped__(source).one() == 1


@needs_compiler
def test_a_compiler_that_does_not_know_native_is_asked_without(monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    plain = tmp_path / "plain-cc"
    plain.write_text('#!/bin/sh\ncase "$*" in *native*) exit 1;; esac\nexec cc "$@"\n')
    plain.chmod(0o755)
    monkeypatch.setenv("CC", str(plain))
    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }")
    assert compiled.library.__wrapped__(source).one() == 1


def test_a_process_knows_that_it_went_without(monkeypatch, tmp_path):
    """What a run's record notes: only if the loops were asked for, and were not there."""
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    compiled.library.cache_clear()
    try:
        assert not compiled.not_compiled()
        assert not compiled.is_compiled_for(torch.ones(1)) and compiled.not_compiled()
    finally:
        compiled.library.cache_clear()
