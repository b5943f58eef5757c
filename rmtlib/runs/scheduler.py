"""Train what runs/ does not hold yet: every run in its own process, several at once, stopped and continued.

``run(select("figure-5", "small"))`` gives the records of all those runs. The call

- takes finished runs from runs/<artifact>/<slug>/record.json,
- locks the folders of the others, so that two commands never train the same run,
- starts one worker process per run (worker.py), up to `jobs` at once, and shows their progress,
- on Ctrl-C, SIGTERM or when the time budget is used, lets the workers write a checkpoint, and raises
  `Stopped`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.runs import provenance
from rmtlib.runs.display import Display, Notebook, make_display
from rmtlib.runs.progress import Track, describe, duration, fraction, time_left
from rmtlib.runs.records import load_record
from rmtlib.runs.spec import ARTIFACTS, Cost, RunConfig, get_artifact
from rmtlib.runs.storage import Lock, write_json
from rmtlib.runs.worker import RunFolder, read_config, read_notes, read_progress, read_slices
from rmtlib.files import unwritable

__all__ = ["RunFolder", "default_jobs", "run", "run_folder"]

POLL = 0.1


def run_folder(config: RunConfig, runs_dir: str | Path = "runs") -> Path:
    """Where a run is kept: runs/<artifact>/<slug>."""
    return Path(runs_dir) / config.artifact / config.slug


def default_jobs() -> int:
    """Runs at once: 1 on a GPU, else one per core, at most 4."""
    return 1 if provenance.has_gpu() else min(4, provenance.cores())


@dataclass
class _Run:
    """A run that this command has to train."""

    config: RunConfig
    folder: Path
    lock: Lock
    cost: Cost
    process: subprocess.Popen[bytes] | None = None
    track: Track = field(init=False)
    started: float = 0.0
    failure: str | None = None
    finished: bool = False

    def __post_init__(self) -> None:
        self.track = Track(self.cost, time.time())

    @property
    def name(self) -> str:
        return f"{self.config.row} seed {self.config.seed}"


def run(
    configs: Sequence[RunConfig],
    *,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
    time_budget: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Train the runs that are not finished yet; the records of all, in the order of `configs`.

    Args:
        jobs: runs at once (None: `default_jobs()`).
        time_budget: seconds for the whole call; what is not finished by then is stopped with a checkpoint.
        fresh: delete these runs first, finished or not.
        quiet: show no progress.

    Raises:
        Stopped: by a signal or the time budget; the same call continues.
        RmtlibError: a run failed (the others are finished first), another command trains one of them, or a
            file in runs/ is damaged.
    """
    if jobs is not None and jobs < 1:
        raise RmtlibError(f"jobs is how many runs to train at once, a whole number from 1 up, not {jobs}")
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
            claimed = _claim(config, run_folder(config, runs_dir), fresh, display, stack)
            if isinstance(claimed, Lock):
                locks[config] = claimed
            else:
                records[config.id] = claimed
        todo = [_prepare(config, run_folder(config, runs_dir), lock, fresh) for config, lock in locks.items()]
        if todo:
            jobs = min(jobs or default_jobs(), len(todo))
            _announce(display, todo, records, jobs, Path(runs_dir))
            with _listening() as ears:
                command = _Command(todo, jobs, deadline, display, ears, len(records))
                try:
                    command.run()
                finally:
                    command.kill()
            _raise_unfinished(command, fresh, time_budget)
            records |= {each.config.id: load_record(each.folder / "record.json") for each in todo}
        elif configs:
            kept = Path(runs_dir) / configs[0].artifact
            display.line(f"{configs[0].artifact}: {_runs(len(records))} finished already, nothing to train; in {kept}/")
        _say_old_code(display, list(records.values()), len(todo))
    return [records[config.id] for config in configs]


def _claim(
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


def _prepare(config: RunConfig, folder: Path, lock: Lock, fresh: bool) -> _Run:
    """The folder of a run to train, with its config and without damaged files."""
    if fresh:
        _empty(folder)
    for partial in folder.glob("*.partial"):  # of a write that was killed
        partial.unlink()
    if (folder / "config.json").exists():
        read_config(folder)
    else:
        write_json(folder / "config.json", config.to_json())
    for read in (read_progress, read_slices, read_notes):  # damaged ones are reported before anything starts
        read(folder)
    return _Run(config, folder, lock, get_artifact(config.artifact).cost(config))


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


def _announce(display: Display, todo: list[_Run], records: dict[str, Any], jobs: int, root: Path) -> None:
    first = todo[0].config
    done = f", {len(records)} finished already" if records else ""
    resumed = sum(1 for each in todo if (each.folder / "checkpoint.json").exists())
    words = "1 continues from its checkpoint" if resumed == 1 else f"{resumed} continue from their checkpoints"
    more = f" ({words})" if resumed else ""
    display.line(
        f"{first.artifact} at scale {first.scale}: {_runs(len(todo) + len(records))}{done}, "
        f"{len(todo)} to train{more}, {jobs} at once; kept in {root / first.artifact}/"
    )
    if not isinstance(display, Notebook):
        display.line("Ctrl-C stops with a checkpoint; the same command continues from it.")


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


class _Ears:
    """Signals heard while workers run."""

    heard = 0
    name = ""


@contextlib.contextmanager
def _listening() -> Iterator[_Ears]:
    """Count SIGINT, SIGTERM and SIGHUP instead of dying of them (only the main thread may do so)."""
    ears = _Ears()
    if threading.current_thread() is not threading.main_thread():
        yield ears
        return

    def hear(number: int, frame: object) -> None:
        ears.heard += 1
        ears.name = signal.Signals(number).name

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's wish is kept
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield ears
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Command:
    """The workers of one call of `run`, and the loop that starts, watches and stops them."""

    def __init__(
        self,
        todo: list[_Run],
        jobs: int,
        deadline: float | None,
        display: Display,
        ears: _Ears,
        finished: int,
    ) -> None:
        self.todo, self.jobs, self.deadline, self.display, self.ears = todo, jobs, deadline, display, ears
        self.already = finished
        self.waiting = list(todo)
        self.running: list[_Run] = []
        self.speeds: list[float] = []
        self.stopping = ""  # why, once they are told to stop
        self.killed = False
        self._heard = 0

    def run(self) -> None:
        """Until all runs are finished, failed or stopped."""
        shown = time.monotonic() - self.display.every + 1.0
        while self.running or (self.waiting and not self.stopping):
            self._hear()
            while self.waiting and len(self.running) < self.jobs and not self.stopping:
                each = self.waiting.pop(0)
                self._start(each)
            for each in list(self.running):
                if each.process is not None and each.process.poll() is not None:
                    self.running.remove(each)
                    self._ended(each, each.process.returncode)
            if time.monotonic() - shown >= self.display.every:
                self._show()
                shown = time.monotonic()
            if self.running:
                time.sleep(POLL)

    def _hear(self) -> None:
        if not self.stopping:
            if self.ears.heard:
                self.stopping = "Ctrl-C" if self.ears.name == "SIGINT" else self.ears.name
            elif self.deadline is not None and time.monotonic() >= self.deadline:
                self.stopping = "time budget"
            if self.stopping and self.running:
                for each in self.running:
                    self._signal(each, signal.SIGTERM)
                self.display.line(
                    f"{self.stopping}: {len(self.running)} running, waiting for their checkpoints "
                    "(Ctrl-C again ends them at once)"
                )
            self._heard = self.ears.heard
        elif self.ears.heard > self._heard and not self.killed:
            self.killed = True
            for each in self.running:
                self._signal(each, signal.SIGKILL)

    def _start(self, each: _Run) -> None:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(provenance.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        environment["PYTHONUNBUFFERED"] = "1"
        # Several runs share the cores, and small tensors gain nothing from a second thread (barriers spin);
        # glibc would hand freed tensors back to the kernel and take them again at each step.
        for name, value in (
            ("OMP_NUM_THREADS", "1"),
            ("MALLOC_MMAP_MAX_", "0"),
            ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
        ):
            environment.setdefault(name, value)
        command = [
            sys.executable,
            "-P",
            "-m",
            "rmtlib.cli",
            "worker",
            str(each.folder),
            "--artifact",
            ARTIFACTS[each.config.artifact],
            "--parent",
            str(os.getpid()),
        ]
        log = each.folder / "worker.log"
        try:
            with open(log, "ab") as file:
                # A process group of its own: the terminal's Ctrl-C reaches this process alone, which then
                # asks nicely.
                each.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=environment,
                    pass_fds=(each.lock.fd,),
                    process_group=0,
                )
        except OSError as error:
            raise unwritable(log, error) from error
        each.lock.tell(each.process.pid)
        each.started = time.time()
        each.track = Track(each.cost, each.started)
        self.running.append(each)

    def _ended(self, each: _Run, status: int) -> None:
        each.lock.release()
        if status == 0 and (each.folder / "record.json").exists():
            each.finished = True
            self.speeds += [each.track.whole / each.cost.flops] if each.track.whole and each.cost.flops else []
            self.display.line(f"{each.name}: finished in {duration(time.time() - each.started)}")
        elif status != 75 and not (self.stopping and status in (-signal.SIGTERM, -signal.SIGKILL)):
            each.failure = _post_mortem(each, status)
            self.display.line(f"{each.name}: failed: {each.failure}")

    def _show(self) -> None:
        now = time.time()
        block = []
        for each in self.running:
            with contextlib.suppress(RmtlibError):
                each.track.see(read_progress(each.folder))
            fresh = each.track.progress if _is_new(each) else None
            block.append(f"{each.name}: {describe(fresh, each.track.tokens_per_s, each.track.left(now))}")
        done = self.already + sum(each.finished for each in self.todo)
        waiting = []
        whole = sum(each.cost.flops for each in self.todo if each.finished) + sum(
            each.cost.flops * each.track.done for each in self.running
        )
        for each in self.waiting:
            part = 0.0
            with contextlib.suppress(RmtlibError):
                part = fraction(read_progress(each.folder), each.cost.tokens) or 0.0
            waiting.append(each.cost.flops * (1 - part))
            whole += each.cost.flops * part
        total = sum(each.cost.flops for each in self.todo)
        percent = f", {100 * whole / total:.0f} % of the work" if total else ""
        left = time_left([each.track for each in self.running], waiting, self.speeds, self.jobs, now)
        time_text = f"about {duration(left)} left" if left is not None else "measuring the time left"
        if self.stopping:
            time_text = "stopping"
        count = self.already + len(self.todo)
        block.append(f"{self.todo[0].config.artifact}: {done} of {count} runs finished{percent}, {time_text}")
        self.display.update(block)

    @staticmethod
    def _signal(each: _Run, number: signal.Signals) -> None:
        if each.process is not None:
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(each.process.pid, number)  # with what the worker itself has started
                else:
                    each.process.send_signal(number)

    def kill(self) -> None:
        """End what still runs: only after an error in this process itself."""
        for each in self.running:
            self._signal(each, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for each in self.running:
            if each.process is not None:
                try:
                    each.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._signal(each, signal.SIGKILL)
                    each.process.wait()


def _is_new(each: _Run) -> bool:
    """Whether the progress is what this worker said, not an earlier one."""
    progress = each.track.progress
    return progress is not None and progress["time"] >= each.started


def _post_mortem(each: _Run, status: int) -> str:
    """Why a worker ended, in one line, and what to do."""
    log = each.folder / "worker.log"
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 20000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
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


def _raise_unfinished(command: _Command, fresh: bool, time_budget: float | None) -> None:
    """Raise what the user has to know where not all runs are finished."""
    todo = command.todo
    failed = [each for each in todo if each.failure]
    unfinished = [each for each in todo if not each.finished and not each.failure]
    done = f"{command.already + sum(each.finished for each in todo)} of {command.already + len(todo)} runs"
    again = "the same command without --fresh (or FRESH=1)" if fresh else "the same command"
    if failed:
        others = f"; {len(failed) - 1} more failed, see above" if len(failed) > 1 else ""
        rest = f"; {done} are finished, {again} continues with the others"
        raise RmtlibError(f"{failed[0].config.title}: {failed[0].failure}{others}{rest}")
    if unfinished:
        why = {"time budget": f"time budget of {time_budget:g} s used" if time_budget else ""}.get(
            command.stopping, f"stopped by {command.stopping or 'a signal to a worker'}"
        )
        raise Stopped(f"{why}: {done} finished; {again} continues the others from their checkpoints")
