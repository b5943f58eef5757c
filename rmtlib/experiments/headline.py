"""The front page's figure: ours beside the paper's in four small panels, one for each of four artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from rmtlib.experiments.babilong.figure import PAPER_TRAIN_TOKENS, printed_by_task
from rmtlib.experiments.capacity.rows import MODELS
from rmtlib.experiments.language_modelling.rows import table_row
from rmtlib.experiments.lora.figure import backbone_of, gain
from rmtlib.experiments.lora.rows import STUDY, ZERO_SHOT
from rmtlib.experiments.lora.rules import RMT, TUNED
from rmtlib.report import figures
from rmtlib.report.figures import BLUE, GREY, new_figure
from rmtlib.report.measurements import Series
from rmtlib.report.view import View
from rmtlib.runs.spec import SCALES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENOUGH = 3  # runs: a smaller scale that has them is shown before a larger one that has not
BASELINE, MEMORIES = "baseline-seg50", ("trxl-10-seg50", "trxl-50-seg50", "rmt-10-bptt-2-seg50")
STORING = ("armt", "mamba", "rmt")
OURS: Any = {"color": BLUE.colour, "marker": "o", "markersize": 5, "linewidth": 1.6}
PAPER: Any = {
    "color": GREY,
    "marker": "s",
    "markersize": 5,
    "markerfacecolor": "white",
    "linewidth": 1.2,
    "linestyle": "--",
}

Views = Mapping[str, View]


class Lines(NamedTuple):
    """A panel: a number for each label, ours (mean, deviation) and the paper's, as far as there are any."""

    scale: str
    labels: tuple[str, ...]
    ours: tuple[tuple[float, float] | None, ...]
    paper: tuple[float | None, ...]


def shown(view: View, rows: Sequence[str]) -> tuple[str, dict[str, Series]]:
    """The scale to show of these rows, and its series: the largest with three runs of each, else with any of all."""
    having = {
        scale: series
        for scale, series in view.results.series().items()
        if set(rows) <= set(series) and scale != "smoke"
    }
    if not having:
        return "", {}
    best = max(having, key=lambda s: (min(having[s][row].n_runs for row in rows) >= ENOUGH, SCALES.index(s)))
    return best, having[best]


def decline(view: View) -> Lines:
    """BABILong, qa1: exact match at 1, 2, 4 ... times the training length."""
    scale, rows = shown(view, ["qa1"])
    paper = {n // PAPER_TRAIN_TOKENS: value for n, value in printed_by_task(view.results)["qa1"].items()}
    multiples = [m for m in sorted(paper) if 1 <= m <= 32]
    points = [rows["qa1"].at_multiple(m) if rows else None for m in multiples]
    ours = tuple(None if p is None else (p.mean, p.std or 0.0) for p in points)
    return Lines(scale, tuple(f"{m}×" for m in multiples), ours, tuple(paper[m] for m in multiples))


def memory_gain(view: View) -> Lines:
    """WikiText, segments of 50: per cent of perplexity below the model without memory."""
    scale, rows = shown(view, [BASELINE, *MEMORIES])
    level = table_row("wikitext-103", BASELINE).paper["mean"]
    printed = tuple(100 * (1 - table_row("wikitext-103", row).paper["mean"] / level) for row in MEMORIES)
    ours: list[tuple[float, float] | None] = [None] * len(MEMORIES)
    if rows:
        own = rows[BASELINE].first.mean
        means = [rows[row].first for row in MEMORIES]
        ours = [(100 * (1 - m.mean / own), 100 * (m.std or 0.0) / own) for m in means]
    labels = tuple(_with_sizes(row, rows.get(row)) for row in MEMORIES)
    return Lines(scale, labels, tuple(ours), printed)


def _with_sizes(name: str, series: Series | None) -> str:
    """RMT BPTT-2, 10 (here 4): the memory in the paper, and of our runs if that is another."""
    row = table_row("wikitext-103", name)
    metrics = series.records[0]["metrics"] if series else {"cache": row.cache, "memory_tokens": row.memory}
    size = metrics["cache"] or metrics["memory_tokens"]
    return f"{row.label}, {row.size}" + (f" (here {size})" if str(size) != str(row.size) else "")


def pairs(view: View) -> Lines:
    """Memory capacity: pairs stored of the most that were asked for. The paper prints no numbers."""
    scale, rows = shown(view, [f"{model}-remember" for model in STORING])
    last = [rows[f"{model}-remember"].last if rows else None for model in STORING]
    ours = tuple(None if p is None else (p.mean, p.std or 0.0) for p in last)
    return Lines(scale, tuple(MODELS[model] for model in STORING), ours, (None,) * len(STORING))


def tuning_gain(view: View) -> Lines:
    """The LoRA study: per cent of perplexity below the untuned model, of memory, of none, and of a wrong memory."""
    scale, rows = shown(view, ["backbone", RMT, TUNED])
    labels = ("LoRA with RMT", "LoRA, no memory", "RMT, another place's memory")
    published = STUDY[f"published-{RMT}"].printed or ZERO_SHOT
    printed = (100 * (1 - published / ZERO_SHOT), None, None)
    zero = backbone_of(rows)
    if zero is None:
        return Lines(scale, labels, (None,) * 3, printed)
    read = ((RMT, "test"), (TUNED, "test"), (RMT, "memory shuffled"))
    return Lines(
        scale,
        labels,
        tuple((fmean(gain(r, name, zero) for r in rows[row].records), 0.0) for row, name in read),
        printed,
    )


PANELS: dict[str, tuple[Callable[[View], Lines], str, str]] = {
    "figure-5": (decline, "BABILong qa1 beyond the training length", "exact match"),
    "wikitext-103": (memory_gain, "WikiText: memory against none", "perplexity lowered by (%)"),
    "memory-capacity": (pairs, "Pairs stored (the paper prints no numbers)", "pairs stored of 16"),
    "lora-wikitext-2": (tuning_gain, "LoRA study: tuned against untuned", "perplexity lowered by (%)"),
}


def figure(views: Views) -> Figure:
    """The four panels."""
    from matplotlib.lines import Line2D

    with new_figure(8.2, 5.2) as drawn:
        axes = drawn.subplots(2, 2).ravel()
        for ax, (name, (lines_of, title, unit)) in zip(axes, PANELS.items(), strict=True):
            lines = lines_of(views[name])
            (_draw_curve if name == "figure-5" else _draw_rows)(ax, lines, unit)
            ax.set_title(f"{title}\n{lines.scale + ' scale' if lines.scale else 'not run'}", fontsize=9)
        handles = [Line2D([], [], label="ours, ± 1 std over seeds", **OURS), Line2D([], [], label="the paper", **PAPER)]
        figures.draw_legend(drawn, handles, 2)
    return drawn


def _draw_curve(ax: Axes, lines: Lines, unit: str) -> None:
    x = range(len(lines.labels))
    ax.plot(x, [float("nan") if value is None else value for value in lines.paper], **PAPER)
    ours = [(i, *value) for i, value in enumerate(lines.ours) if value]
    if ours:
        at, means, errors = zip(*ours, strict=True)
        ax.errorbar(at, means, yerr=errors, capsize=3, **OURS)
    ax.set_xticks(x, lines.labels)
    ax.set(xlabel="context, times the training length", ylabel=unit, ylim=(-0.02, 1.04))


def _draw_rows(ax: Axes, lines: Lines, unit: str) -> None:
    for y, (ours, paper) in enumerate(zip(lines.ours, lines.paper, strict=True)):
        if paper is not None:
            ax.plot([paper], [y], **PAPER)
        if ours:
            ax.errorbar([ours[0]], [y], xerr=[ours[1]], capsize=3, **OURS)
    ax.set_yticks(range(len(lines.labels)), lines.labels)
    ax.set_ylim(len(lines.labels) - 0.5, -0.5)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    ax.set_xlabel(unit)


def in_words(views: Views) -> list[str]:
    """Each panel in a sentence, with its numbers."""
    said = []
    for name, (lines_of, title, unit) in PANELS.items():
        lines = lines_of(views[name])
        parts = []
        for label, ours, paper in zip(lines.labels, lines.ours, lines.paper, strict=True):
            here = "not run" if ours is None else f"ours {ours[0]:.2g}"
            parts.append(f"{label} {here}" + ("" if paper is None else f", paper {paper:.2g}"))
        said.append(f"{title}, {unit} ({lines.scale + ' scale' if lines.scale else 'not run'}): {'; '.join(parts)}.")
    return said


def headline_fragment(views: Views, folder: Path) -> str:
    """The figure for both themes; writes the drawings into `folder`. Empty if one of its artifacts has no view."""
    if not set(PANELS) <= set(views):
        return ""
    images = figures.themed_images(figure(views), folder / "headline", folder.name, " ".join(in_words(views)))
    links = ", ".join(f'<a href="artifacts/{name}.html">{name}</a>' for name in PANELS)
    caption = f"<figcaption>Ours beside the papers: {links}.</figcaption>"
    return f'<figure class="plot" tabindex="0">{images}\n{caption}</figure>\n'
