"""Samples of a batch that have ended are not read on; losses and gradients stay what they were."""

import numpy as np
import pytest
import test_armt
import test_mamba
import test_rmt
import test_rmt_r
import test_rwkv
import torch
from test_training import gradients

from rmtlib.models.armt import ARMT
from rmtlib.models.config import DecoderConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.prmt import PRMT
from rmtlib.segments import Segment, cut, next_token_labels, without_finished
from rmtlib.training import bptt, sources
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.sources import CurriculumSource

S = 4
LENGTHS = (19, 17, 12, 11, 3)  # 5, 5, 3, 3 and 1 segments
MODELS = {
    "rmt": test_rmt.make,
    "rmt-r": test_rmt_r.make,
    "armt": lambda: test_armt.make(ARMT),
    "prmt": lambda: test_armt.make(PRMT),
    "mamba": test_mamba.make,
    "rwkv": test_rwkv.make,
}


class Tail:
    """Ids whose last two are to be predicted."""

    def __init__(self, length: int):
        self.tokens = np.random.default_rng(length).integers(0, 9, length)
        self.labels = next_token_labels(self.tokens, np.arange(length) >= length - 2)


def batch() -> list[Segment]:
    samples = [Tail(length) for length in LENGTHS]
    return list(cut([sample.tokens for sample in samples], [sample.labels for sample in samples], S))


def test_a_segment_has_the_samples_that_go_on():
    shorter = [without_finished(segment) for segment in batch()]
    assert [len(segment.input_ids_BS) for segment in shorter] == [5, 4, 4, 2, 2]
    lengths = [None if segment.lengths_B is None else segment.lengths_B.tolist() for segment in shorter]
    assert lengths == [[4, 4, 4, 4, 3], None, [4, 4, 4, 3], None, [3, 1]]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"bptt_segments": 1}], ids=str)
def test_gradients_are_those_of_the_whole_batch(name, options):
    model, found = MODELS[name](), []
    for segments in (batch(), [without_finished(segment) for segment in batch()]):
        loss: list[float] = []
        found.append(gradients(model, lambda: loss.append(bptt.backward(model, segments, **options))))  # noqa: B023
        found[-1].append(torch.tensor(loss))
    assert any(g.abs().max() > 1e-3 for g in found[0][:-1])
    for whole, shorter in zip(*found, strict=True):
        torch.testing.assert_close(shorter, whole, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("recompute", "micro_batch", "expected"),
    [
        (False, 5, [[5, 4, 4, 2, 2]]),
        (True, 5, [[5, 4, 4, 2, 2]]),
        (False, 3, [[3, 2, 2, 1, 1], [2, 2, 2, 1, 1]]),
    ],
)
def test_training_reads_the_longest_first_and_drops_what_has_ended(recompute, micro_batch, expected, monkeypatch):
    read = []

    def accumulate(model, segments, **options):
        read.append([len(segment.input_ids_BS) for segment in segments])
        return bptt.accumulate(model, segments, **options)

    monkeypatch.setattr(sources, "accumulate", accumulate)
    mixed = [Tail(length) for length in (11, 3, 19, 12, 17)]
    config = TrainConfig((Stage(5, 1, 1e-3),), S, 5, 0, recompute=recompute)
    source, model = CurriculumSource(config, lambda stage, index: mixed[index]), test_rmt.make()
    trained = gradients(model, lambda: source.backward(model, source.next_batch(0, 0, 0), micro_batch))
    assert read == expected
    whole = gradients(model, lambda: bptt.backward(model, batch(), scale=1 / 10))
    for ours, theirs in zip(trained, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_segments_that_run_again_draw_the_same_dropout():
    """The batch shrinks on the way there and back alike, so the masks of the second reading are those of the first."""
    torch.manual_seed(0)
    model = ARMT(Decoder(DecoderConfig(test_armt.V, 24, 2, 3, positions="rotary", dropout=0.3)), 3, 4).double().train()
    torch.nn.init.normal_(model.value_LDD, std=0.2)
    segments, found = [without_finished(segment) for segment in batch()], []
    for recompute in (False, True):
        torch.manual_seed(7)
        found.append(gradients(model, lambda: bptt.backward(model, segments, recompute=recompute)))  # noqa: B023
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
