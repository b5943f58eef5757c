"""The long form: one `Measurement` for each number that a run measured or a paper printed, whatever the artifact.

A family of artifacts supplies `measure(record)`, which reads its records' metrics; tables, figures, claims and the CSV
are made from what it yields. A `Series` is a row at one scale; an `Aggregate` has all its runs at one x.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rmtlib.evaluation.statistics import bootstrap_interval, mean_std
from rmtlib.runs.spec import SCALES, Row

Record = Mapping[str, Any]
Origin = Literal["here", "published", "paper", "authors"]


def slug(record: Record) -> str:
    """The run's name in `runs/`, in `results/` and as an anchor of the book."""
    return f"{record['row']}-{record['scale']}-s{record['seed']}-{record['run_id']}"


def short_count(tokens: int) -> str:
    """128, 1k, 16k, 1M: binary thousands if they come out whole, as context lengths do."""
    for unit, binary, decimal in (("M", 1024**2, 10**6), ("k", 1024, 10**3)):
        if tokens >= decimal:
            size = tokens / binary if tokens % binary == 0 else tokens / decimal
            return f"{size:.3g}{unit}"
    return str(tokens)


def parse_count(text: str) -> int:
    """The tokens that a paper's "16k" or "1M" stands for."""
    return int(float(text.rstrip("kM")) * {"k": 1024, "M": 1024**2}.get(text[-1], 1))


class Measurement(NamedTuple):
    """One number: of one run (`source` here or published), or printed (paper, authors). A line of the CSV."""

    artifact: str
    row: str
    metric: str
    value: float
    source: Origin = "published"
    scale: str = ""
    seed: int | None = None
    x: float | None = None  # what it is drawn against (tokens, pairs), None if nothing
    x_trained: float | None = None  # the largest x of training
    segments: int | None = None  # of the context, and its tokens
    tokens: int | None = None
    n: int | None = None  # test samples, or scored tokens
    low: float | None = None  # 95 % interval: what a finite test set leaves open
    high: float | None = None
    std: float | None = None  # over seeds, as a paper prints it
    data: str = ""  # which text or stories
    record: str = ""

    @classmethod
    def of(cls, record: Record, metric: str, value: float, **more: Any) -> Measurement:
        """A number of this record's run."""
        about = {key: record[key] for key in ("artifact", "row", "scale", "seed")}
        return cls(**about, metric=metric, value=value, record=slug(record), **more)


@dataclass(frozen=True)
class Aggregate:
    """All runs of a row at one x."""

    runs: tuple[Measurement, ...]

    @property
    def x(self) -> float:
        return self.runs[0].x or 0

    @property
    def values(self) -> list[float]:
        return [run.value for run in self.runs]

    @property
    def mean(self) -> float:
        return mean_std(self.values)[0]

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for one run."""
        return mean_std(self.values)[1]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval: of one run its own; of the mean of several accuracies from a bootstrap over seeds and samples.

        Raises:
            ValueError: the metric has no test samples to draw from.
        """
        counts = [(round(run.value * run.n), run.n) for run in self.runs if run.n]
        if len(counts) < len(self.runs):
            raise ValueError(f"{self.runs[0].metric} has no interval")
        (first, *others) = self.runs
        if not others and first.low is not None and first.high is not None:
            return first.low, first.high
        return bootstrap_interval(counts, seed=0)


@dataclass(frozen=True)
class Series:
    """One row at one scale: a metric over x, ascending (a single aggregate if the metric has no x)."""

    row: str
    scale: str
    metric: str
    points: tuple[Aggregate, ...]
    records: tuple[Record, ...]

    @property
    def n_runs(self) -> int:
        return max(len(point.runs) for point in self.points)

    @property
    def first(self) -> Aggregate:
        return self.points[0]

    @property
    def last(self) -> Aggregate:
        return self.points[-1]

    @property
    def x_trained(self) -> float:
        return self.first.runs[0].x_trained or 0

    @property
    def at_trained_x(self) -> Aggregate:
        """The largest x that training has seen, of those tested."""
        return max((p for p in self.points if p.x <= self.x_trained), key=lambda p: p.x, default=self.first)

    def at_multiple(self, multiple: float) -> Aggregate | None:
        """The aggregate at so many times the largest x of training, which may differ from row to row."""
        return next((point for point in self.points if point.x == multiple * self.x_trained), None)

    @property
    def data(self) -> list[str]:
        """The texts or stories of its runs, each once."""
        return sorted({run.data for point in self.points for run in point.runs})

    @property
    def slugs(self) -> list[str]:
        return sorted({run.record for point in self.points for run in point.runs})


ByScale = dict[str, dict[str, Series]]  # scale, largest first -> row -> its series, in the order of the artifact's rows


def latest(records: Iterable[Record]) -> list[Record]:
    """One record for each row, scale and seed: the one that finished last."""
    kept: dict[tuple[str, str, int], Record] = {}
    for record in sorted(records, key=lambda r: r["finished"]):
        kept[record["row"], record["scale"], record["seed"]] = record
    return sorted(kept.values(), key=lambda r: (SCALES.index(r["scale"]), r["row"], r["seed"]))


class Results:
    """An artifact's records and what they measured.

    Args:
        rows: the artifact's rows, which give the order.
        measure: what one record measured; the first measurement's metric is the row's main one.
        live: records of the runs on this machine. Trials, whose scale is none of `SCALES`, are no results.
        published: records of results/; those of runs that are among `live` are left out, and at scale paper those of a
            row that `live` has in another precision.
        printed: the paper's values and the authors' own.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        measure: Callable[[Record], Iterable[Measurement]],
        live: Iterable[Record] = (),
        published: Iterable[Record] = (),
        printed: Iterable[Measurement] = (),
    ) -> None:
        self.rows, self.measure, self.printed = tuple(rows), measure, tuple(printed)
        self.live = [record for record in live if record["scale"] in SCALES]
        ids = {record["run_id"] for record in self.live}
        here = {record["row"]: record["precision"] for record in self.live if record["scale"] == "paper"}

        def shown(record: Record) -> bool:
            mixed = record["scale"] == "paper" and here.get(record["row"], record["precision"]) != record["precision"]
            return record["scale"] in SCALES and record["run_id"] not in ids and not mixed

        self.published = [record for record in published if shown(record)]

    @property
    def records(self) -> list[Record]:
        """All records, each run once."""
        return [*self.live, *self.published]

    @property
    def scales(self) -> list[str]:
        """The scales that have records, largest first."""
        present = {record["scale"] for record in self.records}
        return [scale for scale in reversed(SCALES) if scale in present]

    def at(self, scale: str) -> list[Record]:
        """The records of one scale, the latest of each run."""
        return [record for record in latest(self.records) if record["scale"] == scale]

    def series(self, metric: str | None = None, source: Origin | None = None) -> ByScale:
        """Every row's series at every scale, of one metric (None: each row's main one), from all records or one source.

        If several records have the same row, scale and seed, the latest counts.
        """
        records = {"here": self.live, "published": self.published}[source] if source else self.records
        grouped: dict[str, dict[str, list[Record]]] = {}
        order = {row.name: index for index, row in enumerate(self.rows)}
        for record in sorted(latest(records), key=lambda r: order.get(r["row"], len(order))):
            grouped.setdefault(record["scale"], {}).setdefault(record["row"], []).append(record)
        by_scale: ByScale = {}
        for scale in (scale for scale in reversed(SCALES) if scale in grouped):
            for row, runs in grouped[scale].items():
                if series := self._series(row, scale, metric, runs):
                    by_scale.setdefault(scale, {})[row] = series
        return by_scale

    def _series(self, row: str, scale: str, metric: str | None, records: Sequence[Record]) -> Series | None:
        measured = [m for record in records for m in self.measure(record)]
        name = metric or measured[0].metric
        by_x: dict[tuple[float, int], list[Measurement]] = {}
        for m in measured:
            if m.metric == name:
                by_x.setdefault((m.x or 0, m.tokens or 0), []).append(m)
        points = tuple(Aggregate(tuple(runs)) for _, runs in sorted(by_x.items()))
        return Series(row, scale, name, points, tuple(records)) if points else None

    def long_form(self) -> list[Measurement]:
        """All that was measured, run by run, then all that is printed."""
        sources: tuple[tuple[Origin, list[Record]], ...] = (("here", self.live), ("published", self.published))
        measured = [
            m._replace(source=source)
            for source, records in sources
            for record in latest(records)
            for m in self.measure(record)
        ]
        return [*measured, *self.printed]


def to_csv(measurements: Iterable[Measurement]) -> str:
    """The long form as text, a line for each measurement."""
    return csv_text(Measurement._fields, measurements)


def csv_text(header: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """Lines as CSV: ten digits of a number, nothing for None, the parts of a tuple separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        writer.writerow([_csv_cell(cell) for cell in line])
    return text.getvalue()


def _csv_cell(cell: Any) -> Any:
    if isinstance(cell, float):
        return f"{cell:.10g}"
    return " ".join(map(str, cell)) if isinstance(cell, tuple) else cell
