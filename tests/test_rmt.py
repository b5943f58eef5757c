"""RMT: state, padding, masks, gradient reach, generation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtlib.errors import RmtlibError
from rmtlib.models.blocks import Blocks
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.generation import generate
from rmtlib.models.rmt import RMT, RMTState

V, D = 37, 24


def make(memory_tokens=3, mask="causal", positions="rotary", conv_taps=3, seed=0, **kwargs) -> RMT:
    torch.manual_seed(seed)
    config = DecoderConfig(V, D, 2, 3, positions=positions, max_positions=64, conv_taps=conv_taps, **kwargs)
    model = RMT(Decoder(config), memory_tokens, mask).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def ids(*shape, seed=1) -> torch.Tensor:
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


MASKS = ["causal", "bidirectional"]


def test_zero_memory_tokens_is_the_backbone_alone():
    model = make(memory_tokens=0)
    x = ids(2, 9)
    hidden, state = model.step(x, model.initial_state(2))
    plain, _ = model.decoder(model.decoder.embed(x))
    torch.testing.assert_close(hidden, plain)
    assert model.state_size() == 0 and state.memory_BMD.shape == (2, 0, D)


@pytest.mark.parametrize("mask", MASKS)
def test_memory_carries_the_first_segment_into_the_second(mask):
    model = make(mask=mask)
    one, two, next_ = ids(1, 8, seed=1), ids(1, 8, seed=2), ids(1, 8, seed=3)
    outputs = []
    for first in (one, two):
        _, state = model.step(first, model.initial_state(1))
        assert state.memory_BMD.shape == (1, 3, D) and model.state_size() == 3 * D
        outputs.append(model.step(next_, state)[0])
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    again = model.step(next_, model.initial_state(1))[0]
    assert (again - model.step(next_, model.initial_state(1))[0]).abs().max() == 0  # nothing hides in the module


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    mask=st.sampled_from(MASKS),
    positions=st.sampled_from(["rotary", "learned"]),
    seed=st.integers(0, 10_000),
)
def test_padding_changes_nothing(lengths, mask, positions, seed):
    """A sample in a padded batch gives what it gives alone, cut to its length; an empty one keeps its state."""
    model = make(mask=mask, positions=positions)
    S, B = 7, len(lengths)
    batch = ids(B, S, seed=seed)
    state = RMTState(torch.randn(B, 3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    hidden, new = model.step(batch, state, torch.tensor(lengths))
    for b, n in enumerate(lengths):
        before = RMTState(state.memory_BMD[b : b + 1])
        if n == 0:
            torch.testing.assert_close(new.memory_BMD[b], before.memory_BMD[0], rtol=0, atol=0)
            continue
        alone, after = model.step(batch[b : b + 1, :n], before)
        torch.testing.assert_close(hidden[b, :n], alone[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(new.memory_BMD[b], after.memory_BMD[0], rtol=0, atol=1e-12)


def reach(model: RMT, S: int) -> list[list[bool]]:
    """Which column each row of [read | text | write] depends on, by perturbing the embeddings."""
    M = model.memory_tokens
    T = 2 * M + S
    x = torch.randn(1, T, D, dtype=torch.float64)
    mask = model._mask(Blocks(M, S, M))
    base = model.decoder(x, mask=mask)[0]
    rows = []
    for column in range(T):
        moved = x.clone()
        moved[0, column] += torch.randn(D, dtype=torch.float64)
        rows.append((model.decoder(moved, mask=mask)[0] - base).abs().sum(-1)[0] > 1e-12)
    return torch.stack(rows).T.tolist()


def test_the_two_published_masks():
    """Causal: the decoder's own. Bidirectional: read and write blocks see all of themselves, text stays causal."""
    S, M = 4, 3
    causal, blocks = reach(make(mask="causal"), S), reach(make(mask="bidirectional"), S)
    for row in range(2 * M + S):
        for column in range(2 * M + S):
            same_block = (row < M and column < M) or (row >= M + S and column >= M + S)
            assert causal[row][column] == (column <= row)
            assert blocks[row][column] == (column <= row or same_block)


def test_unknown_options_are_refused():
    decoder = Decoder(DecoderConfig(V, D, 1, 3))
    with pytest.raises(ValueError, match="memory_mask is 'full'"):
        RMT(decoder, 2, "full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="memory_tokens is -1"):
        RMT(decoder, -1)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("memory_tokens", [0, 3])
def test_reading_token_by_token_equals_a_step(mask, memory_tokens):
    model = make(memory_tokens, mask)
    x, state = ids(2, 9), make(memory_tokens, mask).initial_state(2)
    hidden, after = model.step(x, state)
    segment, parts = model.open_segment(state), []
    for piece in x.split([4, 1, 1, 3], dim=1):
        part, segment = model.extend(segment, piece)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), hidden, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.close_segment(segment).memory_BMD, after.memory_BMD, rtol=0, atol=1e-12)


def teacher_forced(model: RMT, prompt: torch.Tensor, S: int, new: int) -> torch.Tensor:
    """Greedy continuation the slow way: for each token, all text so far goes through whole `step`s anew."""
    text = prompt
    for _ in range(new):
        state = model.initial_state(text.shape[0])
        for piece in text.split(S, dim=1):
            hidden, state = model.step(piece, state)
        text = torch.cat([text, model.logits(hidden[:, -1]).argmax(-1, keepdim=True)], dim=1)
    return text[:, prompt.shape[1] :]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("length", [1, 5, 6, 7, 12, 13])
def test_generation_equals_teacher_forcing_across_segment_borders(mask, length):
    model, S, new = make(mask=mask), 6, 10
    prompt = ids(3, length, seed=length)
    made = generate(model, prompt, model.initial_state(3), S, new)
    assert made.tolist() == teacher_forced(model, prompt, S, new).tolist()


def test_generation_does_not_read_the_write_block():
    """The released wrapper puts new tokens behind the write memory; the result differs, so that bug would show."""
    model, S = make(), 6
    prompt = ids(1, 4)
    state = model.initial_state(1)
    x = torch.cat([state.memory_BMD, model.decoder.embed(prompt), state.memory_BMD], dim=1)
    released = model.logits(model.decoder(x)[0][:, -1])
    ours = model.logits(model.step(prompt, state)[0][:, -1])
    assert (released - ours).abs().max() > 1e-3
    assert generate(model, prompt, state, S, 1)[0, 0] == ours.argmax()


def test_an_empty_prompt_is_refused_in_one_line():
    model = make()
    with pytest.raises(RmtlibError, match="the prompt is empty: give at least one token"):
        generate(model, ids(2, 0), model.initial_state(2), 6, 3)


def test_generation_stops_at_eos():
    model = make()
    made = generate(model, ids(2, 5), model.initial_state(2), 6, 8)
    eos = int(made[0, 2])
    stopped = generate(model, ids(2, 5), model.initial_state(2), 6, 8, eos_id=eos)
    for row, free in zip(stopped.tolist(), made.tolist(), strict=True):
        stop = free.index(eos) + 1 if eos in free else len(row)
        assert row[:stop] == free[:stop] and set(row[stop:]) <= {eos}
