"""A run that a command trains: its folder, its lock, and the worker process at work on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rmtlib.files import unwritable
from rmtlib.runs import provenance
from rmtlib.runs.progress import Eta
from rmtlib.runs.spec import Cost, RunConfig
from rmtlib.runs.storage import Lock

# Several runs share the cores, and small tensors gain nothing from a second thread (barriers spin); glibc would hand
# freed tensors back to the kernel and take them again at each step.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1073741824"}


def package_path() -> str:
    """The PYTHONPATH with which another process finds this package, and what this one finds beside it."""
    return os.pathsep.join([str(provenance.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def start_worker(
    folder: Path, artifact: str, lock: Lock, devices: int = 1, gpus: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start the process that trains the run in `folder`; it holds the lock as well, and ends with this process."""
    process = _start("worker", folder, artifact, (lock.fd,), gpus, "--devices", str(devices))
    lock.tell(process.pid)
    return process


def start_helper(folder: Path, artifact: str, gpus: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a process that takes shards of the run's tests, and ends with this process."""
    return _start("shard", folder, artifact, (), gpus)


def _start(
    kind: str, folder: Path, artifact: str, shared: tuple[int, ...], gpus: Sequence[str], *options: str
) -> subprocess.Popen[bytes]:
    environment = ENVIRONMENT | os.environ | {"PYTHONPATH": package_path(), "PYTHONUNBUFFERED": "1"}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    command = [sys.executable, "-P", "-m", "rmtlib.cli", kind, str(folder)]
    command += ["--artifact", artifact, "--parent", str(os.getpid()), *options]
    log = folder / "worker.log"
    try:
        with open(log, "ab") as file:
            # A process group of its own: the terminal's Ctrl-C reaches this process alone, which then asks nicely.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                pass_fds=shared,
                process_group=0,
            )
    except OSError as error:
        raise unwritable(log, error) from error


@dataclass
class Job:
    """One run of a command. `failure` says why it failed, in one line and with what to do."""

    config: RunConfig
    folder: Path
    lock: Lock | None  # None: whoever trains it takes it
    cost: Cost
    artifact: str  # "module:class", by which another process finds the artifact's class
    devices: int = 1  # processes that train it together
    shards: int = 1  # processes that test it together
    visible_gpus: tuple[str, ...] = ()  # names in CUDA_VISIBLE_DEVICES: of its processes, then of those that help
    process: subprocess.Popen[bytes] | None = None
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    eta: Eta = field(init=False)
    started: float = 0.0
    failure: str | None = None
    finished: bool = False
    helped: bool = False  # whether those that help to test it have been started

    def __post_init__(self) -> None:
        self.eta = Eta(self.cost, time.time())

    @property
    def name(self) -> str:
        return f"{self.config.row} seed {self.config.seed}"

    @property
    def has_news(self) -> bool:
        """Whether the progress is what this worker said, not an earlier one."""
        progress = self.eta.progress
        return progress is not None and progress["time"] >= self.started

    def start(self) -> None:
        """Start the worker."""
        assert self.lock is not None
        self.process = start_worker(
            self.folder, self.artifact, self.lock, self.devices, self.visible_gpus[: self.devices]
        )
        self.started = time.time()
        self.eta = Eta(self.cost, self.started)

    def status(self) -> int | None:
        """The worker's exit status, None while it runs."""
        self.call_helpers()
        return None if self.process is None else self.process.poll()

    def call_helpers(self) -> None:
        """Start those that help to test, once the training is done."""
        if self.shards > 1 and not self.helped and (self.folder / "shards" / "open").exists():
            self.helped = True
            for number in range(1, self.shards):
                self.start_helper(number)

    def start_helper(self, number: int) -> None:
        """Start one of them, which ends when the tests are done, or with this process."""
        gpus = self.visible_gpus
        gpu = (gpus[(self.devices - 1 + number) % len(gpus)],) if gpus else ()
        self.helpers.append(start_helper(self.folder, self.artifact, gpu))

    def send(self, number: signal.Signals) -> None:
        """Send the worker, and what helps it, a signal; SIGKILL also ends what they have started themselves."""
        for process in [self.process, *self.helpers]:
            if process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)
                else:
                    process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Wait for the worker's end; kill it if it takes longer."""
        if self.process is not None:
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self.process.wait()

    def post_mortem(self, status: int) -> str:
        """Why the worker ended, in one line, and what to do."""
        log = self.folder / "worker.log"
        try:
            with open(log, "rb") as file:
                file.seek(max(0, log.stat().st_size - 20000))
                lines = [
                    line.strip() for line in file.read(20000).decode(errors="replace").splitlines() if line.strip()
                ]
            with open(log, "ab") as file:
                file.write(b"\n")
        except OSError as error:  # what the worker had to say could not be written either
            return str(unwritable(log, error))
        if status == 2 and (errors := [line for line in lines if line.startswith("error: ")]):
            return errors[-1].removeprefix("error: ")
        said = f", its last words: {lines[-1][:300]!r}" if lines else ""
        if status >= 0:
            return f"its worker ended with exit code {status}{said} (whole log: {log})"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hint = ", often for lack of memory: --jobs 1 needs less" if status == -signal.SIGKILL else ""
        return f"its worker was ended by {name}{hint}{said} (whole log: {log})"


class Executor(Protocol):
    """Where runs are trained, other than in processes of this machine, while its context is open."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    @property
    def places(self) -> int:
        """How many runs there is room for."""
        ...

    def describe(self, runs_dir: Path) -> str:
        """In a line: what it is, and where it keeps things."""
        ...

    def job(self, job: Job) -> Job:
        """The same run, to be trained there; its lock is released, for whoever trains it to take."""
        ...
