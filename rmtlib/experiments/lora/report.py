"""The numbers, tables and words of the lora-wikitext-2 page: both protocols, and what of the gain is memory."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from rmtlib.experiments.lora.claims import CLAIMS
from rmtlib.experiments.lora.figure import STYLES, alt, backbone_of, figure, gain
from rmtlib.experiments.lora.rows import STUDY, ZERO_SHOT, Study
from rmtlib.experiments.lora.rules import RMT, SHARE, TUNED, arms
from rmtlib.report.measurements import Measurement, Record, Results, Series
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, value_cell
from rmtlib.report.words import Verb

ARTIFACT = "lora-wikitext-2"
ABLATIONS = ("memory off", "memory shuffled", "memory other")
WINDOWS = ("window of 2 segments", "window of 4 segments")
LAST, NOTEBOOK = "validation, last segment", ("notebook, raw", "notebook, words")
AVERAGES = ("window losses", "window perplexities", "sums over 100")


def measure(record: Record) -> Iterator[Measurement]:
    """Bits per byte of the raw test text, then every reading's perplexity and bits per byte."""
    readings = record["metrics"]["readings"]
    texts = {each["name"]: each["text"] for each in record["config"]["params"]["readings"]}
    for name in ("test", *(name for name in readings if name != "test")):
        reading = readings[name]
        about = {"n": reading["tokens"], "data": texts[name]}
        prefix = "" if name == "test" else f"{name}: "
        for key, metric in (
            ("bits_per_byte", "bits per byte"),
            ("perplexity", "perplexity"),
            ("word_perplexity", "word perplexity"),
        ):
            if key in reading:
                yield Measurement.of(record, prefix + metric, reading[key], **about)
        for average, value in reading.get("study_averages", {}).items():
            yield Measurement.of(record, f"{prefix}perplexity, {average}", value, **about)


def printed() -> Iterator[Measurement]:
    """The study's printed perplexities."""
    for row in STUDY.values():
        if row.printed is not None:
            yield Measurement(ARTIFACT, row.name, "perplexity", row.printed, "paper", data="wikitext-2")


MEMORY = {"off": "no memory", "shuffled": "the memory of another place", "other": "another text's memory"}
VERBS = {
    "": Verb("lowers bits per byte by {} against", "raises bits per byte by {} against"),
    **{
        f"own less {key}": Verb(
            f"has {{}} bits per byte less with its own memory than with {whose}",
            f"has {{}} bits per byte more with its own memory than with {whose}",
            "",
        )
        for key, whose in MEMORY.items()
    },
    "of zero-shot": Verb(alone="has {} of the untuned backbone's perplexity"),
    "notebook of zero-shot": Verb(alone="has {} of the untuned backbone's perplexity, which is read on another text"),
}
PAPER_ARMS = {f"{RMT}: of zero-shot": SHARE, f"published-{RMT}: notebook of zero-shot": SHARE}


def label(arm: str, results: Results, scale: str) -> str:
    """The row of an arm in words; sizes other than 2 segments and 4 memory tokens are said."""
    study = STUDY[arm.partition(":")[0]]
    if study.memory == "none" or study.segments == 1:
        return study.label
    sizes = [f"{study.segments} segments"] * (study.segments != 2) + [f"{study.tokens} memory tokens"] * (
        study.tokens != 4
    )
    how = {"lora": "LoRA", "full": "full tuning"}[study.tuning]
    about = f" ({', '.join(sizes)})" if sizes else ""
    return f"{how} with {study.memory.upper()}{about}{' as published' * study.published}"


def controlled(results: Results, scale: str) -> Table | None:
    """One raw test text, equal training tokens: every row in three units, and with other memory than its own."""
    others = tuple(f"{name}: bits per byte" for name in (*ABLATIONS, *WINDOWS))
    metrics = ("bits per byte", "perplexity", "word perplexity", *others)
    by_metric = {metric: results.series(metric).get(scale, {}) for metric in metrics}
    rows = {name: s for name, s in by_metric["bits per byte"].items() if not STUDY[name].published}
    if not rows:
        return None
    body = tuple(
        (
            STUDY[name].label,
            f"{series.records[0]['metrics']['trained_parameters']:,}",
            value_cell(series.first, 4),
            _plain(by_metric["perplexity"].get(name), 2),
            _plain(by_metric["word perplexity"].get(name), 1),
            *(_plain(by_metric[metric].get(name), 4) for metric in others),
        )
        for name, series in rows.items()
    )
    first = next(iter(rows.values())).records[0]["config"]["params"]["readings"][0]
    return Table(
        f"Whether memory is used, {scale} scale: the test text ({first['text']}) in windows as trained, and what the "
        "same model makes of it with no memory, with that of another place, and with that of another text. Of rows "
        "without memory: full attention over windows of 2 and 4 segments. All but the perplexities are bits per byte: "
        "mean ± standard deviation over seeds. Lower is better.",
        (
            "row", "weights trained", "bits per byte", "token perplexity", "word perplexity", "memory off",
            "memory shuffled", "another text's memory", "window of 2", "window of 4",
        ),
        body,
    )  # fmt: skip


def _plain(series: Series | None, digits: int) -> str:
    return "" if series is None else mean_text(series.first, digits)


def shares(results: Results, scale: str) -> Table | None:
    """How much of the gain over the backbone, zero-shot, tuning alone brings, and how much memory adds."""
    rows = results.series().get(scale, {})
    zero = backbone_of(rows)
    if zero is None or TUNED not in rows:
        return None
    tuned = fmean(gain(record, "test", zero) for record in rows[TUNED].records)
    body: list[tuple[Cell, ...]] = []
    for name, series in rows.items():
        if STUDY[name].memory == "none" or STUDY[name].published:
            continue
        own = fmean(gain(record, "test", zero) for record in series.records)
        lost = "not passed on"
        if STUDY[name].segments > 1:
            lost = f"{own - fmean(gain(record, 'memory shuffled', zero) for record in series.records):+.1f}"
        body.append((STUDY[name].label, f"{own:.1f} %", f"{tuned:.1f} %", f"{own - tuned:+.1f}", lost))
    if not body:
        return None
    return Table(
        f"How much of the gain is memory, {scale} scale: perplexity below the backbone's, zero-shot, on the same raw "
        "text; what LoRA without memory reaches with as many training tokens; the difference, of which memory vectors "
        "that are not passed on have their part too; and what is lost, in the same per cent, if the memory is that of "
        "another place of the text.",
        ("row", "gain", "tuning alone", "beyond tuning", "lost with shuffled memory"),
        tuple(body),
    )


def by_segment(results: Results, scale: str) -> Table | None:
    """Nats a token in each segment of a window, with the own memory and with none."""
    rows = {
        name: series
        for name, series in results.series().get(scale, {}).items()
        if STUDY[name].segments > 1 and STUDY[name].memory != "none" and not STUDY[name].published
    }
    body: list[tuple[Cell, ...]] = []
    most = max((STUDY[name].segments for name in rows), default=0)
    for name, series in rows.items():
        own, off = (_segment_means(series, reading) for reading in ("test", "memory off"))
        cells = [f"{a:.4f} ({b:.4f})" for a, b in zip(own, off, strict=True)]
        body.append((STUDY[name].label, *cells, *[""] * (most - len(cells))))
    if not body:
        return None
    header = ("row", *(f"segment {i + 1}" for i in range(most)))
    return Table(
        f"Whether later segments gain from memory, {scale} scale: nats a token in each segment of a window, in "
        "brackets with no memory. Columns are about different parts of the text: compare the two numbers of a cell.",
        header,
        tuple(body),
    )


def _segment_means(series: Series, reading: str) -> list[float]:
    """Nats a token of each segment, on average over seeds."""
    parts = [record["metrics"]["readings"][reading]["by_segment"] for record in series.records]
    return [fmean(nats / count for nats, count in runs) for runs in zip(*parts, strict=True)]


def protocols(results: Results, scale: str) -> Table | None:
    """The study's protocol: its readings, its averages, and the same models on the raw text of the other protocol."""
    columns = (*(f"{name}: perplexity" for name in NOTEBOOK), f"{LAST}: perplexity")
    columns += (*(f"{LAST}: perplexity, {average}" for average in AVERAGES), "perplexity")
    by_metric = {metric: results.series(metric).get(scale, {}) for metric in columns}
    rows = by_metric[columns[0]]
    if not rows:
        return None
    body = tuple(
        (
            STUDY[name].label,
            f"{STUDY[name].printed}" if STUDY[name].printed else "",
            *(value_cell(by_metric[m][name].first, 2) if name in by_metric[m] else "" for m in columns),
        )
        for name in rows
    )
    return Table(
        f"What the study's way to evaluate makes of the same models, {scale} scale: token perplexity. Its notebook "
        "reads windows that stand alone, of raw or word-level text; its trainer the last segments of the validation "
        "text, which also chose the weights, and which its scripts average in other ways; at the right the controlled "
        "protocol's raw test text.",
        (
            "row", "the study", "notebook, raw", "notebook, words", "last segments", *AVERAGES, "raw test text",
        ),
        body,
    )  # fmt: skip


def compare(results: Results) -> Table:
    """Every row that the study prints beside what was run, by both protocols."""
    scales = results.series()
    notebook, raw = results.series("notebook, words: perplexity"), results.series("perplexity")
    zero = results.series("notebook, raw: perplexity")
    body: list[tuple[Cell, ...]] = []
    for row in STUDY.values():
        if row.printed is None:
            continue
        instead = Study("lora", "rmt", 2, row.tokens) if row.table == "Table 2" else None
        twin = instead.name if instead else row.name.removeprefix("published-")
        cells: list[Cell] = []
        for scale in scales:
            published = (zero if row.name == "backbone" else notebook).get(scale, {}).get(row.name)
            mine = raw.get(scale, {}).get(twin)
            cells.append(value_cell(published.first if published else None))
            cells.append(value_cell(mine.first if mine else None))
        body.append((row.label, f"{row.printed:.2f}", *cells))
    heads = [f"ours, {scale}, {protocol}" for scale in scales for protocol in ("as published", "controlled")]
    return Table(
        "Whether the study's order is found: token perplexity. As published: windows of word-level text, the "
        "backbone's of raw text. Controlled: raw text for every row. For the study's Table 2 (full tuning, 5 segments) "
        "no such model is tuned; there stands LoRA on 2 segments with as many memory tokens. Backbone, tokeniser and "
        "length of training differ below paper scale: compare the order, not the level.",
        ("row", "the study", *heads),
        tuple(body),
    )


def paper(results: Results) -> Table:
    """What the study prints."""
    body = tuple(
        (row.label, f"{row.printed:.2f}", f"{100 * (1 - row.printed / ZERO_SHOT):.0f} %", row.table)
        for row in STUDY.values()
        if row.printed is not None
    )
    return Table(
        "The study's perplexities, called validation perplexity there, and how far below zero-shot GPT-2's they are.",
        ("row", "perplexity", "below GPT-2", "source"),
        body,
    )


def caption(results: Results) -> str:
    """The gain of tuning and of memory, at the largest scale that was run."""
    for scale, rows in [*results.series().items()][:1]:
        zero = backbone_of(rows)
        if zero is None or TUNED not in rows or RMT not in rows:
            break
        parts = {name: fmean(gain(r, "test", zero) for r in rows[name].records) for name in (TUNED, RMT)}
        other = fmean(gain(r, "memory shuffled", zero) for r in rows[RMT].records)
        return (
            f"Perplexity below zero-shot ({scale} scale): LoRA without memory {parts[TUNED]:.1f} %, with RMT "
            f"{parts[RMT]:.1f} %, with RMT and another place's memory {other:.1f} %"
        )
    return "Nothing was run yet that tells memory from tuning"


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(controlled, shares, by_segment, protocols),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
        paper_arms=PAPER_ARMS,
        printed=tuple(printed()),
    )
