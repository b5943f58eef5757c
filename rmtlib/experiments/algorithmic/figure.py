"""Figure 3 of the RMT paper: accuracy over the number of segments, a panel for each task, a row of them a scale."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from rmtlib.experiments.algorithmic.rows import LABELS, TABLES, TaskRow
from rmtlib.experiments.algorithmic.scales import shrink
from rmtlib.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    RED,
    Panel,
    draw_legend,
    grey_line,
    legend_handles,
    new_figure,
    scale_panels,
    style_of,
)
from rmtlib.report.interactive import Chart, Curve, Explorable
from rmtlib.report.measurements import Aggregate, Results, Series
from rmtlib.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"baseline": BLACK, "mt": BLUE, "trxl": GREEN, "rmt": RED}
SHIFT = {"baseline": -0.15, "mt": -0.05, "trxl": 0.05, "rmt": 0.15}
"""Of a model's points to the side, in segments, so that those at chance do not cover each other."""


def columns(artifact: str) -> list[tuple[str, int]]:
    """(task, size) of every panel."""
    return list(dict.fromkeys((row.task, row.size) for row in TABLES[artifact]))


def curve(artifact: str, task: str, size: int, model: str) -> list[TaskRow]:
    """The rows of a curve: of each number of segments the largest memory that the authors have, without variants."""
    rows = [r for r in TABLES[artifact] if (r.task, r.size, r.model) == (task, size, model) and not r.variant]
    largest: dict[int, TaskRow] = {}
    for row in rows:
        if row.segments not in largest or row.memory > largest[row.segments].memory:
            largest[row.segments] = row
    return [largest[segments] for segments in sorted(largest)]


def figure(results: Results, artifact: str) -> Figure:
    """Runs of this machine are filled, published ones hollow and dashed, the authors' means large and hollow."""
    panels, tasks = scale_panels(results), columns(artifact)
    shown = panels or [Panel("", {}, {})]
    with new_figure(2.7 * len(tasks) + 0.4, 2.5 * len(shown) + 0.8) as figure:
        axes = figure.subplots(len(shown), len(tasks), squeeze=False, sharey=True)
        for line, panel in zip(axes, shown, strict=True):
            for ax, (task, size) in zip(line, tasks, strict=True):
                _draw(ax, panel, artifact, task, size)
            line[0].set_ylabel("per-token accuracy")
        handles = legend_handles(LABELS, STYLES, panels, band=False)
        handles += [_authors_handle(), grey_line("chance", ":")]
        draw_legend(figure, handles, 4)
    return figure


def _authors_handle() -> Any:
    from matplotlib.lines import Line2D

    label = "the authors' mean, paper's lengths"
    return Line2D([], [], linestyle="", marker="o", mfc="none", color=GREY, markersize=8, label=label)


def _draw(ax: Axes, panel: Panel, artifact: str, task: str, size: int) -> None:
    from matplotlib.ticker import FixedLocator

    for model, style in STYLES.items():
        rows = curve(artifact, task, size, model)
        said = [(row.segments + SHIFT[model], row.paper["mean"]) for row in rows if row.paper]
        if said:
            at, means = zip(*said, strict=True)
            ax.scatter(
                at, means, s=70, marker=style.marker, facecolor="none", edgecolor=style.colour, alpha=0.55, zorder=2
            )
        for group, line, fill in panel.groups:
            points = [(row.segments + SHIFT[model], group[row.name]) for row in rows if row.name in group]
            if not points:
                continue
            ax.plot(
                [x for x, _ in points], [s.last.mean for _, s in points], color=style.colour, linestyle=line,
                linewidth=1.4, zorder=3,
            )  # fmt: skip
            for x, series in points:
                look: dict[str, Any] = {"facecolor": fill or style_of(STYLES, model).colour, "edgecolor": style.colour}
                values = series.last.values
                ax.scatter([x] * len(values), values, s=14, marker=style.marker, linewidth=0.9, zorder=4, **look)
    of_panel = [row for row in TABLES[artifact] if (row.task, row.size) == (task, size)]
    counts, here = sorted({row.segments for row in of_panel}), round(size / shrink(of_panel[0], panel.scale))
    ax.axhline(chance(size), color=GREY, linewidth=1, linestyle=":", zorder=1)
    ax.set(xlabel="segments", title=chart_name(task, here) + f", {panel.scale}" * bool(panel.scale))
    ax.set_ylim(-0.03, 1.06)
    ax.xaxis.set_major_locator(FixedLocator(counts))


def chart_name(task: str, size: int) -> str:
    """The title of a panel."""
    return f"{task}, {size} {'pairs' if task == 'retrieval' else 'symbols'}"


def curves(results: Results, artifact: str) -> Iterator[Curve]:
    """A line over the number of segments for each model and scale, and of the authors' means; a chart for each task."""
    for scale, group in results.series().items():
        for task, size, model, rows in in_order(group, artifact):
            points = tuple((float(row.segments), series.last) for row, series in rows)
            yield Curve(chart_name(task, size), LABELS[model], STYLES[model], scale, points)
    for task, size in columns(artifact):
        for model in STYLES:
            said = {
                row.segments: [m for m in results.printed if m.row == row.name]
                for row in curve(artifact, task, size, model)
            }
            points = tuple((float(segments), Aggregate(tuple(ms))) for segments, ms in said.items() if ms)
            if points:
                yield Curve(chart_name(task, size), LABELS[model], STYLES[model], "the authors", points)


def explore(artifact: str) -> Explorable:
    """A chart for each task and size."""
    charts = {
        chart_name(task, size): Chart("segments", "per-token accuracy", levels={"chance": chance(size)})
        for task, size in columns(artifact)
    }
    return Explorable(charts, partial(curves, artifact=artifact))


def chance(size: int) -> float:
    """The accuracy of guessing: long sequences are of eight symbols, short ones of ten."""
    return 1 / (8 if size >= 120 else 10)


def in_order(group: dict[str, Series], artifact: str) -> Iterator[tuple[str, int, str, list[tuple[TaskRow, Series]]]]:
    """(task, size, model, its rows with their series) of every curve that has any."""
    for task, size in columns(artifact):
        for model in STYLES:
            rows = [(row, group[row.name]) for row in curve(artifact, task, size, model) if row.name in group]
            if rows:
                yield task, size, model, rows


def alt(results: Results, artifact: str) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Per-token accuracy of generated answers against the number of segments, a panel for each task."]
    for panel in scale_panels(results):
        for whose, group in panel.told:
            for task, size, model, rows in in_order(group, artifact):
                values = ", ".join(f"{s.last.mean:.2f} in {plural(row.segments, 'segment')}" for row, s in rows)
                text.append(f"{panel.scale} scale, {whose}, {task} of {size}, {LABELS[model]}: {values}.")
    return " ".join(text)
