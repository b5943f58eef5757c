"""The numbers, tables and words of the memory-capacity page: pairs stored and rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rmtlib.evaluation.capacity import pairs_stored, pairs_stored_interval
from rmtlib.evaluation.statistics import binomial_interval
from rmtlib.experiments.capacity.claims import CLAIMS
from rmtlib.experiments.capacity.figure import EXPLORE, STYLES, TASKS, alt, drawn, figure, of_task
from rmtlib.experiments.capacity.rows import LABELS, VALUES
from rmtlib.experiments.capacity.rules import arms
from rmtlib.experiments.capacity.scales import settings
from rmtlib.report.measurements import Aggregate, Measurement, Record, Results, Series, latest
from rmtlib.report.report import Report
from rmtlib.report.tables import Table, mean_text, plural, value_cell
from rmtlib.report.words import Verb

FALLS = "of exact match from the trained number of updates to ten times as many"
DIGITS = {"pairs stored": 1, "exact match": 2}


def measure(record: Record) -> Iterator[Measurement]:
    """Of remember how many pairs are stored (and the exact match it is estimated from), of rewrite the exact match.

    x is the number of pairs before the query: one a segment, so one less than there are segments.
    """
    metrics, stored = record["metrics"], []
    for entry in metrics["exact_match"]:
        correct, n, pairs = entry["correct"], entry["n"], entry["segments"] - 1
        low, high = binomial_interval(correct, n)
        exact = Measurement.of(
            record, "exact match", correct / n, x=pairs, x_trained=metrics["train_segments"] - 1,
            segments=entry["segments"], tokens=entry["tokens"], n=n, low=low, high=high,
        )  # fmt: skip
        low, high = pairs_stored_interval(correct, n, pairs, VALUES)
        estimate = pairs_stored(correct / n, pairs, VALUES)
        stored.append((exact._replace(metric="pairs stored", value=estimate, low=low, high=high), exact))
    if record["row"].endswith("-remember"):
        yield from (estimate for estimate, _ in stored)
    yield from (exact for _, exact in stored)


VERBS = {
    "": Verb("stores {} fewer pairs than", "stores {} more pairs than", "stores {} pairs"),
    "fall": Verb("loses {} less of exact match than", "loses {} more of exact match than", f"loses {{}} {FALLS}"),
    "trained": Verb("has {} less exact match than", "has {} more exact match than", "has an exact match of {}"),
    "far": Verb("has {} less exact match than", "has {} more exact match than", "has an exact match of {}"),
}


def label(arm: str, results: Results, scale: str) -> str:
    """The model of an arm."""
    return LABELS[arm.partition(":")[0].rpartition("-")[0]]


def remembered(results: Results, scale: str) -> Table | None:
    """Pairs stored: a row for each number of pairs, a column for each model."""
    return _by_pairs(results, scale, "remember", "How many pairs are stored (below 0: worse than guessing)")


def rewritten(results: Results, scale: str) -> Table | None:
    """Exact match after so many updates, as `remembered`."""
    return _by_pairs(results, scale, "rewrite", "How exact match falls after so many updates of 16 keys")


def _by_pairs(results: Results, scale: str, task: str, caption: str) -> Table | None:
    models = of_task(results.series().get(scale, {}), task)
    if not models:
        return None
    counted = "updates" if task == "rewrite" else "pairs"
    trained = {series.at_trained_x.x for series in models.values()}
    points_at = {model: {point.x: point for point in series.points} for model, series in models.items()}
    rows = tuple(
        (
            f"{x:g}" + " (most trained)" * (x in trained),
            *(value_cell(points_at[model].get(x), DIGITS[series.metric], "") for model, series in models.items()),
        )
        for x in sorted({x for points in points_at.values() for x in points})
    )
    return Table(
        f"{caption}, {scale} scale: mean ± standard deviation over seeds; of one run its 95 % interval.",
        (counted, *(_headed(model, series, len(trained) > 1) for model, series in models.items())),
        rows,
        prose=(counted,),
    )


def _headed(model: str, series: Series, apart: bool) -> str:
    """A model with its runs, and the most pairs that it was trained on where others were trained on other numbers."""
    to = f", trained to {series.at_trained_x.x:g}" * apart
    return f"{model} ({plural(series.n_runs, 'run')}{to})"


def compare(results: Results) -> Table:
    """What the paper says of each row beside ours: at the most pairs trained, at the most tested, and the state."""
    scales, body = results.series(), []
    sizes = {(r["scale"], r["row"]): r["metrics"] for r in latest(results.records)}
    for row in results.rows:
        said = str(row.paper.get("said", ""))
        ours = [(scale, rows[row.name]) for scale, rows in scales.items() if row.name in rows]
        for scale, series in ours:
            size, words = sizes[scale, row.name], said if scale == ours[0][0] else ""
            body.append((
                row.label, words, scale, f"{size['state_size']:,}", f"{size['parameters']:,}",
                *(_of_pairs(point, series.metric) for point in (series.at_trained_x, series.last)),
            ))  # fmt: skip
        if not ours:
            body.append((row.label, said, "not run", "", "", "", ""))
    return Table(
        "Whether our runs agree with the paper's words: pairs stored (remember) or exact match (rewrite).",
        ("row", "paper", "scale", "state, floats", "weights", "as trained", "most tested"),
        tuple(body),
        prose=("paper", "as trained", "most tested"),
        merged=True,
    )


def _of_pairs(point: Aggregate, metric: str) -> str:
    return f"{mean_text(point, DIGITS[metric])} of {point.x:g}"


def paper(results: Results) -> Table:
    """What the paper says, and the sizes of its models as its released code makes them."""
    from rmtlib.models.registry import size_of

    said = [row for row in results.rows if row.paper]
    models = {row.name: settings(row.name, "paper", 0).model for row in said}
    body = tuple(
        (
            row.label,
            str(row.paper["said"]),
            row.source,
            f"{model.state_size:,}",
            f"{size_of(model.model())['parameters']:,}",
        )
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


def caption(results: Results) -> str:
    """What each model stores of the most pairs and keeps after the most updates, at the largest scale that was run."""
    parts = []
    for scale, rows in [*results.series().items()][:1]:
        for task in TASKS:
            models = {LABELS[model]: series for model, series in drawn(rows, task).items()}
            if models:
                join, what = ("of", "pairs stored") if task == "remember" else ("after", "exact match after updates")
                said = (
                    f"{name} {mean_text(s.last, DIGITS[s.metric])} {join} {s.last.x:g}" for name, s in models.items()
                )
                parts.append(f"{scale} scale, {what}: {', '.join(said)}")
    paper = "In the paper ARMT stores most, RMT least, and ARMT keeps what it rewrites"
    return ". ".join([paper, *(parts or ["Nothing was run yet"])])


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(remembered, rewritten),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
        explore=EXPLORE,
    )
