"""A process that is struck at every change it makes to a file, one after another: ``python interrupted.py WHAT
MODULE:CLASS FOLDER BLOW DISK``.

WHAT is "worker", which trains the run in FOLDER, or "command", which trains the smoke run of seed 0 in the runs/ above
FOLDER. Every one is a fork of this process. The first is struck just before the first file that it opens for writing,
renames or deletes below DISK, the second before the second, and so on, until one is finished before its turn comes.
BLOW is "SIGKILL" (killed) or "SIGTERM" (asked to stop). Prints how each ended.
"""

import os
import re
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from rmtlib.errors import Stopped
from rmtlib.runs import worker
from rmtlib.runs.artifact import load_artifact
from rmtlib.runs.scheduler import run

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")
ONLY_SHOWN = re.compile(r"/(progress\.json|metrics\.jsonl)[^/]*$")
FIRST, GROWTH = 8, 1.5
"""The first strikes come at each change, later ones after ever more of them."""


def strike_at(change: int, blow: signal.Signals, disk: str) -> None:
    count = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or not str(given[0]).startswith(disk) or ONLY_SHOWN.search(str(given[0])):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        if count == change:
            os.kill(os.getpid(), blow)

    sys.addaudithook(hook)


def act(what: str, reference: str, folder: str, parent: int) -> int:
    if what == "worker":
        return worker.main(folder, reference, parent)
    artifact = load_artifact(reference)
    run(artifact, [artifact.config("qa1", "smoke", 0)], runs_dir=Path(folder).parent.parent, quiet=True)
    return 0


def work(change: int, what: str, reference: str, folder: str, blow: signal.Signals, disk: str) -> int:
    parent, pid = os.getpid(), os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        strike_at(change, blow, disk)
        status = act(what, reference, folder, parent)
    except Stopped:
        status = 75
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main(what: str, reference: str, folder: str, blow: str, disk: str) -> None:
    if what == "worker":  # once, not in every fork
        import_module(reference.split(".artifact:")[0] + ".run")
        import_module("torch._dynamo")
    change, status = 1, -1
    while status != 0:
        status = work(change, what, reference, folder, signal.Signals[blow], disk)
        print(status, flush=True)
        if status in (1, 2):
            return
        change = change + 1 if change < FIRST else int(change * GROWTH)


if __name__ == "__main__":
    main(*sys.argv[1:])
