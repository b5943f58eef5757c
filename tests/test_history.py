"""Nats of text segments by how much history is read before them, against a plain loop over tokens."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.history import bits_per_byte, by_history, window_nats
from rmtlib.models.config import ARMTConfig, DecoderConfig, RMTConfig
from rmtlib.models.registry import build

S, VOCABULARY = 5, 23
DECODER = DecoderConfig(VOCABULARY, 16, 2, 2, positions="rotary")
CONFIGS = {"rmt": RMTConfig(DECODER, 3), "armt": ARMTConfig(DECODER, 3, 4), "backbone": RMTConfig(DECODER, 0)}


def made(kind: str):
    """A model in float64 whose memory matters: ARMT's values start as zeros."""
    model = build(CONFIGS[kind], seed=1).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(7))
    return model


def stream(tokens: int = 62) -> Stream:
    return Stream(np.random.default_rng(0).integers(0, VOCABULARY, tokens).astype(np.uint16), 4)


def plain(model, text: Stream, target: int, history: int) -> float:
    """The nats of one segment, after `history` others; token by token."""
    state, total = model.initial_state(1), 0.0
    everything = [text.before, *map(int, text.ids)]
    for segment in range(target - history, target + 1):
        inputs = torch.tensor([everything[segment * S : (segment + 1) * S]])
        hidden, state = model.step(inputs, state)
        if segment == target:
            scores = model.logits(hidden)[0].log_softmax(-1)
            total = -sum(scores[i, int(text.ids[segment * S + i])].item() for i in range(S))
    return total


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("batch", [2, 5, 64])
def test_every_history_is_that_of_a_plain_loop(kind, batch):
    model, text, H = made(kind), stream(), 4
    found = by_history(model, text, S, H, batch=batch)
    targets = range(H - 1, len(text) // S)
    expected = [sum(plain(model, text, t, h) for t in targets) for h in range(H)]
    assert found.nats == pytest.approx(expected, rel=1e-12)
    assert found.tokens == len(targets) * S and found.targets == ((H - 1) * S, 60)
    differ = max(found.nats) - min(found.nats)
    assert differ == 0 if kind == "backbone" else differ > 1e-3


@pytest.mark.parametrize("kind", CONFIGS)
def test_memory_off_is_no_history_at_all(kind):
    found = by_history(made(kind), stream(), S, 4)
    assert found.off == pytest.approx(found.nats[0], rel=1e-12)


@pytest.mark.parametrize("kind", ["rmt", "armt"])
def test_swapped_memory_is_that_of_another_window(kind):
    model, text, H = made(kind), stream(), 4
    found = by_history(model, text, S, H, batch=100)
    assert found.swapped[0] == pytest.approx(found.nats[0])  # nothing is stored yet
    assert all(abs(a - b) > 1e-3 for a, b in zip(found.swapped[1:], found.nats[1:], strict=True))
    constant = Stream(np.full(60, 3, dtype=np.uint16), 3)  # all memories are equal
    same = by_history(model, constant, S, H)
    assert same.swapped == pytest.approx(same.nats, rel=1e-12)


class Place(NamedTuple):
    """A memory that is the number of the segment read last, -1 of none."""

    segment_B1: Tensor


class Surveyor:
    """A token costs one nat if the memory's segment is at most `reach` before its own, or after it."""

    def __init__(self, reach: int, segments: int):
        self.reach, self.segments = reach, segments

    def initial_state(self, batch):
        return Place(torch.full((batch, 1), -1.0))

    def state_size(self):
        return 1

    def step(self, ids_BS, state, lengths_B=None, *, write=True):
        hidden_BSD = state.segment_B1[:, None].expand(-1, ids_BS.shape[1], -1)
        return hidden_BSD, Place(ids_BS[:, -1:].float()) if write else state

    def nll(self, hidden_ND, targets_N):
        away = (hidden_ND[:, 0] - targets_N).abs()
        away = torch.minimum(away, self.segments - away)
        return ((hidden_ND[:, 0] >= 0) & (away <= self.reach)).float()


@pytest.mark.parametrize(("N", "H", "batch"), [(128, 15, 32), (50, 6, 16), (31, 15, 2), (33, 15, 64)])
def test_memories_are_swapped_with_windows_that_share_no_text(N, H, batch):
    text = Stream(np.arange(N).repeat(S).astype(np.uint16), N - 1)
    found = by_history(Surveyor(H - 2, N), text, S, H, batch=batch)
    assert found.nats == [0.0, *[(N - H + 1) * S] * (H - 1)]
    assert found.swapped == [0.0] * H


def test_a_backbone_that_reads_several_segments_at_once_has_no_more_history_than_that():
    model, text = made("backbone"), stream()
    found = by_history(model, text, S, 5, context=3)
    targets = range(4, len(text) // S)
    everything, expected = [text.before, *map(int, text.ids)], []
    for history in range(3):
        total = 0.0
        for target in targets:
            first, stop = (target - history) * S, (target + 1) * S
            scores = model.logits(model.step(torch.tensor([everything[first:stop]]), model.initial_state(1))[0])[0]
            picked = scores.log_softmax(-1)[torch.arange(stop - first), torch.from_numpy(text.ids[first:stop]).long()]
            total -= picked[-S:].sum().item()
        expected.append(total)
    assert found.nats == pytest.approx([*expected, expected[-1], expected[-1]], rel=1e-12)
    assert found.swapped is None and found.off == pytest.approx(expected[0], rel=1e-12)


def test_windows_are_read_from_the_initial_state():
    model = made("rmt")
    ids, labels = (torch.randint(0, VOCABULARY, (3, 4, S)) for _ in range(2))
    together = window_nats(model, ids, labels)
    alone = torch.cat([window_nats(model, ids[i : i + 1], labels[i : i + 1]) for i in range(3)])
    assert together.shape == (3, 4) and torch.allclose(together, alone, rtol=1e-12)


def test_a_text_that_is_too_short_is_refused_in_a_line():
    with pytest.raises(RmtlibError, match="the test text of 62 tokens has 12 segments of 5, fewer than 15: use more"):
        by_history(made("rmt"), stream(), S, 15)


def test_an_evaluation_can_be_stopped():
    with pytest.raises(Stopped):
        by_history(made("rmt"), stream(), S, 4, should_stop=lambda: True)


def test_bits_per_byte_of_a_uniform_guess_of_bytes_are_eight():
    assert bits_per_byte(10 * np.log(256), 10) == pytest.approx(8.0)
