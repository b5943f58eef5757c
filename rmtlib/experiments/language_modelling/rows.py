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

    cache: int
    memory: int
    bptt: int | None
    segment: int
    printed: str | None
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


def _baseline(segment: int, printed: str | None, *runs: float, note: str = "") -> TableRow:
    return TableRow(0, 0, None, segment, printed, runs, note=note)


def _trxl(cache: int, segment: int, printed: str, *runs: float, double: bool = False, note: str = "") -> TableRow:
    return TableRow(cache, 0, None, segment, printed, runs, double=double, note=note)


def _rmt(bptt: int, memory: int, segment: int, printed: str | None, *runs: float, note: str = "") -> TableRow:
    return TableRow(0, memory, bptt, segment, printed, runs, note=note)


def _mt(memory: int, printed: str, *runs: float, note: str = "") -> TableRow:
    return TableRow(0, memory, None, 150, printed, runs, recurrent=False, note=note)


def _both(
    cache: int, memory: int, bptt: int, segment: int, printed: str | None, *runs: float, double: bool = False, note: str
) -> TableRow:
    return TableRow(cache, memory, bptt, segment, printed, runs, double=double, note=note)


def _ngram(order: int) -> TableRow:
    return TableRow(
        0, 0, None, 0, None, order=order, note="not in the paper: what counting alone makes of the same text"
    )


def _variant(bptt: int, memory: int, segment: int, variant: Variant) -> TableRow:
    notes = {
        "newest": "the same row, with the k earlier segments read again from the newest memory",
        "released": "the same row as the released code trains it; the published value was presumably made so",
        "window": "the same row with one update for all segments that a gradient spans, without replay",
    }
    return TableRow(0, memory, bptt, segment, None, variant=variant, note=notes[variant])


NO_RUNS = "no run of this kind is in the authors' file, and no code of its auxiliary loss was released"

PREFIX = "the authors' file also has a run with memory before the segment alone"

ENWIK8 = (
    _trxl(
        512,
        512,
        "1.071",
        1.07134,
        note="evaluated on windows of 128 with a cache of 896",
    ),
    _trxl(200, 128, "1.140", 1.13967),
    _trxl(100, 128, "1.178", 1.17796),
    _trxl(75, 128, "1.196", 1.19636),
    _trxl(40, 128, "1.230 ± 0.001", 1.22948, 1.23065),
    _trxl(20, 128, "1.261", 1.26105),
    _trxl(10, 128, "1.283 ± 0.001", 1.2844, 1.2823),
    _rmt(1, 5, 128, "1.241 ± 0.002", 1.2393, 1.24254),
    _rmt(2, 5, 128, "1.231 ± 0.002", 1.23277, 1.22961),
    _rmt(1, 10, 128, "1.240 ± 0.006", 1.2355, 1.24452),
    _rmt(2, 10, 128, "1.228 ± 0.003", 1.22815, 1.23079, 1.22394),
    _rmt(0, 20, 128, "1.301", 1.30133),
    _rmt(1, 20, 128, "1.229", 1.22891),
    _rmt(2, 20, 128, "1.222", 1.22226),
    _baseline(128, None, 1.40393, 1.40069, note="not in the paper's table"),
    _baseline(
        512,
        None,
        1.39059,
        note=f"not in the paper's table; evaluated on windows of 128 without context; {PREFIX}, 256 tokens: 1.33719",
    ),
    _both(10, 20, 0, 128, None, 1.30271, note="not in the paper's table"),
    _variant(2, 20, 128, "newest"),
    _variant(2, 20, 128, "released"),
    _variant(2, 20, 128, "window"),
    _ngram(5),
    _ngram(8),
)

WIKITEXT_103 = (
    _baseline(150, "29.95 ± 0.15", 29.941, 29.810, 30.110),
    _mt(10, "29.63 ± 0.06"),
    _mt(25, "29.67 ± 0.03"),
    _mt(75, "29.69 ± 0.02", note=f"{PREFIX}, by older code: 26.571"),
    _mt(150, "29.82 ± 0.35", 29.620, note=f"{PREFIX}, by older code: 26.867"),
    _trxl(150, 150, "24.12 ± 0.05", 24.071, 24.107, 24.172),
    _trxl(150, 150, "24.67", double=True, note="no run with 2x steps is in the authors' file"),
    _trxl(75, 150, "24.68 ± 0.01", 24.671, 24.670, 24.693),
    _trxl(75, 150, "24.49", double=True, note="no run with 2x steps is in the authors' file"),
    _trxl(25, 150, "25.57 ± 0.02", 25.584, 25.558),
    _rmt(0, 10, 150, "26.85 ± 0.02", 26.831, 26.867),
    _rmt(1, 10, 150, "25.92 ± 1.07", 25.113, 27.450, 25.871, 25.255),
    _rmt(2, 10, 150, "25.32 ± 0.61", 25.822, 24.646, 25.495),
    _rmt(3, 10, 150, "25.04 ± 0.07", 25.12, 24.99, 25.02),
    _rmt(0, 25, 150, "29.73", 29.732),
    _rmt(1, 25, 150, "24.91", 24.912),
    _rmt(2, 25, 150, "24.85 ± 0.31", 24.646, 25.204, 24.698),
    _both(70, 5, 3, 150, "24.53", note=NO_RUNS),
    _both(75, 5, 3, 150, "24.47 ± 0.05", note=NO_RUNS),
    _both(140, 10, 0, 150, "24.25", note=NO_RUNS),
    _both(150, 10, 1, 150, "24.30 ± 0.09", note=NO_RUNS),
    _both(
        150,
        10,
        3,
        150,
        "23.99 ± 0.09",
        double=True,
        note="the paper's best value cannot be traced: " + NO_RUNS,
    ),
    _baseline(50, "39.05 ± 0.01", 39.063, 39.042),
    _trxl(200, 50, "25.14", 25.136),
    _trxl(100, 50, "25.66 ± 0.01", 25.659, 25.654),
    _trxl(50, 50, "26.54 ± 0.01", 26.535, 26.55),
    _trxl(25, 50, "27.57 ± 0.09", 27.507, 27.631),
    _trxl(10, 50, "28.98 ± 0.11", 28.903, 29.06),
    _trxl(5, 50, "30.06 ± 0.07", 30.015, 30.111),
    _trxl(1, 50, "32.35 ± 0.03", 32.371, 32.33),
    _rmt(0, 1, 50, "31.33 ± 1.26", 30.435, 32.217),
    _rmt(1, 1, 50, "28.71 ± 0.03", 28.73, 28.693),
    _rmt(2, 1, 50, "28.44", 28.438),
    _rmt(3, 1, 50, "28.40 ± 0.03", 28.374, 28.418),
    _rmt(0, 5, 50, "30.32 ± 0.18", 30.453, 30.192),
    _rmt(1, 5, 50, "27.05 ± 0.20", 27.191, 26.904),
    _rmt(2, 5, 50, "26.83 ± 0.18", 26.959, 26.707),
    _rmt(3, 5, 50, "26.75 ± 0.26", 26.934, 26.565),
    _rmt(4, 5, 50, "26.67 ± 0.03", 26.662, 26.654, 26.704),
    _rmt(0, 10, 50, "30.69 ± 0.01", 30.687, note="the paper has a deviation, the authors' file one run"),
    _rmt(1, 10, 50, "27.95 ± 1.32", 27.013, 28.884),
    _rmt(2, 10, 50, "26.62 ± 0.34", 26.862, 26.38),
    _rmt(3, 10, 50, "26.37 ± 0.01", 26.384, 26.366),
    _rmt(4, 10, 50, "26.25 ± 0.19", 26.238, 26.456, 26.071),
    _rmt(0, 25, 50, "29.75", 29.751),
    _rmt(1, 25, 50, "26.32", 26.322),
    _rmt(2, 25, 50, "27.31", 27.308),
    _rmt(0, 50, 50, "29.75", 29.748),
    _rmt(1, 50, 50, "26.03", 26.03),
    _rmt(0, 75, 150, None, 27.043, note="not in the paper's table"),
    _rmt(0, 150, 150, None, 27.304, 26.371, note="not in the paper's table"),
    _variant(2, 10, 50, "newest"),
    _variant(2, 10, 50, "released"),
    _variant(2, 10, 50, "window"),
    _ngram(3),
    _ngram(5),
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
