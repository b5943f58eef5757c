"""Right answers of each model beside the authors' (left), and right steps of the solution (right)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmtlib.data.quadratic import WITHOUT_ROOTS
from rmtlib.experiments.quadratic.counts import SOLVED
from rmtlib.experiments.quadratic.rows import SOLVERS
from rmtlib.report.figures import (
    BLACK,
    GREEN,
    GREY,
    PAPER_GROUND,
    RED,
    Panel,
    Style,
    draw_legend,
    draw_series,
    grey_line,
    legend_handles,
    new_figure,
    scale_panels,
    style_of,
)
from rmtlib.report.measurements import Results
from rmtlib.report.tables import mean_text, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"baseline-1": BLACK, "trxl-6": GREEN, "rmt-6": RED, "baseline-6": Style("#8a6d1d", "v")}
ANSWERS, RELEASED, FORCED, ROOTED = "right answers", "released evaluation", "teacher forcing", "with roots"
STEPS_RIGHT, STEPS_FORCED = "right steps", "right steps, teacher forcing"
BOUNDS = (0.0, 1.0)


def figure(results: Results) -> Figure:
    """For each scale: right answers, the authors' of the same rows, right steps. Runs here are solid and filled."""
    answers = scale_panels(results) or [Panel("", {}, {})]
    steps = {panel.scale: panel for panel in scale_panels(results, STEPS_RIGHT)}
    with new_figure(8.2, 2.6 * len(answers) + 0.8) as figure:
        grid = figure.subplots(len(answers), 3, squeeze=False, width_ratios=(1, 1, 1.5))
        for (ours, paper, by_step), panel in zip(grid, answers, strict=True):
            names = [row for row in SOLVERS if row in panel.rows] or [row for row in SOLVERS if SOLVERS[row].authors]
            _draw_answers(ours, names, panel)
            _draw_authors(paper, names)
            _draw_steps(by_step, steps.get(panel.scale, Panel(panel.scale, {}, {})))
            ours.set_title(f"{panel.scale} scale" if panel.scale else "nothing run yet")
            paper.set_title("the authors' runs")
            by_step.set_title("step by step")
        drawn = {row: None for panel in answers for row in panel.rows}
        handles = legend_handles({row: SOLVERS[row].short for row in drawn}, STYLES, answers)
        handles.append(grey_line("answers without roots: right if none is ever found", ":"))
        draw_legend(figure, handles, 3)
    return figure


def _rows_axis(ax: Axes, names: list[str], *, labels: bool) -> None:
    ax.set_xlim(-0.03, 1.05)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), [SOLVERS[name].short for name in names] if labels else [""] * len(names))
    ax.set_xlabel(ANSWERS)


def _draw_answers(ax: Axes, names: list[str], panel: Panel) -> None:
    for group, _, fill in panel.groups:
        for y, name in enumerate(names):
            if name in group:
                runs, (colour, marker) = group[name].first, style_of(STYLES, name)
                low, high = runs.interval
                ax.plot([low, high], [y, y], color=colour, linewidth=1.4, zorder=2)
                look: dict[str, Any] = {"marker": marker, "facecolor": fill or colour, "edgecolor": colour}
                ax.scatter(runs.values, [y] * len(runs.values), s=22, zorder=3, **look)
    ax.axvline(WITHOUT_ROOTS, color=GREY, linewidth=1, linestyle=":", zorder=1)
    _rows_axis(ax, names, labels=True)


def _draw_authors(ax: Axes, names: list[str]) -> None:
    for y, name in enumerate(names):
        colour, marker = style_of(STYLES, name)
        values = SOLVERS[name].authors
        ax.scatter(values, [y] * len(values), s=22, marker=marker, facecolor="white", edgecolor=colour, zorder=3)
    ax.set_facecolor(PAPER_GROUND)
    _rows_axis(ax, names, labels=False)


def _draw_steps(ax: Axes, panel: Panel) -> None:
    for group, line, fill in panel.groups:
        for row, series in group.items():
            draw_series(ax, series, style_of(STYLES, row), line, fill, BOUNDS)
    ax.set_xticks(range(1, len(SOLVED) + 1), SOLVED, fontsize=7.5, rotation=25, ha="right", rotation_mode="anchor")
    ax.set_xlim(0.7, len(SOLVED) + 0.3)
    ax.set_ylim(-0.03, 1.05)
    ax.set_ylabel(STEPS_RIGHT)


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Right answers row by row, the authors' runs of the same rows, and which steps of the solution are right."]
    steps = {panel.scale: dict(panel.told) for panel in scale_panels(results, STEPS_RIGHT)}
    for panel in scale_panels(results):
        for whose, group in panel.told:
            parts = []
            for row, series in group.items():
                right = ", ".join(
                    f"{name} {point.mean:.2f}"
                    for name, point in zip(SOLVED, steps[panel.scale][whose][row].points, strict=True)
                )
                share = f"{mean_text(series.first, 3)} of the answers"
                parts.append(f"{SOLVERS[row].short} ({plural(series.n_runs, 'run')}) {share}; {right}")
            text.append(f"{panel.scale} scale, {whose}: {'. '.join(parts)}.")
    authors = "; ".join(
        f"{solver.short} {', '.join(map(str, solver.authors))}" for solver in SOLVERS.values() if solver.authors
    )
    return " ".join([*text, f"The authors: {authors}."])
