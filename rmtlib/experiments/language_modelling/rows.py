"""Tables 1 and 2 of the RMT paper as data: what each row is, what the paper prints, and the authors' single runs.

Printed values: Bulatov et al. 2022, appendix A.4 and A.5. Single runs: the authors' published file of experiment
results (results_wt103_enwik8_all_parameters.csv in booydar/LM-RMT), test values of all runs with the row's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, Literal

from rmtlib.runs.spec import Row

CSV = "the authors' results_wt103_enwik8_all_parameters.csv (booydar/LM-RMT)"

Variant = Literal["", "newest", "released", "window"]


@dataclass(frozen=True)
class TableRow:
    """A model with its memory in tokens, its segment, and the published value (bits per character or perplexity).

    `printed` is the value as the paper has it, None if the row is not in the paper; `runs` are the authors' own.
    `variant` is another way to train the same row. "newest": replay from the newest memory. "released": that, and the
    position terms that Transformer-XL's shift leaves between memory tokens. "window": one update for k+1 segments,
    without replay.
    """

    segment: int = 0
    cache: int = 0
    memory: int = 0
    bptt: int | None = None
    printed: str | None = None
    runs: tuple[float, ...] = ()
    recurrent: bool = True
    double: bool = False  # "2x steps"
    variant: Variant = ""
    order: int = 0  # of an n-gram model; it has neither memory nor segments
    note: str = ""

    @property
    def kind(self) -> str:
        """The row's model as the paper calls it."""
        if self.order:
            return "n-gram"
        if self.memory and not self.recurrent:
            return "MT"
        names = [name for name, size in (("Tr-XL", self.cache), ("RMT", self.memory)) if size]
        return " + ".join(names) or "Baseline"

    @property
    def name(self) -> str:
        """e.g. baseline-seg128, trxl-20-seg128, rmt-10-bptt-2-seg128, trxl-150-rmt-10-bptt-3-2x-seg150, ngram-5."""
        if self.order:
            return f"ngram-{self.order}"
        parts = [f"trxl-{self.cache}"] * bool(self.cache)
        parts += [f"{'rmt' if self.recurrent else 'mt'}-{self.memory}"] * bool(self.memory)
        parts += [] if self.bptt is None else [f"bptt-{self.bptt}"]
        parts += [self.variant] * bool(self.variant) + ["2x"] * self.double
        return "-".join([*(parts or ["baseline"]), f"seg{self.segment}"])

    @property
    def plain(self) -> str:
        """The name of the same row trained in the default way."""
        return replace(self, variant="").name

    @property
    def label(self) -> str:
        """The row's first column in the paper."""
        if self.order:
            return f"Kneser-Ney {self.order}-gram"
        depth = "" if self.bptt is None else f" BPTT-{self.bptt}"
        variant = f", {self.variant}" if self.variant else ""
        return f"{self.kind}{depth}{variant}{' 2x steps' * self.double}"

    def named(self, cache: int, memory: int, segment: int) -> str:
        """The row in words, with the sizes that it has somewhere: "RMT 3, BPTT-2, segment 20"."""
        if self.order:
            return self.label
        sizes = " + ".join(f"{name} {size}" for name, size in (("Tr-XL", cache), ("RMT", memory)) if size)
        parts = [sizes.replace("RMT", self.kind) if self.kind == "MT" else sizes or self.kind.lower()]
        parts += [] if self.bptt is None else [f"BPTT-{self.bptt}"]
        parts += [self.variant] * bool(self.variant) + ["2x steps"] * self.double
        return ", ".join([*parts, f"segment {segment}"])

    @property
    def size(self) -> str:
        """The row's memory column: cache, memory tokens, or both."""
        sizes = [str(size) for size in (self.cache, self.memory) if size]
        return " + ".join(sizes) or "0"

    @property
    def paper(self) -> dict[str, Any]:
        """{"printed", "mean", "std", "runs", "note"}; mean and std of the single runs if nothing is printed."""
        mean, std = None, None
        if self.printed is not None:
            first, _, rest = self.printed.partition(" ± ")
            mean, std = float(first), float(rest) if rest else None
        elif self.runs:
            mean, std = fmean(self.runs), stdev(self.runs) if len(self.runs) > 1 else None
        return {"printed": self.printed, "mean": mean, "std": std, "runs": list(self.runs), "note": self.note}


VARIANTS: dict[Variant, str] = {
    "newest": "the same row, with the k earlier segments read again from the newest memory",
    "released": "the same row as the released code trains it; the published value was presumably made so",
    "window": "the same row with one update for all segments that a gradient spans, without replay",
}
COUNTING = "not in the paper: what counting alone makes of the same text"
NO_RUNS = "no run of this kind is in the authors' file, and no code of its auxiliary loss was released"
PREFIX = "the authors' file also has a run with memory before the segment alone"

ENWIK8 = (
    TableRow(
        segment=512, cache=512, printed="1.071", runs=(1.07134,), note="evaluated on windows of 128 with a cache of 896"
    ),
    TableRow(segment=128, cache=200, printed="1.140", runs=(1.13967,)),
    TableRow(segment=128, cache=100, printed="1.178", runs=(1.17796,)),
    TableRow(segment=128, cache=75, printed="1.196", runs=(1.19636,)),
    TableRow(segment=128, cache=40, printed="1.230 ± 0.001", runs=(1.22948, 1.23065)),
    TableRow(segment=128, cache=20, printed="1.261", runs=(1.26105,)),
    TableRow(segment=128, cache=10, printed="1.283 ± 0.001", runs=(1.2844, 1.2823)),
    TableRow(segment=128, memory=5, bptt=1, printed="1.241 ± 0.002", runs=(1.2393, 1.24254)),
    TableRow(segment=128, memory=5, bptt=2, printed="1.231 ± 0.002", runs=(1.23277, 1.22961)),
    TableRow(segment=128, memory=10, bptt=1, printed="1.240 ± 0.006", runs=(1.2355, 1.24452)),
    TableRow(segment=128, memory=10, bptt=2, printed="1.228 ± 0.003", runs=(1.22815, 1.23079, 1.22394)),
    TableRow(segment=128, memory=20, bptt=0, printed="1.301", runs=(1.30133,)),
    TableRow(segment=128, memory=20, bptt=1, printed="1.229", runs=(1.22891,)),
    TableRow(segment=128, memory=20, bptt=2, printed="1.222", runs=(1.22226,)),
    TableRow(segment=128, runs=(1.40393, 1.40069), note="not in the paper's table"),
    TableRow(
        segment=512,
        runs=(1.39059,),
        note=f"not in the paper's table; evaluated on windows of 128 without context; {PREFIX}, 256 tokens: 1.33719",
    ),
    TableRow(segment=128, cache=10, memory=20, bptt=0, runs=(1.30271,), note="not in the paper's table"),
    *(TableRow(segment=128, memory=20, bptt=2, variant=variant, note=note) for variant, note in VARIANTS.items()),
    TableRow(order=5, note=COUNTING),
    TableRow(order=8, note=COUNTING),
)

WIKITEXT_103 = (
    TableRow(segment=150, printed="29.95 ± 0.15", runs=(29.941, 29.810, 30.110)),
    TableRow(segment=150, memory=10, recurrent=False, printed="29.63 ± 0.06"),
    TableRow(segment=150, memory=25, recurrent=False, printed="29.67 ± 0.03"),
    TableRow(segment=150, memory=75, recurrent=False, printed="29.69 ± 0.02", note=f"{PREFIX}, by older code: 26.571"),
    TableRow(
        segment=150,
        memory=150,
        recurrent=False,
        printed="29.82 ± 0.35",
        runs=(29.620,),
        note=f"{PREFIX}, by older code: 26.867",
    ),
    TableRow(segment=150, cache=150, printed="24.12 ± 0.05", runs=(24.071, 24.107, 24.172)),
    TableRow(segment=150, cache=150, double=True, printed="24.67", note="no run with 2x steps is in the authors' file"),
    TableRow(segment=150, cache=75, printed="24.68 ± 0.01", runs=(24.671, 24.670, 24.693)),
    TableRow(segment=150, cache=75, double=True, printed="24.49", note="no run with 2x steps is in the authors' file"),
    TableRow(segment=150, cache=25, printed="25.57 ± 0.02", runs=(25.584, 25.558)),
    TableRow(segment=150, memory=10, bptt=0, printed="26.85 ± 0.02", runs=(26.831, 26.867)),
    TableRow(segment=150, memory=10, bptt=1, printed="25.92 ± 1.07", runs=(25.113, 27.450, 25.871, 25.255)),
    TableRow(segment=150, memory=10, bptt=2, printed="25.32 ± 0.61", runs=(25.822, 24.646, 25.495)),
    TableRow(segment=150, memory=10, bptt=3, printed="25.04 ± 0.07", runs=(25.12, 24.99, 25.02)),
    TableRow(segment=150, memory=25, bptt=0, printed="29.73", runs=(29.732,)),
    TableRow(segment=150, memory=25, bptt=1, printed="24.91", runs=(24.912,)),
    TableRow(segment=150, memory=25, bptt=2, printed="24.85 ± 0.31", runs=(24.646, 25.204, 24.698)),
    TableRow(segment=150, cache=70, memory=5, bptt=3, printed="24.53", note=NO_RUNS),
    TableRow(segment=150, cache=75, memory=5, bptt=3, printed="24.47 ± 0.05", note=NO_RUNS),
    TableRow(segment=150, cache=140, memory=10, bptt=0, printed="24.25", note=NO_RUNS),
    TableRow(segment=150, cache=150, memory=10, bptt=1, printed="24.30 ± 0.09", note=NO_RUNS),
    TableRow(
        segment=150,
        cache=150,
        memory=10,
        bptt=3,
        double=True,
        printed="23.99 ± 0.09",
        note="the paper's best value cannot be traced: " + NO_RUNS,
    ),
    TableRow(segment=50, printed="39.05 ± 0.01", runs=(39.063, 39.042)),
    TableRow(segment=50, cache=200, printed="25.14", runs=(25.136,)),
    TableRow(segment=50, cache=100, printed="25.66 ± 0.01", runs=(25.659, 25.654)),
    TableRow(segment=50, cache=50, printed="26.54 ± 0.01", runs=(26.535, 26.55)),
    TableRow(segment=50, cache=25, printed="27.57 ± 0.09", runs=(27.507, 27.631)),
    TableRow(segment=50, cache=10, printed="28.98 ± 0.11", runs=(28.903, 29.06)),
    TableRow(segment=50, cache=5, printed="30.06 ± 0.07", runs=(30.015, 30.111)),
    TableRow(segment=50, cache=1, printed="32.35 ± 0.03", runs=(32.371, 32.33)),
    TableRow(segment=50, memory=1, bptt=0, printed="31.33 ± 1.26", runs=(30.435, 32.217)),
    TableRow(segment=50, memory=1, bptt=1, printed="28.71 ± 0.03", runs=(28.73, 28.693)),
    TableRow(segment=50, memory=1, bptt=2, printed="28.44", runs=(28.438,)),
    TableRow(segment=50, memory=1, bptt=3, printed="28.40 ± 0.03", runs=(28.374, 28.418)),
    TableRow(segment=50, memory=5, bptt=0, printed="30.32 ± 0.18", runs=(30.453, 30.192)),
    TableRow(segment=50, memory=5, bptt=1, printed="27.05 ± 0.20", runs=(27.191, 26.904)),
    TableRow(segment=50, memory=5, bptt=2, printed="26.83 ± 0.18", runs=(26.959, 26.707)),
    TableRow(segment=50, memory=5, bptt=3, printed="26.75 ± 0.26", runs=(26.934, 26.565)),
    TableRow(segment=50, memory=5, bptt=4, printed="26.67 ± 0.03", runs=(26.662, 26.654, 26.704)),
    TableRow(
        segment=50,
        memory=10,
        bptt=0,
        printed="30.69 ± 0.01",
        runs=(30.687,),
        note="the paper has a deviation, the authors' file one run",
    ),
    TableRow(segment=50, memory=10, bptt=1, printed="27.95 ± 1.32", runs=(27.013, 28.884)),
    TableRow(segment=50, memory=10, bptt=2, printed="26.62 ± 0.34", runs=(26.862, 26.38)),
    TableRow(segment=50, memory=10, bptt=3, printed="26.37 ± 0.01", runs=(26.384, 26.366)),
    TableRow(segment=50, memory=10, bptt=4, printed="26.25 ± 0.19", runs=(26.238, 26.456, 26.071)),
    TableRow(segment=50, memory=25, bptt=0, printed="29.75", runs=(29.751,)),
    TableRow(segment=50, memory=25, bptt=1, printed="26.32", runs=(26.322,)),
    TableRow(segment=50, memory=25, bptt=2, printed="27.31", runs=(27.308,)),
    TableRow(segment=50, memory=50, bptt=0, printed="29.75", runs=(29.748,)),
    TableRow(segment=50, memory=50, bptt=1, printed="26.03", runs=(26.03,)),
    TableRow(segment=150, memory=75, bptt=0, runs=(27.043,), note="not in the paper's table"),
    TableRow(segment=150, memory=150, bptt=0, runs=(27.304, 26.371), note="not in the paper's table"),
    *(TableRow(segment=50, memory=10, bptt=2, variant=variant, note=note) for variant, note in VARIANTS.items()),
    TableRow(order=3, note=COUNTING),
    TableRow(order=5, note=COUNTING),
)

TABLES: Mapping[str, tuple[TableRow, ...]] = {"enwik8": ENWIK8, "wikitext-103": WIKITEXT_103}
"""Artifact -> its rows in the paper's order, then what the paper left out."""


DEFAULT_ROWS: Mapping[str, tuple[str, ...]] = {
    "enwik8": (
        "ngram-5",
        "baseline-seg128",
        "trxl-20-seg128",
        "trxl-200-seg128",
        "rmt-20-bptt-0-seg128",
        "rmt-20-bptt-2-seg128",
    ),
    "wikitext-103": (
        "ngram-3",
        "baseline-seg50",
        "trxl-10-seg50",
        "trxl-50-seg50",
        "rmt-10-bptt-0-seg50",
        "rmt-10-bptt-2-seg50",
    ),
}
"""What smoke and small train without --rows."""

MEDIUM_ROWS: Mapping[str, tuple[str, ...]] = {
    "enwik8": (
        "ngram-5",
        "baseline-seg128",
        "trxl-40-seg128",
        "rmt-5-bptt-2-seg128",
        "trxl-10-seg128",
        "rmt-20-bptt-0-seg128",
    ),
    "wikitext-103": ("ngram-3", "baseline-seg50", "rmt-10-bptt-2-seg50", "trxl-10-seg50", "trxl-50-seg50"),
}
"""What medium trains without --rows."""


def default_rows(artifact: str, scale: str) -> tuple[str, ...]:
    """The rows that stand for the table at a scale, if not all of it is trained."""
    return (MEDIUM_ROWS if scale == "medium" else DEFAULT_ROWS)[artifact]


REFERENCES: Mapping[str, tuple[tuple[str, str, str, str], ...]] = {
    "enwik8": (("Tr-XL (Dai et al., 2019)", "512", "512", "1.06"),),
    "wikitext-103": (("Tr-XL (Dai et al., 2019)", "150", "150", "24.0"),),
}
"""Rows that quote another paper: model, memory, segment, value."""


def as_rows(artifact: str, table: str) -> tuple[Row, ...]:
    """The rows as the experiments know them."""
    return tuple(
        Row(row.name, row.label, None, row.paper, "not in the paper")
        if row.order
        else Row(row.name, f"{row.label}, memory {row.size}, segment {row.segment}", None, row.paper, f"{table}; {CSV}")
        for row in TABLES[artifact]
    )


def table_row(artifact: str, name: str) -> TableRow:
    """The row called `name`."""
    return next(row for row in TABLES[artifact] if row.name == name)
