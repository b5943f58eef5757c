"""The parts of the memory-capacity page: pairs stored and rewritten, as figure, description, tables and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.capacity import pairs_stored, pairs_stored_interval
from rmtlib.evaluation.statistics import mean_std
from rmtlib.experiments.capacity.artifact import MODELS, VALUES, MemoryCapacity
from rmtlib.experiments.capacity.settings import ModelConfig, Params
from rmtlib.report.figures import RC, panels
from rmtlib.report.measurements import Curve, Measurement, Point, Record, curves, latest
from rmtlib.report.tables import Cell, Link, Table
from rmtlib.runs.spec import Row
from rmtlib.settings import from_dict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "armt": ("#0072B2", "o"),
    "rmt": ("#D55E00", "s"),
    "mamba": ("#009E73", "^"),
    "prmt": ("#CC79A7", "D"),
    "armt-nogamma": ("#E69F00", "v"),
    "armt-released": ("#555555", "P"),
}
TASKS = ("remember", "rewrite")


def pairs_of(point: Point) -> int:
    """Pairs before the query: one a segment."""
    return point.segments - 1


def value_of(task: str, point: Point, accuracy: float) -> float:
    """What a task's figure shows of an accuracy: stored pairs for remember, the accuracy itself for rewrite."""
    return pairs_stored(accuracy, pairs_of(point), VALUES) if task == "remember" else accuracy


def mean_and_std(task: str, point: Point) -> tuple[float, float | None]:
    """Over seeds, of `value_of`."""
    return mean_std([value_of(task, point, run.accuracy) for run in point.runs])


def _of_task(group: Mapping[str, Curve], task: str) -> dict[str, Curve]:
    return {row.rpartition("-")[0]: curve for row, curve in group.items() if row.endswith(task)}


def figure(live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> Figure:
    """Figures 2 and 4 in one: pairs stored (left) and rewrite accuracy (right) against pairs, a row for each scale.

    Args:
        live: records of runs on this machine: solid lines, filled points.
        published: records in results/: dashed lines, hollow points.
        rows: the artifact's rows; the paper prints no numbers that could be drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = panels(live, published)
    with matplotlib.rc_context(RC):
        made = Figure(figsize=(8.2, 3.1 * max(len(shown), 1) + 0.7), layout="constrained")
        axes = made.subplots(max(len(shown), 1), 2, squeeze=False)
        for pair, (scale, now, before) in zip(axes, shown, strict=False):
            for ax, task in zip(pair, TASKS, strict=True):
                for group, line, face in ((before, "--", "white"), (now, "-", None)):
                    for model, curve in _of_task(group, task).items():
                        _draw(ax, task, model, curve, line, face)
                _finish(ax, scale, task, [*_of_task(now, task).values(), *_of_task(before, task).values()])
        models = [m for m in STYLE if any(m == r.rpartition("-")[0] for _, *both in shown for g in both for r in g)]
        handles = [Line2D([], [], color=STYLE[m][0], marker=STYLE[m][1], markersize=4, label=MODELS[m]) for m in models]
        grey: dict[str, Any] = {"color": "#555555"}
        if any(before for *_, before in shown):
            handles.append(Line2D([], [], linestyle="--", marker="o", mfc="white", label="published runs", **grey))
        handles.append(Line2D([], [], linestyle="-.", linewidth=1, label="most pairs in training", **grey))
        handles.append(Line2D([], [], linestyle=":", linewidth=1, label="all stored; chance", **grey))
        made.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return made


def _draw(ax: Axes, task: str, model: str, curve: Curve, line: str, face: str | None) -> None:
    colour, marker = STYLE.get(model, ("#444444", "x"))
    x = [pairs_of(point) for point in curve.points]
    found = [mean_and_std(task, point) for point in curve.points]
    mean, spread = [m for m, _ in found], [s or 0.0 for _, s in found]
    ax.plot(x, mean, line, color=colour, linewidth=1.8, zorder=3)
    low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    points = [(pairs_of(p), value_of(task, p, run.accuracy)) for p in curve.points for run in p.runs]
    style: dict[str, Any] = {"marker": marker, "facecolor": face or colour, "edgecolor": colour}
    xs, ys = zip(*points, strict=True)
    ax.scatter(xs, ys, s=14, linewidth=0.9, zorder=4, **style)


def _finish(ax: Axes, scale: str, task: str, drawn: Sequence[Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    points = [point for curve in drawn for point in curve.points]
    for trained in {pairs_of(curve.at_training_length) for curve in drawn}:
        ax.axvline(trained, color="#555555", linewidth=1, linestyle="-.", zorder=2)
    if task == "remember":
        most = max((pairs_of(point) for point in points), default=1)
        ax.plot([0, most], [0, most], color="#555555", linewidth=1, linestyle=":", zorder=1)
        ax.set(xlabel="pairs in the context", ylabel="pairs stored", title=f"{scale} scale, remember")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    else:
        ax.axhline(1 / VALUES, color="#555555", linewidth=1, linestyle=":", zorder=1)
        ax.set(xlabel="updates of 16 keys", ylabel="exact match", title=f"{scale} scale, rewrite", ylim=(-0.02, 1.04))
        if points:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")


def describe(live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
    """What the figure shows, for those who do not see it; from the same data."""
    text = ["Left: pairs stored against pairs in the context. Right: exact match against updates, logarithmic."]
    for scale, now, before in panels(live, published):
        for group, name in ((now, "runs on this machine"), (before, "published runs")):
            for task in TASKS:
                parts = [_words(task, model, curve) for model, curve in _of_task(group, task).items()]
                if parts:
                    text.append(f"{scale} scale, {task}, {name}: {'; '.join(parts)}.")
    return " ".join(text)


def _words(task: str, model: str, curve: Curve) -> str:
    runs = f"{curve.runs} run{'s' * (curve.runs != 1)}"
    chosen = {id(p): p for p in (curve.at_training_length, curve.points[-1])}.values()
    unit = " pairs stored of" if task == "remember" else " after"
    return f"{model} ({runs}) " + ", ".join(f"{mean_and_std(task, p)[0]:.2f}{unit} {pairs_of(p)}" for p in chosen)


def _text(task: str, point: Point) -> str:
    mean, std = mean_and_std(task, point)
    digits = 1 if task == "remember" else 2
    if std is not None:
        return f"{mean:.{digits}f} ± {std:.{digits}f}"
    low, high = (value_of(task, point, x) for x in point.interval)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _hint(task: str, run: Measurement, pairs: int) -> str:
    """What one run measured, with its own interval."""
    low, high = run.interval
    text = f"seed {run.seed}: {run.correct} of {run.n} right, {run.accuracy:.3f} [{low:.3f}, {high:.3f}]"
    if task == "remember":
        low, high = pairs_stored_interval(run.correct, run.n, pairs, VALUES)
        text += f"; {pairs_stored(run.accuracy, pairs, VALUES):.1f} [{low:.1f}, {high:.1f}] stored"
    return text


def remembered(records: Iterable[Record], scale: str) -> Table | None:
    """Pairs stored: a row for each number of pairs, a column for each model. None without records."""
    caption = "Remember: pairs stored, by the paper's estimate (below 0: worse than guessing)."
    return _by_pairs(records, scale, "remember", caption)


def rewritten(records: Iterable[Record], scale: str) -> Table | None:
    """Exact match after so many updates, as `remembered`."""
    return _by_pairs(records, scale, "rewrite", "Rewrite: exact match after so many updates of 16 keys.")


def _by_pairs(records: Iterable[Record], scale: str, task: str, caption: str) -> Table | None:
    found = _of_task(curves(records).get(scale, {}), task)
    if not found:
        return None
    numbers = sorted({pairs_of(point) for curve in found.values() for point in curve.points})
    trained = {pairs_of(curve.at_training_length) for curve in found.values()}

    def cell(curve: Curve, pairs: int) -> Cell:
        point = next((p for p in curve.points if pairs_of(p) == pairs), None)
        if point is None:
            return ""
        return (_text(task, point), *(Link(f"s{run.seed}", run.slug, _hint(task, run, pairs)) for run in point.runs))

    rows = tuple(
        (f"{n}" + (" (most trained)" if n in trained else ""), *(cell(curve, n) for curve in found.values()))
        for n in numbers
    )
    return Table(
        f"{scale.capitalize()} scale. {caption} Mean ± standard deviation over seeds; of one run its 95 % interval.",
        ("pairs", *(f"{model} ({curve.runs} run{'s' * (curve.runs != 1)})" for model, curve in found.items())),
        rows,
        prose=("pairs",),
    )


def compare(records: Iterable[Record], rows: Sequence[Row]) -> Table:
    """What the paper says of each row beside ours: at the most pairs trained, at the most tested, and the state."""
    records = list(records)
    scales, body = curves(records), []
    states = {(r["scale"], r["row"]): (r["metrics"]["state_size"], r["metrics"]["parameters"]) for r in latest(records)}
    for row in rows:
        ours = [(scale, found[row.name]) for scale, found in scales.items() if row.name in found]
        for scale, curve in ours:
            trained, last = curve.at_training_length, curve.points[-1]
            state, weights = states[scale, row.name]
            body.append((
                row.name, str(row.paper.get("said", "")), scale, f"{state:,}", f"{weights:,}",
                *(f"{_text(str(row.task), p)} of {pairs_of(p)}" for p in (trained, last)),
            ))  # fmt: skip
        if not ours:
            body.append((row.name, str(row.paper.get("said", "")), "not run", "", "", "", ""))
    return Table(
        "The paper in words, and ours: pairs stored (remember) or exact match (rewrite).",
        ("row", "paper", "scale", "state, floats", "weights", "as trained", "most tested"),
        tuple(body),
        prose=("paper", "as trained", "most tested"),
    )


def paper(rows: Sequence[Row]) -> Table:
    """What the paper says, and the sizes of its models as its released code makes them."""
    artifact = MemoryCapacity()
    said = [row for row in rows if row.paper]
    params = {row.name: artifact.config(row.name, "paper", 0).to_json()["params"] for row in said}
    models = {name: from_dict(Params, each).model for name, each in params.items()}
    body = tuple(
        (row.name, str(row.paper["said"]), row.source, f"{model.state_size:,}", f"{_weights(model):,}")
        for row, model in zip(said, models.values(), strict=True)
    )
    armt, mamba = models["armt-remember"], models["mamba-remember"].state_size
    ratio, at_32 = armt.state_size / mamba, replace(armt, d_memory=32).state_size / mamba
    return Table(
        "What the paper says; its figures are drawn and print no numbers. State and weights are those of the released "
        f"settings: ARMT's state has {ratio:.1f} times Mamba's floats, and {at_32:.1f} times with the paper's memory "
        "width of 32, where the paper has them equal.",
        ("row", "paper", "source", "state, floats", "weights"),
        body,
        prose=("paper", "source"),
    )


def _weights(model: ModelConfig) -> int:
    """How many weights the model has."""
    import torch

    from rmtlib.experiments.capacity.run import build_model

    with torch.device("meta"):
        return sum(weight.numel() for weight in build_model(model, 0).parameters())


FIELDS = ("source", "scale", "row", "pairs", "train_pairs", "seed", "correct", "n", "accuracy", "stored", "record")


def to_csv(live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
    """All that the figure shows, a line for each run and number of pairs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for scale, now, before in panels(live, published):
        for group, source in ((now, "here"), (before, "published")):
            for row, curve in group.items():
                for point in curve.points:
                    for run in point.runs:
                        line: dict[str, Any] = {"source": source, "scale": scale, "row": row, "pairs": pairs_of(point)}
                        line |= {"train_pairs": pairs_of(curve.at_training_length), "seed": run.seed, "n": run.n}
                        line |= {"correct": run.correct, "accuracy": f"{run.accuracy:.4f}", "record": run.slug}
                        line["stored"] = f"{pairs_stored(run.accuracy, pairs_of(point), VALUES):.3f}"
                        writer.writerow(line)
    return text.getvalue()
