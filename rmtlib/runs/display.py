"""Where progress is shown: a block redrawn on a terminal, plain lines elsewhere, one output in a notebook."""

from __future__ import annotations

import shutil
import sys
import time
from typing import IO, Any

EVERY_TERMINAL = 0.5
EVERY_NOTEBOOK = 1.0
EVERY_LINE = 10.0
PROGRESS = "rmtlib-progress"
"""Metadata key of a notebook output that is progress: whoever executes the notebook shows it to the user."""


class Display:
    """Shows nothing; the base of those that do. `every` is the time between two updates, in seconds."""

    every = EVERY_LINE

    def line(self, text: str) -> None:
        """Show a lasting line."""

    def update(self, block: list[str]) -> None:
        """Show the present state; the last line is the whole command's."""

    def close(self, last: str = "") -> None:
        """Take the block away, and leave the line `last`."""


class Lines(Display):
    """For logs: each update is one line, with the time since the start."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def update(self, block: list[str]) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        self.line(f"[{minutes:d}:{seconds:02d}] " + " | ".join([*block[-1:], *block[:-1]]))

    def close(self, last: str = "") -> None:
        if last:
            self.line(last)


class Terminal(Display):
    """For people: the block is drawn over its last version."""

    every = EVERY_TERMINAL

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._height = 0

    def _clear(self) -> str:
        return f"\x1b[{self._height}A\x1b[J" if self._height else ""

    def line(self, text: str) -> None:
        self._stream.write(f"{self._clear()}{text}\n")
        self._height = 0
        self._stream.flush()

    def update(self, block: list[str]) -> None:
        width, height = shutil.get_terminal_size()
        rows = [row if len(row) < width else row[: max(1, width - 4)] + "..." for row in block]
        if len(rows) >= height > 2:  # a block taller than the screen cannot be drawn over
            rows = [*rows[: height - 3], "...", rows[-1]]
        self._stream.write(self._clear() + "".join(f"{row}\n" for row in rows))
        self._height = len(rows)
        self._stream.flush()

    def close(self, last: str = "") -> None:
        self._stream.write(self._clear() + (f"{last}\n" if last else ""))
        self._height = 0
        self._stream.flush()


class Notebook(Display):
    """In a Jupyter kernel: one output, updated in place; an executed notebook keeps only its last state."""

    every = EVERY_NOTEBOOK

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._handle: Any = None

    def _show(self, text: str) -> None:
        from IPython.display import display

        data, metadata = {"text/plain": text}, {PROGRESS: True}
        if self._handle is None:
            self._handle = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self._handle.update(data, metadata=metadata, raw=True)

    def line(self, text: str) -> None:
        self._lines.append(text)
        self._show("\n".join(self._lines))

    def update(self, block: list[str]) -> None:
        self._show("\n".join([*self._lines, *block]))

    def close(self, last: str = "") -> None:
        if self._handle is not None or last:
            self._show(last or "\n".join(self._lines))


def make_display(quiet: bool = False) -> Display:
    """The display for where this process runs; progress never goes to standard output."""
    if quiet:
        return Display()
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is not None:
        return Notebook()
    return Terminal(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)
