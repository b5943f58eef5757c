"""What is said of a download: how far it is, and in a few words why it failed."""

import sys
import time


class Meter:
    """Progress of one file on stderr: a rewritten line on a terminal, else a plain line every 10 seconds."""

    def __init__(self, label: str, total: int | None, show: bool, done: int = 0) -> None:
        self.label, self.total, self.show, self.done = label, total, show, done
        self.start, self.start_done = time.monotonic(), done
        self.tty = show and sys.stderr.isatty()
        self.last = self.start

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if self.show and now - self.last >= (0.2 if self.tty else 10.0):
            self.last = now
            print(
                ("\r\033[K" if self.tty else "") + self._line(now),
                end="" if self.tty else "\n",
                file=sys.stderr,
                flush=True,
            )

    def _line(self, now: float) -> str:
        rate = (self.done - self.start_done) / max(now - self.start, 1e-6)
        text = f"{self.label}: {self.done / 1e6:.1f}"
        if self.total and rate == 0:
            return f"{text}/{self.total / 1e6:.1f} MB, {now - self.start:.0f} s so far"
        if self.total:
            left = max(self.total - self.done, 0) / max(rate, 1.0)
            return f"{text}/{self.total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left"
        return f"{text} MB, {rate / 1e6:.1f} MB/s"

    def close(self) -> None:
        if self.tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, for a reason inside one-line errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0] if lines else type(error).__name__)[:200]


def printable(text: str) -> str:
    """`text` of a stranger, without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
