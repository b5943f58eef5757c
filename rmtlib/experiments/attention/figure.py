"""The figure of attention-maps: one sample's maps over its segments, all heads, and answers without memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from rmtlib.evaluation.operations import OPERATIONS, unpack_weights
from rmtlib.experiments.attention.drawing import draw_heads, draw_map
from rmtlib.experiments.attention.rules import ablated, excess, first_answer, numbers, short_title, title_of
from rmtlib.report.figures import BLUE, GREY, RED, Style, new_figure, style_of
from rmtlib.report.measurements import Record, Results, latest
from rmtlib.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

STYLES: Mapping[str, Style] = {"rmt": RED, "trxl": BLUE}
COLUMNS = 4  # maps side by side; rows with more segments are shown by their heads alone
LINES = 2  # rows whose maps are drawn, the first ones; the heads of all stand below
PANELS = 4  # of answers without memory, side by side


def model_of(row: str) -> str:
    """rmt of reverse-2-rmt-24."""
    return row.split("-")[2]


def shown(results: Results) -> tuple[str, dict[str, list[Record]]]:
    """The largest scale that was run, and the records of each of its rows, lowest seed first."""
    for scale, rows in [*results.series().items()][:1]:
        records = [record for record in latest(results.records) if record["scale"] == scale]
        return scale, {row: [record for record in records if record["row"] == row] for row in rows}
    return "", {}


def mapped_rows(rows: Mapping[str, Sequence[Record]]) -> dict[str, Record]:
    """The rows whose maps are drawn, each with the record that they are of."""
    few = [(row, records[0]) for row, records in rows.items() if records[0]["metrics"]["segments"] <= COLUMNS]
    return dict(few[:LINES])


def figure(results: Results) -> Figure:
    """Maps and heads of each row's first seed; answers of all seeds."""
    scale, rows = shown(results)
    mapped = mapped_rows(rows)
    lines, last = len(mapped), -(-max(len(rows), 1) // PANELS)
    heads = [strip for records in rows.values() for strip in strips(records[0])]
    heights = [2.1] * lines + ([0.14 * len(heads) + 1.0, 1.6 * last] if rows else [1.5])
    with new_figure(8.2, sum(heights)) as figure:
        if not rows:
            figure.text(0.5, 0.5, "not run", ha="center", va="center", color=GREY)
            return figure
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, record in zip(parts, mapped.values(), strict=False):
            _draw_maps(part, record, f"{title_of(record)} ({scale} scale, seed {record['seed']})")
        _draw_all_heads(parts[-2], heads, next(iter(rows.values()))[0])
        axes = parts[-1].subplots(last, PANELS, squeeze=False, sharey=True).flatten()
        for ax, records in zip(axes, rows.values(), strict=False):
            _draw_ablation(ax, records)
        for ax in axes[len(rows) :]:
            ax.set_axis_off()
        parts[-1].suptitle("Accuracy of answers if the memory after a segment is lost (dotted: a guess)", fontsize=9)
        parts[-1].supxlabel("memory lost after segment", fontsize=8)
    return figure


def strips(record: Record) -> list[tuple[str, np.ndarray]]:
    """(label, excess of all heads): writing and carrying before the first answer, reading from it on."""
    found: list[tuple[str, np.ndarray]] = []
    for name in OPERATIONS:
        before = name in ("write", "carry")
        parts = [
            of
            for s, of in excess(record["metrics"]["operations"], name).items()
            if (s < first_answer(record)) == before and (name != "carry" or s > 1)
        ]
        if parts:
            found.append((name if found else f"{short_title(record)}: {name}", np.mean(parts, axis=0).flatten()))
    return found


def chosen_maps(record: Record) -> dict[int, Mapping[str, Any]]:
    """Segment -> the map to show: of what writes where the input is, of what reads where answers are."""
    found: dict[int, Mapping[str, Any]] = {}
    for one in record["metrics"]["sample"]["maps"]:
        answers = one["segment"] >= first_answer(record)
        if one["operation"] in (("read", "cache") if answers else ("write", "cache")):
            found.setdefault(one["segment"], one)
    return found


def weights_of(one: Mapping[str, Any]) -> np.ndarray:
    """The weights (T, K) of a stored map."""
    cache, *new = one["blocks"]
    return unpack_weights(one["weights"], sum(new), cache + sum(new))


def _draw_maps(part: SubFigure, record: Record, title: str) -> None:
    part.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
    maps, answering = chosen_maps(record), first_answer(record)
    for s, ax in enumerate(part.subplots(1, COLUMNS), start=1):
        if s > record["metrics"]["segments"]:
            ax.set_axis_off()
            continue
        said = "answers" if s >= answering else "input"
        if s not in maps:
            ax.set_axis_off()
            ax.text(0.5, 0.5, f"segment {s}: {said}\nno cache yet", ha="center", va="center", fontsize=8, color=GREY)
            continue
        one = maps[s]
        draw_map(ax, weights_of(one), one["blocks"])
        does = {"write": "writes", "read": "reads", "cache": "reads the cache"}[one["operation"]]
        ax.set_title(
            f"segment {s}: {said}\nhead {one['layer']}.{one['head']} {does}", fontsize=7.5, fontweight="normal"
        )


def _draw_all_heads(part: SubFigure, heads: Sequence[tuple[str, np.ndarray]], record: Record) -> None:
    ax = part.subplots()
    image = draw_heads(ax, heads, record["config"]["params"]["training"]["model"]["n_heads"])
    ax.set_title("Excess of every head: 0 at chance, 1 if it looks at nothing else", fontsize=9, fontweight="normal")
    part.colorbar(image, ax=ax, shrink=0.9, label="excess")


def _draw_ablation(ax: Axes, records: Sequence[Record]) -> None:
    """A group of bars for each place at which the memory is lost; a bar for each segment that answers."""
    metrics = records[0]["metrics"]
    answering, segments = first_answer(records[0]), metrics["segments"]
    colour, width = style_of(STYLES, model_of(records[0]["row"])).colour, 0.8 / (segments - answering + 1)
    for t in range(answering, segments + 1):
        runs = [
            [of[t - 1] / _answers(record, t) for of in record["metrics"]["ablation"]["correct"]] for record in records
        ]
        x = np.arange(segments) + width * (t - answering - (segments - answering) / 2)
        alpha = 1.0 - 0.55 * (segments - t) / max(segments - answering, 1)
        ax.bar(x, np.mean(runs, axis=0), width * 0.92, color=colour, alpha=alpha, label=f"{t}")
        for values in runs:
            ax.scatter(x, values, s=5, color=GREY, zorder=4)
    ax.axhline(metrics["chance"], color=GREY, linewidth=1, linestyle=":")
    ax.set_axisbelow(True)
    ax.set_xticks(range(segments), ["never", *(f"{s}" for s in range(1, segments))])
    ax.set_ylim(0, 1.7)
    ax.set_yticks([0, 0.5, 1])
    ax.set_title(short_title(records[0]), fontsize=8)
    ax.tick_params(labelsize=7)
    if segments > answering:
        few: dict[str, Any] = {"columnspacing": 0.8, "handlelength": 1.0, "handletextpad": 0.4, "title_fontsize": 6}
        ax.legend(title="answers of segment", fontsize=6, frameon=False, loc="upper right", ncols=4, **few)


def _answers(record: Record, t: int) -> int:
    return int(record["metrics"]["ablation"]["answers"][t - 1])


def alt(results: Results) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    scale, rows = shown(results)
    text = [
        "Attention maps of one sample over its segments, with frames around what is written to memory, carried and "
        "read; a square for each head, red above chance; bars of accuracy if memory is lost."
    ]
    for row, records in rows.items():
        parts = [
            f"segment {s}: head {one['layer']}.{one['head']} ({one['operation']})"
            for s, one in chosen_maps(records[0]).items()
            if row in mapped_rows(rows)
        ]
        found = [numbers(record) for record in records]
        said = [
            f"{name} {fmean(run[name] for run in found):+.2f}"
            for name in ("write", "carry", "read", "cache")
            if name in found[0]
        ]
        lost = fmean(accuracy for record in records for *_, accuracy, _ in ablated(record))
        text.append(
            f"{title_of(records[0])} ({scale} scale, {plural(len(records), 'run')}): top heads' excess "
            f"{', '.join(said)}; accuracy {fmean(run['solved'] for run in found):.2f}, with the memory lost before an "
            f"answer {lost:.2f} on average" + (f"; maps of {'; '.join(parts)}." if parts else ".")
        )
    return " ".join(text)
