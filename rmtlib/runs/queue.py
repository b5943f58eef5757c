"""The missing runs of several artifacts in order of worth: what `rmtlib queue` does for hours or days.

The order: runs that are half done; then the artifacts' default rows, one seed of all of them before the next seed; then
their other rows, likewise. A run is done if runs/ or results/ has its record.

A run is claimed when its turn comes, not before. Several queues may thus work side by side, on one machine or on
several that share runs/: each takes what no other has taken.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact, default_scale, reference, select
from rmtlib.runs.display import Display, Notebook, make_display
from rmtlib.runs.folder import run_folder
from rmtlib.runs.gpus import Gpus
from rmtlib.runs.job import Job
from rmtlib.runs.plan import plan, run_state
from rmtlib.runs.progress import duration, makespan
from rmtlib.runs.records import find_records
from rmtlib.runs.scheduler import POLL, Room, Scheduler, claim, listening, prepare, raise_unfinished, say_changed_code
from rmtlib.runs.spec import PILOT, RunConfig
from rmtlib.runs.storage import Lock, is_locked

MEMORY_SHARE = 0.9
"""The part of the machine's memory, or of what is free on the GPU at the start, that the runs may take together."""
GPU_PROCESS_BYTES = 2**30
"""What every process takes of a GPU's memory beside its tensors: CUDA's context and what its allocator keeps."""
MOST_AT_ONCE = 4
"""Runs at once if nobody says: with more, each takes longer and none is finished sooner."""

PATIENCE = 60.0
"""Seconds that a run which another command holds is looked at again: the worker of a killed command stops soon."""


@dataclass(frozen=True)
class Entry:
    """A missing run, and what is known of it: its state, what is done of it (0 to 1), the whole run's seconds."""

    artifact: Artifact
    config: RunConfig
    state: str
    done: float
    seconds: float
    memory_bytes: int

    @property
    def seconds_left(self) -> float:
        """Of the estimated time."""
        return self.seconds * (1 - self.done)

    def now(self, runs_dir: str | Path) -> Entry:
        """The same run as it is now."""
        state = run_state(self.config, runs_dir, self.artifact.cost(self.config).tokens)
        return replace(self, state=state["state"], done=state["done"])


@dataclass(frozen=True)
class Worked:
    """What a queue did: how many runs were done before, which it finished, what is left, and why it ended early."""

    before: int
    finished: list[RunConfig]
    left: list[Entry]
    jobs: int
    error: RmtlibError | None

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        left = [
            {**_name(e.config), "state": e.state, "done": e.done, "seconds_left": e.seconds_left} for e in self.left
        ]
        return {"before": self.before, "finished": [_name(config) for config in self.finished], "left": left}

    def lines(self) -> list[str]:
        """The same in words."""
        lines = [f"{len(self.finished)} finished now, {self.before} were done before, {len(self.left)} left"]
        if self.left:
            lines[0] += f", about {duration(makespan([], [e.seconds_left for e in self.left], self.jobs))}"
        for entry in self.left:
            state = f"{entry.state} {entry.done:.0%}" if entry.done else entry.state
            lines.append(f"left: {entry.config.title}: {state}, about {duration(entry.seconds_left)}")
        return lines


def _name(config: RunConfig) -> dict[str, Any]:
    return {key: getattr(config, key) for key in ("artifact", "row", "scale", "seed")} | {"run_id": config.id}


def missing(
    artifacts: Sequence[Artifact],
    scale: str | None = None,
    seeds: int | None = None,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
) -> tuple[list[Entry], int]:
    """The runs to train, most worth first, and how many are done already.

    Args:
        seeds: of each row; None: as many as it has by default.
    """
    scale = scale or default_scale()
    worth: list[tuple[tuple[Any, ...], Entry]] = []
    done = 0
    for place, artifact in enumerate(artifacts):
        configs = select(artifact, scale, seeds, "all", prepare=True)
        first = {config.row for config in configs}
        if scale != PILOT:
            first = set(artifact.rows_here(scale, fetched=True))
            stand_ins = {row.name for row in artifact.rows if row.stands_in}
            not_here = (stand_ins | set(artifact.default_rows(scale))) - first
            configs = [config for config in configs if config.row not in not_here]
        planned = plan(artifact, configs, runs_dir=runs_dir, results_dir=results_dir)["runs"]
        published = {record["run_id"] for record in find_records(artifact.name, scale=scale, where=(results_dir,))}
        for index, (config, run) in enumerate(zip(configs, planned, strict=True)):
            if run["state"] == "finished" or config.id in published:
                done += 1
                continue
            entry = Entry(artifact, config, *(run[key] for key in ("state", "done", "seconds", "memory_bytes")))
            turn = ("partial", "to do").index(run["state"]) if run["state"] in ("partial", "to do") else 2
            worth.append(((turn, config.row not in first, config.seed, place, index), entry))
    return [entry for _, entry in sorted(worth, key=lambda pair: pair[0])], done


def queue(
    artifacts: Sequence[Artifact],
    scale: str | None = None,
    seeds: int | None = None,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
    jobs: int | None = None,
    time_budget: float | None = None,
    quiet: bool = False,
) -> Worked:
    """Train the artifacts' missing runs, most worth first, until none is left or the time is up.

    Args:
        jobs: runs at once at most (None: one a core, at most `MOST_AT_ONCE`), as far as their memory allows.

    Raises:
        RmtlibError: an unknown scale, a damaged published record.
    """
    deadline = None if time_budget is None else time.monotonic() + time_budget
    display = make_display(quiet)
    entries, before = missing(artifacts, scale, seeds, runs_dir=runs_dir, results_dir=results_dir)
    room = Room(jobs or min(MOST_AT_ONCE, provenance.cores()), MEMORY_SHARE * _memory() if entries else math.inf)
    todo = [QueuedJob.of(entry, Path(runs_dir)) for entry in entries]
    names = ", ".join(artifact.name for artifact in artifacts)
    display.line(f"queue of {names}: {len(entries)} runs to train, {before} done already; at most {room.jobs} at once")
    if not isinstance(display, Notebook):
        display.line("Ctrl-C stops with checkpoints; the same command continues from them.")
    error: RmtlibError | None = None
    with contextlib.closing(display), listening() as signals:
        worker = QueueScheduler(todo, room, deadline, display, signals, before, "queue")
        try:
            worker.run()
            worker.raise_unfinished(time_budget)
        except RmtlibError as why:
            error = why
        finally:
            worker.kill()
    finished = {job.config.id for job in todo if job.finished}
    left = [entry.now(runs_dir) for entry in entries if entry.config.id not in finished]
    return Worked(before, [e.config for e in entries if e.config.id in finished], left, room.jobs, error)


@dataclass
class QueuedJob(Job):
    """A run that is claimed when its turn comes."""

    source: Artifact = field(kw_only=True)
    others_since: float | None = None  # when another command was seen to hold it

    @classmethod
    def of(cls, entry: Entry, runs_dir: Path) -> QueuedJob:
        """The job for an entry of the queue."""
        cost = replace(entry.artifact.cost(entry.config), memory_bytes=entry.memory_bytes + _process_bytes())
        folder = run_folder(entry.config, runs_dir)
        return cls(entry.config, folder, None, cost, reference(entry.artifact), source=entry.artifact)

    @property
    def name(self) -> str:
        """With the artifact, as there may be several."""
        return f"{self.config.artifact} {super().name}"

    def claim(self, display: Display) -> bool:
        """Whether this process has the run now; else it is `finished`, or there is a `failure`."""
        with contextlib.ExitStack() as stack:
            try:
                claimed = claim(self.config, self.folder, False, display, stack)
                if isinstance(claimed, Lock):
                    prepare(self.config, self.folder, claimed, False, self.source)
                    say_changed_code(display, [self])
                    self.lock = claimed
                    stack.pop_all()  # the lock is released when the run ends
                    return True
                self.finished = True
            except RmtlibError as error:
                self.failure = str(error)
                display.line(f"{self.name}: left out: {error}")
        return False


class QueueScheduler(Scheduler):
    """A scheduler whose runs other commands may take or finish meanwhile; all on one GPU, whose memory is its room."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gpus = Gpus(())

    def _start(self, job: Job) -> bool:
        assert isinstance(job, QueuedJob)
        if is_locked(job.folder):
            job.others_since = job.others_since or time.monotonic()
            if time.monotonic() - job.others_since < PATIENCE:  # it may be the worker of a killed command
                self.waiting.append(job)
                time.sleep(POLL)
            return False
        return job.claim(self.display) and super()._start(job)

    def raise_unfinished(self, time_budget: float | None) -> None:
        """Raise what the user has to know if not all runs are finished."""
        open_ = [job for job in self.todo if not job.finished]
        if not self.stopping and open_ and all(isinstance(job, QueuedJob) and job.others_since for job in open_):
            raise Stopped(
                f"{len(open_)} of the runs are being trained by other commands; run the same command again later"
            )
        raise_unfinished(self, False, time_budget)


def _process_bytes() -> int:
    return GPU_PROCESS_BYTES if provenance.has_gpu() else 0


def _memory() -> float:
    """Bytes that are free on the GPU, asked in another process, as asking takes memory; without one the machine's."""
    if not provenance.has_gpu():
        return float(provenance.memory_bytes())
    ask = "import torch; print(torch.cuda.mem_get_info()[0])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RmtlibError(f"the GPU does not say how much memory is free: {(done.stderr.splitlines() or ['?'])[-1]}")
    return float(done.stdout)
