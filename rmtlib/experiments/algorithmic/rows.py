"""The rows of the algorithmic tasks: model, task and segments, with the authors' runs.

Segments are counted as they are. The released code cuts by `torch.chunk`, so that what its table of retrieval calls 3
segments are 2 of 5 tokens, and its 4 are 3 (`data.algorithmic.chunks`); the published name stands in the label.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rmtlib.report.words import counted
from rmtlib.runs.spec import Row

SHORT_CSV = "the authors' short_synthetic+MT.csv (booydar/LM-RMT)"
LONG_CSV = "the authors' long_copy_reverse.csv (booydar/LM-RMT)"

Model = Literal["baseline", "mt", "trxl", "rmt"]
LABELS: Mapping[str, str] = {"baseline": "Baseline", "mt": "MT", "trxl": "Tr-XL", "rmt": "RMT"}
VARIANTS: Mapping[str, str] = {
    "": "",
    "detached": "no gradient passes between segments",
    "carried": "the cache is not reset between training samples, as in the released code",
}


@dataclass(frozen=True)
class Authors:
    """The authors' runs of a row: test per-token accuracy, as far as their file has values (`runs` of `total`)."""

    runs: int
    mean: float
    least: float
    most: float
    total: int


def runs(count: int, mean: float, least: float, most: float, total: int | None = None) -> Authors:
    """A line of their table."""
    return Authors(count, mean, least, most, total or count)


@dataclass(frozen=True)
class TaskRow:
    """A model on a task.

    Attributes:
        memory: memory tokens of MT and RMT, cache of Tr-XL.
        size: symbols or pairs.
        steps: thousands of steps that it was trained for, the most if runs differ.
        published: the number of segments by which the authors' table calls it, if it is another.
        single: the authors' single runs, if they are known.
    """

    task: str
    segments: int
    model: Model
    memory: int = 0
    authors: Authors | None = None
    steps: int = 400
    size: int = 24
    published: int | None = None
    variant: str = ""
    single: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """e.g. copy-3-rmt-24, reverse-2-baseline, copy240-6-rmt-60, reverse-2-rmt-24-detached."""
        size = "" if self.size in (4, 24) else str(self.size)
        parts = [f"{self.task}{size}", str(self.segments), self.model]
        parts += [str(self.memory)] * bool(self.memory) + [self.variant] * bool(self.variant)
        return "-".join(parts)

    @property
    def label(self) -> str:
        """The row in words."""
        what = "pairs" if self.task == "retrieval" else "symbols"
        words = f"{LABELS[self.model]}, {self.task} of {self.size} {what}, {self.segments} segment"
        words += "s" * (self.segments > 1)
        words += f" (published as {self.published})" if self.published else ""
        words += f", {'cache' if self.model == 'trxl' else 'memory'} {self.memory}" if self.memory else ""
        return words + (f"; {VARIANTS[self.variant]}" if self.variant else "")

    def at(self, size: int, memory: int) -> str:
        """The row in words with the sizes of a scale: RMT with memory 24, copy of 24 symbols in three segments."""
        what = "pair" if self.task == "retrieval" else "symbol"
        passed = f" with {'cache' if self.model == 'trxl' else 'memory'} {memory}" if memory else ""
        variant = f" ({VARIANTS[self.variant]})" if self.variant else ""
        task = f"{self.task} of {size} {what}{'s' * (size > 1)} in {counted(self.segments, 'segment')}"
        return f"{LABELS[self.model]}{passed}{variant}, {task}"

    @property
    def paper(self) -> dict[str, Any]:
        """{"mean", "least", "most", "runs", "total", "single"} of the authors' runs; nothing if there are none."""
        if self.single:
            values = self.single
            summed = runs(len(values), sum(values) / len(values), min(values), max(values))
        elif self.authors:
            summed = self.authors
        else:
            return {}
        named = {name: getattr(summed, name) for name in ("mean", "least", "most", "runs", "total")}
        return named | {"single": list(self.single)}


def _copy(segments: int, model: Model, memory: int = 0, authors: Authors | None = None, steps: int = 400) -> TaskRow:
    return TaskRow("copy", segments, model, memory, authors, steps)


def _reverse(segments: int, model: Model, memory: int = 0, authors: Authors | None = None, steps: int = 400) -> TaskRow:
    return TaskRow("reverse", segments, model, memory, authors, steps)


def _retrieval(
    segments: int, model: Model, memory: int = 0, authors: Authors | None = None, published: int | None = None
) -> TaskRow:
    return TaskRow("retrieval", segments, model, memory, authors, 400 if segments == 1 else 1000, 4, published)


SHORT = (
    _copy(1, "baseline", 0, runs(3, 1.000, 1.000, 1.000)),
    _copy(3, "baseline", 0, runs(3, 0.118, 0.115, 0.120)),
    _copy(3, "mt", 24, runs(3, 0.119, 0.117, 0.123)),
    _copy(3, "trxl", 24, runs(3, 1.000, 0.999, 1.000)),
    _copy(3, "trxl", 12, runs(1, 0.832, 0.832, 0.832), 500),
    _copy(3, "rmt", 24, runs(3, 1.000, 1.000, 1.000)),
    _copy(3, "rmt", 12, runs(1, 1.000, 1.000, 1.000), 500),
    _copy(6, "baseline", 0, runs(1, 0.102, 0.102, 0.102), 900),
    _copy(6, "mt", 12, runs(3, 0.101, 0.100, 0.101), 900),
    _copy(6, "trxl", 12, runs(3, 0.967, 0.904, 1.000), 900),
    _copy(6, "trxl", 6, runs(4, 0.541, 0.298, 0.856), 700),
    _copy(6, "rmt", 12, runs(3, 1.000, 1.000, 1.000), 900),
    _copy(6, "rmt", 6, runs(4, 1.000, 1.000, 1.000), 700),
    _copy(9, "baseline", 0, runs(5, 0.102, 0.101, 0.102), 900),
    _copy(9, "mt", 8, runs(3, 0.100, 0.099, 0.100), 900),
    _copy(9, "trxl", 8, runs(7, 0.278, 0.186, 0.451, 11), 900),
    _copy(9, "rmt", 8, runs(4, 1.000, 1.000, 1.000), 900),
    _reverse(1, "baseline", 0, runs(3, 1.000, 1.000, 1.000), 250),
    _reverse(2, "baseline", 0, runs(3, 0.102, 0.102, 0.102)),
    _reverse(2, "mt", 24, runs(3, 0.102, 0.102, 0.102)),
    _reverse(2, "trxl", 24, runs(4, 0.783, 0.394, 0.959)),
    _reverse(2, "trxl", 12, runs(1, 0.996, 0.996, 0.996), 500),
    _reverse(2, "rmt", 24, runs(4, 1.000, 1.000, 1.000)),
    _reverse(2, "rmt", 12, runs(1, 1.000, 1.000, 1.000), 500),
    _reverse(4, "baseline", 0, runs(2, 0.101, 0.100, 0.102), 850),
    _reverse(4, "mt", 12, runs(3, 0.100, 0.099, 0.100), 900),
    _reverse(4, "trxl", 12, runs(3, 0.861, 0.833, 0.877), 850),
    _reverse(4, "trxl", 6, runs(4, 0.800, 0.782, 0.832), 850),
    _reverse(4, "rmt", 12, runs(3, 1.000, 1.000, 1.000), 850),
    _reverse(4, "rmt", 6, runs(3, 1.000, 1.000, 1.000), 850),
    _reverse(6, "baseline", 0, runs(6, 0.102, 0.101, 0.102), 700),
    _reverse(6, "mt", 8, runs(3, 0.101, 0.100, 0.102), 900),
    _reverse(6, "trxl", 8, runs(8, 0.666, 0.627, 0.696), 700),
    _reverse(6, "rmt", 8, runs(6, 0.901, 0.701, 1.000), 700),
    _retrieval(1, "baseline", 0, runs(2, 1.000, 1.000, 1.000)),
    _retrieval(2, "baseline", 0, runs(1, 0.496, 0.496, 0.496)),
    _retrieval(2, "mt", 5, runs(3, 0.191, 0.182, 0.201)),
    _retrieval(2, "trxl", 5, runs(3, 1.000, 1.000, 1.000)),
    _retrieval(2, "trxl", 4, runs(3, 1.000, 1.000, 1.000), 3),
    _retrieval(2, "rmt", 5, runs(4, 0.990, 0.963, 0.999)),
    _retrieval(2, "rmt", 4, runs(3, 0.999, 0.999, 1.000), 3),
    _retrieval(3, "baseline", 0, runs(1, 0.099, 0.099, 0.099), 4),
    _retrieval(3, "mt", 3, runs(3, 0.139, 0.128, 0.148, 6), 4),
    _retrieval(3, "trxl", 3, runs(3, 0.849, 0.669, 0.973), 4),
    _retrieval(3, "rmt", 3, runs(3, 0.992, 0.986, 0.996), 4),
    _retrieval(5, "baseline", 0, runs(1, 0.099, 0.099, 0.099, 2)),
    _retrieval(5, "mt", 2, runs(3, 0.109, 0.109, 0.109, 6)),
    _retrieval(5, "trxl", 2, runs(6, 0.988, 0.965, 0.999, 7)),
    _retrieval(5, "rmt", 2, runs(3, 0.965, 0.922, 0.989)),
    TaskRow("copy", 3, "rmt", 24, variant="detached"),
    TaskRow("reverse", 2, "rmt", 24, variant="detached"),
    TaskRow("copy", 3, "trxl", 24, variant="carried"),
    TaskRow("reverse", 2, "trxl", 24, variant="carried"),
)


def _long(
    task: str, size: int, segments: int, model: Model, memory: int = 0, single: tuple[float, ...] = ()
) -> TaskRow:
    return TaskRow(task, segments, model, memory, None, 1000, size, single=single)


LONG = (
    _long("copy", 120, 1, "baseline", 0, (1.000,)),
    _long("copy", 120, 3, "baseline", 0, (0.125,)),
    _long("copy", 120, 3, "trxl", 60, (0.889, 0.668)),
    _long("copy", 120, 3, "rmt", 60, (1.000, 1.000)),
    _long("copy", 120, 6, "trxl", 30, (0.124, 0.126)),
    _long("copy", 120, 6, "rmt", 30, (1.000,)),
    _long("copy", 120, 9, "trxl", 40, (0.159, 0.124, 0.125)),
    _long("copy", 120, 9, "rmt", 40, (1.000, 1.000)),
    _long("copy", 240, 6, "trxl", 60, (0.125, 0.125)),
    _long("copy", 240, 6, "rmt", 60, (0.989, 0.978, 1.000, 0.563)),
    _long("copy", 360, 9, "trxl", 60, (0.125,)),
    _long("copy", 360, 9, "rmt", 60, (0.579,)),
    replace(_long("reverse", 120, 2, "trxl", 60), authors=runs(6, 0.861, 0.742, 0.903)),
    _long("reverse", 120, 2, "rmt", 60, (1.000, 0.942, 0.934)),
    _long("reverse", 120, 4, "trxl", 60, (0.607, 0.621)),
    _long("reverse", 120, 4, "rmt", 60, (1.000, 0.994)),
    _long("reverse", 120, 6, "trxl", 60, (0.669, 0.666)),
    _long("reverse", 120, 6, "trxl", 40, (0.439, 0.485)),
    _long("reverse", 120, 6, "rmt", 60, (1.000,)),
)

TABLES: Mapping[str, tuple[TaskRow, ...]] = {"algorithmic": SHORT, "algorithmic-long": LONG}
"""Artifact -> its rows."""


def as_rows(artifact: str, source: str) -> tuple[Row, ...]:
    """The rows as the experiments know them."""
    return tuple(
        Row(row.name, row.label, row.task, row.paper, source if row.paper else "not in the paper")
        for row in TABLES[artifact]
    )


def task_row(artifact: str, name: str) -> TaskRow:
    """The row called `name`."""
    return next(row for row in TABLES[artifact] if row.name == name)


DEFAULT_ROWS = tuple(
    f"{task}-{model}"
    for task, memory in (("copy-3", 24), ("copy-6", 12), ("reverse-2", 24), ("reverse-4", 12))
    for model in ("baseline", f"mt-{memory}", f"trxl-{memory}", f"rmt-{memory}")
)
"""What small trains without --rows."""
SMOKE_ROWS = ("copy-3-mt-24", "copy-3-trxl-24", "copy-3-rmt-24", "reverse-2-rmt-24")

MEDIUM_ROWS = (
    *("reverse-2-rmt-24", "reverse-2-trxl-24", "copy-3-rmt-24", "copy-3-trxl-24"),
    *("retrieval-2-rmt-5", "retrieval-2-trxl-5", "retrieval-3-rmt-3", "retrieval-3-trxl-3"),
    *("reverse-4-rmt-12", "reverse-4-trxl-12", "reverse-4-rmt-6", "copy-9-rmt-8", "copy-9-trxl-8"),
    *("copy-6-rmt-12", "copy-6-trxl-12"),
    *("copy-3-baseline", "copy-3-mt-24", "reverse-2-baseline", "reverse-2-mt-24"),
    *("retrieval-2-baseline", "retrieval-2-mt-5"),
)
"""What medium trains without --rows."""
