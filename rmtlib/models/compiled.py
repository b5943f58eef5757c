"""Loops in C for a CPU, compiled at their first use for the machine they run on, and kept in the cache."""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from torch import Tensor

from rmtlib.data.sources import cache_folder

OPTIONS = ("-O3", "-march=native", "-shared", "-fPIC")
TIME_LIMIT = 120
"""Seconds a compiler may take."""


@cache
def compiled(source: Path) -> ctypes.CDLL | None:
    """The library of one C file; None if it cannot be made, as without a compiler.

    The compiler is ``cc``, or what the variable CC says.
    """
    command = [*shlex.split(os.environ.get("CC") or "cc"), *OPTIONS]
    made = hashlib.sha256(f"{command}{_processor()}".encode() + source.read_bytes()).hexdigest()[:12]
    library = cache_folder() / "compiled" / f"{source.stem}-{made}.so"
    try:
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:
                new = Path(folder) / library.name
                subprocess.run(
                    [*command, str(source), "-o", str(new)], check=True, capture_output=True, timeout=TIME_LIMIT
                )
                os.replace(new, library)  # another process may have made it: either is whole
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """What a C function takes for a contiguous tensor; a null pointer for none."""
    assert x is None or x.is_contiguous()
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _processor() -> str:
    """What tells processors with other instructions apart: a folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
