"""Progress in words and in time: how far the runs of a command are, and how long is left."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from rmtlib.runs.spec import Cost

WINDOW = 90.0
"""Seconds of the past that the present speed is measured over."""
NOT_SHOWN = ("stage", "step", "steps", "done", "tokens", "slice_wall_s", "time")


def duration(seconds: float) -> str:
    """A time span in words: "40 s", "4 min", "2 h 10 min", "3 days 4 h"."""
    if seconds < 59.5:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} day{'s' * (days > 1)} {hours} h" if hours else f"{days} day{'s' * (days > 1)}"


def amount(number: float) -> str:
    """A count in few digits: 950, 35.2k, 1.2M, 3.4G, 5.6T."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5 or unit == "P":
            return f"{number:.3g}{unit}" if abs(number) < 99.95 else f"{number:.0f}{unit}"
        number /= 1000
    raise AssertionError


def size(count: float) -> str:
    """Bytes in binary units: "12 MB" is 12 * 2**20."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    unit = units[0]
    return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"


def share(work: Sequence[float], index: int, part: float) -> float:
    """How much is done of a run whose parts take `work` (in any unit): all before part `index`, and `part` of it."""
    return (sum(work[:index]) + (work[index] * part if index < len(work) else 0.0)) / sum(work)


def fraction(progress: dict[str, Any] | None, tokens: int) -> float | None:
    """How much of the whole run is done, 0 to 1, from its progress.json; None if it does not say."""
    if progress is None:
        return None
    done = progress.get("done")
    if done is None and progress.get("tokens") is not None and tokens > 0:
        done = progress["tokens"] / tokens
    return None if not isinstance(done, (int, float)) else min(max(float(done), 0.0), 1.0)


class Eta:
    """One run's way through its work, seen from outside; its speed is that of the last `WINDOW` seconds."""

    def __init__(self, cost: Cost, started: float) -> None:
        """`started`: wall-clock time at which its worker started."""
        self.tokens, self.work = cost.tokens, cost.flops
        self.progress: dict[str, Any] | None = None
        self._started = started
        self._samples: deque[tuple[float, float, float]] = deque()

    def see(self, progress: dict[str, Any] | None) -> None:
        """Take in what progress.json says now."""
        self.progress = progress
        done = fraction(progress, self.tokens)
        if done is None or progress is None or progress["time"] < self._started:
            return  # nothing yet, or what an earlier worker said
        if self._samples and progress["time"] <= self._samples[-1][0]:
            return
        if len(self._samples) == 1 and done <= self._samples[0][1]:  # nothing new yet: data are being prepared
            self._samples.clear()
        self._samples.append((progress["time"], done, progress.get("tokens") or done * self.tokens))
        while len(self._samples) > 2 and self._samples[-1][0] - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    @property
    def done(self) -> float:
        """The fraction of the whole run that is done."""
        return fraction(self.progress, self.tokens) or 0.0

    @property
    def whole(self) -> float | None:
        """Seconds that the whole run would take at the present speed; None while that is not known."""
        if len(self._samples) < 2:
            return None
        (t0, f0, _), (t1, f1, _) = self._samples[0], self._samples[-1]
        return (t1 - t0) / (f1 - f0) if f1 > f0 and t1 - t0 >= 1.0 else None

    @property
    def tokens_per_s(self) -> float | None:
        """The present speed, or None while it is not known."""
        if self.whole is None:
            return None
        (t0, _, n0), (t1, _, n1) = self._samples[0], self._samples[-1]
        return (n1 - n0) / (t1 - t0)

    def left(self, now: float) -> float | None:
        """Seconds left at wall-clock time `now`, or None while not known."""
        if self.whole is None:
            return None
        since = now - self._samples[-1][0]
        return max(0.0, self.whole * (1 - self.done) - since)


def makespan(running: Iterable[float], waiting: Iterable[float], jobs: int) -> float:
    """Seconds until all is done: `running` runs have so long left, `waiting` ones take the first free slot."""
    ends = list(running)
    ends += [0.0] * max(0, jobs - len(ends))
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends, default=0.0)


def time_left(running: list[Eta], waiting: list[float], speeds: list[float], jobs: int, now: float) -> float | None:
    """Seconds left for a whole command, or None while nothing tells.

    Args:
        running: the runs at work.
        waiting: `Cost.flops` less what is done already, of the runs that wait for a slot.
        speeds: seconds per FLOP of the runs that this command has finished.
        jobs: how many run at once.
        now: wall-clock time.
    """
    known = [run.whole / run.work for run in running if run.whole is not None and run.work > 0] + speeds
    if not known:
        return None
    speed = sum(known) / len(known)
    lefts = []
    for run in running:
        left = run.left(now)
        lefts.append(speed * run.work * (1 - run.done) if left is None else left)
    return makespan(lefts, [speed * work for work in waiting], jobs)


def describe(progress: dict[str, Any] | None, tokens_per_s: float | None, left: float | None) -> str:
    """A run's state in one line: "stage 2/4, step 1200 of 4800, loss 0.412, 35.2k tokens/s, 4 min left"."""
    if progress is None:
        return "starting"
    parts = [str(progress["stage"]), f"step {progress['step']} of {progress['steps']}"]
    for name, value in progress.items():
        if name not in NOT_SHOWN and isinstance(value, (int, float)):
            parts.append(f"{name.replace('_', ' ')} {value:.3g}")
    if tokens_per_s is not None:
        parts.append(f"{amount(tokens_per_s)} tokens/s")
    if left is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)
