"""The numbers, tables and words of the page on reading time."""

from __future__ import annotations

from collections.abc import Iterator

from rmtlib.experiments.babilong_time.claims import CLAIMS
from rmtlib.experiments.babilong_time.figure import (
    FASTEST,
    FLOOR,
    GROWTH,
    MEMORY,
    SECONDS,
    SLOPE,
    SPEED,
    STYLES,
    alt,
    figure,
)
from rmtlib.experiments.babilong_time.numbers import contexts, floor_share, memory_growth, time_slope
from rmtlib.experiments.babilong_time.rows import LENGTHS, MINUTES, PAPER_SAMPLES, name_of
from rmtlib.experiments.babilong_time.rules import PAPER_SLOPE, arms
from rmtlib.report.measurements import Aggregate, Measurement, Record, Results, short_count
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Link, Table
from rmtlib.report.words import Verb

PAPER_MACHINE = "one A100 with 80 GB"
VERBS = {
    SLOPE: Verb(alone="takes time that grows as the length to the power of {}"),
    GROWTH: Verb(alone="grows in memory by {} of its peak over the last step"),
    "log seconds": Verb(
        less="is faster by {} (in logs of seconds) than", more="is slower by {} (in logs of seconds) than"
    ),
}


def measure(record: Record) -> Iterator[Measurement]:
    """At every length (x) seconds, tokens a second, share of the floor and memory; then how time and memory grow."""
    metrics = record["metrics"]
    for context in contexts(metrics):
        here = {"x": context.tokens, "tokens": context.tokens}
        yield Measurement.of(record, SECONDS, context.seconds, **here)
        yield Measurement.of(record, FASTEST, context.fastest, **here)
        yield Measurement.of(record, SPEED, context.speed, **here)
        yield Measurement.of(record, FLOOR, floor_share(metrics, context), **here)
        yield Measurement.of(record, MEMORY, context.peak_bytes / 1e6, **here)
    yield Measurement.of(record, SLOPE, time_slope(metrics))
    yield Measurement.of(record, GROWTH, memory_growth(metrics))


def printed() -> Iterator[Measurement]:
    """Table 3, in minutes for a thousand samples: a unit that nothing here is drawn in."""
    for name, minutes in MINUTES.items():
        tokens = LENGTHS[name]
        what = f"minutes for {PAPER_SAMPLES:,} samples on {PAPER_MACHINE}"
        yield Measurement("babilong-time", "rmt", what, minutes, "paper", x=tokens, tokens=tokens)
    yield Measurement("babilong-time", "rmt", SLOPE, PAPER_SLOPE, "paper")


def _machines(results: Results, scale: str) -> str:
    found = {
        f"{record['hardware']['gpu'] or record['hardware']['cpu']}, "
        f"{record['hardware'].get('threads') or 1} thread(s), {record['precision']}"
        for record in results.at(scale)
    }
    return "; ".join(sorted(found))


def _cell(point: Aggregate, unit: str) -> Cell:
    links = (Link(f"s{run.seed}", run.record, f"seed {run.seed}: {run.value:.4g} {unit}") for run in point.runs)
    spread = "" if point.std is None else f" ± {point.std:.2g}"
    return (f"{point.mean:.3g}{spread}", *links)


def at_lengths(results: Results, scale: str) -> Table | None:
    """Seconds, tokens a second, share of the floor and memory of one scale: a line for each row and length."""
    seconds = results.series(SECONDS).get(scale)
    if not seconds:
        return None
    others = [results.series(metric)[scale] for metric in (FASTEST, SPEED, FLOOR, MEMORY)]
    body: list[tuple[Cell, ...]] = []
    for row, series in seconds.items():
        for i, point in enumerate(series.points):
            fastest, speed, floor, memory = (other[row].points[i] for other in others)
            cells = (
                f"{min(fastest.values):.3g}",
                f"{speed.mean:,.0f}",
                f"{100 * floor.mean:.0f} %",
                f"{memory.mean:,.0f}",
            )
            body.append((name_of(row), short_count(int(point.x)), _cell(point, "s"), *cells))
    return Table(
        f"Time and memory of reading, {scale} scale, on {_machines(results, scale)}. Seconds are for one sample, the "
        "building of it included: the median of a process's rounds, mean ± standard deviation over processes. The "
        "floor is the time of the model's arithmetic at the speed of a large matrix product, as a share of the time "
        "taken. Memory is the process's peak so far, on a GPU the GPU's, with what Python and torch take.",
        ("row", "tokens", "seconds a sample", "fastest round", "tokens a second", "floor", "peak memory, MB"),
        tuple(body),
        prose=("row",),
        merged=True,
    )


def compare(results: Results) -> Table:
    """How time grows, in the paper and here: the one number that two machines have in common."""
    slopes, growths = results.series(SLOPE), results.series(GROWTH)
    body: list[tuple[Cell, ...]] = [
        ("paper: RMT on GPT-2", PAPER_MACHINE, ", ".join(MINUTES), f"{PAPER_SLOPE:.2f}", "not in the paper")
    ]
    for scale, rows in slopes.items():
        for row, series in rows.items():
            lengths = results.series(SECONDS)[scale][row].points
            growth = growths[scale][row].first
            body.append(
                (
                    f"{name_of(row)}, {scale}",
                    _machines(results, scale),
                    ", ".join(short_count(int(point.x)) for point in lengths),
                    _cell(series.first, "as the power of the length"),
                    f"{100 * growth.mean:.1f} %",
                )
            )
    return Table(
        "How time and memory grow with the length. Seconds of other machines, models and programs do not compare. A "
        "slope of one is time proportional to the length; less means that short contexts are read at a "
        "lower speed.",
        ("row", "machine", "lengths", "slope of log time over log length", "memory, last step"),
        tuple(body),
        prose=("row", "machine"),
    )


def paper(results: Results) -> Table:
    """Table 3 as printed."""
    return Table(
        f"BABILong, Table 3: minutes for {PAPER_SAMPLES:,} samples of RMT on {PAPER_MACHINE}, with data processing. "
        "How many samples were read at once is not said.",
        ("context", *MINUTES),
        (("minutes", *(f"{value:g}" for value in MINUTES.values())),),
    )


def caption(results: Results) -> str:
    """Of each row that reads one sample at a time, at the largest scale, the shortest and the longest context."""
    for scale, rows in [*results.series(SECONDS).items()][:1]:
        said = ", ".join(
            f"{name_of(row)} {series.first.mean:.3g} s at {short_count(int(series.first.x))} and "
            f"{series.last.mean:.3g} s at {short_count(int(series.last.x))}"
            for row, series in rows.items()
            if not row.endswith("-batch")
        )
        return f"Seconds a sample on {_machines(results, scale)} ({scale} scale): {said or 'batches alone were run'}"
    return "Nothing was run yet: the paper's minutes alone"


def label(arm: str, results: Results, scale: str) -> str:
    """The model, and how it reads if not one sample at a time."""
    return name_of(arm.partition(": ")[0])


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(at_lengths,),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        printed=tuple(printed()),
        label=label,
        verbs=VERBS,
        paper_arms={"rmt: slope": PAPER_SLOPE},
    )
