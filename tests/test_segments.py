"""Cutting, alignment and next-token labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rmt import V, make

from rmtlib.errors import RmtlibError
from rmtlib.models.reading import labelled_loss, read
from rmtlib.segments import IGNORE, cut, even, next_token_labels, segment_count

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@settings(deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 9), alignment=st.sampled_from(["left", "right"]))
def test_segments_joined_are_the_sequences(lengths, size, alignment):
    rows = [np.arange(n) + 100 * b for b, n in enumerate(lengths)]
    labels = [next_token_labels(row) for row in rows]
    segments = list(cut(rows, labels, size, alignment))
    assert len(segments) == segment_count(max(lengths), size)
    for b, row in enumerate(rows):
        real = [size if s.lengths_B is None else int(s.lengths_B[b]) for s in segments]
        ids = np.concatenate([s.input_ids_BS[b, :n] for s, n in zip(segments, real, strict=True)])
        targets = np.concatenate([s.labels_BS[b, :n] for s, n in zip(segments, real, strict=True)])
        assert ids.tolist() == row.tolist()
        assert targets.tolist() == [*row[1:], IGNORE]  # also across segment borders
        assert all((s.labels_BS[b, n:] == IGNORE).all() for s, n in zip(segments, real, strict=True))
        full = [n for n in real if n]
        short = full[-1] if alignment == "left" else full[0]
        assert short == (len(row) - 1) % size + 1 and sum(n not in (0, size) for n in real) <= 1


@given(samples=st.integers(1, 4), count=st.integers(1, 5), size=st.integers(1, 5), labelled=st.booleans())
def test_even_arrays_are_cut_as_any_other_sequences(samples, count, size, labelled):
    """Arrays take a faster way where they fill their segments; a class that only slices does not."""

    class Slices:
        def __init__(self, x):
            self.x = x

        def __len__(self):
            return len(self.x)

        def __getitem__(self, part):
            return self.x[part]

    rows = [np.arange(count * size, dtype=np.uint16) + 100 * b for b in range(samples)]
    labels = [next_token_labels(row) for row in rows] if labelled else None
    for fast, slow in zip(cut(rows, labels, size), cut([Slices(r) for r in rows], labels, size), strict=True):
        assert fast.lengths_B is slow.lengths_B is None
        assert fast.input_ids_BS.tolist() == slow.input_ids_BS.tolist()
        assert fast.labels_BS.tolist() == slow.labels_BS.tolist()
        assert fast.input_ids_BS.dtype == slow.input_ids_BS.dtype


@settings(deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 9))
def test_shorter_samples_end_early_or_start_late(lengths, size):
    rows = [np.arange(n) for n in lengths]
    for alignment, still in (
        ("left", lambda real: real == sorted(real, reverse=True)),
        ("right", lambda r: r == sorted(r)),
    ):
        for b in range(len(rows)):
            real = [size if s.lengths_B is None else int(s.lengths_B[b]) for s in cut(rows, None, size, alignment)]
            assert still(real)


def test_lengths_are_none_only_where_all_rows_are_full():
    segments = list(cut([np.arange(8), np.arange(6)], None, 4))
    assert segments[0].lengths_B is None and segments[1].lengths_B.tolist() == [4, 2]


def test_loss_mask_names_the_predicted_tokens():
    labels = next_token_labels(np.array([5, 6, 7, 8]), np.array([False, False, True, False]))
    assert labels.tolist() == [IGNORE, 7, IGNORE, IGNORE]


def test_wrong_arguments_are_one_line_errors():
    with pytest.raises(RmtlibError, match="segment_size is 0"):
        next(cut([np.arange(3)], None, 0))
    with pytest.raises(RmtlibError, match="alignment is 'center'"):
        next(cut([np.arange(3)], None, 2, "center"))


def test_an_even_batch_has_the_same_loss_in_fewer_shapes():
    model, shapes = make(), set()
    for seed in range(12):
        random = np.random.default_rng(seed)
        tokens = [random.integers(0, V, n) for n in random.integers(50, 61, 4)]
        labels = [next_token_labels(x, random.random(len(x)) < 0.15) for x in tokens]
        segments = list(cut(tokens, labels, 20))
        evened = even(segments)
        shapes.add(tuple((s.labelled().rows_BN.shape, s.labelled().which_K.shape) for s in evened))
        assert {s.lengths_B is None for s in evened} == {False}
        torch.testing.assert_close(summed(model, evened), summed(model, segments))
    assert len(shapes) == 1


def test_a_batch_that_is_even_stays_as_it_is():
    tokens = [np.arange(30) % V] * 3
    segments = list(cut(tokens, [next_token_labels(x) for x in tokens], 10))[:2]
    assert [s.labelled().rows_BN for s in even(segments)] == [None, None]
    assert all(
        a.labelled().targets_K.equal(b.labelled().targets_K) for a, b in zip(even(segments), segments, strict=True)
    )
    assert {s.lengths_B for s in even(segments)} == {None}


def summed(model, segments):
    reading = read(model, segments, model.initial_state(len(segments[0].input_ids_BS)), len(segments))
    return torch.stack([labelled_loss(model, segment, hidden) for segment, hidden in reading]).sum()
