"""Executed notebooks, kept in the cache and used again if nothing that they depend on has changed.

`cache_folder()`/notebooks/ has a file for each, named by the sha256 of all that the result depends on: source,
parameters, folder, the package's files, files that the notebook reads, matplotlib's settings, Python and all installed
packages, processor, environment variables. Data has no place in it: the package knows each file's sha256, and another
one is an error. The first line of a file is the sha256 of the rest: a damaged one is none.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

from rmtlib.data.sources import cache_folder, file_hash
from rmtlib.errors import RmtlibError
from rmtlib.files import write_atomically
from rmtlib.notebooks import execute
from rmtlib.runs import provenance
from rmtlib.runs.storage import json_sha256

MOST = 60  # notebooks that are kept: four builds of the book
PACKAGE = provenance.PACKAGE
VARIABLES = tuple("RMTLIB_ HF_ OMP_ MKL_ KMP_ OPENBLAS_ PYTHON PYTORCH_ TORCH CUDA_ MPL LANG LC_ TZ".split())


class Job(NamedTuple):
    """A notebook to execute with the parameters `pairs`; `reads` are patterns of all files that it may read.

    `reads` None: nobody knows, so it is not kept.
    """

    source: Path
    target: Path
    pairs: Sequence[tuple[str, str]] = ()
    reads: Sequence[str] | None = None


def surroundings() -> dict[str, Any]:
    """What every notebook depends on and no build of the book changes."""
    machine = provenance.hardware()
    return {
        "python": (sys.version, sys.path, os.getcwd()),
        "packages": sorted(f"{package.name} {package.version}" for package in metadata.distributions()),
        "machine": [machine[name] for name in ("cpu", "gpu", "threads")],
        "environment": {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)},
    }


def key(job: Job, around: dict[str, Any]) -> str:
    """What the job's result is kept under: a sha256 over its `surroundings` and all files that it depends on."""
    package = [path for path in PACKAGE.rglob("*") if path.parent.name != "__pycache__"]
    read = [path for pattern in job.reads or () for path in Path().glob(pattern)]
    paths = (job.source, Path(matplotlib.matplotlib_fname()), *package, *read)
    files = {str(path): file_hash(path) for path in paths if path.is_file()}
    return json_sha256({"around": around, "files": files, "source": str(job.source), "pairs": job.pairs})


def restore(job: Job, key: str) -> bool:
    """Write the kept notebook to the job's target; False if there is none, or a damaged one."""
    path = _folder() / key
    try:
        digest, _, notebook = path.read_bytes().partition(b"\n")
    except OSError:
        return False
    if job.reads is None or digest != _digest(notebook):
        return False
    write_atomically(job.target, notebook, durable=False)
    with suppress(OSError):
        os.utime(path)  # one that is used is a new one
    return True


def execute_and_keep(job: Job, before: str, around: dict[str, Any]) -> None:
    """Execute the notebook, and keep it unless a file that it depends on was changed since its key was `before`."""
    mine = job.target.with_name(f"{job.target.stem}.{os.getpid()}.ipynb")  # another build may write the same target
    execute(job.source, mine, job.pairs, quiet=True)
    notebook = mine.read_bytes()
    os.replace(mine, job.target)
    if job.reads is not None and key(job, around) == before:
        with suppress(RmtlibError):  # a full disk, or a folder of others: it is executed again
            write_atomically(_folder() / before, _digest(notebook) + b"\n" + notebook, durable=False)


def forget() -> None:
    """Delete all but the newest `MOST`."""
    with suppress(OSError):  # there is no folder yet, or another build deletes them, too
        newest = sorted(_folder().iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in newest[MOST:]:
            path.unlink()


def _folder() -> Path:
    return cache_folder() / "notebooks"


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
