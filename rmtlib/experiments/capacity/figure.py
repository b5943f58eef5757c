"""Figures 2 and 4 of ARMT in one: pairs stored (left) and rewrite accuracy (right), a row of panels for each scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rmtlib.experiments.capacity.rows import LABELS, LARGE, VALUES
from rmtlib.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
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
from rmtlib.report.interactive import Chart, Curve, Explorable, curves_of
from rmtlib.report.measurements import Results, Series
from rmtlib.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    "armt": BLUE,
    "rmt": RED,
    "mamba": GREEN,
    "prmt": PINK,
    "armt-nogamma": ORANGE,
    "armt-released": BLACK,
    "armt-equal": Style("#56B4E9", "o"),
    "rmt-equal": Style("#8B3A00", "s"),
    "armt-attached": Style("#444444", "v"),
    "armt-fixed": Style("#B8A800", "D"),
    "armt-dpfp-1": Style("#6A3D9A", "^"),
    "armt-large": Style("#1B3A57", "P"),
    "mamba-large": Style("#66C2A5", "X"),
}
TASKS = ("remember", "rewrite")


def of_task(group: dict[str, Series], task: str) -> dict[str, Series]:
    """Model -> its series of this task."""
    return {row.rpartition("-")[0]: series for row, series in group.items() if row.endswith(f"-{task}")}


def drawn(group: dict[str, Series], task: str) -> dict[str, Series]:
    """`of_task` without the large models, which are asked other keys: they stand in the tables."""
    return {model: series for model, series in of_task(group, task).items() if model not in LARGE}


def figure(results: Results) -> Figure:
    """Runs on this machine are solid and filled, published ones dashed and hollow. The paper prints no numbers."""
    panels = scale_panels(results)
    with new_figure(8.2, 3.1 * max(len(panels), 1) + 0.7) as figure:
        axes = figure.subplots(max(len(panels), 1), 2, squeeze=False)
        for pair, panel in zip(axes, panels, strict=False):
            for ax, task in zip(pair, TASKS, strict=True):
                part = Panel(panel.scale, drawn(panel.here, task), drawn(panel.published, task))
                for group, line, fill in part.groups:
                    for model, series in group.items():
                        draw_series(ax, series, style_of(STYLES, model), line, fill)
                _finish(ax, task, part)
        models = {model: None for panel in panels for task in TASKS for model in drawn(panel.rows, task)}
        handles = legend_handles({model: LABELS[model] for model in models}, STYLES, panels)
        handles += [grey_line("most pairs in training", "-."), grey_line("all stored; chance", ":")]
        draw_legend(figure, handles, 4)
    return figure


def _finish(ax: Axes, task: str, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    mark_trained(ax, panel, [series.at_trained_x.x for series in panel.series])
    if not panel.series and panel.scale:
        ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color=GREY)
    if task == "remember":
        most = max((series.last.x for series in panel.series), default=1)
        ax.plot([0, most], [0, most], color=GREY, linewidth=1, linestyle=":", zorder=1)
        ax.set(xlabel="pairs in the context", ylabel="pairs stored", title=f"{panel.scale} scale, remember")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    else:
        ax.axhline(1 / VALUES, color=GREY, linewidth=1, linestyle=":", zorder=1)
        ax.set(xlabel="updates of 16 keys", ylabel="exact match", title=f"{panel.scale} scale, rewrite")
        ax.set_ylim(-0.02, 1.04)
        if panel.series:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")


def curves(results: Results) -> Iterator[Curve]:
    """A line for each model and scale, a chart for each task."""

    def named(series: Series) -> tuple[str, str, Style]:
        model, _, task = series.row.rpartition("-")
        return task, LABELS[model], style_of(STYLES, model)

    return curves_of(results.series(), named)


EXPLORE = Explorable(
    {
        "remember": Chart("pairs in the context", "pairs stored", digits=1),
        "rewrite": Chart("updates of 16 keys", "exact match", log=True, levels={"chance": 1 / VALUES}),
    },
    curves,
)


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Left: pairs stored against pairs in the context. Right: exact match against updates, logarithmic."]
    for panel in scale_panels(results):
        for whose, group in panel.told:
            for task in TASKS:
                parts = [_in_words(task, model, series) for model, series in drawn(group, task).items()]
                if parts:
                    text.append(f"{panel.scale} scale, {task}, {whose}: {'; '.join(parts)}.")
    return " ".join(text)


def _in_words(task: str, model: str, series: Series) -> str:
    points = {point.x: point for point in (series.at_trained_x, series.last)}.values()
    unit = " pairs stored of" if task == "remember" else " after"
    return f"{model} ({plural(series.n_runs, 'run')}) " + ", ".join(f"{p.mean:.2f}{unit} {p.x:g}" for p in points)
