"""Exact match against context length: a panel a task, a line a model; ours above, the paper's below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rmtlib.data.babi import TASKS
from rmtlib.experiments.babilong.figure import PAPER_TRAIN_TOKENS, RECENCY, context_axis
from rmtlib.experiments.babilong_table.rows import MODELS, ON_SMOLLM2, STAND_IN
from rmtlib.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAPER_GROUND,
    PINK,
    RED,
    Panel,
    Style,
    draw_legend,
    draw_series,
    grey_line,
    legend_handles,
    mark_trained,
    new_figure,
    scale_panels,
    style_of,
)
from rmtlib.report.interactive import Chart, Curve, Explorable, curves_of, printed_curves
from rmtlib.report.measurements import Measurement, Results, Series, short_count
from rmtlib.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    "rmt": RED,
    "rmt-r": ORANGE,
    "rmt-r-top-1": Style("#B8A800", "P"),
    "armt": BLUE,
    "prmt": PINK,
    "mamba": GREEN,
    "rwkv": Style("#7A5195", "v"),
    "full-attention": Style("#6B6B6B", "D"),
    "full-attention-lora": Style("#6B6B6B", "h"),
    "window": BLACK,
    "rag": Style("#56B4E9", "X"),
    "rag-dense": Style("#2F8CA3", "P"),
    "rag-llama": Style("#8B3A00", "X"),
}
STYLES |= {f"{model}-{STAND_IN}": STYLES[model]._replace(marker="<") for model in ON_SMOLLM2}
DOTTED = (0, (1, 2))
LABELS = MODELS | {"rag-llama": "retrieval, Llama-3 (paper)"}
LABELS |= {f"{model}-{STAND_IN}": label for model, label in ON_SMOLLM2.items()}


def split(row: str) -> tuple[str, str]:
    """A row's model and task."""
    model, _, task = row.rpartition("-")
    return model, task


def of_task(group: dict[str, Series], task: str) -> dict[str, Series]:
    """Model -> its series of this task."""
    return {split(row)[0]: series for row, series in group.items() if split(row)[1] == task}


def printed_of(results: Results, task: str) -> dict[str, list[Measurement]]:
    """The papers' values of a task: model -> measurements by length."""
    models: dict[str, list[Measurement]] = {}
    for m in results.printed:
        if split(m.row)[1] == task:
            models.setdefault(split(m.row)[0], []).append(m)
    return models


def figure(results: Results) -> Figure:
    """Runs on this machine are solid and filled, published ones dashed and hollow. The last row is the paper's."""
    panels = [panel for panel in scale_panels(results) if panel.scale != "smoke"] or scale_panels(results)
    tasks = [task for task in TASKS if any(of_task(panel.rows, task) for panel in panels)] or list(TASKS)
    recency = results.series(RECENCY)
    rows = len(panels) + 1
    with new_figure(max(2.9 * len(tasks) + 0.6, 7.0), 2.5 * rows + 0.9) as figure:
        grid = figure.subplots(rows, len(tasks), squeeze=False, sharey=True)
        for line, panel in zip(grid, panels, strict=False):
            for ax, task in zip(line, tasks, strict=True):
                _draw(ax, task, panel, recency.get(panel.scale, {}))
        for ax, task in zip(grid[-1], tasks, strict=True):
            _draw_paper(ax, task, printed_of(results, task))
        for ax in grid.ravel():
            ax.set_ylim(-0.02, 1.04)
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel("exact match")
            if ax.get_subplotspec().is_last_row():
                ax.set_xlabel("context length in tokens")
        ours = [split(row)[0] for panel in panels for row in panel.rows]
        drawn = dict.fromkeys([*ours, *(model for task in tasks for model in printed_of(results, task))])
        handles = legend_handles({model: LABELS[model] for model in drawn}, STYLES, panels)
        handles += [grey_line("training length", "-."), grey_line("naming the most recent place", DOTTED)]
        draw_legend(figure, handles, max(2 * len(tasks), 3))
    return figure


def _draw(ax: Axes, task: str, panel: Panel, recency: dict[str, Series]) -> None:
    part = Panel(panel.scale, of_task(panel.here, task), of_task(panel.published, task))
    for group, line, fill in part.groups:
        for model, series in group.items():
            draw_series(ax, series, style_of(STYLES, model), line, fill, bounds=(0, 1))
    ax.set_title(f"{task}, {panel.scale} scale")
    if not part.series:
        ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color=GREY)
        return
    mark_trained(ax, part, {series.x_trained for series in part.series})
    if level := of_task(recency, task):
        ax.axhline(next(iter(level.values())).first.mean, color=GREY, linewidth=1, linestyle=DOTTED, zorder=1)
    context_axis(ax, sorted({point.x for series in part.series for point in series.points}))


def _draw_paper(ax: Axes, task: str, models: dict[str, list[Measurement]]) -> None:
    for model, points in models.items():
        style = style_of(STYLES, model)
        x, y = [m.x or 0 for m in points], [m.value for m in points]
        ax.plot(x, y, color=style.colour, marker=style.marker, markersize=3, linewidth=1.2, alpha=0.75)
    ax.axvline(PAPER_TRAIN_TOKENS, color=GREY, linewidth=1, linestyle="-.", zorder=2)
    ax.set_facecolor(PAPER_GROUND)
    ax.set_title(f"{task}, papers")
    context_axis(ax, sorted({m.x or 0 for points in models.values() for m in points}))


def curves(results: Results) -> Iterator[Curve]:
    """A line for each model and scale, and the papers', a chart for each task."""

    def named(row: str) -> tuple[str, str, Style]:
        model, task = split(row)
        return task, LABELS[model], style_of(STYLES, model)

    yield from curves_of(results.series(), lambda series: named(series.row))
    yield from printed_curves(results.printed, "the papers", named)


EXPLORE = Explorable({task: Chart("context length in tokens", "exact match", log=True) for task in TASKS}, curves)


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Exact match against context length in tokens, on a logarithmic axis, a panel for each task."]
    for panel in scale_panels(results):
        for whose, group in panel.told:
            for task in TASKS:
                if parts := [_in_words(model, series) for model, series in of_task(group, task).items()]:
                    text.append(f"{task}, {panel.scale} scale, {whose}: {'; '.join(parts)}.")
    for task in TASKS:
        parts = [
            f"{LABELS[model]} from {points[0].value:.2f} at {short_count(round(points[0].x or 0))} to "
            f"{points[-1].value:.2f} at {short_count(round(points[-1].x or 0))}"
            for model, points in printed_of(results, task).items()
        ]
        text.append(f"{task}, papers: {'; '.join(parts)}.")
    return " ".join(text)


def _in_words(model: str, series: Series) -> str:
    points = {point.x: point for point in (series.at_trained_x, series.last)}.values()
    said = ", ".join(f"{point.mean:.2f} at {short_count(round(point.x))}" for point in points)
    return f"{LABELS[model]} ({plural(series.n_runs, 'run')}) {said}"
