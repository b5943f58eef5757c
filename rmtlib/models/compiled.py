"""Loops in C for a CPU: `mamba_loops.c`, compiled at its first use for the machine at hand and kept in the cache."""

import contextlib
import ctypes
import hashlib
import logging
import math
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from rmtlib.data.sources import cache_folder
from rmtlib.errors import RmtlibError
from rmtlib.files import write_atomically

SOURCE = Path(__file__).with_name("mamba_loops.c")
OPTIONS = ("-O3", "-shared", "-fPIC")
TIME_LIMIT = 120
"""Seconds a compiler may take."""
WORTH_THREADS = 2**20
"""Numbers of the loops' product from which a batch is shared out: starting a thread takes some fifty microseconds."""

log = logging.getLogger(__name__)


def is_compiled_for(*tensors: Tensor) -> bool:
    """Whether these are for the loops in C, and there are any: real tensors, all in float32 on a CPU."""
    fit = all(type(x) in (Tensor, Parameter) and x.is_cpu and x.dtype == torch.float32 for x in tensors)
    return fit and library(SOURCE) is not None


def on_samples(name: str, batch: int, sizes: Sequence[int], arrays: Sequence[Tensor | None]) -> None:
    """Call a C function on a batch, whose samples are shared out among torch's threads without changing a bit.

    The function takes its first sample, the one after its last, the sizes and the arrays.
    """
    assert all(x is None or x.is_contiguous() for x in arrays)
    function = getattr(library(SOURCE), name)
    pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in arrays]
    threads = min(torch.get_num_threads(), batch) if batch * math.prod(sizes) >= WORTH_THREADS else 1

    def samples(thread: int) -> None:
        first, last = batch * thread // threads, batch * (thread + 1) // threads
        function(*map(ctypes.c_long, (first, last, *sizes)), *pointers)

    if threads == 1:
        return samples(0)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(samples, range(threads)))


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """One C file, compiled by ``cc`` or what the variable CC says; None, and a line in the log, if it cannot be."""
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        made = hashlib.sha256(f"{compiler}{OPTIONS}{_processor()}".encode() + source.read_bytes()).hexdigest()[:12]
        path = cache_folder() / "compiled" / f"{source.stem}-{made}.so"
        if path.exists():
            with contextlib.suppress(OSError):  # cut short, as by a crash of the machine: made again
                return ctypes.CDLL(str(path))
        try:
            write_atomically(path, _compile(source, [*compiler, *OPTIONS, "-march=native"]))
        except subprocess.CalledProcessError:  # some compilers do not know "native"
            write_atomically(path, _compile(source, [*compiler, *OPTIONS]))
        return ctypes.CDLL(str(path))
    except (OSError, ValueError, RmtlibError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip().splitlines()
        log.warning("Mamba's loops are not compiled, and it is slower on a CPU: %s", said[-1] if said else error)
        return None


def not_compiled() -> bool:
    """Whether this process has asked for the loops and there are none."""
    return library.cache_info().currsize > 0 and library(SOURCE) is None


def _compile(source: Path, command: Sequence[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.so"
        subprocess.run([*command, str(source), "-o", str(made)], check=True, capture_output=True, timeout=TIME_LIMIT)
        return made.read_bytes()


def _processor() -> str:
    """What tells processors with other instructions apart: a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
