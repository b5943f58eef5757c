"""Figure 5 of BABILong: exact match against context length, a panel for each scale and one for the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rmtlib.report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAPER_GROUND,
    PINK,
    RED,
    Panel,
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
from rmtlib.report.measurements import Results, Series, short_count
from rmtlib.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TASKS = {"qa1": BLUE, "qa2": RED, "qa3": GREEN, "qa4": PINK, "qa5": ORANGE}
_MARKERS = {"smollm2": "<", "scratch": ">"}
STYLES = _TASKS | {
    f"{name}-{task}": style._replace(marker=marker)
    for name, marker in _MARKERS.items()
    for task, style in _TASKS.items()
}
RECENCY = "accuracy of naming the most recent place"
SIMULATED, FILES = "simulator", "bAbI files"
PAPER_TRAIN_TOKENS = 16 * 1024  # 32 segments of 512 (BABILong, appendix C)


def figure(results: Results) -> Figure:
    """Runs on this machine are solid and filled, published ones dashed and hollow."""
    panels, recency = scale_panels(results), results.series(RECENCY)
    count = len(panels) + 1
    columns = min(count, 2)
    with new_figure(4.1 * columns, 3.0 * -(-count // columns) + 0.7) as figure:
        axes = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=True).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            _draw_scale(ax, panel, recency.get(panel.scale, {}))
        _draw_paper(axes[len(panels)], printed_by_task(results))
        for ax in axes[count:]:
            ax.remove()
        for ax in axes[:count]:
            ax.set_ylim(-0.02, 1.04)
            ax.set_xlabel("context length in tokens")
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel("exact match")
        tasks = [*printed_by_task(results), *(row for panel in panels for row in panel.rows)]
        handles = legend_handles({task: task for task in tasks}, STYLES, panels)
        handles.append(grey_line("training length", "-."))
        handles += [grey_line("at the right: naming the most recent place", "-")] * bool(recency)
        draw_legend(figure, handles, 6 if columns > 1 else 4)
    return figure


def printed_by_task(results: Results) -> dict[str, dict[int, float]]:
    """The paper's values: task -> context length in tokens -> exact match."""
    tasks: dict[str, dict[int, float]] = {}
    for m in results.printed:
        tasks.setdefault(m.row, {})[m.tokens or 0] = m.value
    return tasks


def _draw_scale(ax: Axes, panel: Panel, recency: dict[str, Series]) -> None:
    for group, line, fill in panel.groups:
        for task, series in group.items():
            draw_series(ax, series, style_of(STYLES, task), line, fill, bounds=(0, 1))
            if task in recency:
                level, across = (
                    recency[task].first.mean,
                    ax.get_yaxis_transform(),
                )  # beside the panel: lines would overlap
                look: Any = {"color": style_of(STYLES, task).colour, "linewidth": 2.5, "clip_on": False}
                ax.plot([1.005, 1.03], [level, level], transform=across, **look)
    trained = [series.x_trained for series in panel.series]
    mark_trained(ax, panel, trained)
    context_axis(ax, sorted({point.x for series in panel.series for point in series.points}))
    ax.set_title(
        f"{panel.scale} scale: trained up to {', '.join(short_count(round(t)) for t in sorted(set(trained)))} tokens\n"
        f"{_stories(panel.series)}"
    )


def _stories(shown: Sequence[Series]) -> str:
    """Where a panel's stories come from: "stories: bAbI's files; simulated: qa3"."""
    if all(series.data == [SIMULATED] for series in shown):
        return "stories: simulated"
    simulated = [s.row + " (in part)" * (len(s.data) > 1) for s in shown if SIMULATED in s.data]
    return "stories: bAbI's files" + (f"; simulated: {', '.join(dict.fromkeys(simulated))}" if simulated else "")


def _draw_paper(ax: Axes, tasks: dict[str, dict[int, float]]) -> None:
    for task, points in tasks.items():
        style = style_of(STYLES, task)
        ax.plot(
            list(points),
            list(points.values()),
            color=style.colour,
            marker=style.marker,
            markersize=3,
            linewidth=1.2,
            alpha=0.75,
        )
    ax.axvline(PAPER_TRAIN_TOKENS, color=GREY, linewidth=1, linestyle="-.", zorder=2)
    ax.set_facecolor(PAPER_GROUND)
    context_axis(ax, sorted({x for points in tasks.values() for x in points}))
    ax.set_title(f"paper (Table 4): GPT-2, trained up to {short_count(PAPER_TRAIN_TOKENS)}")


def context_axis(ax: Axes, lengths: Sequence[float]) -> None:
    """A logarithmic axis of context lengths; of more than eight, one in every two octaves at most is named."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ax.set_xscale("log", base=2)
    shown: list[float] = []
    for tokens in lengths:
        if not shown or tokens >= (4 if len(lengths) > 8 else 1) * shown[-1]:
            shown.append(tokens)
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([short_count(round(tokens)) for tokens in shown])


def curves(results: Results) -> Iterator[Curve]:
    """A line for each task and scale, and the paper's."""
    yield from curves_of(results.series(), lambda s: (EXACT, s.row, style_of(STYLES, s.row)))
    yield from printed_curves(results.printed, "the paper", lambda row: (EXACT, row, style_of(STYLES, row)))


EXACT = "exact match"
EXPLORE = Explorable({EXACT: Chart("context length in tokens", EXACT, log=True)}, curves, lines="task")


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Exact match against context length in tokens, on a logarithmic axis."]
    for panel in scale_panels(results):
        for whose, group in panel.told:
            tasks = "; ".join(_in_words(series) for series in group.values())
            text.append(f"Panel {panel.scale} scale, {whose}, {_stories(list(group.values()))}: {tasks}.")
    parts = []
    for task, points in printed_by_task(results).items():
        (first, start), *_, (last, end) = points.items()
        parts.append(f"{task} from {start:.2f} at {short_count(first)} to {end:.2f} at {short_count(last)}")
    trained = short_count(PAPER_TRAIN_TOKENS)
    return " ".join([*text, f"Panel of the paper's values, GPT-2 trained up to {trained}: {'; '.join(parts)}."])


def _in_words(series: Series) -> str:
    trained = series.at_trained_x
    parts = [f"{series.first.mean:.2f} at {short_count(round(series.first.x))}"]
    if trained is not series.first:
        parts.append(f"{trained.mean:.2f} at the training length {short_count(round(trained.x))}")
    if series.last is not trained:
        parts.append(f"{series.last.mean:.2f} at {short_count(round(series.last.x))}")
    return f"{series.row} ({plural(series.n_runs, 'run')}) {', '.join(parts)}"
