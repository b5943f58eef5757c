"""A/B/A/B in one process, results compared first; memory in processes of their own."""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from rmtlib.runs.provenance import peak_memory


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `ratio` is peer over ours (of memory: ours over peer). `floor` is the share of the time that the arithmetic alone
    would take at the speed of a matrix product, where that is stated.
    """

    case: str
    what: str
    ours: str
    peer: str
    ratio: float | None
    target: str
    reached: bool | None
    floor: str = ""


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call; with one thread, what it costs whatever else the machine does."""
    gc.collect()
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median over rounds of peer / ours; one round of each to warm up."""
    ours()
    peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    return median(a for a, _ in pairs), median(b for _, b in pairs), median(b / a for a, b in pairs)


def growth_bytes(call: Callable[[], object]) -> int:
    """By how much this process's peak memory rises in the call; to be asked once in a process."""
    before = peak_bytes()
    call()
    return peak_bytes() - before


def in_new_process(case: str) -> dict[str, float]:
    """What `python -m benchmarks --child CASE` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--child", case], capture_output=True, text=True, check=True
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def peak_bytes() -> int:
    """This process's peak memory so far."""
    host = peak_memory()["host"]
    assert host is not None
    return host


def speed(
    case: str, what: str, ours: float, peer: float, ratio: float, target: float, floor: float | None = None
) -> Row:
    """A row of two times and a target for their ratio; `floor`: seconds."""
    share = "" if floor is None else f"{floor / ours:.0%}"
    return Row(case, what, _time(ours), _time(peer), ratio, f">= {target:g}x", ratio >= target, share)


def memory(case: str, what: str, ours: float, peer: float, target: float) -> Row:
    """A row of two peaks in bytes and a target for ours over the peer's."""
    share = ours / peer
    return Row(case, what, f"{ours / 1e6:.0f} MB", f"{peer / 1e6:.0f} MB", share, f"<= {target:g}x", share <= target)


def _time(s: float) -> str:
    return f"{s * 1e3:.3g} ms" if s < 1 else f"{s:.3g} s"
