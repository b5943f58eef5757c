"""The numbers, tables and words of the attention-maps page."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from rmtlib.evaluation.attention import OPERATIONS
from rmtlib.experiments.algorithmic import report as algorithmic
from rmtlib.experiments.attention.claims import CLAIMS, FIGURE
from rmtlib.experiments.attention.figure import STYLES, alt, figure, shown
from rmtlib.experiments.attention.rules import ablated, arms, by_segment, numbers, top_head
from rmtlib.report.measurements import Measurement, Record, Results
from rmtlib.report.report import Report
from rmtlib.report.tables import Table, plural, value_cell
from rmtlib.report.words import Verb

WITHOUT = "accuracy without memory"
SAID = {
    "rmt": "manages to compress the whole segment into memory tokens",
    "trxl": "mixes representations of tokens and reads multiple symbols from one cached state",
}


def measure(record: Record) -> Iterator[Measurement]:
    """The top heads' excess in each segment; how right answers are with the memory lost after each segment.

    x is the segment. Of what the claims compare, all numbers without x.
    """
    samples = record["config"]["params"]["samples"]
    for name in OPERATIONS:
        for segment, value in by_segment(record, name).items():
            yield Measurement.of(record, f"{name}: excess", value, x=segment, n=samples)
    by_place: dict[int, list[float]] = {}
    for s, _, accuracy, _ in ablated(record):
        by_place.setdefault(s, []).append(accuracy)
    for s, values in by_place.items():
        yield Measurement.of(record, WITHOUT, fmean(values), x=s, n=samples)
    for name, value in numbers(record).items():
        yield Measurement.of(record, name, value, n=samples)


SYMBOL = Verb(
    "finds {} fewer symbols behind each memory vector it reads than",
    "finds {} more symbols behind each memory vector it reads than",
)
VERBS = {
    "solved": Verb(alone="answers {} of the symbols right"),
    "write": Verb(alone="writes the input to memory, {} above chance"),
    "carry": Verb(alone="carries memory from the read to the write block, {} above chance"),
    "read": Verb(alone="reads its memory, {} above chance"),
    "read before": Verb("reads memory {} less than", "reads memory {} more than"),
    "cache": Verb(alone="reads its cache to answer, {} above chance"),
    "lost": Verb(alone="answers {} of the symbols right if memory is lost between input and answer"),
    "harmed": Verb(alone="loses {} of the symbols if memory is lost before their input was read"),
    "symbols a read key": SYMBOL,
}
WHILE = {"read before": " while it takes in input", "read": " while it answers"}


def label(arm: str, results: Results, scale: str) -> str:
    """The row of an arm in words, with its sizes at the scale."""
    row, _, number = arm.partition(": ")
    return algorithmic.label("algorithmic", row, results, scale) + WHILE.get(number, "")


def by_operation(results: Results, scale: str) -> Table | None:
    """What the claims compare: a row for each row, a column for each number."""
    columns = ("solved", "write", "carry", "read before", "read", "cache", "lost", "harmed")
    series = {name: results.series(name).get(scale, {}) for name in columns}
    rows = series["solved"]
    if not rows:
        return None
    body = tuple(
        (
            label(row, results, scale),
            *(value_cell(found.first if (found := series[name].get(row)) else None, 2, "") for name in columns),
        )
        for row in rows
    )
    return Table(
        f"What the heads do with memory, {scale} scale: mean ± standard deviation over seeds. Write to cache: excess "
        "of the head that does most of it, 0 at chance and 1 if it looks at nothing else; write and carry in segments "
        "of input, read and cache in those that answer, read before in those of input. Lost: accuracy if memory is "
        "lost between input and answer. Harmed: what is lost of accuracy if it is lost before the input.",
        ("row", *columns),
        body,
    )


def top_heads(results: Results, scale: str) -> Table | None:
    """Which heads they are, seed by seed, as layer.head."""
    body = []
    for record in results.records:
        if record["scale"] == scale:
            found = [top_head(record["metrics"]["operations"], name) for name in OPERATIONS]
            named = ("" if head is None else f"{head[0] + 1}.{head[1] + 1}" for head in found)
            body.append((f"{label(record['row'], results, scale)}, seed {record['seed']}", *named))
    if not body:
        return None
    return Table(f"The heads (layer.head) that do most of it, {scale} scale.", ("run", *OPERATIONS), tuple(body))


def compare(results: Results) -> Table:
    """Ours, row by row; the paper's words, which are all that it has, are a table of their own (`paper`)."""
    body = []
    for row in results.rows:
        ours = [(scale, arms([r for r in results.records if r["scale"] == scale])) for scale in results.scales]
        some = [(scale, found) for scale, found in ours if f"{row.name}: solved" in found]
        for scale, found in some:
            mean = {name: fmean(found[f"{row.name}: {name}"]) for name in ("solved", "lost")}
            reads = next(f"{row.name}: {name}" for name in ("read", "cache") if f"{row.name}: {name}" in found)
            cells = (f"{fmean(found[reads]):+.2f}", f"{mean['solved']:.2f}", f"{mean['lost']:.2f}")
            body.append((label(row.name, results, scale), scale, *cells))
        if not some:
            body.append((label(row.name, results, "paper"), "not run", "", "", ""))
    return Table(
        "How far above chance the top head reads memory or cache, accuracy of "
        "generated answers, and accuracy if memory is lost between input and answer. The paper prints no numbers.",
        ("row", "scale", "reads", "accuracy", "memory lost"),
        tuple(body),
    )


def paper(results: Results) -> Table:
    """The paper's words; its maps are drawn and print no numbers."""
    body = tuple((model, f"“{words}”", FIGURE) for model, words in zip(("RMT", "Tr-XL"), SAID.values(), strict=True))
    return Table(
        "What the paper says; its maps print no numbers.", ("model", "paper", "source"), body, prose=("paper",)
    )


IN_CAPTION = 4  # rows; the table has all


def caption(results: Results) -> str:
    """Where memory is written and read, and what is left without it, at the largest scale that was run."""
    scale, rows = shown(results)
    parts = []
    for row, records in list(rows.items())[:IN_CAPTION]:
        found = [numbers(record) for record in records]
        mean = {name: fmean(run[name] for run in found) for name in found[0]}
        did = "writes {write:+.2f} and reads {read:+.2f}" if "write" in mean else "reads its cache {cache:+.2f}"
        parts.append(
            f"{label(row, results, scale)} {did.format(**mean)} above chance, is right in {mean['solved']:.2f} and "
            f"without memory in {mean['lost']:.2f} ({plural(len(found), 'run')})"
        )
    if not parts:
        return "Nothing was run yet"
    return f"Frames mark writing (orange), carrying (green) and reading (blue). At {scale} scale {'; '.join(parts)}"


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(by_operation, top_heads),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
    )
