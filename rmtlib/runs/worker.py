"""The process that trains one run: `rmtlib worker`, started by the scheduler, one for each run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError, Stopped, StoppedAtOnce
from rmtlib.runs import provenance
from rmtlib.runs.artifact import load_artifact
from rmtlib.runs.devices import together
from rmtlib.runs.folder import RunFolder, inputs_sha256, read_config, read_notes, read_progress, read_slices
from rmtlib.runs.records import make_record, write_record
from rmtlib.runs.storage import write_json

ORPHAN_SECONDS = 30.0
"""How long a worker without its command has for its checkpoint."""


def work(path: str | Path, reference: str, parent: int | None, devices: int = 1) -> dict[str, Any]:
    """Train the run in folder `path` with the artifact `reference` ("module:class"); its record.

    Raises:
        Stopped: asked to stop; there is a checkpoint, unless no step was taken yet.
        RmtlibError: bad input, a full disk.
    """
    folder = RunFolder(path, parent=parent)

    def stop(number: int, frame: object) -> None:
        folder.request_stop()
        if folder.preparing:  # files are written whole or not at all, so that here is as good as anywhere
            folder.preparing = False  # and once only: not in the midst of the clearing up
            raise StoppedAtOnce

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear; it sends SIGTERM
    for asking in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(asking, stop)
    config = read_config(folder.path)
    slices = _open_slice(folder)
    outcome = "failed"
    try:
        with together(folder, reference, devices):
            result = load_artifact(reference).execute(config, folder)
        outcome = "finished"
    except Stopped:
        outcome = "stopped"
        raise
    except StoppedAtOnce:
        outcome = "stopped"
        raise Stopped("stopped while it prepared its data") from None
    finally:
        slices[-1].update(
            ended=outcome,
            wall_s=round(folder.seconds(), 2),
            peak_memory=provenance.peak_memory(),
            hardware=provenance.hardware(),
        )
        with contextlib.suppress(RmtlibError):  # never hides what ended the run; the record below does not need it
            write_json(folder.path / "slices.json", slices)
    loops = sys.modules.get("rmtlib.models.compiled")  # not imported for this: it imports torch
    if loops is not None and loops.not_compiled():
        folder.note("Mamba's loops were not compiled, PyTorch's operations took their place")
    record = make_record(config, result, slices, read_notes(folder.path), inputs_sha256(folder.path))
    return write_record(folder.path / "record.json", record)


def _open_slice(folder: RunFolder) -> list[dict[str, Any]]:
    """Add this process to slices.json; what a killed one could not write is taken from its last progress."""
    slices = read_slices(folder.path)
    if slices and slices[-1]["ended"] is None:
        progress = read_progress(folder.path)
        started = datetime.fromisoformat(slices[-1]["started"]).timestamp()
        known = progress is not None and progress["time"] >= started
        slices[-1].update(ended="killed", wall_s=progress["slice_wall_s"] if progress and known else 0.0)
    slices.append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "ended": None,
            "wall_s": 0.0,
            "peak_memory": provenance.peak_memory(),
            "git": provenance.git_state(),
            "modules_sha256": provenance.modules_sha256(),
            "packages": provenance.packages(),
            "hardware": None,  # known at the end: the GPU is torch's to name
        }
    )
    write_json(folder.path / "slices.json", slices)
    return slices


def _end_with(parent: int) -> None:
    """When the command is gone (killed), end this process too: as the command would, then the hard way."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os.killpg(0, signal.SIGKILL)  # also what it has started itself


def main(path: str, reference: str, parent: int | None, devices: int = 1) -> int:
    """The worker process: exit status 0 finished, 75 stopped, 2 an error in one line, 1 a traceback."""
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        work(path, reference, parent, devices)
    except (Stopped, KeyboardInterrupt) as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return 75
    except RmtlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        traceback.print_exc()
        print(f"error: {error.strerror or error}: {error.filename or path}", file=sys.stderr)
        return 2
    return 0
