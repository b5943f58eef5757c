"""RMT-R: what is retrieved, against the definition in plain loops; how far back it sees; bounds of its past."""

import math

import pytest
import torch
from torch.nn import functional as F

from rmtlib.models.config import DecoderConfig, RMTConfig, RMTRConfig
from rmtlib.models.registry import build
from rmtlib.models.rmt_r import RMTR

V, D, S, M = 17, 8, 5, 2
DECODER = DecoderConfig(V, D, 2, 2, positions="rotary")


def make(**changes) -> RMTR:
    model = build(RMTRConfig(DECODER, M, **changes), seed=0).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def ids(batch: int, seed: int) -> torch.Tensor:
    return torch.randint(0, V, (batch, S), generator=torch.Generator().manual_seed(seed))


def read(model, count: int, first: int = 0):
    state = model.initial_state(1)
    for s in range(count):
        _, state = model.step(ids(1, first + s), state)
    return state


@torch.no_grad()
@pytest.mark.parametrize("retrieval", ["attention", "top_1"])
def test_the_read_block_is_the_memory_and_what_each_of_its_tokens_finds(retrieval):
    model = make(retrieval=retrieval)
    state, look = read(model, 3), model.retrieve
    memories = [x for memory in state.past_BPMD[0] for x in memory]  # three segments of M
    assert len(memories) == 3 * M
    for m in range(M):
        own = state.past_BPMD[0, -1, m]  # the newest memory is the recurrent half of the read block
        assert torch.equal(own, state.read_BRD[0, m])
        query = look.query(look.query_norm(own))
        scores = [float(query @ look.key(look.past_norm(x))) / math.sqrt(D) for x in memories]
        if retrieval == "attention":
            total = sum(math.exp(score) for score in scores)
            weights = [math.exp(score) / total for score in scores]
        else:
            weights = [float(score == max(scores)) for score in scores]
        value = sum(w * look.value(look.past_norm(x)) for w, x in zip(weights, memories, strict=True))
        found = own + look.out(value)
        found = found + look.down(F.gelu(look.up(look.feed_forward_norm(found)), approximate="tanh"))
        torch.testing.assert_close(state.read_BRD[0, M + m], found)


def test_gradient_reaches_the_first_segment_past_a_cut_recurrence():
    """If what a segment reads is cut, its memory depends on that segment alone; retrieval still reaches the first."""
    model = make()
    first = model.step(ids(1, 0), model.initial_state(1))[1]
    past = first.past_BPMD.detach().requires_grad_()
    state = first._replace(read_BRD=first.read_BRD.detach(), past_BPMD=past)
    for s in (1, 2):
        _, state = model.step(ids(1, s), state._replace(read_BRD=state.read_BRD.detach()))
    recurrent, found = state.read_BRD.split(M, dim=1)
    assert torch.autograd.grad(recurrent.sum(), past, retain_graph=True)[0].abs().sum() == 0
    assert torch.autograd.grad(found.sum(), past)[0].abs().sum() > 0


def test_no_more_than_so_many_memories_are_kept_and_the_oldest_goes_first():
    model, bounded = make(past_segments=128), make(past_segments=2)
    bounded.load_state_dict(model.state_dict())
    two, kept = read(model, 2), read(bounded, 2)
    torch.testing.assert_close(kept.read_BRD, two.read_BRD)  # nothing dropped yet
    third = bounded.step(ids(1, 2), kept)[1]
    assert third.past_BPMD.shape[1] == 2
    assert torch.equal(third.past_BPMD[:, 0], kept.past_BPMD[:, 1])
    unbounded = model.step(ids(1, 2), two)[1]
    assert torch.equal(third.read_BRD[:, :M], unbounded.read_BRD[:, :M])
    assert not torch.allclose(third.read_BRD[:, M:], unbounded.read_BRD[:, M:])


def test_the_first_segment_reads_learned_vectors_and_the_write_block_is_their_first_half():
    model = make()
    plain = build(RMTConfig(DECODER, M), seed=0).double().eval()
    plain.decoder.load_state_dict(model.decoder.state_dict())
    hidden, state = model.step(ids(1, 0), model.initial_state(1))
    x_1TD = torch.cat([model.memory_MD, model.decoder.embed(ids(1, 0))[0], model.memory_MD[:M]])[None]
    expected, _ = plain.decoder(x_1TD)
    torch.testing.assert_close(hidden, expected[:, 2 * M : 2 * M + S])
    torch.testing.assert_close(state.past_BPMD[:, 0], expected[:, 2 * M + S :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retrieval": "nearest"}, "'attention' or 'top_1'"),
        ({"past_segments": 0}, "past_segments is 0"),
        ({"memory_tokens": 0}, "memory_tokens is 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        build(RMTRConfig(**{"backbone": DECODER, "memory_tokens": M} | change))
