"""Tests that survive an interruption: which answers were correct is kept in the run's folder, batch by batch."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.halves import in_halves
from rmtlib.evaluation.outcomes import pack_outcomes
from rmtlib.runs.folder import KEPT
from rmtlib.runs.progress import share
from rmtlib.runs.shards import work_through
from rmtlib.runs.storage import read_sealed, write_sealed
from rmtlib.training.checkpoint import fingerprint
from rmtlib.training.peers import PeerDone

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder

TOKENS_BETWEEN_STOPS = 30_000_000
"""Batches of very long samples are smaller: a stop never waits for more, half a minute on a GPU as fast as aimed at."""


@dataclass(frozen=True)
class TestSet:
    """`samples` samples of `tokens` tokens each; ``correct(indices)`` says of each of these if it is answered so."""

    name: str  # its key in evaluation.json
    label: str  # in words, for progress
    samples: int
    tokens: int
    correct: Callable[[range], list[bool]]
    at_once: int = TOKENS_BETWEEN_STOPS  # tokens of a batch of several samples, at most


@dataclass(frozen=True)
class Batch:
    """Some samples of a test, as one process takes them at a time."""

    test: TestSet
    indices: range

    @property
    def name(self) -> str:
        return f"{self.test.name}-{self.indices.start}-{self.indices.stop}"

    @property
    def samples(self) -> int:
        return len(self.indices)

    def outcomes(self) -> str:
        """Which are answered correctly, "1" if so."""
        return "".join("01"[correct] for correct in in_halves(self.test.correct, self.indices))


def batches(test: TestSet, batch_size: int, finished: int) -> list[Batch]:
    """What is left of a test, of which so many samples are finished."""
    batch = max(1, min(batch_size, test.at_once // test.tokens))
    starts = range(finished, test.samples, batch)
    return [Batch(test, range(start, min(start + batch, test.samples))) for start in starts]


def run_tests(
    tests: Sequence[TestSet], batch_size: int, folder: "RunFolder", tokens: int, work: Sequence[float]
) -> tuple[list[dict[str, Any]], int]:
    """What a record says of every test (n, correct, outcomes), and `tokens`, those of the run, with the tests' added.

    `work` is that of every training stage, then of all tests.

    What is done is kept in evaluation.json, for the weights of the folder's checkpoint alone. If the folder has one of
    shards, other processes take part of the work, and what they give is the same.

    Raises:
        Stopped: asked to stop; exact match of BABILong stops at the next segment, other tests at the next batch. A
            second call goes on with that batch.
        PeerDone: tested, in a process that only helped.
    """
    path, weights = folder.path / "evaluation.json", fingerprint(folder.path)
    done = _done(path, weights, tests)
    before, whole = tokens, sum(test.samples * test.tokens for test in tests)
    if folder.helps and not folder.shards.is_dir():
        raise PeerDone  # it came too late
    if folder.shards.is_dir():
        left = [batch for test in tests for batch in batches(test, batch_size, len(done.get(test.name, "")))]
        _share(left, done, weights, folder, work)
        write_sealed(path, {"weights": weights, "outcomes": done})
        shutil.rmtree(folder.shards)
    for test in tests:
        outcomes = done.setdefault(test.name, "")
        tokens += len(outcomes) * test.tokens
        for batch in batches(test, batch_size, len(outcomes)):
            if folder.should_stop():
                raise Stopped(f"stopped while testing at {test.label}; what is done is kept in {path}")
            outcomes = done[test.name] = outcomes + batch.outcomes()
            tokens += batch.samples * test.tokens
            write_sealed(path, {"weights": weights, "outcomes": done})
            numbers = {"accuracy": outcomes.count("1") / len(outcomes), "tokens": tokens}
            numbers["done"] = share(work, len(work) - 1, (tokens - before) / whole)
            folder.progress(f"testing at {test.label}", len(outcomes), test.samples, **numbers)
    return [_summary(done[test.name]) for test in tests], tokens


def _share(
    left: Sequence[Batch], done: dict[str, str], weights: str, folder: "RunFolder", work: Sequence[float]
) -> None:
    """Do these batches together with whoever helps, and add their outcomes to what is done."""
    whole, finished = sum(batch.samples for batch in left), 0

    def say(samples: int) -> None:
        nonlocal finished
        finished += samples
        so_far = share(work, len(work) - 1, finished / whole)
        folder.progress("testing in shards", finished, whole, done=so_far)

    if not folder.helps:
        folder.note("its tests were shared by several processes, in the batches that one would take")
        (folder.shards / "open").touch()
    outcomes = work_through(folder.shards, weights, left, folder.should_stop, say)
    if folder.helps:
        raise PeerDone
    for batch in left:
        done[batch.test.name] = done.get(batch.test.name, "") + outcomes[batch.name]


def _summary(outcomes: str) -> dict[str, Any]:
    correct = [bit == "1" for bit in outcomes]
    return {"n": len(correct), "correct": sum(correct), "outcomes": pack_outcomes(correct)}


def _done(path: Path, weights: str, tests: Sequence[TestSet]) -> dict[str, str]:
    """The outcomes so far, "1" for correct, of every test that was begun with these weights."""
    kept = read_sealed(path, KEPT[path.name])
    done: dict[str, str] = kept["outcomes"] if kept.get("weights") == weights else {}
    limits = {test.name: test.samples for test in tests}
    for name, outcomes in done.items():
        if set(outcomes) - {"0", "1"} or len(outcomes) > limits.get(name, 0):
            raise RmtlibError(f"{path} is damaged ({name!r} is {outcomes!r}): {KEPT[path.name]}")
    return done
