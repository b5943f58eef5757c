"""A run's folder, through which the process that trains it and the command that started it talk.

runs/<artifact>/<slug>/ holds

    config.json     the frozen config, written once
    slices.json     one entry per process that worked on the run: time, memory, code, machine
    progress.json   where the run is now, for people and for the time left
    notes.json      what the record has to say beyond its numbers
    worker.log      what the processes printed
    record.json     the result, at the end
    lock            held while some process trains it
    shards/         while several processes share its tests (see `runs.shards`)

and whatever the artifact keeps there (checkpoints, metrics.jsonl, and what of its tests is done: `KEPT`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import NoneType
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import finite, read_json, read_sealed, to_jsonable, write_json
from rmtlib.training.peers import ALONE

PROGRESS_EVERY = 0.5
"""Seconds between two writes of progress.json."""

KEPT = {
    "evaluation.json": "delete this file; the tests then begin anew, the training is kept",
    "readings.json": "delete it, and the texts are read anew; the training is kept",
}
"""Intermediate results of tests, which go into the record: sealed files, and what to do if one is damaged."""
INPUTS = ("config.json", "slices.json", "notes.json", "checkpoint.json", *KEPT)
"""What a record is made from, as far as it is there; the checkpoint's manifest has the hash of its tensors."""

_SLICE: dict[str, tuple[type, ...]] = {
    "started": (str,),
    "ended": (str, NoneType),
    "wall_s": (int, float),
    "peak_memory": (dict,),
    "git": (dict,),
    "modules_sha256": (str,),
    "packages": (dict,),
    "hardware": (dict, NoneType),
}


def run_folder(config: RunConfig, runs_dir: str | Path = "runs") -> Path:
    """Where a run is kept: runs/<artifact>/<slug>."""
    return Path(runs_dir) / config.artifact / config.slug


class RunFolder:
    """What `Artifact.execute` gets: a folder for its files, progress out, the wish to stop in.

    In a worker, `parent` is the process that started it: if that is gone, nobody waits for the run any
    more, and `should_stop` turns true, so that a killed command leaves nothing behind that trains unseen.
    `peers` are the processes that train the run together (see `runs.devices`). `shards` is where those that test it
    together keep what is done (see `runs.shards`); this one only `helps` them, or is the run's worker.

    `preparing` is true until `should_stop` is asked for the first time: there is nothing yet to write a checkpoint of.
    """

    def __init__(self, path: str | Path, *, parent: int | None = None) -> None:
        self.path = Path(path)
        self.peers = ALONE
        self.shards = self.path / "shards"
        self.helps = False
        self.path.mkdir(parents=True, exist_ok=True)
        self._parent = parent
        self._stop = False
        self.preparing = True
        self._started = time.monotonic()
        self._written = -PROGRESS_EVERY
        self._stage: str | None = None
        self._done: dict[str, Any] = {}  # what an earlier worker reached
        last = read_progress(self.path) or {}
        self._done.update({key: last[key] for key in ("done", "tokens") if key in last})

    def progress(self, stage: str, step: int, steps: int, **numbers: float | None) -> None:
        """Say where the run is: cheap, call it at every step (it writes at most every half second).

        `step` of `steps` count within the stage. Two numbers have a meaning: `done`, the fraction of the
        whole run (all stages, resumed slices included; 0 to 1), or else `tokens`, those processed so far in
        the whole run (compared with `Cost.tokens`): time left and tokens/s come from them. Until a resumed run
        says one of them, the last worker's stay. `loss` and others are shown as they are.
        """
        now = time.monotonic()
        if now - self._written < PROGRESS_EVERY and stage == self._stage:
            return
        self._written, self._stage = now, stage
        if self._done.keys() & numbers.keys():
            self._done = {}
        state, _ = finite(
            to_jsonable(
                {
                    "stage": stage,
                    "step": step,
                    "steps": steps,
                    **self._done,
                    **numbers,
                    "slice_wall_s": round(now - self._started, 2),
                    "time": time.time(),
                }
            )
        )
        with contextlib.suppress(RmtlibError):  # a full disk ends the run where it matters: at its checkpoint
            write_json(self.path / "progress.json", state, durable=False)

    def should_stop(self) -> bool:
        """Whether to write a checkpoint and raise `Stopped` now: a signal came, or the parent died."""
        self.preparing = False
        return self._stop or (self._parent is not None and os.getppid() != self._parent)

    def request_stop(self) -> None:
        """Make `should_stop` true from now on."""
        self._stop = True

    def note(self, text: str) -> None:
        """Add a line to the record's notes (once, however often it is said or the run resumed)."""
        notes = read_notes(self.path)
        if text not in notes:
            write_json(self.path / "notes.json", [*notes, text])

    def seconds(self) -> float:
        """Seconds since this object was made: the length of the slice."""
        return time.monotonic() - self._started


def read_config(folder: Path) -> RunConfig:
    """The config in a run's folder. RmtlibError if it is damaged, or not that of the folder's name."""
    path = folder / "config.json"
    remedy = f"delete the folder {folder} to train this run anew, or use --fresh"
    data = read_json(path, dict, remedy)
    try:
        config = RunConfig.from_json(data)
    except RmtlibError as error:
        raise RmtlibError(f"{path} is damaged ({error}): {remedy}") from error
    if config.slug != folder.name:
        raise RmtlibError(f"{path} was changed: it is the config of {config.slug}; {remedy}")
    return config


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Where the run in `folder` is; None if it has not said. A damaged file has said nothing: it is only shown."""
    try:
        progress: dict[str, Any] = read_json(folder / "progress.json", dict, "it is written anew")
    except RmtlibError:
        return None
    required = isinstance(progress.get("stage"), str) and all(
        _is_finite(progress.get(key)) for key in ("step", "steps", "slice_wall_s", "time")
    )
    numbers = {key: value for key, value in progress.items() if key != "stage"}
    return progress if required and all(value is None or _is_finite(value) for value in numbers.values()) else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e300  # also false of NaN


def read_slices(folder: Path) -> list[dict[str, Any]]:
    """The run's slices so far. Raises RmtlibError if the file is damaged."""
    path = folder / "slices.json"
    remedy = "delete this file; the record's wall time then starts from here"
    slices: list[dict[str, Any]] = read_json(path, list, remedy) if path.exists() else []
    if not all(map(_is_slice, slices)):
        raise RmtlibError(f"{path} is damaged (keys are missing or of another type): {remedy}")
    return slices


def _is_slice(part: Any) -> bool:
    if not isinstance(part, dict) or not all(isinstance(part.get(key, ...), kinds) for key, kinds in _SLICE.items()):
        return False
    try:
        datetime.fromisoformat(part["started"])
    except ValueError:
        return False
    return isinstance(part["peak_memory"].get("host"), int) and {"commit", "dirty"} <= set(part["git"])


def read_notes(folder: Path) -> list[str]:
    """What the record has to say beyond its numbers. RmtlibError if the file is damaged."""
    path = folder / "notes.json"
    remedy = "delete this file; its notes are then missing from the record"
    notes: list[str] = read_json(path, list, remedy) if path.exists() else []
    if not all(isinstance(note, str) for note in notes):
        raise RmtlibError(f"{path} is damaged (not all of it is text): {remedy}")
    return notes


def check_kept(folder: Path) -> None:
    """Raises RmtlibError if what is done of the run's tests is damaged."""
    for name, remedy in KEPT.items():
        read_sealed(folder / name, remedy)


def inputs_sha256(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a run's folder that its record is made from."""
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in INPUTS if (folder / name).exists()}


def changed_inputs(folder: Path, inputs: Mapping[str, str]) -> str | None:
    """The first of these files that is there and no longer has the hash that the record names."""
    now = inputs_sha256(folder)
    return next((name for name, known in inputs.items() if now.get(name, known) != known), None)
