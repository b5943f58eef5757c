"""The numbers, tables and words of the algorithmic tasks: per-token accuracy of generated answers, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rmtlib.evaluation.counted import token_accuracy, token_interval, whole_answers
from rmtlib.evaluation.statistics import binomial_interval
from rmtlib.experiments.algorithmic import figure
from rmtlib.experiments.algorithmic.claims import CLAIMS
from rmtlib.experiments.algorithmic.figure import STYLES
from rmtlib.experiments.algorithmic.rows import LABELS, TABLES, TaskRow, task_row
from rmtlib.experiments.algorithmic.rules import arms
from rmtlib.experiments.algorithmic.scales import settings
from rmtlib.report.measurements import Measurement, Record, Results
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, plural, value_cell
from rmtlib.report.words import Verb

METRIC = "per-token accuracy"
WHOLE = "whole answers"
DECODED = {
    "forced": "per-token accuracy, teacher forcing",
    "released": "per-token accuracy, true first tokens of segments",
}
DIGITS = 3


def measure(record: Record) -> Iterator[Measurement]:
    """Per-token accuracy of generated answers, then whole answers and the other decodings."""
    metrics = record["metrics"]
    segments, tested = metrics["segments"], metrics["test"]
    more = {"segments": segments, "tokens": segments * metrics["segment_size"], "n": tested["generated"]["n"]}

    def accuracy(metric: str, decoding: str) -> Measurement:
        low, high = token_interval(tested[decoding])
        return Measurement.of(record, metric, token_accuracy(tested[decoding]), low=low, high=high, **more)

    yield accuracy(METRIC, "generated")
    correct, n = whole_answers(tested["generated"]), tested["generated"]["n"]
    low, high = binomial_interval(correct, n)
    yield Measurement.of(record, WHOLE, correct / n, low=low, high=high, **more)
    for decoding, metric in DECODED.items():
        yield accuracy(metric, decoding)
    yield Measurement.of(record, "training steps", sum(metrics["stage_steps"]), segments=segments)


def printed(artifact: str) -> Iterator[Measurement]:
    """The means of the authors' runs, or each of them if they are known."""
    for row in TABLES[artifact]:
        if row.single:
            for value in row.single:
                yield Measurement(artifact, row.name, METRIC, value, "authors", segments=row.segments)
        elif row.paper:
            yield Measurement(artifact, row.name, METRIC, row.paper["mean"], "authors", segments=row.segments)


def authors_text(row: TaskRow) -> str:
    """mean (least to most, runs), or the single runs."""
    if row.single:
        return ", ".join(f"{value:.3f}" for value in row.single)
    if not row.paper:
        return ""
    p = row.paper
    total = f" of {p['total']}" if p["total"] != p["runs"] else ""
    spread = f"{p['least']:.3f} to {p['most']:.3f}, " if p["runs"] > 1 else ""
    return f"{p['mean']:.3f} ({spread}{p['runs']}{total} run{'s' * (p['total'] > 1)})"


VERBS = {"": Verb("has {} less accuracy than", "has {} more accuracy than", "has an accuracy of {}")}


def label(artifact: str, arm: str, results: Results, scale: str) -> str:
    """The row of an arm in words, with its sizes at the scale."""
    row = task_row(artifact, arm.partition(":")[0])
    params = settings(row, scale, seed=0)
    return row.at(params.sizes[-1], params.model.memory_tokens or params.model.cache)


def by_scale(artifact: str, results: Results, scale: str) -> Table | None:
    """The rows that were run at one scale, in all decodings."""
    rows = results.series().get(scale)
    if not rows:
        return None
    others = [results.series(metric)[scale] for metric in (WHOLE, *DECODED.values(), "training steps")]
    body = tuple(
        (
            label(artifact, name, results, scale),
            str(series.records[0]["metrics"]["segment_size"]),
            value_cell(series.last, DIGITS),
            *(mean_text(other[name].last, 0 if i == 3 else DIGITS) for i, other in enumerate(others)),
        )
        for name, series in rows.items()
    )
    return Table(
        f"How many tokens of the answer are right, {scale} scale: mean ± standard deviation over seeds; of one run its "
        "95 % interval. Segment: its tokens. Generated: each token is read after those that the model itself has "
        "answered. Whole: samples whose every token is right so. Forced: after the true tokens. Released: generated, "
        "but the first token of each segment is the true one.",
        ("row", "segment", "generated", "whole", "forced", "released", "steps"),
        body,
        prose=("row",),
    )


def compare(artifact: str, results: Results) -> Table:
    """The authors' runs beside ours at every scale that has any."""
    scales = results.series()
    body: list[tuple[Cell, ...]] = []
    for row in TABLES[artifact]:
        ours = [rows[row.name].last if row.name in rows else None for rows in scales.values()]
        cells = [value_cell(aggregate, DIGITS, "") for aggregate in ours]
        authors = f"{row.paper['mean']:.3f}" if row.paper and not row.single else authors_text(row)
        name = row.label.replace(" of 24 symbols", "")
        body.append((name, authors, *(cells if any(cells) else ("not run",) * len(scales))))
    return Table(
        "Per-token accuracy of generated answers, the mean of the authors' test values beside ours. A row that does "
        "not say of how many symbols is of 24, at small of 12. The authors' values have the first token of every "
        "segment given, and are with teacher forcing if the answer is shorter than a segment.",
        ("row", "authors", *scales),
        tuple(body),
    )


def paper(artifact: str, results: Results) -> Table:
    """The authors' runs, and how long they were trained."""
    body = tuple((row.label, authors_text(row), f"{row.steps}k", row.name) for row in TABLES[artifact] if row.paper)
    return Table(
        "The authors' runs: test per-token accuracy, and the most steps they were trained for (batches of 32; of 128 "
        "or 256 for 120 symbols and more).",
        ("row", "accuracy", "steps", "name"),
        body,
        prose=("row", "accuracy"),
    )


def caption(artifact: str, results: Results) -> str:
    """The models at each task's most segments, at the largest scale that was run."""
    for scale, rows in [*results.series().items()][:1]:
        parts = []
        for task, size in figure.columns(artifact):
            found = {model: r for t, s, model, r in figure.in_order(rows, artifact) if (t, s) == (task, size)}
            if not found:
                continue
            most = max(curve[-1][0].segments for curve in found.values())
            said = [
                f"{LABELS[model]} {mean_text(curve[-1][1].last, 2)}"
                for model, curve in found.items()
                if curve[-1][0].segments == most
            ]
            parts.append(f"{task} in {plural(most, 'segment')}: {', '.join(said)}")
        return f"Per-token accuracy at {scale} scale. {'; '.join(parts)}"
    return "Nothing was run yet"


def report(artifact: str) -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        printed=tuple(printed(artifact)),
        styles=STYLES,
        figure=partial(figure.figure, artifact=artifact),
        alt=partial(figure.alt, artifact=artifact),
        caption=partial(caption, artifact),
        by_scale=(partial(by_scale, artifact),),
        compare=partial(compare, artifact),
        paper=partial(paper, artifact),
        claims=CLAIMS[artifact],
        arms=arms,
        label=partial(label, artifact),
        verbs=VERBS,
        paper_arms={row.name: row.paper["mean"] for row in TABLES[artifact] if row.paper},
        explore=figure.explore(artifact),
    )
