"""The rows of quadratic: which models, in how many segments, with the authors' single runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from rmtlib.experiments.algorithmic.rows import LABELS, Model
from rmtlib.report.words import counted
from rmtlib.runs.spec import Row

CSV = "the authors' res_square_equations.csv (booydar/LM-RMT), column answer_acc"
TABLE = "RMT (Bulatov et al. 2022), Table 1"


@dataclass(frozen=True)
class Solver:
    """A model that reads equation and solution in so many segments.

    Attributes:
        authors: answer accuracy of the authors' runs.
        printed: mean and standard deviation as the paper prints them.
    """

    model: Model
    segments: int
    authors: tuple[float, ...] = ()
    printed: str = ""

    @property
    def name(self) -> str:
        return f"{self.model}-{self.segments}"

    @property
    def label(self) -> str:
        """The row in words."""
        memory = {"rmt": ", as many memory tokens", "trxl": ", as large a cache", "baseline": "", "mt": ""}[self.model]
        length = "one segment of six steps" if self.segments == 1 else "six segments of one step"
        return f"{LABELS[self.model]}, {length}{memory}"

    @property
    def short(self) -> str:
        """The row for an axis: RMT, six segments."""
        return f"{LABELS[self.model]}, {counted(self.segments, 'segment')}"

    def at(self, memory: int) -> str:
        """The row in words with the memory or cache of a scale: RMT with memory 30 in six segments."""
        passed = {"rmt": f" with memory {memory}", "trxl": f" with cache {memory}"}.get(self.model, "")
        return f"{LABELS[self.model]}{passed} in {counted(self.segments, 'segment')}"

    @property
    def mean(self) -> float:
        """Of the authors' runs."""
        return fmean(self.authors)


SOLVERS: Mapping[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver("baseline", 1, (0.999, 0.99, 0.99859), "0.99 ± 0.01"),
        Solver("trxl", 6, (0.95, 0.9125, 0.9406), "0.93 ± 0.02"),
        Solver("rmt", 6, (0.98, 0.999, 0.998), "0.99 ± 0.002"),
        Solver("baseline", 6),
    )
}


def _row(solver: Solver) -> Row:
    if not solver.authors:
        return Row(solver.name, solver.label, "quadratic", {}, "not in the paper")
    runs = list(solver.authors)
    paper = {"printed": solver.printed, "mean": solver.mean, "std": stdev(runs), "runs": runs}
    return Row(solver.name, solver.label, "quadratic", paper, f"{TABLE}; {CSV}")


ROWS = tuple(_row(solver) for solver in SOLVERS.values())
