"""Train what runs/ does not hold yet: every run in its own process, several at once, stopped and continued.

``run(artifact, select(artifact, "small"))`` gives the records of all those runs. The call

- takes finished runs from runs/<artifact>/<slug>/record.json,
- locks the folders of the others, so that two commands never train the same run,
- starts one worker process per run (worker.py), up to `jobs` at once, and shows their progress,
- on Ctrl-C, SIGTERM or when the time budget is used, lets the workers write a checkpoint, and raises
  `Stopped`.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.files import unwritable
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact, reference
from rmtlib.runs.display import Display, Notebook, make_display
from rmtlib.runs.folder import check_kept, read_config, read_notes, read_progress, read_slices, run_folder
from rmtlib.runs.gpus import Gpus
from rmtlib.runs.job import Executor, Job
from rmtlib.runs.progress import describe, duration, fraction, time_left
from rmtlib.runs.records import load_record
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import Lock, write_json

POLL = 0.1


def default_jobs() -> int:
    """Runs at once: one on each GPU, else one per core, at most 4."""
    return len(provenance.gpu_ids()) or min(4, provenance.cores())


def run(
    artifact: Artifact,
    configs: Sequence[RunConfig],
    *,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
    time_budget: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
    executor: Executor | None = None,
    devices: int = 1,
    shards: int = 1,
) -> list[dict[str, Any]]:
    """Train the runs that are not finished yet; the records of all, in the order of `configs`.

    Args:
        jobs: runs at once (None: `default_jobs()`, or as many as the executor has room for).
        time_budget: seconds for the whole call; what is not finished by then is stopped with a checkpoint.
        fresh: delete these runs first, finished or not.
        quiet: show no progress.
        executor: where to train them (None: in processes of this machine).
        devices: of this machine that train a run together (see `runs.devices`).
        shards: processes, here or of the executor, that test a run together (see `runs.shards`).

    Raises:
        Stopped: by a signal or the time budget; the same call continues.
        RmtlibError: a run failed (the others are finished first), another command trains one of them, or a
            file in runs/ is damaged.
    """
    if jobs is not None and jobs < 1:
        raise RmtlibError(f"jobs is how many runs to train at once, a whole number from 1 up, not {jobs}")
    if shards > 1 and not artifact.shares_tests:
        raise RmtlibError(f"the tests of {artifact.name} cannot be shared: leave out --shards {shards}")
    if time_budget is not None and not time_budget > 0:
        raise RmtlibError(f"the time budget is a number of seconds above 0, not {time_budget}")
    deadline = None if time_budget is None else time.monotonic() + time_budget
    display = make_display(quiet)
    configs = list(configs)
    records: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(display.close)
        locks: dict[RunConfig, Lock] = {}
        for config in dict.fromkeys(configs):  # all locks first: nothing is deleted for a command that cannot run
            claimed = claim(config, run_folder(config, runs_dir), fresh, display, stack)
            if isinstance(claimed, Lock):
                locks[config] = claimed
            else:
                records[config.id] = claimed
        todo = [
            prepare(config, run_folder(config, runs_dir), lock, fresh, artifact, devices, shards)
            for config, lock in locks.items()
        ]
        if todo:
            if executor:
                stack.enter_context(executor)
                display.line(executor.describe(Path(runs_dir)))
                todo = [executor.job(job) for job in todo]
            jobs = min(jobs or (executor.places if executor else max(1, default_jobs() // devices)), len(todo))
            jobs = 1 if artifact.alone else jobs
            _announce(display, todo, records, jobs, Path(runs_dir))
            say_changed_code(display, todo)
            if not executor and (why := provenance.unused_gpu()):
                display.line(f"note: {why}")
            with listening() as signals:
                scheduler = Scheduler(todo, Room(jobs), deadline, display, signals, len(records), artifact.name)
                try:
                    scheduler.run()
                finally:
                    scheduler.kill()
            raise_unfinished(scheduler, fresh, time_budget)
            records |= {job.config.id: load_record(job.folder / "record.json") for job in todo}
        elif configs:
            kept = Path(runs_dir) / configs[0].artifact
            display.line(f"{configs[0].artifact}: {_runs(len(records))} finished already, nothing to train; in {kept}/")
        _say_old_code(display, list(records.values()), len(todo))
    return [records[config.id] for config in configs]


def claim(
    config: RunConfig, folder: Path, fresh: bool, display: Display, stack: contextlib.ExitStack
) -> Lock | dict[str, Any]:
    """The record of a finished run, or the lock on the folder of one to train."""
    record = folder / "record.json"
    if not fresh and record.exists():
        return load_record(record)
    lock = Lock(folder, config.title, waiting=display.line)
    stack.callback(lock.release)
    if not fresh and record.exists():  # finished by another command while this one looked
        return load_record(record)
    return lock


def prepare(
    config: RunConfig,
    folder: Path,
    lock: Lock,
    fresh: bool,
    artifact: Artifact,
    devices: int = 1,
    shards: int = 1,
) -> Job:
    """The folder of a run to train, with its config and without damaged files."""
    if fresh:
        _empty(folder)
    for partial in folder.glob("*.partial"):  # of a write that was killed
        partial.unlink()
    if (folder / "config.json").exists():
        read_config(folder)
    else:
        write_json(folder / "config.json", config.to_json())
    for read in (read_slices, read_notes, check_kept):  # damaged ones are reported before anything starts
        read(folder)
    if shards > 1:
        (folder / "shards").mkdir(exist_ok=True)
        (folder / "shards" / "open").unlink(missing_ok=True)
    return Job(config, folder, lock, artifact.cost(config), reference(artifact), devices, shards)


def _empty(folder: Path) -> None:
    """Delete what a run left, the record first; but not the lock, which this command holds."""
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name != "record.json"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error


def _announce(display: Display, todo: list[Job], records: dict[str, Any], jobs: int, root: Path) -> None:
    first = todo[0].config
    done = f", {len(records)} finished already" if records else ""
    resumed = sum(1 for job in todo if (job.folder / "checkpoint.json").exists())
    words = "1 continues from its checkpoint" if resumed == 1 else f"{resumed} continue from their checkpoints"
    more = f" ({words})" if resumed else ""
    display.line(
        f"{first.artifact} at scale {first.scale}: {_runs(len(todo) + len(records))}{done}, "
        f"{len(todo)} to train{more}, {jobs} at once; kept in {root / first.artifact}/"
    )
    if not isinstance(display, Notebook):
        display.line("Ctrl-C stops with a checkpoint; the same command continues from it.")


def say_changed_code(display: Display, todo: list[Job]) -> None:
    """That a run would go on under other code than it began with: its record could not be published."""
    begun = [job for job in todo if (job.folder / "checkpoint.json").exists()]
    if not begun:
        return
    here = provenance.git_state()["commit"], provenance.modules_sha256()
    changed = [
        job
        for job in begun
        if any((part["git"]["commit"], part["modules_sha256"]) != here for part in read_slices(job.folder))
    ]
    if changed:
        display.line(
            f"note: the code has changed since {changed[0].name} began ({_runs(len(changed))} of {len(begun)} that "
            "continue): such records cannot be published; --fresh trains them anew"
        )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _say_old_code(display: Display, records: list[dict[str, Any]], trained: int) -> None:
    if len(records) > trained:
        code = provenance.modules_sha256()
        old = sum(1 for record in records if record["modules_sha256"] != code)
        if old:
            display.line(
                f"note: {old} of {_runs(len(records))} made by another version of rmtlib's code; "
                "--fresh trains them anew"
            )


class SignalCounter:
    """How many signals have come while workers run, and the last one's name."""

    count = 0
    name = ""


@contextlib.contextmanager
def listening() -> Iterator[SignalCounter]:
    """Count SIGINT, SIGTERM, SIGUSR1 and SIGHUP instead of dying of them (only the main thread may do so)."""
    signals = SignalCounter()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number: int, frame: object) -> None:
        signals.count += 1
        signals.name = signal.Signals(number).name

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]  # USR1: a cluster's warning before it takes the machine
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's wish is kept
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@dataclass(frozen=True)
class Room:
    """How many runs go on at once, and what memory they may take together (by `Cost.memory_bytes`)."""

    jobs: int
    memory_bytes: float = math.inf

    def takes(self, running: Sequence[Job], job: Job) -> bool:
        """Whether `job` fits beside those that are running; alone it always does."""
        together = sum(other.cost.memory_bytes for other in running) + job.cost.memory_bytes
        return not running or (len(running) < self.jobs and together <= self.memory_bytes)


class Scheduler:
    """The workers of one command, and the loop that starts, watches and stops them.

    `finished` counts the command's runs that were finished before, `name` is what progress calls the command.
    """

    def __init__(
        self,
        todo: Sequence[Job],
        room: Room,
        deadline: float | None,
        display: Display,
        signals: SignalCounter,
        finished: int,
        name: str,
    ) -> None:
        self.todo, self.room, self.deadline, self.display, self.signals = todo, room, deadline, display, signals
        self.already, self.name = finished, name
        self.waiting = list(todo)
        self.running: list[Job] = []
        self.gpus = Gpus(provenance.gpu_ids())
        self.speeds: list[float] = []
        self.stopping = ""  # why, once they are told to stop
        self.killed = False
        self._seen_signals = 0

    def run(self) -> None:
        """Until all runs are finished, failed or stopped."""
        shown = time.monotonic() - self.display.every + 1.0
        while self.running or (self.waiting and not self.stopping):
            self._stop_if_asked()
            if starts := bool(self.waiting) and not self.stopping and self.room.takes(self.running, self.waiting[0]):
                job = self.waiting.pop(0)
                if self._start(job):
                    self.running.append(job)
            for job in list(self.running):
                if (status := job.status()) is not None:
                    self.running.remove(job)
                    self._ended(job, status)
            if time.monotonic() - shown >= self.display.every:
                self._show()
                shown = time.monotonic()
            if self.running and not starts:
                time.sleep(POLL)

    def _start(self, job: Job) -> bool:
        """Whether the job is at work now."""
        job.visible_gpus = self.gpus.take(job.devices, job.shards - 1)
        job.start()
        return True

    def _stop_if_asked(self) -> None:
        if not self.stopping:
            if self.signals.count:
                self.stopping = "Ctrl-C" if self.signals.name == "SIGINT" else self.signals.name
            elif self.deadline is not None and time.monotonic() >= self.deadline:
                self.stopping = "time budget"
            if self.stopping and self.running:
                for job in self.running:
                    job.send(signal.SIGTERM)
                self.display.line(
                    f"{self.stopping}: {len(self.running)} running, waiting for their checkpoints "
                    "(Ctrl-C again ends them at once)"
                )
            self._seen_signals = self.signals.count
        elif self.signals.count > self._seen_signals and not self.killed:
            self.killed = True
            for job in self.running:
                job.send(signal.SIGKILL)

    def _ended(self, job: Job, status: int) -> None:
        self.gpus.give_back(job.visible_gpus, job.devices)
        if job.lock:
            job.lock.release()
        if status == 0 and (job.folder / "record.json").exists():
            job.finished = True
            self.speeds += [job.eta.whole / job.cost.flops] if job.eta.whole and job.cost.flops else []
            self.display.line(f"{job.name}: finished in {duration(time.time() - job.started)}")
        elif status != 75 and not (self.stopping and status in (-signal.SIGTERM, -signal.SIGKILL)):
            job.failure = job.post_mortem(status)
            self.display.line(f"{job.name}: failed: {job.failure}")

    def _show(self) -> None:
        now = time.time()
        block = []
        for job in self.running:
            job.eta.see(read_progress(job.folder))
            fresh = job.eta.progress if job.has_news else None
            block.append(f"{job.name}: {describe(fresh, job.eta.tokens_per_s, job.eta.left(now))}")
        done = self.already + sum(job.finished for job in self.todo)
        waiting = []
        whole = sum(job.cost.flops for job in self.todo if job.finished) + sum(
            job.cost.flops * job.eta.done for job in self.running
        )
        for job in self.waiting:
            part = fraction(read_progress(job.folder), job.cost.tokens) or 0.0
            waiting.append(job.cost.flops * (1 - part))
            whole += job.cost.flops * part
        total = sum(job.cost.flops for job in self.todo)
        percent = f", {100 * whole / total:.0f} % of the work" if total else ""
        left = time_left([job.eta for job in self.running], waiting, self.speeds, self.room.jobs, now)
        time_text = f"about {duration(left)} left" if left is not None else "measuring the time left"
        if self.stopping:
            time_text = "stopping"
        count = self.already + len(self.todo)
        block.append(f"{self.name}: {done} of {count} runs finished{percent}, {time_text}")
        self.display.update(block)

    def kill(self) -> None:
        """End what still runs: only after an error in this process itself."""
        for job in self.running:
            job.send(signal.SIGTERM)
        deadline = time.monotonic() + 10
        for job in self.running:
            job.wait(max(0.0, deadline - time.monotonic()))


def raise_unfinished(scheduler: Scheduler, fresh: bool, time_budget: float | None) -> None:
    """Raise what the user has to know if not all runs are finished."""
    todo = scheduler.todo
    failed = [job for job in todo if job.failure]
    unfinished = [job for job in todo if not job.finished and not job.failure]
    done = f"{scheduler.already + sum(job.finished for job in todo)} of {scheduler.already + len(todo)} runs"
    again = "the same command without --fresh (or FRESH=1)" if fresh else "the same command"
    if failed:
        others = f"; {len(failed) - 1} more failed, see above" if len(failed) > 1 else ""
        rest = f"; {done} are finished, {again} continues with the others"
        raise RmtlibError(f"{failed[0].config.title}: {failed[0].failure}{others}{rest}")
    if unfinished:
        why = {"time budget": f"time budget of {time_budget:g} s used" if time_budget else ""}.get(
            scheduler.stopping, f"stopped by {scheduler.stopping or 'a signal to a worker'}"
        )
        raise Stopped(f"{why}: {done} finished; {again} continues the others from their checkpoints")
