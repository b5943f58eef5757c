"""Loops in C for a CPU: `mamba_loops.c`, compiled at its first use for the machine at hand and kept in the cache."""

import ctypes
import hashlib
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

from rmtlib.data.sources import cache_folder

SOURCE = Path(__file__).with_name("mamba_loops.c")
OPTIONS = ("-O3", "-march=native", "-shared", "-fPIC")
TIME_LIMIT = 120
"""Seconds a compiler may take."""


def is_compiled_for(*tensors: Tensor) -> bool:
    """Whether these are for the loops in C, and there are any: all in float32 on a CPU."""
    return all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors) and library(SOURCE) is not None


def on_samples(name: str, batch: int, sizes: Sequence[int], arrays: Sequence[Tensor | None]) -> None:
    """Call a C function on a batch, whose samples are shared out among torch's threads without changing a bit.

    The function takes its first sample, the one after its last, the sizes and the arrays.
    """
    assert all(x is None or x.is_contiguous() for x in arrays)
    function = getattr(library(SOURCE), name)
    pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in arrays]
    threads = max(1, min(torch.get_num_threads(), batch))

    def samples(thread: int) -> None:
        first, last = batch * thread // threads, batch * (thread + 1) // threads
        function(*map(ctypes.c_long, (first, last, *sizes)), *pointers)

    if threads == 1:
        return samples(0)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(samples, range(threads)))


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """One C file, compiled by ``cc`` or what the variable CC says; None if it cannot be, as without a compiler."""
    command = [*shlex.split(os.environ.get("CC") or "cc"), *OPTIONS]
    made = hashlib.sha256(f"{command}{_processor()}".encode() + source.read_bytes()).hexdigest()[:12]
    path = cache_folder() / "compiled" / f"{source.stem}-{made}.so"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                new = str(Path(folder) / path.name)
                subprocess.run([*command, str(source), "-o", new], check=True, capture_output=True, timeout=TIME_LIMIT)
                os.replace(new, path)  # another process may have made it: either is whole
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    """What tells processors with other instructions apart: a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
