"""Tests of one run that several processes share: `rmtlib run ARTIFACT --shards N`.

The tests are cut into shards, the very batches that one process alone would take, so that the outcomes are the same to
the last sample. Whoever has time takes a shard that nobody has done or is at work on, and leaves its outcomes as a
file:

    shards/              in the run's folder, made by the command: with it the tests are shared
    shards/open          the training is done: helpers may come
    shards/<shard>.lock  held by the process that is at work on the shard, and free if that process was killed
    shards/<shard>.json  its outcomes, sealed, with the hash of the weights

The run's worker takes shards like the others, waits for those that others have, takes over what a killed process had,
and makes the record. Helpers are processes of this machine or tasks of a cluster that see the same folder. They load
the checkpoint from a copy, and write nothing but shards.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.runs.artifact import load_artifact
from rmtlib.runs.folder import KEPT, RunFolder, read_config
from rmtlib.runs.storage import read_sealed, write_sealed
from rmtlib.training.peers import PeerDone

POLL = 0.1


class Shard(Protocol):
    """A batch of one test."""

    @property
    def name(self) -> str: ...
    @property
    def samples(self) -> int: ...
    def outcomes(self) -> str:
        """Which samples are answered correctly, "1" if so."""
        ...


def work_through(
    home: Path, weights: str, shards: Sequence[Shard], should_stop: Callable[[], bool], done: Callable[[int], None]
) -> dict[str, str]:
    """Do the shards that nobody else does, and wait for the others; the outcomes of all by name.

    Args:
        home: where they are.
        weights: hash of the weights that are tested.
        done: called with the number of samples of every shard that is done, whoever did it.

    Raises:
        Stopped: asked to stop; what is done stays.
    """
    found: dict[str, str] = {}
    while len(found) < len(shards):
        waiting = True
        for shard in shards:
            if shard.name in found:
                continue
            if should_stop():
                raise Stopped(f"stopped while testing; what is done is kept in {home}")
            if (outcomes := _read(home, weights, shard)) is None:
                with _claimed(home / f"{shard.name}.lock") as mine:
                    if not mine:
                        continue
                    if (outcomes := _read(home, weights, shard)) is None:  # else done while it was claimed
                        outcomes = shard.outcomes()
                        write_sealed(home / f"{shard.name}.json", {"weights": weights, "outcomes": outcomes})
            waiting = False
            found[shard.name] = outcomes
            done(shard.samples)
        if waiting and len(found) < len(shards):
            time.sleep(POLL)
    return found


def _read(home: Path, weights: str, shard: Shard) -> str | None:
    """The outcomes of a shard; None if it is not done, was done with other weights, or its file is damaged."""
    try:
        kept = read_sealed(home / f"{shard.name}.json", "it is done again")
    except RmtlibError:
        return None
    outcomes = kept.get("outcomes")
    whole = isinstance(outcomes, str) and len(outcomes) == shard.samples and set(outcomes) <= {"0", "1"}
    return outcomes if whole and kept.get("weights") == weights else None


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone has the file's lock, until the block ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def help_test(path: Path, artifact: str, parent: int) -> int:
    """Take shards of the tests of the run in `path` until all are done; the exit status, 75 if stopped.

    Args:
        artifact: "module:class".
        parent: the process that started this one; without it this one ends.
    """
    with tempfile.TemporaryDirectory() as scratch:
        own = RunFolder(scratch, parent=parent)
        own.shards, own.helps = path / "shards", True
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: own.request_stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        config = read_config(path)
        for file in (*path.glob("checkpoint*"), path / "metrics.jsonl", *(path / name for name in KEPT)):
            if file.exists():
                shutil.copy(file, scratch)
        try:
            load_artifact(artifact).execute(config, own)
        except PeerDone:
            return 0
        except Stopped:
            return 75
        except OSError:
            if own.shards.is_dir():
                raise
        return 0  # the others have done the rest meanwhile
