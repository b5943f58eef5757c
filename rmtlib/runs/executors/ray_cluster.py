"""Runs as tasks of a Ray cluster: `rmtlib run ARTIFACT --executor ray`, with the extra `rmtlib[cluster]`.

A task takes one CPU, the memory that the plan says, and at the scales gpu and paper one GPU. Ray gives it to a machine
that has these, and to another one if that machine is lost; the run then continues from its checkpoint. The command that
sent them sees progress, logs and records in runs/, which all machines share (see `executors.node`).

Used of its API: ray.init, ray.remote, ray.wait, ray.get, ray.cancel, ray.cluster_resources (docs.ray.io, Ray Core).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.executors.node import Ended, host_bytes, train_here
from rmtlib.runs.job import Job, package_path, start_helper
from rmtlib.runs.plan import plan
from rmtlib.runs.progress import Eta
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import is_locked

RETRIES = 5
"""How often a run is begun again, from its checkpoint, because its machine or its worker was lost."""
SETTLE = 60.0
"""Seconds that a task's end may take to show in the shared folder."""
PASSED_ON = ("RMTLIB_", "HF_")
"""Variables with these beginnings are the same for tasks as for the command."""


class WorkerLost(Exception):
    """A worker was ended by a signal that the command did not send: its machine goes down, or lacks memory."""


def _task(folder: str, artifact: str, package: str, code: str) -> tuple[int, str]:
    """What Ray runs on a machine. `ray.cancel` shows here as a SIGINT, in the main thread.

    `package` and `code` say where rmtlib is on the command's machine, and what its `modules_sha256` is.
    """
    if str(provenance.PACKAGE) != package and provenance.modules_sha256() != code:
        return 2, f"{gethostname()} has other code of rmtlib in {provenance.PACKAGE}: give all machines the same"
    asked = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: asked.set())
    ended = train_here(Path(folder), artifact, asked.is_set)
    if ended.status in (75, -signal.SIGTERM, -signal.SIGKILL) and not asked.is_set():
        raise WorkerLost(ended.status)  # Ray begins the task again, on this machine or another
    return ended.status, ended.why


def _help(folder: str, artifact: str) -> int:
    """What Ray runs to help with a run's tests; it ends with them."""
    helper = start_helper(Path(folder), artifact)
    try:
        return helper.wait()
    finally:  # cancelled
        helper.terminate()


@dataclass
class RayJob(Job):
    """A run whose worker is on some machine of the cluster."""

    gpus: int = 0
    code: str = ""
    task: Any = None
    helping: list[Any] = field(default_factory=list)
    ended: Ended | None = None
    ended_at: float = 0.0

    def start(self) -> None:
        """Hand the task to Ray, which begins it when a machine has room."""
        import ray

        again = {"max_retries": RETRIES, "retry_exceptions": [WorkerLost]}
        self.task = (
            ray.remote(_task)
            .options(**self._needs(), **again)
            .remote(str(self.folder), self.artifact, str(provenance.PACKAGE), self.code)
        )
        self.started = time.time()
        self.eta = Eta(self.cost, self.started)

    def status(self) -> int | None:
        """The worker's exit status; None while it runs, or while the shared folder does not show its end."""
        import ray

        if self.task is None:
            return None
        self.call_helpers()
        if self.ended is None:
            if not ray.wait([self.task], timeout=0)[0]:
                return None
            self.ended, self.ended_at = self._result(), time.monotonic()
        shown = (self.folder / "record.json").exists() if self.ended.status == 0 else not is_locked(self.folder)
        return self.ended.status if shown or time.monotonic() - self.ended_at > SETTLE else None

    def start_helper(self, number: int) -> None:
        """Hand one more task to Ray, for the same kind of machine; if it has no room, the others do the work."""
        import ray

        self.helping.append(
            ray.remote(_help).options(**self._needs(), max_retries=0).remote(str(self.folder), self.artifact)
        )

    def _needs(self) -> dict[str, int]:
        return {"num_cpus": 1, "num_gpus": self.gpus, "memory": host_bytes(self.config.scale, self.cost)}

    def _result(self) -> Ended:
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            return Ended(*ray.get(self.task))
        except TaskCancelledError:
            return Ended(75)
        except RayTaskError as error:
            if isinstance(error.cause, WorkerLost):
                return Ended(error.cause.args[0])
            return Ended(1, f"its task failed: {error.cause!r}")
        except RayError as error:
            return Ended(1, f"Ray lost it: {str(error).strip().splitlines()[0]}")

    def send(self, number: signal.Signals) -> None:
        """Ask for a checkpoint; SIGKILL ends the task at once."""
        import ray

        if self.task is not None:
            for task in (self.task, *self.helping):
                ray.cancel(task, force=number == signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        """Wait for the task's end; end it if it takes longer."""
        deadline = time.monotonic() + seconds
        while self.status() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.status() is None:
            self.send(signal.SIGKILL)

    def post_mortem(self, status: int) -> str:
        """Why it ended."""
        return self.ended.why if self.ended and self.ended.why else super().post_mortem(status)


class RayExecutor(contextlib.AbstractContextManager["RayExecutor"]):
    """A Ray cluster to which runs are sent while this context is open.

    Args:
        address: of the cluster: "auto" for the one that this machine belongs to, "host:port", or None for what
            RAY_ADDRESS says, else a Ray of this machine alone, which ends with the command.

    Raises:
        RmtlibError: Ray is not installed.
    """

    def __init__(self, artifact: Artifact, configs: Sequence[RunConfig], address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if find_spec("ray") is None:
            raise RmtlibError("--executor ray needs Ray, which is not installed: pip install 'rmtlib[cluster]'")
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self.gpus = int(configs[0].scale in ("gpu", "paper"))
        planned = plan(artifact, list(configs))["runs"]
        self.memory_bytes = {run["run_id"]: int(run["memory_bytes"]) for run in planned}

    def __enter__(self) -> RayExecutor:
        """Raises RmtlibError if there is no such cluster."""
        import ray

        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environment = {"env_vars": passed | {"PYTHONPATH": package_path()}}
        try:
            ray.init(self.address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RmtlibError(f"no Ray cluster at {self.address}: {first}") from error
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    @property
    def places(self) -> int:
        """How many runs the cluster has room for now."""
        import ray

        return max(1, int(ray.cluster_resources().get("GPU" if self.gpus else "CPU", 0)))

    def describe(self, runs_dir: Path) -> str:
        """In a line: the machines, and the store."""
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        total = ray.cluster_resources()
        room = f"{total.get('CPU', 0):g} CPUs" + (f", {total['GPU']:g} GPUs" if "GPU" in total else "")
        return (
            f"Ray: {len(alive)} machine{'s' * (len(alive) != 1)}, {room}; checkpoints and records in "
            f"{runs_dir.resolve()}, which every machine must see"
        )

    def job(self, job: Job) -> Job:
        """The same run as a task of the cluster; the machine that gets it takes the lock."""
        if job.lock:
            job.lock.release()
        cost = replace(job.cost, memory_bytes=self.memory_bytes[job.config.id])
        code = provenance.modules_sha256()
        return RayJob(
            job.config, job.folder.resolve(), None, cost, job.artifact, shards=job.shards, gpus=self.gpus, code=code
        )
