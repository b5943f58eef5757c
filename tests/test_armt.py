"""ARMT and PRMT: sizes, equality with the backbone, state, padding, the wavefront, generation, BPTT."""

import weakref

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rmt import ids
from test_training import S, batch, gradients

from rmtlib.models import delta_rule, reading
from rmtlib.models.armt import ARMT
from rmtlib.models.config import DeltaRule
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.delta_rule import Association
from rmtlib.models.generation import generate
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.layered import LayeredModel
from rmtlib.models.prmt import PRMT
from rmtlib.training import bptt

V, D, L, M = 37, 24, 3, 3
KINDS = {
    "gpt2": {"positions": "learned"},
    "gpt2-conv": {"positions": "rotary", "conv_taps": 3},
    "neox": {
        "positions": "rotary",
        "rotary_fraction": 0.5,
        "parallel_residual": True,
        "activation": "gelu",
        "tied": False,
    },
    "llama": {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False, "n_kv_heads": 1},
}
MODELS = [ARMT, PRMT]


def make(cls: type[LayeredModel], kind="neox", seed=0, stir=0.2, **kwargs) -> LayeredModel:
    torch.manual_seed(seed)
    config = DecoderConfig(V, D, L, 3, max_positions=64, **KINDS[kind])
    options = {"d_memory": 4, "rule": DeltaRule(gamma="released")} if cls is ARMT else {}
    model = cls(Decoder(config), M, **options | kwargs).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(stir * torch.randn_like(p))
    return model


def run(model: LayeredModel, segments, state=None):
    """Outputs of all segments and the last state, by `step` after `step`."""
    state, outputs = state or model.initial_state(len(segments[0][0])), []
    for input_ids, lengths in segments:
        hidden, state = model.step(input_ids, state, lengths)
        outputs.append(hidden)
    return outputs, state


def diagonal(model: LayeredModel, segments, state=None):
    generator, outputs = model.forward_diagonal(segments, state or model.initial_state(len(segments[0][0]))), []
    while True:
        try:
            outputs.append(next(generator))
        except StopIteration as end:
            return outputs, end.value


def same(a, b, atol=1e-9):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=atol)


# Sizes


@pytest.mark.parametrize(("d_memory", "expected"), [(32, 530_692), (64, 563_460)])
def test_parameters_of_the_papers_small_model(d_memory, expected):
    config = transformers.GPTNeoXConfig(
        vocab_size=128, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = ARMT(decoder_from_hf(transformers.GPTNeoXForCausalLM(config)), 4, d_memory)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.state_size() == 4 * (6 * d_memory) * 128 + 4 * 6 * d_memory


def test_parameters_and_state_on_gpt2():
    with torch.device("meta"):
        decoder = Decoder(DecoderConfig(50_257, 768, 12, 12))
        model = ARMT(decoder, 10, 64)
        assert sum(p.numel() for p in model.parameters()) == 132_714_252
        assert model.state_size() == 12 * (384 * 768 + 384) == 3_543_552
        assert PRMT(decoder, 10).state_size() == 12 * 10 * 768


# What the models compute


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_armt_equals_its_backbone(kind):
    """However many segments went before: values start as zeros, so nothing but zeros is ever read."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(V, D, L, 3, max_positions=64, **KINDS[kind])).double().eval()
    model = ARMT(decoder, M, 4).double().eval()
    segments = [(ids(2, 7, seed=s), None) for s in range(3)]
    for (input_ids, _), hidden in zip(segments, run(model, segments)[0], strict=True):
        plain, _ = decoder(decoder.embed(input_ids))
        torch.testing.assert_close(hidden, plain, rtol=0, atol=1e-12)


def naive_armt(model: ARMT, segments):
    """The paper's equations, layer by layer and token by token, with dictionaries for a state."""
    decoder, outputs = model.decoder, []
    memories = [delta_rule.empty((len(segments[0][0]),), 24, D, model.query_LED) for _ in range(L)]
    for input_ids, _ in segments:
        tokens = model.memory_MD.expand(len(input_ids), -1, -1)
        x = decoder.add_positions(torch.cat([decoder.embed(input_ids), tokens], dim=1))
        angles = decoder.angles(0, x.shape[1], x.device)
        for i, block in enumerate(decoder.blocks):
            A, z = memories[i]
            phi = delta_rule.dpfp(x @ model.query_LED[i].T)
            y = torch.einsum("btk,bkd->btd", phi, A) / (torch.einsum("btk,bk->bt", phi, z) + delta_rule.EPS)[..., None]
            x, _ = block(x + y, angles)
            m = x[:, -M:]
            beta = torch.sigmoid(m @ model.beta_L1D[i, 0] + model.beta_bias_L1[i])
            keys = delta_rule.dpfp(m @ model.key_LED[i].T)
            memories[i] = delta_rule.write_token_by_token(memories[i], keys, m @ model.value_LDD[i].T, beta, model.rule)
        outputs.append(decoder.norm(x)[:, : input_ids.shape[1]])
    return outputs


@pytest.mark.parametrize("kind", KINDS)
def test_armt_is_the_papers(kind):
    model, segments = make(ARMT, kind), [(ids(2, 7, seed=s), None) for s in range(4)]
    same(run(model, segments)[0], naive_armt(model, segments))


def test_prmt_layer_memory_is_the_layers_own_last_output():
    """Every layer replaces both memory blocks of its input by its own last output there, in place."""
    model, segments = make(PRMT), [(ids(2, 7, seed=s), None) for s in range(3)]
    decoder, memories = model.decoder, [m.expand(2, -1, -1) for m in model.memory_LMD]
    expected = []
    for input_ids, _ in segments:
        blank = torch.zeros(2, M, D, dtype=torch.float64)
        x = decoder.add_positions(torch.cat([blank, decoder.embed(input_ids), blank], dim=1))
        for i, block in enumerate(decoder.blocks):
            x = torch.cat([memories[i], x[:, M:-M], memories[i]], dim=1)
            x, _ = block(x, decoder.angles(0, x.shape[1], x.device))
            memories[i] = x[:, -M:]
        expected.append(decoder.norm(x)[:, M:-M])
    same(run(model, segments)[0], expected)


@pytest.mark.parametrize("cls", MODELS)
def test_the_state_carries_the_first_segment_on_and_nothing_else_does(cls):
    model, next_ = make(cls), (ids(1, 8, seed=3), None)
    one, two = (run(model, [(ids(1, 8, seed=s), None)])[1] for s in (1, 2))
    first, second = (run(model, [next_], state)[0][0] for state in (one, two))
    assert (first - second).abs().max() > 1e-3
    assert torch.equal(run(model, [next_], one)[0][0], first)
    with_write, without = model.step(*next_[:1], one), model.step(*next_[:1], one, write=False)
    torch.testing.assert_close(with_write[0], without[0], rtol=0, atol=1e-12)
    assert all(a is b for a, b in zip(without[1], one, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4), cls=st.sampled_from(MODELS),
    kind=st.sampled_from(list(KINDS)), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_padding_changes_nothing(lengths, cls, kind, seed):
    """A sample in a padded batch gives what it gives alone, cut to its length; an empty one keeps its state."""
    model, B = make(cls, kind), len(lengths)
    _, state = run(model, [(ids(B, 6, seed=1), None)])
    batch = ids(B, 7, seed=seed)
    hidden, new = model.step(batch, state, torch.tensor(lengths))
    for b, n in enumerate(lengths):
        before = type(state)(*(x[:, b : b + 1] for x in state))
        after = before
        if n:
            alone, after = model.step(batch[b : b + 1, :n], before)
            torch.testing.assert_close(hidden[b, :n], alone[0], rtol=0, atol=1e-10)
        same([x[:, b : b + 1] for x in new], after, atol=1e-10 if n else 0.0)


def test_a_late_start_is_a_first_segment():
    """A sample whose first segments are empty is written as if it began in the batch's first."""
    model = make(ARMT, rule=DeltaRule("batched", "released"))
    padded = [(ids(2, 7, seed=0), torch.tensor([7, 0])), (ids(2, 7, seed=1), None)]
    _, late = run(model, padded)
    _, alone = run(model, [(ids(2, 7, seed=1)[1:], None)])
    same([x[:, 1:] for x in late], alone, atol=1e-13)


# The wavefront


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 7), cls=st.sampled_from(MODELS), kind=st.sampled_from(list(KINDS)),
    ragged=st.booleans(), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_wavefront_equals_the_loop(count, cls, kind, ragged, seed):
    """Outputs, last state and all gradients, for fewer and more segments than layers, with and without padding."""
    model, random = make(cls, kind), torch.Generator().manual_seed(seed)
    lengths = [torch.randint(0, 6, (2,), generator=random) if ragged and s % 2 else None for s in range(count)]
    segments = [(ids(2, 5, seed=seed + s), n) for s, n in enumerate(lengths)]
    found = []
    for way in (run, diagonal):
        model.zero_grad(set_to_none=True)
        outputs, state = way(model, segments)
        real = [
            h if n is None else h * (torch.arange(5) < n[:, None])[..., None]
            for h, (_, n) in zip(outputs, segments, strict=True)
        ]
        torch.stack(real).sin().sum().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        found.append([*real, *state, *grads])
    same(*found, atol=1e-9)


def test_wavefront_takes_segments_one_at_a_time():
    """It is at most as many segments ahead of its output as there are layers: memory does not grow with the text."""
    model, taken = make(ARMT), 0

    def source():
        nonlocal taken
        for s in range(20):
            taken += 1
            yield ids(1, 5, seed=s), None

    with torch.no_grad():
        for done, _ in enumerate(model.forward_diagonal(source(), model.initial_state(1))):
            assert taken <= done + L


def test_the_loop_is_taken_where_the_wavefront_would_draw_other_dropout():
    model = ARMT(Decoder(DecoderConfig(V, D, L, 3, dropout=0.1)), M)
    assert model.eval().prefers_wavefront(1, 5, 9) and not model.train().prefers_wavefront(1, 5, 9)
    assert not model.eval().prefers_wavefront(1, 5, 1)


# Token by token


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_reading_token_by_token_equals_a_step(cls, kind):
    model = make(cls, kind)
    _, state = run(model, [(ids(2, 6), None)])
    x = ids(2, 9, seed=4)
    hidden, after = model.step(x, state)
    segment, parts = model.open_segment(state), []
    for piece in x.split([4, 1, 1, 3], dim=1):
        part, segment = model.extend(segment, piece)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), hidden, rtol=0, atol=1e-11)
    same(model.close_segment(segment), after)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("length", [1, 6, 7, 13])
def test_generation_equals_teacher_forcing_across_segment_borders(cls, length):
    model, size, new = make(cls), 6, 9
    text = prompt = ids(3, length, seed=length)
    for _ in range(new):
        outputs, _ = run(model, [(piece, None) for piece in text.split(size, dim=1)])
        text = torch.cat([text, model.logits(outputs[-1][:, -1]).argmax(-1, keepdim=True)], dim=1)
    made = generate(model, prompt, model.initial_state(3), size, new)
    assert made.tolist() == text[:, length:].tolist()


# Training


def losses(model, segments, **options):
    model.zero_grad(set_to_none=True)
    return gradients(model, lambda: bptt.backward(model, segments, **options))


@pytest.mark.parametrize("cls", MODELS)
def test_every_way_of_bptt_gives_the_same_gradients(cls, monkeypatch):
    model, segments = make(cls), batch([25, 18, 25], {1, 4})
    found = {}
    for name, wavefront, options in (
        ("wavefront", True, {}),
        ("loop", False, {}),
        ("recomputed", False, {"recompute": True}),
        ("truncated beyond the text", False, {"bptt_segments": 9}),
    ):
        monkeypatch.setattr(cls, "prefers_wavefront", lambda *_, wavefront=wavefront: wavefront)
        found[name] = losses(model, segments, **options)
    for each in found.values():
        assert any(g.abs().max() > 0 for g in each)
        same(each, found["loop"], atol=1e-8)


@pytest.mark.parametrize("cls", MODELS)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_bptt_k_reaches_exactly_k_segments_back(cls, k, monkeypatch):
    model, segments = make(cls), batch([30], {5}, border=False)
    probes = [torch.zeros(1, S, D, dtype=torch.float64, requires_grad=True) for _ in segments]
    embed, calls = model.decoder.embed, iter(probes)
    monkeypatch.setattr(model.decoder, "embed", lambda x: embed(x) + next(calls))
    bptt.backward(model, segments, bptt_segments=k)
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in probes]
    assert reached == [s >= 5 - k for s in range(6)]


def test_rebuilding_repeats_the_dropout():
    torch.manual_seed(0)
    model = ARMT(Decoder(DecoderConfig(V, D, L, 3, positions="rotary", dropout=0.3)), M, 4).double().train()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    segments = batch([25, 25], {4})
    found = []
    for recompute in (False, True):
        torch.manual_seed(7)
        found.append(losses(model, segments, recompute=recompute))
    same(*found, atol=1e-8)


def test_rebuilding_keeps_few_states(monkeypatch):
    """Alive on the way back, of 36 segments: 6 kept, 6 rebuilt, and one or two at work."""
    model, made, alive = make(ARMT), [], []
    rebuild = ARMT.rebuild

    def counting(state, written):
        after = rebuild(state, written)
        made.append(weakref.ref(after.matrix_LBKD))
        alive.append(sum(ref() is not None for ref in made))
        return after

    monkeypatch.setattr(ARMT, "rebuild", staticmethod(counting))
    bptt.backward(model, batch([180, 180], {35}), recompute=True)
    assert len(alive) == 35 + 30 and max(alive) <= 14


def test_state_stays_float32_under_bf16_autocast():
    torch.manual_seed(0)
    model = ARMT(Decoder(DecoderConfig(V, D, L, 3, positions="rotary")), M, 4).eval()
    torch.nn.init.normal_(model.value_LDD)
    segments = [(ids(2, 6, seed=s), None) for s in range(3)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for way in (run, diagonal):
            outputs, state = way(model, segments)
            assert {x.dtype for x in state} == {torch.float32} and bool(outputs[-1].isfinite().all())


@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=str)
def test_bf16_stays_out_of_the_backward_pass_where_it_was_out_of_the_forward_pass(options, monkeypatch):
    """Autocast is on around both, as in training; expected is a backward pass after it."""
    monkeypatch.setattr(ARMT, "prefers_wavefront", lambda *_: False)
    model = make(ARMT).float()
    segments = batch([25, 18, 25], {1, 4})
    with torch.autocast("cpu", torch.bfloat16):
        state, loss = model.initial_state(3), torch.zeros(())
        for s, segment in enumerate(segments):
            part, state = reading.segment_loss(model, segment, state, s < len(segments) - 1)
            loss = loss + part
    expected = gradients(model, loss.backward)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(model, segments, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert (theirs.abs().max() > 0) == (ours.abs().max() > 0)  # no weight is left out
        assert (ours - theirs).norm() <= (0.1 if options else 1e-6) * theirs.norm()


def test_impossible_sizes_are_refused():
    decoder = Decoder(DecoderConfig(V, D, 1, 3))
    with pytest.raises(ValueError, match="memory_tokens is 0"):
        ARMT(decoder, 0)
    with pytest.raises(ValueError, match="d_memory is 0"):
        ARMT(decoder, 2, 0)
    with pytest.raises(ValueError, match="nu is 3; it must be at most 2"):
        ARMT(decoder, 2, 1)


def test_association_is_the_layers_state():
    model = make(ARMT)
    _, state = run(model, [(ids(2, 6), None)])
    again = Association(*state)
    assert again.matrix_BKD.shape == (L, 2, 24, D) and again.norm_BK.shape == (L, 2, 24)
