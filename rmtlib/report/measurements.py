"""Records of one artifact, sorted into curves: exact match against context length, task by task and scale by scale."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rmtlib.evaluation.statistics import binomial_interval, bootstrap_interval, mean_std
from rmtlib.runs.spec import SCALES, Row

Record = Mapping[str, Any]

PAPER_TRAIN_TOKENS = 16 * 1024  # 32 segments of 512 (BABILong, appendix C)


def slug(record: Record) -> str:
    """The run's name in `runs/`, in `results/` and as an anchor of the book."""
    return f"{record['row']}-{record['scale']}-s{record['seed']}-{record['run_id']}"


def short_count(tokens: int) -> str:
    """128, 1k, 16k, 1M: binary thousands where they come out whole, as context lengths do."""
    for unit, binary, decimal in (("M", 1024**2, 10**6), ("k", 1024, 10**3)):
        if tokens >= decimal:
            size = tokens / binary if tokens % binary == 0 else tokens / decimal
            return f"{size:.3g}{unit}"
    return str(tokens)


def parse_count(text: str) -> int:
    """The tokens that a paper's "16k" or "1M" stands for."""
    return int(float(text.rstrip("kM")) * {"k": 1024, "M": 1024**2}.get(text[-1], 1))


class Measurement(NamedTuple):
    """One run at one context length."""

    slug: str
    seed: int
    correct: int
    n: int
    simulated: bool  # its texts come from a simulator, not from published files

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of this run's accuracy: what a finite test set leaves open."""
        return binomial_interval(self.correct, self.n)


class Point(NamedTuple):
    """All runs at one context length."""

    tokens: int
    segments: int
    runs: tuple[Measurement, ...]

    @property
    def mean(self) -> float:
        return mean_std([run.accuracy for run in self.runs])[0]

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for one run."""
        return mean_std([run.accuracy for run in self.runs])[1]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean, from a bootstrap over seeds and over samples within them."""
        if len(self.runs) == 1:
            return self.runs[0].interval
        return bootstrap_interval([(run.correct, run.n) for run in self.runs], seed=0)


@dataclass(frozen=True)
class Curve:
    """One task at one scale. Points ascend in context length."""

    task: str
    scale: str
    train_tokens: int
    points: tuple[Point, ...]
    recency: float | None = None  # accuracy of answering with the most recent place, if the records have it

    @property
    def runs(self) -> int:
        return max(len(point.runs) for point in self.points)

    @property
    def simulated(self) -> set[bool]:
        """Whether the runs' stories come from the simulator; both where runs differ."""
        return {run.simulated for point in self.points for run in point.runs}

    @property
    def slugs(self) -> tuple[str, ...]:
        return tuple(sorted({run.slug for point in self.points for run in point.runs}))

    def at(self, multiple: float) -> Point | None:
        """The point at so many times the training length; tasks may have been trained to different lengths."""
        return next((point for point in self.points if point.tokens == multiple * self.train_tokens), None)

    def multiple(self, point: Point) -> float:
        """The point's length over the training length."""
        return point.tokens / self.train_tokens

    @property
    def at_training_length(self) -> Point:
        """The longest context that training has seen."""
        return max((p for p in self.points if p.tokens <= self.train_tokens), default=self.points[0])


def latest(records: Iterable[Record]) -> list[Record]:
    """One record for each row, scale and seed: the one that finished last."""
    kept: dict[tuple[str, str, int], Record] = {}
    for record in sorted(records, key=lambda r: r["finished"]):
        kept[record["row"], record["scale"], record["seed"]] = record
    return sorted(kept.values(), key=lambda r: (SCALES.index(r["scale"]), r["row"], r["seed"]))


def curves(records: Iterable[Record]) -> dict[str, dict[str, Curve]]:
    """Scale -> task -> curve, in a fixed order."""
    grouped: dict[str, dict[str, list[Record]]] = {}
    for record in latest(records):
        grouped.setdefault(record["scale"], {}).setdefault(record["row"], []).append(record)
    return {
        scale: {task: _curve(task, scale, runs) for task, runs in tasks.items()} for scale, tasks in grouped.items()
    }


def _curve(task: str, scale: str, records: Sequence[Record]) -> Curve:
    measured: dict[tuple[int, int], list[Measurement]] = {}
    for record in records:
        simulated = any(each.get("source") == "simulator" for each in record["data"])
        for entry in record["metrics"]["exact_match"]:
            measured.setdefault((entry["tokens"], entry["segments"]), []).append(
                Measurement(slug(record), record["seed"], entry["correct"], entry["n"], simulated)
            )
    points = tuple(Point(tokens, segments, tuple(runs)) for (tokens, segments), runs in sorted(measured.items()))
    metrics = records[0]["metrics"]
    per_segment = points[0].tokens / points[0].segments
    recency = [value for r in records if (value := r["metrics"].get("recency_accuracy")) is not None]
    return Curve(
        task,
        scale,
        round(metrics["train_segments"] * per_segment),
        points,
        sum(recency) / len(recency) if recency else None,
    )


def paper_points(row: Row) -> list[tuple[int, float]]:
    """A row's published accuracies as (tokens, accuracy), ascending; the case without background is left out."""
    points = [(parse_count(length), value) for length, value in row.paper.items()]
    return sorted((tokens, value) for tokens, value in points if tokens)
