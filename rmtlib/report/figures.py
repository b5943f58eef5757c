"""The figures, each with a description of itself that is made from the same data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtlib.report.measurements import (
    PAPER_TRAIN_TOKENS,
    Curve,
    Record,
    curves,
    paper_points,
    short_count,
)
from rmtlib.runs.spec import SCALES, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinct under every common colour blindness. The markers differ as well.
TASK_STYLE = {
    "qa1": ("#0072B2", "o"),
    "qa2": ("#D55E00", "s"),
    "qa3": ("#009E73", "^"),
    "qa4": ("#CC79A7", "D"),
    "qa5": ("#E69F00", "v"),
}
RC: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "figure.facecolor": "white",
}
Panels = list[tuple[str, dict[str, Curve], dict[str, Curve]]]


def panels(live: Iterable[Record], published: Iterable[Record]) -> Panels:
    """(scale, live curves, published curves) of each scale that has any. A published copy of a live run is left out."""
    live = list(live)
    ids = {record["run_id"] for record in live}
    now = curves(live)
    before = curves(record for record in published if record["run_id"] not in ids)
    return [(scale, now.get(scale, {}), before.get(scale, {})) for scale in SCALES if scale in now or scale in before]


def figure_5(live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> Figure:
    """Exact match against context length (BABILong, Figure 5): a panel for each scale, and one for the paper.

    Args:
        live: records of runs on this machine: solid lines, filled points.
        published: records in results/: dashed lines, hollow points.
        rows: the artifact's rows; their `paper` holds the published accuracies.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = panels(live, published)
    count = len(shown) + 1
    columns = min(count, 2)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(4.1 * columns, 3.0 * -(-count // columns) + 0.7), layout="constrained")
        axes = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=True).ravel()
        for ax, (scale, now, before) in zip(axes, shown, strict=False):
            _scale_panel(ax, scale, now, before)
        _paper_panel(axes[len(shown)], rows)
        for ax in axes[count:]:
            ax.remove()
        for ax in axes[:count]:
            ax.set_ylim(-0.02, 1.04)
            ax.set_xlabel("context length in tokens")
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel("exact match")
        tasks = [row.name for row in rows if row.paper] + [t for _, *both in shown for group in both for t in group]
        figure.legend(
            handles=_legend(dict.fromkeys(tasks), shown),
            loc="outside lower center",
            ncols=6 if columns > 1 else 4,
            frameon=False,
            fontsize=8,
        )
    return figure


def _scale_panel(ax: Axes, scale: str, now: dict[str, Curve], before: dict[str, Curve]) -> None:
    groups = [(before, "--", "white"), (now, "-", None)]
    train = sorted({curve.train_tokens for group, *_ in groups for curve in group.values()})
    for group, line, face in groups:
        for task, curve in group.items():
            colour, marker = TASK_STYLE.get(task, ("#444444", "x"))
            x = [point.tokens for point in curve.points]
            mean = [point.mean for point in curve.points]
            spread = [point.std or 0.0 for point in curve.points]
            ax.plot(x, mean, line, color=colour, linewidth=1.8, zorder=3)
            ax.fill_between(
                x,
                [max(m - s, 0) for m, s in zip(mean, spread, strict=True)],
                [min(m + s, 1) for m, s in zip(mean, spread, strict=True)],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            ax.scatter(
                [point.tokens for point in curve.points for _ in point.runs],
                [run.accuracy for point in curve.points for run in point.runs],
                s=14,
                marker=marker,
                facecolor=face or colour,
                edgecolor=colour,
                linewidth=0.9,
                alpha=0.85,
                zorder=4,
            )
            if curve.recency is not None:
                ax.axhline(curve.recency, color=colour, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for tokens in train:
        ax.axvline(tokens, color="#555555", linewidth=1, linestyle="-.", zorder=2)
        if len(train) > 1:
            tasks = sorted({c.task for group, *_ in groups for c in group.values() if c.train_tokens == tokens})
            ax.annotate(
                "\n".join(tasks), (tokens, 0.0), (2, 0), textcoords="offset points", fontsize=6.5, color="#555555"
            )
    lengths = sorted({p.tokens for group, *_ in groups for curve in group.values() for p in curve.points})
    _context_axis(ax, lengths)
    ax.set_title(
        f"{scale} scale: trained up to {', '.join(short_count(t) for t in train)} tokens\n"
        f"{_stories([curve for group, *_ in groups for curve in group.values()])}"
    )


def _stories(shown: Sequence[Curve]) -> str:
    """Where a panel's stories come from: "stories: bAbI's files; simulated: qa3"."""
    if all(curve.simulated == {True} for curve in shown):
        return "stories: simulated"
    simulated = [c.task + " (in part)" * (len(c.simulated) > 1) for c in shown if True in c.simulated]
    return "stories: bAbI's files" + (f"; simulated: {', '.join(dict.fromkeys(simulated))}" if simulated else "")


def _paper_panel(ax: Axes, rows: Sequence[Row]) -> None:
    lengths: set[int] = set()
    for row in rows:
        points = paper_points(row)
        if points:
            colour, marker = TASK_STYLE.get(row.name, ("#444444", "x"))
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.2, alpha=0.75)
            lengths.update(x)
    ax.axvline(PAPER_TRAIN_TOKENS, color="#555555", linewidth=1, linestyle="-.", zorder=2)
    ax.set_facecolor("#f6f6f6")
    _context_axis(ax, sorted(lengths))
    ax.set_title(f"paper (Table 4): GPT-2, trained up to {short_count(PAPER_TRAIN_TOKENS)}")


def _context_axis(ax: Axes, lengths: Sequence[int]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    ax.set_xscale("log", base=2)
    shown = lengths[:: -(-len(lengths) // 8)] if lengths else []
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([short_count(tokens) for tokens in shown])


def _legend(tasks: Iterable[str], shown: Panels) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for task in tasks:
        colour, marker = TASK_STYLE.get(task, ("#444444", "x"))
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4, label=task))
    grey = "#555555"
    if shown:
        handles.append(Patch(color=grey, alpha=0.25, label="± 1 std over seeds"))
    if any(now for _, now, _ in shown):
        handles.append(Line2D([], [], color=grey, marker="o", markersize=4, label="runs here"))
    if any(before for _, _, before in shown):
        handles.append(
            Line2D([], [], color=grey, linestyle="--", marker="o", mfc="white", markersize=4, label="published runs")
        )
    handles.append(Line2D([], [], color=grey, linestyle="-.", linewidth=1, label="training length"))
    if any(c.recency is not None for _, *both in shown for group in both for c in group.values()):
        handles.append(
            Line2D([], [], color=grey, linestyle=(0, (1, 2)), linewidth=1, label="naming the most recent place")
        )
    return handles


def figure_5_alt(live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Exact match against context length in tokens, on a logarithmic axis."]
    for scale, now, before in panels(live, published):
        for group, name in ((now, "runs on this machine"), (before, "published runs")):
            if group:
                tasks = "; ".join(_describe(curve) for curve in group.values())
                text.append(f"Panel {scale} scale, {name}, {_stories(list(group.values()))}: {tasks}.")
    parts = []
    for row in rows:
        points = paper_points(row)
        if points:
            first, last = points[0], points[-1]
            parts.append(
                f"{row.name} from {first[1]:.2f} at {short_count(first[0])} to {last[1]:.2f} at {short_count(last[0])}"
            )
    if parts:
        text.append(
            f"Panel of the paper's values, GPT-2 trained up to {short_count(PAPER_TRAIN_TOKENS)}: {'; '.join(parts)}."
        )
    return " ".join(text)


def _describe(curve: Curve) -> str:
    first, last, trained = curve.points[0], curve.points[-1], curve.at_training_length
    runs = f"{curve.runs} run" + "s" * (curve.runs != 1)
    parts = [f"{first.mean:.2f} at {short_count(first.tokens)}"]
    if trained is not first:
        parts.append(f"{trained.mean:.2f} at the training length {short_count(trained.tokens)}")
    if last is not trained:
        parts.append(f"{last.mean:.2f} at {short_count(last.tokens)}")
    return f"{curve.task} ({runs}) {', '.join(parts)}"


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as PNG and SVG; returns the two paths. Equal figures give equal files."""
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ending) for ending in (".png", ".svg")]
    figure.savefig(paths[0], dpi=200)
    with matplotlib.rc_context({"svg.hashsalt": "rmtlib"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
