"""Counts of correct answers that survive an interruption: what is done is kept in the run's folder, batch by batch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.runs.progress import share
from rmtlib.runs.storage import read_json
from rmtlib.files import write_atomically
from rmtlib.training.checkpoint import fingerprint

if TYPE_CHECKING:
    from rmtlib.runs.worker import RunFolder

TOKENS_BETWEEN_STOPS = 30_000_000
"""Batches of very long samples are smaller: a stop never waits for more, half a minute on a GPU as fast as aimed at."""


@dataclass(frozen=True)
class TestSet:
    """One line of a test: `samples` samples of `tokens` tokens each; ``correct(indices)`` counts correct answers."""

    name: str  # its key in evaluation.json
    label: str  # in words, for progress
    samples: int
    tokens: int
    correct: Callable[[range], int]


def count_correct_answers(
    tests: Sequence[TestSet], batch_size: int, folder: "RunFolder", tokens: int, work: Sequence[float]
) -> tuple[list[int], int]:
    """Correct answers of every test, and `tokens` (those of the run so far) with the tests' added.

    `work` is that of every training stage, then of all tests.

    What is done is kept in evaluation.json, for the weights of the folder's checkpoint alone.

    Raises:
        Stopped: asked to stop between two batches; a second call goes on there.
    """
    path, weights = folder.path / "evaluation.json", fingerprint(folder.path)
    done = _done(path, weights, tests)
    counts = []
    before, whole = tokens, sum(test.samples * test.tokens for test in tests)
    for test in tests:
        batch = max(1, min(batch_size, TOKENS_BETWEEN_STOPS // test.tokens))
        finished, correct = done.get(test.name, (0, 0))
        tokens += finished * test.tokens
        while finished < test.samples:
            if folder.should_stop():
                raise Stopped(f"stopped while testing at {test.label}; what is done is kept in {path}")
            indices = range(finished, min(finished + batch, test.samples))
            correct += test.correct(indices)
            finished, tokens = indices.stop, tokens + len(indices) * test.tokens
            done[test.name] = [finished, correct]
            write_atomically(path, json.dumps({"weights": weights, "done": done}).encode())
            numbers = {"accuracy": correct / finished, "tokens": tokens}
            numbers["done"] = share(work, len(work) - 1, (tokens - before) / whole)
            folder.progress(f"testing at {test.label}", finished, test.samples, **numbers)
        counts.append(correct)
    return counts, tokens


def _done(path: Path, weights: str, tests: Sequence[TestSet]) -> dict[str, list[int]]:
    """Samples finished and correct answers of every test that was begun with these weights."""
    if not path.exists():
        return {}
    remedy = "delete this file; the tests then begin anew, the training is kept"
    kept = read_json(path, dict, remedy)
    done = kept.get("done")
    limits = {test.name: test.samples for test in tests}
    if not isinstance(done, dict) or not isinstance(kept.get("weights"), str):
        raise RmtlibError(f"{path} is damaged (keys are missing): {remedy}")
    if kept["weights"] != weights:
        return {}
    for name, pair in done.items():
        whole = isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
        if not whole or not 0 <= pair[1] <= pair[0] <= limits.get(name, 0):
            raise RmtlibError(f"{path} is damaged ({name!r} is {pair!r}): {remedy}")
    return done
