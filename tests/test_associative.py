"""Associative retrieval: layout, unique keys, latest value, labels, streams, the fixed set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtlib.data.associative import EOS, GEN, SEP, SYMBOLS, FixedSet, PairTask, draw_pairs
from rmtlib.errors import RmtlibError
from rmtlib.segments import IGNORE


def read_back(task: PairTask, tokens: np.ndarray):
    """Keys, values, asked key, answer, from the text alone; checks the separators on the way."""
    k, rows = task.key_size, tokens.reshape(-1, task.segment_size).tolist()
    for row in rows:
        assert row[k] == (GEN if row is rows[-1] else SEP) and row[-1] == EOS
        assert all(0 <= x < SYMBOLS for x in row[:k] + row[k + 1 : -1])
    pairs = [(tuple(row[:k]), tuple(row[k + 1 : -1])) for row in rows]
    return pairs[:-1], *pairs[-1]


@settings(max_examples=100, deadline=None)
@given(
    task=st.sampled_from(["remember", "rewrite"]), k=st.integers(1, 3), v=st.integers(1, 2), n=st.integers(1, 16),
    seed=st.integers(0, 99), index=st.integers(0, 10**6),
)  # fmt: skip
def test_samples_are_as_published(task, k, v, n, seed, index):
    pair_task = PairTask(task, k, v)
    sample = pair_task.sample(n, seed, "train", index)
    pairs, asked, answer = read_back(pair_task, sample.tokens)
    assert len(pairs) == n and len(sample.tokens) == (n + 1) * (k + v + 2)
    assert dict(pairs)[asked] == answer  # the latest of equal keys
    if task == "remember":
        assert len(dict(pairs)) == n
    labelled = np.flatnonzero(sample.labels != IGNORE)
    assert labelled.tolist() == list(range(len(sample.tokens) - v - 2, len(sample.tokens) - 1))
    assert sample.labels[labelled].tolist() == [*answer, EOS]
    again = pair_task.sample(n, seed, "train", index)
    assert np.array_equal(again.tokens, sample.tokens)


def test_rewrite_asks_every_different_key_as_often():
    """However often each stands there: the target is drawn among keys, not among pairs."""
    task = PairTask("rewrite")
    found = [asked for i in range(800) for _, asked, _ in [read_back(task, task.sample(30, 0, "test", i).tokens)]]
    counts = np.bincount([key for (key,) in found], minlength=16)
    assert counts.min() > 25 and counts.max() < 80
    often = [
        keys.count(asked) / len(keys) * len(set(keys))
        for keys, asked in (
            ([key for key, _ in pairs], asked)
            for pairs, asked, _ in (read_back(task, task.sample(6, 0, "test", i).tokens) for i in range(1500))
        )
    ]
    assert abs(np.mean(often) - 1) < 0.03  # among pairs, frequent keys would be asked more often: 1.1


def test_answers_and_targets_are_uniform():
    task, answers, places = PairTask("remember"), [], []
    for index in range(2000):
        pairs, asked, (value,) = read_back(task, task.sample(8, 1, "train", index).tokens)
        answers.append(value)
        places.append([key for key, _ in pairs].index(asked))
    assert np.bincount(answers, minlength=16).min() > 80
    assert np.bincount(places, minlength=8).min() > 190


def test_splits_seeds_and_indices_are_different_streams():
    task = PairTask("remember", 2)
    streams = [(s, split, i) for s in (0, 1) for split in ("train", "validation", "test") for i in (0, 1)]
    texts = {tuple(task.sample(8, *stream).tokens) for stream in streams}  # type: ignore[arg-type]
    assert len(texts) == len(streams)


def test_the_number_of_pairs_varies_by_batch():
    drawn = [draw_pairs(5, 0, batch) for batch in range(500)]
    assert set(drawn) == {1, 2, 3, 4, 5} and min(np.bincount(drawn)[1:]) > 60
    assert drawn == [draw_pairs(5, 0, batch) for batch in range(500)]


def test_fixed_set(tmp_path):
    task = PairTask("remember", 2, 2)
    fixed = FixedSet.make(tmp_path / "set", task, 7, 30, 0, "train")
    before = (tmp_path / "set" / "pairs.npy").stat().st_mtime_ns
    assert len(FixedSet.make(tmp_path / "set", task, 7, 30, 0, "train")) == len(fixed) == 30
    assert (tmp_path / "set" / "pairs.npy").stat().st_mtime_ns == before and len(list(tmp_path.iterdir())) == 1
    stream, _, _ = read_back(task, task.sample(7, 0, "train", 4).tokens)
    whole, _, _ = read_back(task, fixed.sample(7, 0, 4).tokens)
    part, asked, answer = read_back(task, fixed.sample(3, 0, 34).tokens)
    assert whole == stream and part == whole[-3:] and dict(part)[asked] == answer
    targets = {read_back(task, fixed.sample(7, 0, 4 + 30 * use).tokens)[1] for use in range(20)}
    assert len(targets) > 3  # the query is drawn anew at every use


def test_bad_settings_are_one_line_errors(tmp_path):
    with pytest.raises(RmtlibError, match="17 pairs need as many different keys; key_size 1 has 16"):
        PairTask("remember").sample(17, 0, "train", 0)
    with pytest.raises(RmtlibError, match="unknown associative task 'forget'"):
        PairTask("forget")  # type: ignore[arg-type]
    with pytest.raises(RmtlibError, match="key_size 0"):
        PairTask("remember", 0)


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-7], lambda _: b"", lambda _: b"no array"])
def test_a_damaged_fixed_set_is_one_line(damage, tmp_path):
    FixedSet.make(tmp_path / "set", PairTask("remember", 2), 3, 2, 0, "train")
    path = tmp_path / "set" / "pairs.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RmtlibError, match="set is damaged .* delete this folder, and it is made anew"):
        FixedSet.make(tmp_path / "set", PairTask("remember", 2), 3, 2, 0, "train")


@pytest.mark.parametrize("pairs, count, task", [(2, 2, 2), (3, 3, 2), (3, 2, 1)])
def test_a_fixed_set_of_another_size_or_task_is_not_used(pairs, count, task, tmp_path):
    FixedSet.make(tmp_path / "set", PairTask("remember", 2), 3, 2, 0, "train")
    with pytest.raises(RmtlibError, match=f"does not hold {count} samples of {pairs} pairs"):
        FixedSet.make(tmp_path / "set", PairTask("remember", task), pairs, count, 0, "train")
