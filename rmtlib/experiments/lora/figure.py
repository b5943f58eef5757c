"""The study's Figures 1 and 2 (training and validation loss), and what of the gain is memory, at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.experiments.lora.rows import STUDY, ZERO_SHOT
from rmtlib.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RC,
    RED,
    Panel,
    Style,
    scale_panels,
    style_of,
)
from rmtlib.report.measurements import Record, Results, Series
from rmtlib.report.tables import mean_text, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[str, Style] = {  # by kind of row
    "backbone": BLACK,
    "LoRA, no memory": BLUE,
    "full tuning, no memory": Style("#56B4E9", "o"),
    "LoRA + RMT": RED,
    "LoRA + ARMT": GREEN,
    "full tuning + RMT": PINK,
    "as published": ORANGE,
}
OTHERS = {"memory off": "x", "memory shuffled": "+", "memory other": "1"}
CURVE_WINDOW = 5  # points of the training curve that one drawn point is the mean of


def kind(row: str) -> str:
    """The row's kind of model and tuning, which has a colour."""
    study = STUDY[row]
    if study.published:
        return "as published"
    if not study.tuning:
        return "backbone"
    how = {"lora": "LoRA", "full": "full tuning"}[study.tuning]
    return f"{how}, no memory" if study.memory == "none" else f"{how} + {study.memory.upper()}"


def gain(record: Record, reading: str, zero: Record) -> float:
    """Per cent by which a reading's token perplexity is below the backbone's on the same text."""
    own = record["metrics"]["readings"][reading]["perplexity"]
    return 100 * (1 - own / zero["metrics"]["readings"]["test"]["perplexity"])


def backbone_of(rows: dict[str, Series]) -> Record | None:
    """The record of the backbone as it is, if there is one."""
    return rows["backbone"].records[0] if "backbone" in rows else None


def figure(results: Results) -> Figure:
    """For each scale: training loss, validation loss, and the gain over zero-shot of every row, with what memory."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = scale_panels(results) or [Panel("", {}, {})]
    heights = [height for panel in panels for height in (2.4, 0.26 * max(len(panel.rows), 3) + 0.9)]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.2, sum(heights) + 0.8), layout="constrained")
        grid = figure.add_gridspec(2 * len(panels), 2, height_ratios=heights)
        for index, panel in enumerate(panels):
            loss, held_out = (figure.add_subplot(grid[2 * index, column]) for column in range(2))
            gains = figure.add_subplot(grid[2 * index + 1, :])
            scale = f", {panel.scale} scale" if panel.scale else ": nothing run yet"
            _draw_curves(loss, panel, "loss", f"training loss{scale}")
            _draw_curves(held_out, panel, "validation", f"validation loss{scale}")
            _draw_gains(gains, panel)
        figure.legend(handles=_handles(panels), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _tuned(rows: dict[str, Series]) -> list[Series]:
    return [series for name, series in rows.items() if name != "backbone"]


def smoothed(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Means of consecutive points; a step of a training curve is one batch."""
    groups = [points[i : i + CURVE_WINDOW] for i in range(0, len(points), CURVE_WINDOW)]
    return [(fmean(p[0] for p in group), fmean(p[1] for p in group)) for group in groups]


def _draw_curves(ax: Axes, panel: Panel, curve: str, title: str) -> None:
    for rows, line, _ in panel.groups:
        for series in _tuned(rows):
            colour, marker = style_of(STYLES, kind(series.row))
            for record in series.records:
                points = [point for point in record["curves"][curve] if point[1] is not None]
                points = smoothed(points) if curve == "loss" else points
                steps = record["config"]["params"]["tuning"]["train"]["stages"][0]["steps"]
                x, y = [point[0] / steps for point in points], [point[1] for point in points]
                ax.plot(x, y, line, color=colour, marker=marker, ms=2, lw=0.9, alpha=0.7)
    ax.set(xlabel="part of training", ylabel="nats a token", title=title)


def _draw_gains(ax: Axes, panel: Panel) -> None:
    names = [name for name in STUDY if name in panel.rows and name != "backbone"]
    for rows, _, fill in panel.groups:
        zero = backbone_of(panel.rows)
        for y, name in enumerate(names):
            if name not in rows or zero is None:
                continue
            colour, marker = style_of(STYLES, kind(name))
            records = rows[name].records
            own = [gain(record, "test", zero) for record in records]
            look: dict[str, Any] = {"marker": marker, "facecolor": fill or colour, "edgecolor": colour}
            ax.scatter(own, [y] * len(own), s=24, zorder=3, **look)
            for reading, sign in OTHERS.items():
                if reading in records[0]["metrics"]["readings"]:
                    values = [gain(record, reading, zero) for record in records]
                    ax.scatter(values, [y] * len(values), s=28, marker=sign, color=GREY, linewidth=1, zorder=4)
    ax.axvline(0.0, color=GREY, linewidth=1, linestyle=":")
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), [STUDY[name].label for name in names], fontsize=7.5)
    ax.set(xlabel="perplexity below the backbone's, zero-shot, on the same raw text (per cent)")
    ax.set_title("what tuning brings, and what memory adds")


def _handles(panels: Sequence[Panel]) -> list[Any]:
    from matplotlib.lines import Line2D

    kinds = {kind(name) for panel in panels for name in panel.rows} - {"backbone"}
    styles = [(name, *STYLES[name], STYLES[name].colour) for name in STYLES if name in kinds]
    if any(panel.here for panel in panels):
        styles += [("run here", GREY, "o", GREY), ("published run", GREY, "o", "white")]
    handles = [Line2D([], [], color=c, marker=m, mfc=fill, linestyle="", label=name) for name, c, m, fill in styles]
    names = {"memory off": "no memory", "memory shuffled": "another place's memory", "memory other": "another text's"}
    handles += [Line2D([], [], color=GREY, marker=OTHERS[k], linestyle="", label=names[k]) for k in OTHERS]
    return handles


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Training loss, validation loss, and the gain in perplexity over the backbone, zero-shot, row by row."]
    for panel in scale_panels(results):
        for whose, group in panel.told:
            if group:
                values = "; ".join(f"{name} {_in_words(series)}" for name, series in group.items())
                text.append(f"{panel.scale} scale, {whose}, bits per byte: {values}.")
    return " ".join([*text, f"The study: zero-shot GPT-2 {ZERO_SHOT}, RMT with 2 segments 24.29 (perplexity)."])


def _in_words(series: Series) -> str:
    return f"{mean_text(series.first, 3)} ({plural(series.n_runs, 'run')})"
