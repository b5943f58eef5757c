"""A worker that is struck at every change it makes to a file, one after another: ``python interrupted.py MODULE:CLASS
FOLDER BLOW DISK``.

Every worker is a fork of this process, in FOLDER, a run's folder with its config. The first is struck just before the
first file that it opens for writing, renames or deletes below DISK, the second before the second, and so on, until one
is finished before its turn comes. BLOW is "SIGKILL" (killed) or "SIGTERM" (asked to stop). Prints how each ended.
"""

import os
import re
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

from rmtlib.runs import worker

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


def work(change: int, reference: str, folder: str, blow: signal.Signals, disk: str) -> int:
    parent, pid = os.getpid(), os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        strike_at(change, blow, disk)
        status = worker.main(folder, reference, parent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main(reference: str, folder: str, blow: str, disk: str) -> None:
    for module in (reference.split(".artifact:")[0] + ".run", "torch._dynamo"):  # once, not in every fork
        import_module(module)
    change, status = 1, -1
    while status != 0:
        status = work(change, reference, folder, signal.Signals[blow], disk)
        print(status, flush=True)
        if status in (1, 2):
            return
        change = change + 1 if change < FIRST else int(change * GROWTH)


if __name__ == "__main__":
    main(*sys.argv[1:])
