"""Attention maps and strips of heads on matplotlib axes: for the figure and for notebooks/explore.ipynb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rmtlib.evaluation.attention import BLOCKS
from rmtlib.report.figures import BLUE, GREEN, GREY, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {("write", "text"): ("write", RED.colour), ("write", "read"): ("carry", GREEN.colour)}
MARKS |= {("text", "read"): ("read", BLUE.colour), ("text", "cache"): ("cache", BLUE.colour)}
"""(block of queries, block of keys) -> what the rectangle between them is called, and its colour."""
NAMES = {"cache": "cache", "read": "read", "text": "tokens", "write": "write"}


def spans(lengths: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Block -> (first, last + 1) of its positions, of blocks that have any."""
    ends = np.cumsum([0, *lengths])
    return {name: (int(a), int(b)) for name, a, b in zip(BLOCKS, ends[:-1], ends[1:], strict=True) if b > a}


def draw_map(ax: Axes, weights_TK: np.ndarray, blocks: Sequence[int]) -> None:
    """One head in one segment: dark is much weight; what is written, carried and read has a coloured frame.

    Args:
        blocks: how many positions cache, read memory, tokens and write memory have.
    """
    from matplotlib.patches import Rectangle

    keys, queries = spans(blocks), spans([0, *blocks[1:]])
    ax.imshow(np.sqrt(weights_TK), cmap="Greys", vmin=0, vmax=1, aspect="equal", interpolation="none")
    for (rows, columns), (_, colour) in MARKS.items():
        if rows in queries and columns in keys:
            (top, bottom), (left, right) = queries[rows], keys[columns]
            frame: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 1.6, "clip_on": False}
            ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **frame))
    ax.set_xticks([(a + b - 1) / 2 for a, b in keys.values()], [NAMES[name] for name in keys])
    upright: dict[str, Any] = {"rotation": 90, "va": "center"}
    ax.set_yticks([(a + b - 1) / 2 for a, b in queries.values()], [NAMES[name] for name in queries], **upright)
    ax.tick_params(length=0, labelsize=6.5)
    ax.grid(visible=False)
    ax.spines[["top", "right", "left", "bottom"]].set(visible=True, color=GREY, linewidth=0.6)


def draw_heads(ax: Axes, strips: Sequence[tuple[str, np.ndarray]], heads: int) -> Any:
    """A row of squares for each label, one for each head, layer after layer; blue is below chance, red above.

    Args:
        strips: (label, excess of all heads (L * H), layer by layer).
    """
    image = ax.imshow(
        np.stack([values for _, values in strips]), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="none"
    )
    count = len(strips[0][1])
    ax.set_yticks(range(len(strips)), [label for label, _ in strips])
    ax.set_xticks(range(count), [f"{i // heads + 1}.{i % heads + 1}" for i in range(count)])
    ax.tick_params(length=0, labelsize=7)
    for layer in range(1, count // heads):
        ax.axvline(layer * heads - 0.5, color=GREY, linewidth=1)
    ax.grid(visible=False)
    ax.set_xlabel("layer.head")
    return image
