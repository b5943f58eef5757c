"""The memory-capacity estimate, and exact match by generation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtlib.data.associative import VOCABULARY, PairTask
from rmtlib.evaluation.capacity import pairs_stored, pairs_stored_interval
from rmtlib.evaluation.question_answering import exact_match, exact_match_by_generation
from rmtlib.models.armt import ARMT
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.mamba import Mamba, MambaConfig
from rmtlib.models.prmt import PRMT
from rmtlib.models.rmt import RMT
from rmtlib.segments import cut
from rmtlib.training.bptt import backward


@settings(deadline=None)
@given(pairs=st.integers(1, 500), v=st.integers(2, 256), share=st.floats(0, 1))
def test_the_estimate_inverts_the_expectation(pairs, v, share):
    stored = share * pairs
    alpha = stored / pairs + (1 - stored / pairs) / v  # the theorem: the others are guessed
    assert pairs_stored(alpha, pairs, v) == pytest.approx(stored, abs=1e-8)
    assert pairs_stored(alpha, pairs, v) == pytest.approx((pairs * v * alpha - pairs) / (v - 1))  # as printed
    assert pairs_stored(1, pairs, v) == pytest.approx(pairs) and pairs_stored(1 / v, pairs, v) == pytest.approx(0)


@pytest.mark.parametrize(("stored", "pairs"), [(0, 10), (7, 10), (13, 50), (50, 50)])
def test_a_reader_that_stores_k_pairs_scores_what_the_theorem_says(stored, pairs):
    """On the task's own samples: it keeps k random pairs and guesses the values of the others."""
    task, rng, n = PairTask("remember", 2), np.random.default_rng(0), 4000
    right = 0
    for index in range(n):
        rows = task.sample(pairs, 0, "test", index).tokens.reshape(-1, task.segment_size)
        kept = {tuple(rows[i, :2]): rows[i, 3] for i in rng.permutation(pairs)[:stored]}
        right += kept.get(tuple(rows[-1, :2]), rng.integers(16)) == rows[-1, 3]
    low, high = pairs_stored_interval(int(right), n, pairs, task.values, level=0.999)
    assert low <= stored <= high
    assert abs(pairs_stored(right / n, pairs, task.values) - stored) < 0.05 * pairs


@pytest.mark.parametrize("kind", ["rmt", "armt", "prmt", "mamba"])
def test_generation_and_teacher_forcing_count_the_same(kind):
    """Exact match in one pass is what greedy generation gives, right answers and wrong ones."""
    task = PairTask("rewrite", 1, 1)
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(VOCABULARY, 24, 2, 2, positions="rotary"))
    model = {
        "rmt": lambda: RMT(decoder, 2),
        "armt": lambda: ARMT(decoder, 2, 4),
        "prmt": lambda: PRMT(decoder, 2),
        "mamba": lambda: Mamba(MambaConfig(VOCABULARY, 24, 2)),
    }[kind]().eval()
    samples = [task.sample(3, 0, "train", i) for i in range(160)]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(400):  # until some answers are right and some are not
        optimizer.zero_grad()
        backward(model, list(cut([s.tokens for s in samples], [s.labels for s in samples], 4)), scale=1 / 320)
        optimizer.step()
        forced = exact_match(model, samples, task.segment_size)
        if forced.sum() > 5:
            break
    generated = exact_match_by_generation(model, samples, task.segment_size)
    assert 5 < int(forced.sum()) < 155
    assert torch.equal(forced, generated)
