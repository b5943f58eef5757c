"""The numbers, tables and words of the language modelling artifacts: a value a row, over seeds, beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

from rmtlib.errors import RmtlibError
from rmtlib.evaluation.statistics import mean_difference
from rmtlib.experiments.language_modelling import figure
from rmtlib.experiments.language_modelling.claims import CLAIMS
from rmtlib.experiments.language_modelling.figure import DIGITS, TEXTS, UNITS, corpus_of
from rmtlib.experiments.language_modelling.rows import REFERENCES, TABLES, TableRow, table_row
from rmtlib.experiments.language_modelling.rules import arms
from rmtlib.experiments.language_modelling.settings import Params, work
from rmtlib.report.measurements import ByScale, Measurement, Record, Results, Series
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, value_cell
from rmtlib.report.words import Verb
from rmtlib.settings import from_dict


def measure(record: Record) -> Iterator[Measurement]:
    """The test text's bits per character or perplexity, and the validation text's."""
    metrics, unit = record["metrics"], UNITS[record["artifact"]]
    corpus = record["config"]["params"]["corpus"]
    yield Measurement.of(record, unit, metrics["value"], n=metrics["tokens"], data=corpus)
    yield Measurement.of(record, f"validation {unit}", metrics["validation"], data=corpus)
    for size in ("cache", "memory_tokens", "segment"):
        yield Measurement.of(record, f"{size.replace('_', ' ')}, tokens", metrics[size], data=corpus)


def printed(artifact: str) -> Iterator[Measurement]:
    """The printed values, and each run of the authors."""
    for row in TABLES[artifact]:
        if row.printed:
            mean, std = row.paper["mean"], row.paper["std"]
            yield Measurement(artifact, row.name, UNITS[artifact], mean, "paper", std=std, data=artifact)
        for value in row.runs:
            yield Measurement(artifact, row.name, UNITS[artifact], value, "authors", data=artifact)


def label(artifact: str, arm: str, results: Results, scale: str) -> str:
    """A row in words, with the sizes that it has at a scale."""
    return figure.label(artifact, arm, results.series().get(scale, {}).get(arm))


def _sizes(series: Series) -> tuple[str, str, str]:
    """Cache, memory tokens and segment here, with what the test had if that is another."""
    m = series.records[0]["metrics"]
    tested = series.records[0]["config"]["params"].get("evaluation", m)  # an n-gram row is tested as it is
    cache, segment = (
        f"{m[name]}" + f", tested with {tested[name]}" * (tested[name] != m[name]) for name in ("cache", "segment")
    )
    return cache, str(m["memory_tokens"]), segment


def _training_flop(series: Series) -> float:
    """FLOP of training and its validations, by arithmetic. Raises RmtlibError on settings of earlier code."""
    return work(from_dict(Params, series.records[0]["config"]["params"]))[0]


def _corpus_note(artifact: str, series: Series) -> str:
    """What a table's caption has to say about the text."""
    corpus = corpus_of(series)
    if corpus.startswith("synthetic"):
        return " The text is made up: nothing is claimed from it."
    return "" if corpus == artifact else f" Trained and tested on {TEXTS[corpus]}, not {TEXTS[artifact]}."


def _column_note(artifact: str, scale: str, rows: Mapping[str, Series]) -> str:
    """How a scale's lengths and text differ from the paper's, for a caption."""
    first = next(iter(rows.values()))
    neural = [series for name, series in rows.items() if not table_row(artifact, name).order]
    divisor = 1.0
    if neural:
        divisor = table_row(artifact, neural[0].row).segment / neural[0].records[0]["metrics"]["segment"]
    lengths = f" memory and segment are divided by {divisor:g} and rounded, to at least 1."
    note = lengths * (divisor != 1) + _corpus_note(artifact, first)
    return f" Column {scale}:{note}" if note else ""


def _better_than(artifact: str, series: Series, rows: Mapping[str, Series]) -> str:
    """The n-gram rows of the same scale that have a worse mean than this row, which is no n-gram itself."""
    n_grams = {name: other for name, other in rows.items() if table_row(artifact, name).order}
    if series.row in n_grams:
        return ""
    beaten = [name for name, other in n_grams.items() if series.first.mean < other.first.mean]
    return ", ".join(beaten) or ("no n-gram" if n_grams else "no n-gram was run")


def by_scale(artifact: str, results: Results, scale: str) -> Table | None:
    """The rows that were run at one scale, with the sizes they had there."""
    rows = results.series().get(scale)
    if not rows:
        return None
    body = tuple(
        (
            figure.label(artifact, name, s),
            *_sizes(s),
            str(s.records[0]["metrics"]["state_size"]),
            value_cell(s.first, DIGITS[artifact]),
            _better_than(artifact, s, rows),
        )
        for name, s in rows.items()
    )
    unit, note = UNITS[artifact], _corpus_note(artifact, next(iter(rows.values())))
    return Table(
        f"What each row has in state and reaches in test {unit}, {scale} scale: mean ± standard deviation over seeds. "
        "Cache, memory and segment are in tokens (an n-gram row's segment is n); state is floats carried from segment "
        f"to segment, per stream. Lower is better; the last column says which n-grams of the same training text a row "
        f"beats.{note}",
        ("row", "cache", "memory", "segment", "state", unit, "better than"),
        body,
    )


def ways_to_train(artifact: str, results: Results, scale: str) -> Table | None:
    """A row that was trained in several ways: what each costs and brings. None if there are not two."""
    series = results.series().get(scale, {})
    table = {name: table_row(artifact, name) for name in series}
    several = {row.plain for row in table.values() if row.variant and row.plain in series}
    body: list[tuple[Cell, ...]] = []
    for name, row in table.items():
        if row.plain not in several:
            continue
        this, default = series[name], series[row.plain]
        gap, error = mean_difference(this.first.values, default.first.values)
        shown = f"{gap:+.{DIGITS[artifact]}f}" if row.variant else ""
        if shown and min(this.n_runs, default.n_runs) > 1:
            shown += f" ± {error:.{DIGITS[artifact]}f}"
        cost = ""
        with suppress(RmtlibError):
            cost = f"{_training_flop(this) / _training_flop(default):.2f}"
        value = value_cell(this.first, DIGITS[artifact])
        body.append((row.plain, row.variant or "stored (default)", value, shown, cost))
    if not body:
        return None
    unit = UNITS[artifact]
    return Table(
        f"Whether another way to train the same row changes test {unit}, {scale} scale: the difference from replay of "
        "the stored memory with the standard error by the spread between seeds (none beside a single run), and the "
        "operations of training and validation, relative to that way's.",
        ("row", "way", unit, "difference", "operations"),
        tuple(body),
    )


def _trained_scales(artifact: str, results: Results) -> ByScale:
    """Every scale at which something was trained, with its rows."""
    return {scale: rows for scale, rows in results.series().items() if figure.is_trained(artifact, rows)}


def compare(artifact: str, results: Results) -> Table:
    """Every row of the paper's table beside what was run."""
    scales = _trained_scales(artifact, results)
    notes = "".join(_column_note(artifact, scale, rows) for scale, rows in scales.items())
    body: list[tuple[Cell, ...]] = [
        (*reference, *("", "that paper's value") * len(scales)) for reference in REFERENCES[artifact]
    ]
    for row in TABLES[artifact]:
        ours = [rows.get(row.name) for rows in scales.values()]
        cells = [(_sizes_here(s), value_cell(s.first if s else None, DIGITS[artifact])) for s in ours]
        body.append((*_as_printed(row), *(part for cell in cells for part in cell)))
    return Table(
        f"Whether our rows have the paper's order in test {UNITS[artifact]}; memory is in cached positions and memory "
        "tokens, segment in tokens. "
        f"Models, text and number of steps differ below paper scale: compare the order, not the level.{notes}",
        (
            *("model", "memory", "segment", "paper"),
            *(name for scale in scales for name in (f"memory / segment, {scale}", f"ours, {scale}")),
        ),
        tuple(body),
    )


def _sizes_here(series: Series | None) -> str:
    """Cache + memory tokens / segment, as the runs have them."""
    if series is None or table_row(series.records[0]["artifact"], series.row).order:
        return ""
    m = series.records[0]["metrics"]
    return f"{' + '.join(str(m[name]) for name in ('cache', 'memory_tokens') if m[name]) or 0} / {m['segment']}"


def _as_printed(row: TableRow) -> tuple[str, str, str, str]:
    return row.label, row.size, str(row.segment or row.order), row.printed or "not in the table"


def paper(artifact: str, results: Results) -> Table:
    """What the paper prints, and the authors' single runs."""
    body = tuple(
        (*_as_printed(row), ", ".join(map(str, row.runs)) or "none published", row.note) for row in TABLES[artifact]
    )
    return Table(
        f"The paper's {UNITS[artifact]}, and each run of the authors in their published file of experiment results.",
        ("model", "memory", "segment", "paper", "the authors' runs", "note"),
        (*((*quoted, "", "quoted there") for quoted in REFERENCES[artifact]), *body),
        prose=("the authors' runs", "note"),
    )


def caption(artifact: str, results: Results) -> str:
    """The best row of each kind of model, and the baseline's value, at the largest scale that was run."""
    parts = []
    for scale, series in [*_trained_scales(artifact, results).items()][:1]:
        kinds = {name: table_row(artifact, name) for name in series}
        for kind in dict.fromkeys(row.kind for row in kinds.values()):
            of_kind = [series[name] for name, row in kinds.items() if row.kind == kind and not row.variant]
            if of_kind:
                best = min(of_kind, key=lambda s: s.first.mean)
                name = figure.label(artifact, best.row, best)
                parts.append(f"{name} {mean_text(best.first, DIGITS[artifact])}")
        return f"Best {UNITS[artifact]} of each kind of model, {scale} scale: {'; '.join(parts)}"
    return "Nothing was run yet: the paper's values alone"


def report(artifact: str) -> Report:
    """All parts of the pages of enwik8 or wikitext-103."""
    return Report(
        relative=True,
        measure=measure,
        styles=figure.STYLES,
        figure=partial(figure.figure, artifact),
        alt=partial(figure.alt, artifact),
        caption=partial(caption, artifact),
        by_scale=(partial(by_scale, artifact), partial(ways_to_train, artifact)),
        compare=partial(compare, artifact),
        paper=partial(paper, artifact),
        claims=CLAIMS[artifact],
        arms=arms,
        printed=tuple(printed(artifact)),
        label=partial(label, artifact),
        verbs={"": Verb(f"lowers {UNITS[artifact]} by {{}} against", f"raises {UNITS[artifact]} by {{}} against")},
        paper_arms={row.name: row.paper["mean"] for row in TABLES[artifact] if row.paper["mean"] is not None},
    )
