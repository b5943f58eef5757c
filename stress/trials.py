"""What all faults share: trials, forked processes that may be struck, and runs with the result that they must give."""

import contextlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # whose servers and strikes are used here

from rmtlib.errors import RmtlibError  # noqa: E402
from rmtlib.experiments.registry import get_artifact  # noqa: E402
from rmtlib.runs import worker  # noqa: E402
from rmtlib.runs.artifact import Artifact, reference, select  # noqa: E402
from rmtlib.runs.folder import run_folder  # noqa: E402
from rmtlib.runs.records import load_record  # noqa: E402
from rmtlib.runs.scheduler import prepare  # noqa: E402
from rmtlib.runs.spec import RunConfig  # noqa: E402
from rmtlib.runs.storage import Lock  # noqa: E402

SECONDS = 240.0
"""What takes longer is taken to hang."""


@dataclass(frozen=True)
class Trial:
    """One blow: what it was, and what was lost by it, if anything was."""

    what: str
    lost: str | None = None


class NotRun(Exception):
    """This fault cannot be tried on this machine; the message says why."""


Fault = Callable[[random.Random, Path], Iterator[Trial]]
"""Trials without end, from a generator of random numbers and an empty folder; the caller ends them."""


@dataclass(frozen=True)
class Ended:
    """How a forked process ended: its exit status (negative: a signal; None: it hung), and what it printed."""

    status: int | None
    said: str

    @property
    def last(self) -> str:
        lines = [line for line in self.said.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def complaint(self, *allowed: int) -> str | None:
        """What is wrong with this end, if it is neither a success, nor of an allowed status, nor one line of error."""
        if self.status is None:
            return f"it hung for {SECONDS:g} seconds"
        if self.status in (0, *allowed):
            return None
        if self.status == 2 and self.last.startswith("error: ") and "Traceback" not in self.said:
            return None
        return f"it ended with status {self.status}: {self.last[:300]}"

    def refusal(self) -> str | None:
        """What an undamaged run that should have continued said instead."""
        return f"it refused to continue: {self.last[:300]}" if self.status == 2 else None


def forked(
    call: Callable[[], int],
    log: Path,
    *,
    kill_after: float | None = None,
    stopped: Callable[[], None] | None = None,
) -> Ended:
    """Run `call` in a fork of this process, which spares it the imports.

    Args:
        log: gets what it prints.
        kill_after: seconds, after which it gets a SIGKILL.
        stopped: called if it has stopped itself (SIGSTOP); it is killed then.
    """
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with open(log, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = call()
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    began, hung, code = time.monotonic(), False, None
    while code is None:
        found, ended = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found and os.WIFSTOPPED(ended):
            if stopped:
                stopped()
            os.kill(pid, signal.SIGKILL)
        elif found:
            code = os.waitstatus_to_exitcode(ended)
        elif kill_after is not None and time.monotonic() - began > kill_after:
            os.kill(pid, signal.SIGKILL)
            kill_after = None
        elif time.monotonic() - began > SECONDS and not hung:
            os.kill(pid, signal.SIGKILL)
            hung = True
        else:
            time.sleep(0.005)
    return Ended(None if hung else code, log.read_text(errors="replace"))


@dataclass(frozen=True)
class Subject:
    """A tiny real run, and the record of it that nothing has disturbed."""

    artifact: Artifact
    config: RunConfig
    whole: dict[str, Any]

    def folder(self, home: Path) -> Path:
        """Where it is trained in `home`."""
        return run_folder(self.config, home / "runs")

    def train(self, home: Path) -> int:
        """Train it in `home`, or go on, as a command and its worker do in two processes; the exit status."""
        os.environ["RMTLIB_CACHE"] = str(home / "cache")
        folder = self.folder(home)
        try:
            if (folder / "record.json").exists():
                load_record(folder / "record.json")
                return 0
            lock = Lock(folder, self.config.title)
            prepare(self.config, folder, lock, False, self.artifact)
        except RmtlibError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return worker.main(str(folder), reference(self.artifact), os.getppid())

    def difference(self, home: Path) -> str | None:
        """What of the record in `home` is not that of the undisturbed run, to the last bit."""
        try:
            found = load_record(self.folder(home) / "record.json")
        except RmtlibError as error:
            return str(error)
        differing = [key for key in SAME if found[key] != self.whole[key]]
        return f"the record differs from the undisturbed run's in {', '.join(differing)}" if differing else None


SAME = ("run_id", "config", "metrics", "curves", "data", "tokens", "micro_batch", "precision")
"""What a record must have in common with that of the undisturbed run."""
ROWS = {"enwik8": ("rmt-5-bptt-1-seg128",), "memory-capacity": ("armt-remember", "rmt-remember")}


def import_all() -> None:
    """Import what a worker does, before it is forked."""
    import torch._dynamo

    import rmtlib.experiments.babilong.run
    import rmtlib.experiments.capacity.run
    import rmtlib.experiments.language_modelling.run  # noqa: F401

    torch.set_num_threads(1)


def subjects(scratch: Path) -> list[Subject]:
    """Runs of a stream and of curricula, RMT and ARMT, each trained once without being disturbed."""
    import_all()
    os.environ["RMTLIB_OFFLINE"] = "1"
    os.environ.pop("RMTLIB_DATA", None)
    found = []
    for name, rows in ROWS.items():
        artifact = get_artifact(name)
        for row in rows:
            (config,) = select(artifact, "smoke", 1, row)
            made = Subject(artifact, config, {})
            ended = forked(lambda made=made: made.train(scratch / "whole"), scratch / "whole.log")  # type: ignore[misc]
            if ended.status != 0:
                raise RuntimeError(f"{name} {row} does not even run undisturbed: {ended.last}")
            found.append(Subject(artifact, config, load_record(made.folder(scratch / "whole") / "record.json")))
    return found
