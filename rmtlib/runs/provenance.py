"""Where a result comes from: code, packages, machine, memory. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numpy", "transformers", "safetensors", "tokenizers", "tiktoken")
NOT_RESULTS = (  # parts of the package that no result depends on
    *("report", "book.py", "kept.py", "kernels.py", "notebooks.py", "terminal.py", "cli.py", "cli_claims.py"),
    *("cli_cluster.py", "cli_evaluate.py", "cli_rehearse.py", "cli_results.py", "evaluation/decisions.py"),
    *("data/babilong_prompts.py", "data/babilong_texts.py", "evaluation/prompting.py", "evaluation/harness.py"),
    *("runs/prompted.py", "experiments/view.py", "experiments/declare.py", "experiments/declared.json"),
    *("experiments/*/claims.py", "experiments/*/rules.py", "experiments/*/report.py", "experiments/*/figure.py"),
    *("experiments/babilong_table/language_models.py", "experiments/babilong_table/language_models.json"),
)
_NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0")
_GPU_DEVICES = (*_NVIDIA_DEVICES, "/dev/dxg", "/dev/kfd", "/dev/nvhost-gpu", "/dev/nvgpu")


def modules_sha256() -> str:
    """sha256 over the package's Python and C files, less those that no result depends on (`NOT_RESULTS`)."""
    total = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c")]):
        relative = path.relative_to(PACKAGE)
        if any(relative.match(part) or relative.parts[0] == part for part in NOT_RESULTS):
            continue
        content = path.read_bytes()
        total.update(f"{relative.as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def git_state() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout that holds the package; commit None if there is none.

    Dirty means uncommitted changes in what results depend on: the package (less `NOT_RESULTS`) and its pins.
    """
    root = PACKAGE.parent
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # no checkout, or a package installed inside another project's
        return {"commit": None, "dirty": False}
    changes = _git(
        "status",
        "--porcelain",
        "--",
        PACKAGE.name,
        "pyproject.toml",
        "constraints.txt",
        *(f":!{PACKAGE.name}/{part}" for part in NOT_RESULTS),
    )
    return {"commit": _git("rev-parse", "--verify", "--quiet", "HEAD"), "dirty": changes != ""}


def unknown_commits(commits: Iterable[str], folder: str | Path) -> list[str]:
    """Those of the commits that the checkout around `folder` lacks; none if it has not all its history, or is none."""
    asked = list(commits)
    if not asked or _git("rev-parse", "--is-shallow-repository", folder=folder) != "false":
        return []
    found = _git("cat-file", "--batch-check", folder=folder, given="".join(f"{commit}\n" for commit in asked))
    kinds = [line.split()[1:2] for line in (found or "").splitlines()]
    return [commit for commit, kind in zip(asked, kinds, strict=False) if kind != ["commit"]]


def _git(*arguments: str, folder: str | Path | None = None, given: str = "") -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder or PACKAGE.parent), *arguments],
            capture_output=True,
            text=True,
            input=given,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """{"cpu", "cores", "memory_bytes", "gpu", "threads"}: what this process may use; gpu None if torch uses none.

    `threads` are those of one operation of torch, which decide the order of sums and so their last bits.
    """
    torch = sys.modules.get("torch")
    threads = None if torch is None else torch.get_num_threads()
    return {"cpu": _cpu(), "cores": cores(), "memory_bytes": memory_bytes(), "gpu": gpu_name(), "threads": threads}


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def multiplies_bf16() -> bool:
    """Whether the processor says that it has units for bf16 products; without, they take several times as long."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return True
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), None)
    return flags is None or not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def has_gpu() -> bool:
    """Whether torch has a CUDA (or ROCm) device. Imports torch only if a device file says that it may."""
    if "torch" not in sys.modules and sys.platform == "linux":
        if not any(os.path.exists(device) for device in _GPU_DEVICES):
            return False
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def gpu_ids() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that torch can use."""
    if not has_gpu():
        return []
    import torch

    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (chosen or [str(i) for i in range(torch.cuda.device_count())])[: torch.cuda.device_count()]


def unused_gpu() -> str | None:
    """Why a GPU that this machine has is not used, in a line; None if there is none, or it is used."""
    if sys.platform != "linux" or not any(os.path.exists(device) for device in _NVIDIA_DEVICES) or has_gpu():
        return None
    try:
        import torch
    except ImportError:
        return None
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return (
        f"torch {torch.__version__} (built {built}) cannot use this machine's GPU, so that the CPU trains: is the "
        "driver too old for it, or CUDA_VISIBLE_DEVICES empty? Another build of torch: make setup CONSTRAINTS=FILE"
    )


def gpu_name() -> str | None:
    """The GPU that torch uses in this process, or None."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))


def peak_memory() -> dict[str, int | None]:
    """{"host", "gpu"}: the most bytes that this process has held in memory and on its GPU (None without one).

    On Linux the host's figure is VmHWM: ru_maxrss would start from the peak of the process that started this
    one.
    """
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                host = int(line.split()[1]) * 1024
    except OSError:
        pass
    torch = sys.modules.get("torch")
    gpu = None
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        gpu = int(torch.cuda.max_memory_allocated())
    return {"host": host, "gpu": gpu}
