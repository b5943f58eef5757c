"""Figure 6 of ARMT: bits per byte segment by segment (left), what history is worth (right); a row for each scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rmtlib.experiments.segments.rows import LABELS, NGRAM
from rmtlib.report.figures import (
    BLUE,
    GREEN,
    GREY,
    RC,
    RED,
    Panel,
    Style,
    draw_series,
    grey_line,
    legend_handles,
    mark_trained,
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
    "backbone": Style(GREY, "D"),
    "rmt": RED,
    "armt": BLUE,
    "backbone-window": GREEN,
    NGRAM: Style("#8a6d1d", "v"),
}
BITS, OFF, GAIN, SWAPPED = "bits per byte", "bits per byte, memory off", "gain of history", "gain, swapped memory"


def drawn(group: dict[str, Series]) -> dict[str, Series]:
    """Without the n-gram, which lies far above all others."""
    return {row: series for row, series in group.items() if row != NGRAM}


def figure(results: Results) -> Figure:
    """Runs on this machine are solid and filled, published ones dashed and hollow. The paper prints no numbers."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = {metric: scale_panels(results, metric) for metric in (BITS, OFF, GAIN, SWAPPED)}
    count = max(len(panels[BITS]), 1)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.2, 3.2 * count + 0.8), layout="constrained")
        axes = figure.subplots(count, 2, squeeze=False)
        for pair, panel in zip(axes, panels[BITS], strict=False):
            beside = {metric: _of_scale(panels[metric], panel.scale) for metric in (OFF, GAIN, SWAPPED)}
            _draw(pair[0], panel)
            _draw_levels(pair[0], beside[OFF])
            _draw(pair[1], beside[GAIN])
            _draw_dotted(pair[1], beside[SWAPPED])
            pair[0].set(ylabel=BITS, title=f"{panel.scale} scale")
            pair[1].set(ylabel="bits per byte gained by history", title="what history is worth")
            for ax in pair:
                ax.set_xlabel("segment")
                mark_trained(ax, panel, [series.x_trained for series in panel.series])
        rows = {row: LABELS[row] for row in LABELS if any(row in drawn(panel.rows) for panel in panels[BITS])}
        handles = legend_handles(rows, STYLES, panels[BITS])
        handles += [grey_line("last segment of training", "-."), grey_line("memory off (left), swapped (right)", ":")]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _of_scale(panels: list[Panel], scale: str) -> Panel:
    return next((panel for panel in panels if panel.scale == scale), Panel(scale, {}, {}))


def _draw(ax: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for group, line, fill in panel.groups:
        for row, series in drawn(group).items():
            draw_series(ax, series, style_of(STYLES, row), line, fill)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _draw_levels(ax: Axes, panel: Panel) -> None:
    """Memory off: a level for each row that has a memory."""
    for series in panel.series:
        if _has_memory(series):
            ax.axhline(series.first.mean, color=style_of(STYLES, series.row).colour, linestyle=":", linewidth=1.2)


def _draw_dotted(ax: Axes, panel: Panel) -> None:
    for series in panel.series:
        x, y = [point.x for point in series.points], [point.mean for point in series.points]
        ax.plot(x, y, ":", color=style_of(STYLES, series.row).colour, linewidth=1.4, zorder=2)


def _has_memory(series: Series) -> bool:
    return bool(series.records[0]["metrics"]["state_size"])


def curves(results: Results) -> Iterator[Curve]:
    """A line for each model and scale, a chart for each of three numbers."""
    for metric in CHARTS:
        yield from curves_of(
            {scale: drawn(rows) for scale, rows in results.series(metric).items()},
            lambda series: (series.metric, LABELS[series.row], style_of(STYLES, series.row)),
        )


CHARTS = {
    BITS: Chart("segment", BITS),
    GAIN: Chart("segment", "bits per byte gained by history"),
    SWAPPED: Chart("segment", "bits per byte gained with another place's memory"),
}
EXPLORE = Explorable(CHARTS, curves)


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = [
        "Left: bits per byte against the segment's number, with memory switched off as dotted levels. Right: what "
        "history gains over none, with swapped memories dotted."
    ]
    for panel in scale_panels(results, BITS):
        for whose, group in panel.told:
            if parts := [_in_words(series) for series in drawn(group).values()]:
                text.append(f"{panel.scale} scale, {whose}: {'; '.join(parts)}.")
    return " ".join(text)


def _in_words(series: Series) -> str:
    points = {point.x: point for point in (series.first, series.at_trained_x, series.last)}.values()
    read = ", ".join(f"{point.mean:.3f} on segment {point.x:g}" for point in points)
    return f"{series.row} ({plural(series.n_runs, 'run')}) {read}"
