"""One run on several GPUs, or in several processes of a CPU: `rmtlib run ARTIFACT --devices N`.

The run's worker is the first of N processes. It starts the others, which meet it through a file, train with it (see
`training.peers`), and end when training has ended: testing and everything in the run's folder is the first one's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.runs.artifact import load_artifact
from rmtlib.runs.folder import RunFolder, read_config
from rmtlib.training.peers import PeerDone, Peers

WAIT = timedelta(days=2)
"""How long a process waits for the others, e.g. while the first one validates; one that died is seen at once."""


@contextlib.contextmanager
def together(folder: RunFolder, artifact: str, devices: int) -> Iterator[None]:
    """The run in `folder` has as many processes as `devices`; this is the first one, and starts the others."""
    if devices == 1:
        yield
        return
    _choose_gpu(0, devices)
    with tempfile.TemporaryDirectory() as meeting:
        others = [_start(folder.path, artifact, rank, devices, meeting) for rank in range(1, devices)]
        over = threading.Event()
        try:
            threading.Thread(target=_watch, args=(others, over), daemon=True).start()
            folder.peers = _meet(0, devices, meeting)
            yield
        finally:
            over.set()
            for process in others:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _start(path: Path, artifact: str, rank: int, devices: int, meeting: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "rmtlib.cli", "peer", str(path), "--artifact", artifact]
    command += ["--parent", str(os.getpid()), "--rank", str(rank), "--devices", str(devices), "--meeting", meeting]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # to the worker's log


def _watch(others: list[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process if another one fails: what waits for it would wait for ever."""
    left = list(others)
    while left and not over.is_set():
        for process in list(left):
            if (status := process.poll()) is None:
                continue
            left.remove(process)
            if status != 0 and not over.is_set():
                rank = others.index(process) + 1
                print(
                    f"error: process {rank} of {len(others) + 1} ended with status {status}",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(2)
        over.wait(0.2)


def _meet(rank: int, devices: int, meeting: str) -> Peers:
    import torch
    import torch.distributed as dist

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    place = f"file://{Path(meeting) / 'meeting'}"
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=devices, timeout=WAIT)
    return Peers(rank, devices)


def _choose_gpu(rank: int, devices: int) -> None:
    import torch

    if torch.cuda.is_available():
        if devices > (there := torch.cuda.device_count()):
            raise RmtlibError(
                f"--devices {devices}: there {'is' if there == 1 else 'are'} {there} here; use as many at most"
            )
        torch.cuda.set_device(rank)


def help_train(folder: str, artifact: str, parent: int, rank: int, devices: int, meeting: str) -> int:
    """What another process than the first one does, in a folder of its own that nobody keeps; its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    config = read_config(Path(folder))
    with tempfile.TemporaryDirectory() as scratch:
        own = RunFolder(scratch)
        _choose_gpu(rank, devices)
        own.peers = _meet(rank, devices, meeting)
        with contextlib.suppress(PeerDone, Stopped):  # a stop is the first one's to tell, once its checkpoint is whole
            load_artifact(artifact).execute(config, own)
    return 0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(0)
