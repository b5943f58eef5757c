"""Associative retrieval: key-value pairs, then one key, whose value is asked for (Rodkin et al. 2024, section 3).

One pair a segment, the query in the last; symbols are 0-15, `:` is SEP (100), `?` is GEN (101), `.` is EOS (102):

    keys of 2 symbols, values of 1, 3 pairs

    remember    3 9 : 4 .     0 5 : 12 .    7 7 : 1 .     0 5 ? 12 .       keys are unique
    rewrite       9 : 4 .       5 : 12 .      9 : 1 .       9 ? 1 .        keys repeat: the latest value counts
                ------------ segment size = keys + values + 2 --------      loss on the value and EOS after `?`

Numbers as in the released code. Every sample is a function of (seed, split,
index) alone: identical for all models, and the splits are disjoint streams.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rmtlib.data.arrays import kept_arrays
from rmtlib.errors import RmtlibError
from rmtlib.seeds import generator
from rmtlib.segments import next_token_labels

SYMBOLS = 16
SEP, GEN, EOS = 100, 101, 102
VOCABULARY = 128

Task = Literal["remember", "rewrite"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class PairSample:
    """Token ids of one sample and the target of each position (IGNORE outside value and EOS)."""

    tokens: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class PairTask:
    """A task at one size of keys and values."""

    task: Task
    key_size: int = 1
    value_size: int = 1

    def __post_init__(self) -> None:
        if self.task not in ("remember", "rewrite"):
            raise RmtlibError(f"unknown associative task {self.task!r}: use remember or rewrite")
        if not 1 <= self.key_size <= 8 or not 1 <= self.value_size <= 8:
            raise RmtlibError(f"key_size {self.key_size} and value_size {self.value_size} must each be 1 to 8")

    @property
    def segment_size(self) -> int:
        """Tokens of a pair, and of the query with its answer."""
        return self.key_size + self.value_size + 2

    @property
    def values(self) -> int:
        """v: how many values there are."""
        return SYMBOLS**self.value_size

    def sample(self, pairs: int, seed: int, split: Split, index: int) -> PairSample:
        """Sample `index` of a stream, with `pairs` pairs.

        Raises:
            RmtlibError: remember has fewer than `pairs` different keys.
        """
        rng = self.stream(seed, split, index)
        return self.ask(self.pairs(pairs, rng), rng)

    def stream(self, seed: int, split: Split, index: int) -> np.random.Generator:
        """The random numbers of one sample."""
        return generator(seed, "associative", self.task, split, self.key_size, self.value_size, index)

    def pairs(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` pairs as rows of symbols, key before value."""
        keys = SYMBOLS**self.key_size
        if self.task == "rewrite":
            drawn = rng.integers(0, keys, count)
        elif count <= keys:
            drawn = rng.choice(keys, count, replace=False)
        else:
            raise RmtlibError(
                f"{count} pairs need as many different keys; key_size {self.key_size} has {keys}: use longer keys"
            )
        digits = drawn[:, None] // SYMBOLS ** np.arange(self.key_size - 1, -1, -1) % SYMBOLS
        return np.concatenate([digits, rng.integers(0, SYMBOLS, (count, self.value_size))], axis=1)

    def ask(self, rows: np.ndarray, rng: np.random.Generator) -> PairSample:
        """Lay out pairs and the query for one of their different keys, each as likely; its latest value answers."""
        k, size = self.key_size, self.segment_size
        latest = {tuple(row[:k]): i for i, row in enumerate(rows.tolist())}
        asked = rows[sorted(latest.values())[int(rng.integers(len(latest)))]]
        tokens = np.empty((len(rows) + 1, size), dtype=np.int64)
        tokens[:-1, :k], tokens[:-1, k], tokens[:-1, k + 1 : -1] = rows[:, :k], SEP, rows[:, k:]
        tokens[-1, :k], tokens[-1, k], tokens[-1, k + 1 : -1] = asked[:k], GEN, asked[k:]
        tokens[:, -1] = EOS
        flat = tokens.reshape(-1)
        return PairSample(flat, next_token_labels(flat, np.arange(len(flat)) > len(flat) - size + k))


def draw_pairs(most: int, seed: int, batch: int) -> int:
    """How many pairs the samples of a training batch have if that varies: uniform from 1 to `most`, per batch."""
    return int(generator(seed, "associative", "pairs", batch).integers(1, most + 1))


class FixedSet:
    """Samples of one file, used again and again: the paper trains on 1,000,000.

    The file holds pairs alone, (samples, pairs, keys + values) symbols as uint8. As in the released code, a sample of
    fewer pairs takes the last ones, and its query is drawn when it is used.
    """

    def __init__(self, task: PairTask, pairs: np.ndarray):
        self.task, self.pairs = task, pairs

    @classmethod
    def make(cls, home: Path, task: PairTask, pairs: int, count: int, seed: int, split: Split) -> "FixedSet":
        """Samples 0 .. count-1 of a stream, from the folder `home`; made if it is not there, in a minute for a million.

        Raises:
            RmtlibError: the folder cannot be written, is damaged, or holds another set.
        """

        def draw() -> dict[str, np.ndarray]:
            samples = np.empty((count, pairs, task.key_size + task.value_size), np.uint8)
            for index in range(count):
                samples[index] = task.pairs(pairs, task.stream(seed, split, index))
            return {"pairs": samples}

        found, shape = kept_arrays(home, draw), (count, pairs, task.key_size + task.value_size)
        if "pairs" not in found or found["pairs"].shape != shape or found["pairs"].dtype != np.uint8:
            raise RmtlibError(f"{home} does not hold {count} samples of {pairs} pairs of this task: delete this folder")
        return cls(task, found["pairs"])

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, pairs: int, seed: int, index: int) -> PairSample:
        """Sample `index` modulo the set's size, its last `pairs` pairs, with the query of this use of it."""
        rows = np.asarray(self.pairs[index % len(self), len(self.pairs[0]) - pairs :], dtype=np.int64)
        return self.task.ask(rows, generator(seed, "associative", "query", index))
