"""Tables, figure and claims of the language modelling artifacts: a value a row, over seeds, beside the paper's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rmtlib.errors import RmtlibError
from rmtlib.evaluation.statistics import mean_difference, mean_std
from rmtlib.experiments.language_modelling.rows import REFERENCES, TABLES, TableRow
from rmtlib.experiments.language_modelling.settings import Params, work
from rmtlib.report.measurements import Record, latest, slug
from rmtlib.report.tables import Cell, Link, Table
from rmtlib.runs.spec import SCALES, Row
from rmtlib.settings import from_dict

UNITS = {"enwik8": "bits per character", "wikitext-103": "perplexity"}
TEXTS = {"enwik8": "enwik8", "wikitext-2": "WikiText-2", "wikitext-103": "WikiText-103"}
DIGITS = {"enwik8": 3, "wikitext-103": 2}


@dataclass(frozen=True)
class RowRuns:
    """All runs of a row at one scale."""

    row: TableRow
    records: tuple[Record, ...]

    @property
    def values(self) -> list[float]:
        return [record["metrics"]["value"] for record in self.records]

    @property
    def mean(self) -> float:
        return mean_std(self.values)[0]

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for one run."""
        return mean_std(self.values)[1]

    @property
    def slugs(self) -> tuple[str, ...]:
        return tuple(slug(record) for record in self.records)

    @property
    def sizes(self) -> tuple[str, str, str]:
        """Cache, memory tokens and segment here, with what the test had where that is another."""
        m, tested = self.records[0]["metrics"], self.records[0]["config"]["params"]["evaluation"]
        cache, segment = (
            f"{m[name]}" + f", tested with {tested[name]}" * (tested[name] != m[name]) for name in ("cache", "segment")
        )
        return cache, str(m["memory_tokens"]), segment

    @property
    def divisor(self) -> float:
        """What the paper's segment was divided by here; the other lengths were too, and rounded."""
        return self.row.segment / self.records[0]["metrics"]["segment"]

    @property
    def corpus(self) -> str:
        """The text that was read."""
        return str(self.records[0]["config"]["params"]["corpus"])

    def training_flop(self) -> float:
        """FLOP of training and its validations, by arithmetic. Raises RmtlibError on settings of earlier code."""
        return work(from_dict(Params, self.records[0]["config"]["params"]))[0]


def mean_text(artifact: str, runs: RowRuns) -> str:
    """Mean ± standard deviation over seeds, with the digits that the paper prints."""
    digits = DIGITS[artifact]
    return f"{runs.mean:.{digits}f}" + ("" if runs.std is None else f" ± {runs.std:.{digits}f}")


def rows_by_scale(artifact: str, records: Iterable[Record]) -> dict[str, dict[str, RowRuns]]:
    """Scale -> row name -> its runs, in the table's order."""
    found: dict[str, dict[str, RowRuns]] = {}
    kept = latest(records)
    for scale in SCALES:
        for row in TABLES[artifact]:
            runs = tuple(r for r in kept if r["scale"] == scale and r["row"] == row.name)
            if runs:
                found.setdefault(scale, {})[row.name] = RowRuns(row, runs)
    return found


def corpus_note(artifact: str, runs: RowRuns) -> str:
    """What a table's caption has to say about the text."""
    if runs.corpus.startswith("synthetic"):
        return " The text is made up: nothing is claimed from it."
    if runs.corpus == artifact:
        return ""
    return f" Trained and tested on {TEXTS[runs.corpus]}, not {TEXTS[artifact]}."


class LanguageParts:
    """The parts of one artifact's page, made from its records; see `report.view.Parts`."""

    def __init__(self, artifact: str):
        self.artifact, self.unit, self.digits = artifact, UNITS[artifact], DIGITS[artifact]

    def _value(self, runs: RowRuns | None) -> Cell:
        if runs is None:
            return "not run"
        links = []
        for record in runs.records:
            m = record["metrics"]
            hint = f"seed {record['seed']}: {m['value']:.4f} over {m['tokens']} tokens"
            links.append(Link(f"s{record['seed']}", slug(record), hint))
        return (mean_text(self.artifact, runs), *links)

    def by_scale(self, records: Iterable[Record], scale: str) -> Table | None:
        """The rows that were run at one scale, with the sizes they had there."""
        found = rows_by_scale(self.artifact, records).get(scale)
        if not found:
            return None
        body = tuple(
            (runs.row.name, *runs.sizes, str(runs.records[0]["metrics"]["state_size"]), self._value(runs))
            for runs in found.values()
        )
        note = corpus_note(self.artifact, next(iter(found.values())))
        return Table(
            f"Test {self.unit} at {scale} scale: mean ± standard deviation over seeds. Cache, memory and segment are "
            f"in tokens; state is floats carried from segment to segment, per stream.{note}",
            ("row", "cache", "memory", "segment", "state", self.unit),
            body,
        )

    def _column_note(self, scale: str, runs: Mapping[str, RowRuns]) -> str:
        """How a scale's lengths and text differ from the paper's, for a caption."""
        first = next(iter(runs.values()))
        lengths = f" memory and segment are divided by {first.divisor:g} and rounded, to at least 1."
        note = lengths * (first.divisor != 1) + corpus_note(self.artifact, first)
        return f" Column {scale}:{note}" if note else ""

    def ways_to_train(self, records: Iterable[Record], scale: str) -> Table | None:
        """A row that was trained in several ways: what each costs and brings. None where there are not two."""
        found = rows_by_scale(self.artifact, records).get(scale, {})
        several = {runs.row.plain for runs in found.values() if runs.row.variant and runs.row.plain in found}
        body = []
        for runs in (runs for runs in found.values() if runs.row.plain in several):
            gap, error = mean_difference(runs.values, found[runs.row.plain].values)
            shown = f"{gap:+.{self.digits}f}" if runs.row.variant else ""
            if shown and min(len(each.values) for each in (runs, found[runs.row.plain])) > 1:
                shown += f" ± {error:.{self.digits}f}"
            cost = ""
            with suppress(RmtlibError):
                cost = f"{runs.training_flop() / found[runs.row.plain].training_flop():.2f}"
            body.append((runs.row.plain, runs.row.variant or "stored (default)", self._value(runs), shown, cost))
        if not body:
            return None
        return Table(
            f"Ways to train the same row at {scale} scale: test {self.unit}, its difference from replay of the stored "
            "memory with the standard error by the spread between seeds (none beside a single run), and the operations "
            "of training and validation, relative to that way's.",
            ("row", "way", self.unit, "difference", "operations"),
            tuple(body),
        )

    def compare(self, records: Iterable[Record], rows: Sequence[Row]) -> Table:
        """Every row of the paper's table beside what was run."""
        found = rows_by_scale(self.artifact, records)
        notes = "".join(self._column_note(scale, runs) for scale, runs in found.items())
        body = tuple(
            (
                row.label,
                row.size,
                str(row.segment),
                row.printed or "not in the table",
                *(self._value(found[scale].get(row.name)) for scale in found),
            )
            for row in TABLES[self.artifact]
        )
        nothing = ("that paper's value",) * len(found)
        body = (*((*quoted, *nothing) for quoted in REFERENCES[self.artifact]), *body)
        return Table(
            f"Test {self.unit}, the paper and ours; memory and segment are the paper's. Models, text and number of "
            f"steps differ below paper scale: compare the order of the rows, not the level.{notes}",
            ("model", "memory", "segment", "paper", *(f"ours, {scale}" for scale in found)),
            body,
        )

    def paper(self, rows: Sequence[Row]) -> Table:
        """What the paper prints, and the authors' single runs."""
        body = tuple(
            (
                row.label,
                row.size,
                str(row.segment),
                row.printed or "not in the table",
                ", ".join(map(str, row.runs)) or "none published",
                row.note,
            )
            for row in TABLES[self.artifact]
        )
        body = (*((*quoted, "", "quoted there") for quoted in REFERENCES[self.artifact]), *body)
        return Table(
            f"The paper's {self.unit}, and each run of the authors in their published file of experiment results.",
            ("model", "memory", "segment", "paper", "the authors' runs", "note"),
            body,
            prose=("the authors' runs", "note"),
        )

    def csv(self, live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
        """A line for each run, one for each printed value, and one for each of the authors' runs."""
        live = list(live)
        ids = {record["run_id"] for record in live}
        text = io.StringIO()
        fields = (
            *("source", "scale", "corpus", "row", "model", "cache", "memory_tokens", "segment", "unit"),
            *("seed", "value", "std", "validation", "tokens", "record"),
        )
        writer = csv.DictWriter(text, fields, lineterminator="\n", restval="")
        writer.writeheader()
        for source, records in (("here", live), ("published", [r for r in published if r["run_id"] not in ids])):
            for scale, found in rows_by_scale(self.artifact, records).items():
                for runs in found.values():
                    for record in runs.records:
                        m = record["metrics"]
                        about = {
                            k: m[k] for k in ("cache", "memory_tokens", "segment", "validation", "tokens", "value")
                        }
                        line = {"source": source, "scale": scale, "row": record["row"], "seed": record["seed"]}
                        line["corpus"] = record["config"]["params"]["corpus"]
                        writer.writerow(
                            line | about | {"model": runs.row.label, "unit": self.unit, "record": slug(record)}
                        )
        for row in TABLES[self.artifact]:
            about = {
                "corpus": self.artifact,
                "row": row.name,
                "model": row.label,
                "cache": row.cache,
                "memory_tokens": row.memory,
            }
            about |= {"segment": row.segment, "unit": self.unit}
            if row.printed:
                writer.writerow(about | {"source": "paper", "value": row.paper["mean"], "std": row.paper["std"] or ""})
            for value in row.runs:
                writer.writerow(about | {"source": "authors", "value": value})
        return text.getvalue()
