"""The figure of a language modelling artifact, and its description: values row by row, the paper's, and training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.experiments.language_modelling.report import TEXTS, UNITS, RowRuns, mean_text, rows_by_scale
from rmtlib.experiments.language_modelling.rows import TABLES
from rmtlib.experiments.registry import get_artifact
from rmtlib.report.measurements import Record
from rmtlib.runs.spec import SCALES, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

STYLE = {  # Okabe and Ito's palette, and markers that differ as well
    "Baseline": ("#444444", "o"),
    "MT": ("#CC79A7", "D"),
    "Tr-XL": ("#0072B2", "s"),
    "RMT": ("#D55E00", "^"),
    "Tr-XL + RMT": ("#009E73", "v"),
}


def figure(artifact: str, live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> Figure:
    """For each scale: test value row by row, the paper's values of the same rows, and validation in training."""
    import matplotlib
    from matplotlib.figure import Figure

    from rmtlib.report.figures import RC

    shown = _panels(artifact, live, published) or [("", {}, {})]
    heights = [max(1.6, 0.22 * len(now | before or TABLES[artifact]) + 0.9) for _, now, before in shown]
    ratios = [height for each in heights for height in (each, 2.4)]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.2, sum(ratios) + 0.6), layout="constrained")
        grid = figure.add_gridspec(2 * len(shown), 2, height_ratios=ratios)
        for place, (scale, now, before) in enumerate(shown):
            cells = (grid[2 * place, 0], grid[2 * place, 1], grid[2 * place + 1, :])
            ours, paper, training = (figure.add_subplot(cell) for cell in cells)
            names = [row.name for row in TABLES[artifact] if row.name in (now | before)]
            names = names or [row.name for row in TABLES[artifact]]
            _values(ours, names, now, before)
            _published(artifact, paper, names)
            ours.set_title(f"{scale} scale{_other_text(artifact, now | before)}" if scale else "nothing run yet")
            paper.set_title("the paper, same rows")
            for ax in (ours, paper):
                ax.set_xlabel(f"test {UNITS[artifact]}")
            drawn = in_training(artifact, names)
            _training(training, drawn, now, before)
            training.set_title("validation in training" + ("" if drawn == names else f", {len(drawn)} of the rows"))
            training.set_ylabel(UNITS[artifact])
        handles = _handles({row.kind for row in TABLES[artifact]})
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _other_text(artifact: str, rows: Mapping[str, RowRuns]) -> str:
    """The text that runs were trained on, where it is not the paper's."""
    corpus = next(iter(rows.values())).corpus
    return "" if corpus == artifact else f", on {TEXTS.get(corpus, corpus)}"


def in_training(artifact: str, names: Sequence[str]) -> list[str]:
    """The rows whose training is drawn: of `names` the default ones of the small scale, else the first few."""
    default = get_artifact(artifact).default_rows("small")
    return [name for name in names if name in default] or list(names[: len(default)])


def _handles(kinds: Collection[str]) -> list[Line2D]:
    """The legend: a colour and marker for each kind of model, filled for runs of this machine."""
    from matplotlib.lines import Line2D

    styles = [(kind, colour, marker, colour) for kind, (colour, marker) in STYLE.items() if kind in kinds]
    styles += [("run here", "#555555", "o", "#555555"), ("published run", "#555555", "o", "white")]
    return [Line2D([], [], color=c, marker=m, mfc=face, linestyle="", label=name) for name, c, m, face in styles]


def _panels(artifact: str, live: Iterable[Record], published: Iterable[Record]) -> list[tuple[str, dict, dict]]:
    live = list(live)
    ids = {record["run_id"] for record in live}
    now = rows_by_scale(artifact, live)
    before = rows_by_scale(artifact, [r for r in published if r["run_id"] not in ids])
    return [(s, now.get(s, {}), before.get(s, {})) for s in SCALES if s in now or s in before]


def _rows_axis(ax: Axes, names: Sequence[str], labels: bool) -> None:
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names if labels else [""] * len(names))


def _values(ax: Axes, names: Sequence[str], now: Mapping[str, RowRuns], before: Mapping[str, RowRuns]) -> None:
    for group, face in ((before, "white"), (now, None)):
        for y, name in enumerate(names):
            if name in group:
                runs = group[name]
                colour, marker = STYLE[runs.row.kind]
                ax.errorbar(runs.mean, y, xerr=runs.std or 0.0, color=colour, capsize=3, linewidth=1.4, zorder=2)
                style: dict[str, Any] = {"marker": marker, "facecolor": face or colour, "edgecolor": colour}
                ax.scatter(runs.values, [y] * len(runs.values), s=22, zorder=3, **style)
    _rows_axis(ax, names, labels=True)


def _published(artifact: str, ax: Axes, names: Sequence[str]) -> None:
    table = {row.name: row for row in TABLES[artifact]}
    for y, name in enumerate(names):
        row = table[name]
        colour, marker = STYLE[row.kind]
        if row.paper["mean"] is None:
            continue
        ax.errorbar(row.paper["mean"], y, xerr=row.paper["std"] or 0.0, color=colour, capsize=3, marker=marker, ms=4)
        if row.runs:
            ax.scatter(row.runs, [y] * len(row.runs), s=10, facecolor="white", edgecolor=colour, zorder=3)
    ax.set_facecolor("#f6f6f6")
    _rows_axis(ax, names, labels=False)


def _training(ax: Axes, names: Sequence[str], now: Mapping[str, RowRuns], before: Mapping[str, RowRuns]) -> None:
    last: dict[str, list[float]] = {}
    for group, line in ((before, "--"), (now, "-")):
        for runs in (group[name] for name in names if name in group):
            colour, marker = STYLE[runs.row.kind]
            for record in runs.records:
                points = [point for point in record["curves"]["validation"] if point[1] is not None]
                if points:
                    ax.plot(*zip(*points, strict=True), line, color=colour, marker=marker, ms=2.5, lw=1, alpha=0.8)
                    last.setdefault(runs.row.name, []).append(points[-1][1])
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="y", which="both", labelsize=7)
    ax.set_xlabel("segments read per stream")
    kinds = {runs.row.name: runs.row.kind for group in (before, now) for runs in group.values()}
    bottom, top = ax.get_ylim()
    places = {name: log(fmean(values)) for name, values in last.items()}
    for name, place in apart(places, 0.075 * log(top / bottom)).items():
        colour, _ = STYLE[kinds[name]]
        ax.text(1.01, exp(place), name, transform=ax.get_yaxis_transform(), color=colour, fontsize=7, va="center")


def apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """Places for labels `gap` apart, in order: those that would collide are spread about their centre."""
    blocks: list[list[str]] = []

    def end(block: list[str], side: int) -> float:
        return fmean(places[name] for name in block) + side * (len(block) - 1) / 2 * gap

    for name in sorted(places, key=places.__getitem__):
        blocks.append([name])
        while len(blocks) > 1 and end(blocks[-1], -1) - end(blocks[-2], 1) < gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return {name: end(block, -1) + i * gap for block in blocks for i, name in enumerate(block)}


def describe(artifact: str, live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = [f"Test {UNITS[artifact]} row by row, the paper's values of the same rows, and validation during training."]
    for scale, now, before in _panels(artifact, live, published):
        for group, name in ((now, "runs on this machine"), (before, "published runs")):
            if group:
                each = "; ".join(
                    f"{runs.row.name} {mean_text(artifact, runs)} ({(n := len(runs.values))} run{'s' * (n > 1)})"
                    for runs in group.values()
                )
                text.append(f"{scale} scale{_other_text(artifact, group)}, {name}: {each}.")
    printed = "; ".join(f"{row.name} {row.printed}" for row in TABLES[artifact] if row.printed)
    return " ".join([*text, f"The paper: {printed}."])
