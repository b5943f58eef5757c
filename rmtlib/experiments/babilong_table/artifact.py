"""BABILong Table 4 and ARMT Table 1: models with memory on five tasks, against context length.

One row for a model and a task, one run for a row and a seed: all models of a task get the same samples in the same
stages, then read contexts from one segment to far beyond the training length.
"""

from typing import TYPE_CHECKING

from rmtlib.experiments.babilong.artifact import BABILong
from rmtlib.experiments.babilong.settings import Params
from rmtlib.experiments.babilong_table.rows import ROWS
from rmtlib.experiments.babilong_table.scales import settings
from rmtlib.experiments.babilong_table.trials import TRIALS
from rmtlib.runs.spec import Trial

if TYPE_CHECKING:
    from rmtlib.report.report import Report


class BABILongTable(BABILong):
    """RMT, RMT-R, ARMT, PRMT, Mamba, RWKV and their backbone: on its window, with retrieval, on whole contexts."""

    name = "babilong"
    title = "BABILong: RMT, RMT-R, ARMT, PRMT and Mamba on five tasks"
    rows = ROWS

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        tasks = {"smoke": ("qa1",), "small": ("qa1",)}.get(scale, ("qa1", "qa2", "qa3"))
        models = ["rmt", "armt", "mamba", "window", "rag"]
        if scale == "smoke":
            models += ["rwkv", "full-attention"]
        return tuple(f"{model}-{task}" for task in tasks for model in models)

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def params(self, row: str, scale: str, seed: int) -> Params:
        task = self.task(row)
        return settings(row.removesuffix(f"-{task}"), task, scale, seed)

    def report(self) -> "Report":
        from rmtlib.experiments.babilong_table.report import report

        return report()
