"""A run on a machine of a cluster: what a task does there, wherever the command is that sent it.

All machines see the run's folder, under the same path, and through it the command sees what becomes of the run: its
progress, its log, its record. The lock of the folder is held here, where the work is. A task that was lost with its
machine is begun again on another one; it waits until the lost one's lock is gone, and continues from its checkpoint.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rmtlib.errors import RmtlibError
from rmtlib.runs.folder import read_config
from rmtlib.runs.job import start_worker
from rmtlib.runs.records import load_record
from rmtlib.runs.spec import Cost
from rmtlib.runs.storage import Lock, is_locked

PATIENCE = 150.0
"""Seconds until the lock of a lost machine is gone: a file server lets go of it when the machine's lease has ended."""
POLL = 0.1
GPU_HOST_BYTES = 6e9
"""Main memory of a process whose model is on a GPU, beside weights and checkpoints."""
LOADING_BYTES = 12
"""Main memory that a weight takes while a model is loaded: three copies in float32."""


def host_bytes(scale: str, cost: Cost) -> int:
    """Bytes of main memory that a run needs."""
    if scale not in ("gpu", "paper"):
        return cost.memory_bytes
    return min(cost.memory_bytes, int(GPU_HOST_BYTES + cost.disk_bytes + LOADING_BYTES * cost.weights))


class Ended(NamedTuple):
    """How a task ended: the worker's exit status (0 finished, 75 stopped), and why, if it did not even start."""

    status: int
    why: str = ""


def train_here(folder: Path, artifact: str, should_stop: Callable[[], bool]) -> Ended:
    """Train the run in `folder` on this machine, unless it is finished.

    Args:
        artifact: "module:class".
        should_stop: asked all the time; True has the worker write a checkpoint.
    """
    try:
        if not (folder / "config.json").exists():
            shared = "call this in a folder that all machines share under one path"
            raise RmtlibError(f"{socket.gethostname()} does not see {folder}: {shared}")
        lock = _lock(folder, should_stop)
        if lock is None:
            return Ended(75)
        try:
            if (folder / "record.json").exists():
                load_record(folder / "record.json")
                return Ended(0)
            return Ended(_wait(folder, artifact, lock, should_stop))
        finally:
            lock.release()
    except RmtlibError as error:
        return Ended(2, str(error))


def _lock(folder: Path, should_stop: Callable[[], bool]) -> Lock | None:
    """The folder's lock, or None if asked to stop while another machine still has it."""
    deadline = time.monotonic() + PATIENCE
    while is_locked(folder) and time.monotonic() < deadline:
        if should_stop():
            return None
        time.sleep(POLL)
    return Lock(folder, read_config(folder).title)


def _wait(folder: Path, artifact: str, lock: Lock, should_stop: Callable[[], bool]) -> int:
    process = start_worker(folder, artifact, lock)
    asked = False
    while (status := process.poll()) is None:
        if not asked and should_stop():
            process.send_signal(signal.SIGTERM)
            asked = True
        time.sleep(POLL)
    return status
