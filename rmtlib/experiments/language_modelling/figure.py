"""The figure of a language modelling artifact, and its description: values row by row, the paper's, and training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.experiments.language_modelling.rows import TABLES, default_rows, table_row
from rmtlib.report.figures import (
    BLUE,
    GREEN,
    GREY,
    PAPER_GROUND,
    PINK,
    RED,
    Panel,
    Style,
    draw_legend,
    new_figure,
    scale_panels,
    style_of,
)
from rmtlib.report.measurements import Results, Series
from rmtlib.report.tables import mean_text, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec
    from matplotlib.lines import Line2D

UNITS = {"enwik8": "bits per character", "wikitext-103": "perplexity"}
TEXTS = {"enwik8": "enwik8", "wikitext-2": "WikiText-2", "wikitext-103": "WikiText-103"}
DIGITS = {"enwik8": 3, "wikitext-103": 2}  # as printed
STYLES = {  # by kind of model
    "n-gram": Style("#8a6d1d", "D"),
    "Baseline": Style("#444444", "o"),
    "MT": PINK,
    "Tr-XL": Style(BLUE.colour, "s"),
    "RMT": Style(RED.colour, "^"),
    "Tr-XL + RMT": Style(GREEN.colour, "v"),
}


def corpus_of(series: Series) -> str:
    """The text that was read."""
    return str(series.records[0]["config"]["params"]["corpus"])


def _style(artifact: str, row: str) -> Style:
    return style_of(STYLES, table_row(artifact, row).kind)


def is_trained(artifact: str, rows: Iterable[str]) -> bool:
    """Whether anything is among the rows but counted n-grams."""
    return any(not table_row(artifact, row).order for row in rows)


def trained_panels(artifact: str, results: Results) -> list[Panel]:
    """A panel for each scale at which something was trained."""
    return [panel for panel in scale_panels(results) if is_trained(artifact, panel.rows)]


def label(artifact: str, row: str, series: Series | None = None) -> str:
    """A row in words, with the sizes that its runs have; without runs those of the paper."""
    of = table_row(artifact, row)
    if series is None:
        return of.named(of.cache, of.memory, of.segment)
    metrics = series.records[0]["metrics"]
    return of.named(metrics["cache"], metrics["memory_tokens"], metrics["segment"])


def figure(artifact: str, results: Results) -> Figure:
    """For each scale: test value row by row, and the paper's values of the same rows.

    Validation in training follows for the largest scale, and for those that have runs here.
    """
    panels = trained_panels(artifact, results) or [Panel("", {}, {})]
    parts: list[tuple[Callable[[str, Figure, GridSpec, int, Panel], None], Panel, float]] = []  # what, of what, inches
    for panel in panels:
        parts.append((_values, panel, max(1.6, 0.145 * len(panel.rows or TABLES[artifact]) + 0.9)))
        if panel is panels[0] or panel.here:
            parts.append((_training, panel, 1.8))
    heights = [height for _, _, height in parts]
    with new_figure(8.2, sum(heights) + 0.6) as figure:
        grid = figure.add_gridspec(len(parts), 2, height_ratios=heights)
        for line, (draw, panel, _) in enumerate(parts):
            draw(artifact, figure, grid, line, panel)
        handles = _handles({row.kind for row in TABLES[artifact]}, any(panel.here for panel in panels))
        draw_legend(figure, handles, len(handles))
    return figure


def _values(artifact: str, figure: Figure, grid: GridSpec, line: int, panel: Panel) -> None:
    """Ours and the paper's, side by side."""
    ours, paper, names = figure.add_subplot(grid[line, 0]), figure.add_subplot(grid[line, 1]), _names(artifact, panel)
    _draw_ours(artifact, ours, names, panel)
    _draw_paper(artifact, paper, names)
    ours.set_yticks(range(len(names)), [label(artifact, name, panel.rows.get(name)) for name in names], fontsize=8)
    scale = f"{panel.scale} scale{_other_text(artifact, panel.rows)}"
    ours.set_title(scale if panel.scale else "nothing run yet")
    paper.set_title("the paper, same rows")
    for ax in (ours, paper):
        ax.set_xlabel(f"test {UNITS[artifact]}")


def _training(artifact: str, figure: Figure, grid: GridSpec, line: int, panel: Panel) -> None:
    """Validation of some rows, across both columns."""
    ax, names = figure.add_subplot(grid[line, :]), _names(artifact, panel)
    drawn = in_training(artifact, names, panel.scale)
    _draw_training(artifact, ax, drawn, panel)
    ax.set_title("validation in training" + ("" if drawn == names else f", {len(drawn)} of the rows"))
    ax.set_ylabel(UNITS[artifact])


def _names(artifact: str, panel: Panel) -> list[str]:
    """The panel's rows in the table's order; all of the table's if it has none."""
    every = [row.name for row in TABLES[artifact]]
    return [name for name in every if name in panel.rows] or every


def _other_text(artifact: str, rows: Mapping[str, Series]) -> str:
    """The text that runs were trained on, if it is not the paper's."""
    corpus = corpus_of(next(iter(rows.values()))) if rows else artifact
    return "" if corpus == artifact else f", on {TEXTS.get(corpus, corpus)}"


def in_training(artifact: str, names: Sequence[str], scale: str) -> list[str]:
    """The rows whose training is drawn: of `names` the scale's default ones, else the first few."""
    default = default_rows(artifact, scale)
    return [name for name in names if name in default] or list(names[: len(default)])


def _handles(kinds: Collection[str], beside: bool) -> list[Line2D]:
    """The legend: a colour and marker for each kind of model; hollow for published runs if others are `beside`."""
    from matplotlib.lines import Line2D

    styles = [(kind, *style, style.colour) for kind, style in STYLES.items() if kind in kinds]
    styles += [("run here", GREY, "o", GREY), ("published run", GREY, "o", "white")] * beside
    return [Line2D([], [], color=c, marker=m, mfc=fill, linestyle="", label=name) for name, c, m, fill in styles]


def _rows_axis(ax: Axes, names: Sequence[str]) -> None:
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), [""] * len(names))


def _draw_ours(artifact: str, ax: Axes, names: Sequence[str], panel: Panel) -> None:
    far = _far(artifact, panel)
    for y, name in enumerate(names):
        colour, marker = _style(artifact, name)
        if name in far:
            shown = f"at {panel.rows[name].first.mean:.{DIGITS[artifact]}f} \N{RIGHTWARDS ARROW}"
            ax.text(
                0.99, y, shown, transform=ax.get_yaxis_transform(), color=colour, fontsize=8, ha="right", va="center"
            )
            continue
        for group, _, fill in panel.groups:
            if name in group:
                runs = group[name].first
                ax.errorbar(runs.mean, y, xerr=runs.std or 0.0, color=colour, capsize=3, linewidth=1.4, zorder=2)
                look: dict[str, Any] = {"marker": marker, "facecolor": fill or colour, "edgecolor": colour}
                ax.scatter(runs.values, [y] * len(runs.values), s=22, zorder=3, **look)
    _rows_axis(ax, names)


def _far(artifact: str, panel: Panel) -> set[str]:
    """Counted rows that are further above the worst trained one than that is above the best."""
    means: dict[bool, dict[str, float]] = {True: {}, False: {}}  # whether counted -> row -> value
    for name, series in panel.rows.items():
        means[bool(table_row(artifact, name).order)][name] = series.first.mean
    trained = means[False].values()
    if len(trained) < 2:
        return set()
    worst, best = max(trained), min(trained)
    return {name for name, mean in means[True].items() if mean - worst > worst - best}


def _draw_paper(artifact: str, ax: Axes, names: Sequence[str]) -> None:
    for y, name in enumerate(names):
        row, (colour, marker) = table_row(artifact, name), _style(artifact, name)
        if row.paper["mean"] is None:
            continue
        ax.errorbar(row.paper["mean"], y, xerr=row.paper["std"] or 0.0, color=colour, capsize=3, marker=marker, ms=4)
        if row.runs:
            ax.scatter(row.runs, [y] * len(row.runs), s=10, facecolor="white", edgecolor=colour, zorder=3)
    ax.set_facecolor(PAPER_GROUND)
    _rows_axis(ax, names)


def _draw_training(artifact: str, ax: Axes, names: Sequence[str], panel: Panel) -> None:
    last: dict[str, list[float]] = {}
    for group, line, _ in panel.groups:
        for series in (group[name] for name in names if name in group):
            colour, marker = _style(artifact, series.row)
            for record in series.records:
                if table_row(artifact, series.row).order:  # nothing is trained: a level to pass
                    ax.axhline(record["metrics"]["validation"], color=colour, lw=1, linestyle=":")
                    last.setdefault(series.row, []).append(record["metrics"]["validation"])
                    continue
                points = [point for point in record["curves"]["validation"] if point[1] is not None]
                if points:
                    ax.plot(*zip(*points, strict=True), line, color=colour, marker=marker, ms=2.5, lw=1, alpha=0.8)
                    last.setdefault(series.row, []).append(points[-1][1])
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="y", which="both", labelsize=7)
    ax.set_xlabel("segments read per stream")
    bottom, top = ax.get_ylim()
    heights = {name: log(fmean(values)) for name, values in last.items()}
    for name, height in apart(heights, 0.075 * log(top / bottom)).items():
        colour = _style(artifact, name).colour
        shown = label(artifact, name, panel.rows.get(name)).partition(", segment")[0]
        ax.text(1.01, exp(height), shown, transform=ax.get_yaxis_transform(), color=colour, fontsize=7, va="center")


def apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights of labels `gap` apart, in order: those that would collide are spread about their centre."""
    blocks: list[list[str]] = []

    def end(block: list[str], side: int) -> float:
        return fmean(heights[name] for name in block) + side * (len(block) - 1) / 2 * gap

    for name in sorted(heights, key=heights.__getitem__):
        blocks.append([name])
        while len(blocks) > 1 and end(blocks[-1], -1) - end(blocks[-2], 1) < gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return {name: end(block, -1) + i * gap for block in blocks for i, name in enumerate(block)}


def alt(artifact: str, results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = [
        f"Test {UNITS[artifact]} row by row, the paper's values of the same rows, and validation in training of a few."
    ]
    for panel in trained_panels(artifact, results):
        for whose, group in panel.told:
            values = "; ".join(_in_words(artifact, series) for series in group.values())
            text.append(f"{panel.scale} scale{_other_text(artifact, group)}, {whose}: {values}.")
    printed = "; ".join(f"{label(artifact, row.name)} {row.printed}" for row in TABLES[artifact] if row.printed)
    return " ".join([*text, f"The paper: {printed}."])


def _in_words(artifact: str, series: Series) -> str:
    name = label(artifact, series.row, series)
    return f"{name} {mean_text(series.first, DIGITS[artifact])} ({plural(series.n_runs, 'run')})"
