"""Arrays that are made once and kept in the cache: a folder that is whole or absent, checked each time it is opened."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rmtlib.data.sources import file_hash
from rmtlib.errors import RmtlibError
from rmtlib.files import sync, sync_folder, unwritable, write_atomically

SUMS = "sha256.json"


def kept_arrays(home: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in folder `home`, memory-mapped; made by the first call on this machine.

    Raises:
        RmtlibError: the folder cannot be written, or what it holds is not what was written.
    """
    if not home.exists():
        _write(home, make())
    try:
        if not (sums := dict(json.loads((home / SUMS).read_text()))):
            raise ValueError(f"{SUMS} names no arrays")
        if odd := {path.stem for path in home.glob("*.npy")} ^ set(sums):
            raise ValueError(f"{SUMS} and the folder differ in {', '.join(sorted(odd))}")
        for name, expected in sums.items():
            if file_hash(home / f"{name}.npy") != expected:
                raise ValueError(f"{name}.npy does not have the sha256 that it was written with")
        return {name: np.load(home / f"{name}.npy", mmap_mode="r") for name in sums}
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise RmtlibError(f"{home} is damaged ({error}): delete this folder, and it is made anew") from error


def _write(home: Path, arrays: dict[str, np.ndarray]) -> None:
    # A folder of its own name appears only when whole, and whichever of two processes is first wins.
    partial = home.with_name(f"{home.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            _save(partial / f"{name}.npy", array)
        sums = {name: file_hash(partial / f"{name}.npy") for name in arrays}
        write_atomically(partial / SUMS, json.dumps(sums).encode())
        partial.rename(home)
        sync_folder(home.parent)
    except OSError as error:
        if not home.exists():
            raise unwritable(home, error, "set RMTLIB_CACHE to a folder that you can write to") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "w+b") as file:  # into a file open for writing alone numpy writes itself, and hides why it failed
        np.save(file, array)
        sync(file)
