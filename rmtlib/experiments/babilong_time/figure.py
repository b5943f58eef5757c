"""Time and memory against context length, a row of panels a scale; the paper's minutes in a panel of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmtlib.experiments.babilong_time.rows import LENGTHS, MINUTES, ROWS, name_of
from rmtlib.report.figures import (
    BLUE,
    GREEN,
    GREY,
    PAPER_GROUND,
    PINK,
    RED,
    Panel,
    draw_legend,
    draw_series,
    grey_line,
    legend_handles,
    new_figure,
    scale_panels,
    style_of,
)
from rmtlib.report.measurements import Results, short_count
from rmtlib.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MODELS = {"rmt": RED, "armt-loop": PINK, "armt-wavefront": BLUE, "mamba": GREEN}
_MARKERS = {"-batch": "v", "-long": "P"}
STYLES = _MODELS | {
    model + way: style._replace(marker=marker) for way, marker in _MARKERS.items() for model, style in _MODELS.items()
}
SECONDS, FASTEST, SPEED = "seconds a sample", "seconds a sample, fastest round", "tokens a second"
FLOOR, MEMORY = "share of the floor", "peak memory in MB"
SLOPE, GROWTH = "slope", "memory growth"
DOTTED = (0, (1, 2))


def figure(results: Results) -> Figure:
    """For each scale: seconds a sample, peak memory. Then the paper's minutes, of another machine and model."""
    times = [panel for panel in scale_panels(results) if panel.scale != "smoke"] or scale_panels(results)
    peaks = {panel.scale: panel for panel in scale_panels(results, MEMORY)}
    shown = times or [Panel("", {}, {})]
    with new_figure(8.6, 2.7 * len(shown) + 1.1) as figure:
        grid = figure.subplots(len(shown), 3, squeeze=False)
        for (seconds, memory, paper), panel in zip(grid, shown, strict=True):
            _draw(seconds, panel, SECONDS)
            seconds.set_yscale("log")
            seconds.set_title(f"{panel.scale} scale" if panel.scale else "nothing run yet")
            _proportional(seconds, panel)
            _draw(memory, peaks.get(panel.scale, Panel(panel.scale, {}, {})), MEMORY)
            memory.set_ylim(bottom=0)
            _draw_paper(paper)
        drawn = {row: None for panel in times for row in panel.rows}
        labels = {row.name: name_of(row.name) for row in ROWS if row.name in drawn}
        handles = [*legend_handles(labels, STYLES, times), grey_line("proportional to the length", DOTTED)]
        draw_legend(figure, handles, 3)
    return figure


def _draw(ax: Axes, panel: Panel, label: str) -> None:
    for group, line, fill in panel.groups:
        for row, series in group.items():
            draw_series(ax, series, style_of(STYLES, row), line, fill, (0.0, float("inf")))
    _lengths(ax, sorted({point.x for series in panel.series for point in series.points}) or list(LENGTHS.values()))
    ax.set_ylabel(label)


def _lengths(ax: Axes, lengths: list[float] | list[int]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(lengths, [short_count(int(x)) for x in lengths], fontsize=7.5)
    ax.minorticks_off()
    ax.set_xlabel("tokens of the context")


def _proportional(ax: Axes, panel: Panel) -> None:
    """A line through the first row's longest context, of a time that is proportional to the length."""
    if panel.rows:
        last = next(iter(panel.rows.values())).last
        x = [ax.get_xlim()[0], last.x]
        ax.plot(x, [last.mean * value / last.x for value in x], color=GREY, linewidth=1, linestyle=DOTTED, zorder=5)


def _draw_paper(ax: Axes) -> None:
    ax.plot(list(LENGTHS.values()), list(MINUTES.values()), "-", color=RED.colour, marker=RED.marker, markersize=4)
    ax.set_facecolor(PAPER_GROUND)
    ax.set_yscale("log")
    _lengths(ax, list(LENGTHS.values()))
    ax.set_ylabel("minutes for 1,000 samples")
    ax.set_title("the paper: RMT on an A100")


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Seconds a sample and peak memory against the length of the context, row by row."]
    peaks = {panel.scale: dict(panel.told) for panel in scale_panels(results, MEMORY)}
    for panel in scale_panels(results):
        for whose, group in panel.told:
            parts = []
            for row, series in group.items():
                memory = {point.x: point.mean for point in peaks[panel.scale][whose][row].points}
                steps = ", ".join(
                    f"{point.mean:.3g} s and {memory[point.x]:.0f} MB at {short_count(int(point.x))}"
                    for point in series.points
                )
                parts.append(f"{name_of(row)} ({plural(series.n_runs, 'run')}) {steps}")
            text.append(f"{panel.scale} scale, {whose}: {'. '.join(parts)}.")
    minutes = ", ".join(f"{value:g} minutes at {length}" for length, value in MINUTES.items())
    return " ".join([*text, f"The paper, RMT, 1,000 samples on an A100: {minutes}."])
