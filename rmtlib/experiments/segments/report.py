"""The numbers, tables and words of the lm-segments page: bits per byte by segment, and what history is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rmtlib.experiments.segments.claims import CLAIMS
from rmtlib.experiments.segments.figure import BITS, EXPLORE, GAIN, OFF, STYLES, SWAPPED, alt, drawn, figure
from rmtlib.experiments.segments.rows import LABELS
from rmtlib.experiments.segments.rules import arms, curve
from rmtlib.experiments.segments.scales import settings
from rmtlib.report.measurements import Aggregate, Measurement, Record, Results, Series
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, value_cell
from rmtlib.report.words import Verb

DIGITS = 3


def measure(record: Record) -> Iterator[Measurement]:
    """Bits per byte of each segment; what they gain over no history, with the own and with another memory."""
    metrics, text = record["metrics"], record["config"]["params"]["text"]
    size, last = metrics["segment_size"], metrics["train_segments"]
    own, swapped = curve(record), curve(record, "swapped_bits_per_byte")

    def points(metric: str, values: Mapping[int, float]) -> Iterator[Measurement]:
        for segment, value in values.items():
            about: dict[str, Any] = {"x": segment, "x_trained": last, "segments": segment, "tokens": segment * size}
            yield Measurement.of(record, metric, value, n=metrics["tokens"], data=text, **about)

    off = metrics["memory_off"]["bits_per_byte"]
    yield from points(BITS, own)
    yield Measurement.of(record, OFF, off, x_trained=last, n=metrics["tokens"], data=text)
    yield from points(GAIN, {segment: own[1] - value for segment, value in own.items()})
    yield from points(SWAPPED, {segment: own[1] - value for segment, value in swapped.items()})


LESS = Verb("lowers bits per byte by {} against", "raises bits per byte by {} against")
VERBS = {
    **dict.fromkeys(("within", *(f"segment {segment}" for segment in range(2, 16))), LESS),
    "gain beyond": Verb(
        "gains {} less beyond the trained segments than", "gains {} more beyond the trained segments than"
    ),
    "worth of more": Verb("brings {} bits per byte less than", "brings {} bits per byte more than"),
}
NAMES = {"backbone": "the backbone", "backbone-window": "the backbone over eight segments"}
ARMS = {
    "within": "",
    "off": " with its memory emptied",
    "swapped": " with the memory of another place",
    "worth": " is worth at the last segment",
    "worth of one": " after one segment",
    "worth of more": " after more segments",
    "gain beyond": "",
}


def label(arm: str, results: Results, scale: str) -> str:
    """The model of an arm, and which of its numbers."""
    row, _, number = arm.partition(": ")
    memory = "what the memory of " if number == "worth" else ""
    return f"{memory}{NAMES.get(row, LABELS[row])}{ARMS.get(number, f' on {number}')}"


def by_segment(results: Results, scale: str) -> Table | None:
    """Bits per byte: a row for each segment, a column for each model."""
    rows = results.series(BITS).get(scale)
    if not rows:
        return None
    at = {row: {point.x: point for point in series.points} for row, series in rows.items()}
    trained = {series.x_trained for series in rows.values()}
    body = tuple(
        (f"{x:g}" + " (last trained)" * (x in trained), *(value_cell(at[row].get(x), DIGITS) for row in rows))
        for x in sorted({x for points in at.values() for x in points})
    )
    return Table(
        f"Bits per byte of the same test segments, read as the first segment, as the second and so on, {scale} scale: "
        f"mean ± standard deviation over seeds. Lower is better.{_text_note(rows)}",
        ("segment", *(LABELS[row] for row in rows)),
        body,
        prose=("segment",),
    )


def _text_note(rows: Mapping[str, Series]) -> str:
    text = next(iter(rows.values())).records[0]["config"]["params"]["text"]
    return " The text is made up: nothing is claimed from it." if text == "synthetic" else ""


def memories(results: Results, scale: str) -> Table | None:
    """Each model with its memory, without it, and with that of another place, at the last trained segment."""
    own, off, swapped = (results.series(metric).get(scale, {}) for metric in (BITS, OFF, SWAPPED))
    if not own:
        return None
    body = []
    for row, series in drawn(own).items():
        record, gained = series.records[0], series.at_trained_x
        other = swapped[row].at_trained_x if row in swapped else None
        body.append((
            LABELS[row], f"{record['metrics']['state_size']:,}",
            value_cell(off[row].first, DIGITS), value_cell(gained, DIGITS),
            "no memory" if other is None else _minus(off[row].first, other),
        ))  # fmt: skip
    return Table(
        f"Whether it is what was stored that helps, {scale} scale: bits per byte of the last segment of training with "
        "memory and earlier text taken away, with them, and with the memory of another place of the text. State is "
        "floats carried from segment to segment.",
        ("row", "state", "off", "own", "swapped"),
        tuple(body),
    )


def _minus(level: Aggregate, gain: Aggregate) -> Cell:
    """The mean of level less gain, run by run."""
    values = [a - b for a, b in zip(level.values, gain.values, strict=True)]
    shifted = Aggregate(tuple(run._replace(value=v) for run, v in zip(gain.runs, values, strict=True)))
    return value_cell(shifted, DIGITS)


def compare(results: Results) -> Table:
    """What the paper says of each row beside ours: without history, at the last segment of training and of all."""
    scales, body = results.series(BITS), []
    for row in results.rows:
        said = str(row.paper.get("said", "not in the paper"))
        ours = [(scale, rows[row.name]) for scale, rows in scales.items() if row.name in rows]
        for scale, series in ours:
            points, words = (series.first, series.at_trained_x, series.last), said if scale == ours[0][0] else ""
            body.append((row.label, words, scale, *(f"{mean_text(p, DIGITS)} (segment {p.x:g})" for p in points)))
        if not ours:
            body.append((row.label, said, "not run", "", "", ""))
    return Table(
        "Whether our runs agree with the paper's words, in bits per byte. Models and text differ below paper scale: "
        "compare the curves, not their level.",
        ("row", "paper", "scale", "no history", "as trained", "longest"),
        tuple(body),
        prose=("paper", "no history", "as trained", "longest"),
        merged=True,
    )


def paper(results: Results) -> Table:
    """What the paper says, and the sizes of its models as its released code makes them."""
    body = []
    for row in results.rows:
        if row.paper:
            model = settings(row.name, "paper", 0).model
            sizes = (str(model.memory_tokens), str(model.d_memory or ""), f"{model.state_size:,}")
            body.append((row.label, str(row.paper["said"]), row.source, *sizes))
    return Table(
        "What the paper says; its figure is drawn and prints no numbers. Memory tokens, memory width and state "
        "(floats) are those of the released script's settings.",
        ("row", "paper", "source", "memory", "width", "state"),
        tuple(body),
        prose=("paper", "source"),
    )


def caption(results: Results) -> str:
    """What each model gains by the last segment of training and by the last of all, at the largest scale run."""
    for scale, rows in [*results.series(GAIN).items()][:1]:
        parts = [
            f"{LABELS[row]} {s.at_trained_x.mean:.3f} by segment {s.at_trained_x.x:g}, "
            f"{s.last.mean:.3f} by {s.last.x:g}"
            for row, s in drawn(rows).items()
            if row != "backbone"
        ]
        if parts:
            return f"Bits per byte that history gains ({scale} scale): {'; '.join(parts)}"
    return "Nothing was run yet"


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(by_segment, memories),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
        explore=EXPLORE,
    )
