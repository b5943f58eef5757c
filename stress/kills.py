"""Processes that are killed: at a drawn change of a file, at a drawn moment, as a worker, as a command, as both."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from stress.trials import ROOT, Subject, Trial, forked, subjects

from interrupted import strike_at  # isort: skip

MOST = 12
"""Blows to one run, which is then left to finish."""


def drawn_change(draw: random.Random) -> int:
    """The number of a change to a file: often one of the first, where most of the preparation is."""
    return int(2 ** draw.uniform(0, 6.5))


def kills(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """A worker is killed as it opens, renames or deletes a file, or at any moment; the run then continues."""
    runs = subjects(scratch)
    for chain in count():
        subject, home = draw.choice(runs), scratch / str(chain)
        yield from _chain(draw, subject, home)
        shutil.rmtree(home)


def _chain(draw: random.Random, subject: Subject, home: Path) -> Iterator[Trial]:
    home.mkdir()
    blows: list[str] = []
    lost = None
    for blow in range(MOST + 1):
        number = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        change, seconds = drawn_change(draw), draw.uniform(0, 3)
        in_a_file = draw.random() < 0.6

        def call(
            struck: bool = blow < MOST and in_a_file, change: int = change, number: signal.Signals = number
        ) -> int:
            if struck:
                strike_at(change, number, str(home))
            return subject.train(home)

        ended = forked(call, home / "log", kill_after=None if blow == MOST or in_a_file else seconds)
        lost = ended.complaint(75, -signal.SIGKILL, -signal.SIGTERM)
        if ended.status == 0 or lost:
            break
        if lost := ended.refusal():
            break
        blows.append(f"{number.name} at change {change}" if in_a_file else f"SIGKILL after {seconds:.1f} s")
    lost = lost or subject.difference(home)
    name = f"{subject.config.artifact} {subject.config.row}"
    for i, what in enumerate(blows):
        yield Trial(f"{name}: {what}", lost if i == len(blows) - 1 else None)
    if lost and not blows:
        yield Trial(name, lost)


def killed_commands(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """`rmtlib run` is killed at any moment: the command, its worker, or both; the same command then continues."""
    runs = subjects(scratch)
    for chain in count():
        subject, home = draw.choice(runs), scratch / str(chain)
        home.mkdir()
        for blow in range(draw.randint(1, 3)):
            whom, seconds = draw.choice(("command", "worker", "both")), draw.uniform(1, 10)
            yield Trial(
                f"{subject.config.row}: blow {blow} to {whom} after {seconds:.1f} s",
                _strike(subject, home, whom, seconds),
            )
        status, said = _command(subject, home)
        lost = subject.difference(home) if status == 0 else f"the last call ended with {status}: {said[-300:]}"
        yield Trial(f"{subject.config.row}: the same command again", lost)
        shutil.rmtree(home)


def _start(subject: Subject, home: Path) -> subprocess.Popen[str]:
    config = subject.config
    words = ["run", config.artifact, "--scale", config.scale, "--seeds", "1", "--rows", config.row]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RMTLIB_CACHE": str(home / "cache")}
    command = [sys.executable, "-m", "rmtlib.cli", *words]
    return subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _strike(subject: Subject, home: Path, whom: str, seconds: float) -> str | None:
    """Start the command and strike; what is wrong with how it ended."""
    process = _start(subject, home)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        workers = _children(process.pid)
        for pid in {"command": [process.pid], "worker": workers, "both": [process.pid, *workers]}[whom]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    said, _ = process.communicate(timeout=120)
    if "Traceback" in said:
        return f"a traceback: {said[-300:]}"
    return None if process.returncode in (0, 2, -signal.SIGKILL) else f"status {process.returncode}: {said[-300:]}"


def _command(subject: Subject, home: Path) -> tuple[int, str]:
    process = _start(subject, home)
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
