"""BABILong Table 4 and ARMT Table 1: models with memory on five tasks, against context length.

One row for a model and a task, one run for a row and a seed: all models of a task, but those with LoRA, get the same
samples in the same stages, then read contexts from one segment to far beyond the training length.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rmtlib.data.babi import TASKS
from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.artifact import BABILong
from rmtlib.experiments.babilong.rows import stand_in_of
from rmtlib.experiments.babilong.settings import MAMBA, Params
from rmtlib.experiments.babilong_table.rows import ON_SMOLLM2, ROWS
from rmtlib.experiments.babilong_table.scales import settings
from rmtlib.experiments.babilong_table.trials import TRIALS
from rmtlib.runs.backbones import fetch_from_hub, is_cached
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
        tasks = TASKS[: {"smoke": 1, "small": 1, "medium": 3}.get(scale)]
        models = ["rmt", "armt", "mamba", "window", "rag"]
        if scale == "smoke":
            models += ["rwkv", "full-attention"]
        if scale in ("gpu", "paper"):
            models.insert(1, "rmt-r")
        return tuple(f"{model}-{task}" for task in tasks for model in models)

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def in_place_of(self, rows: Sequence[str], there: str | None) -> tuple[str, ...]:
        """Without any pretrained backbone the rows stay what they are, and say what they lack."""
        if there is None:
            return tuple(rows)
        models = ((row, row.removesuffix(f"-{self.task(row)}")) for row in rows)
        return tuple(f"{model}-{there}-{self.task(row)}" if model in ON_SMOLLM2 else row for row, model in models)

    def rows_here(self, scale: str, *, fetched: bool) -> tuple[str, ...]:
        """Without Mamba if it cannot be had: its runs would fail, hours later, and there would be no table."""
        rows = super().rows_here(scale, fetched=fetched)
        if scale != "gpu" or not fetched or is_cached(MAMBA):
            return rows
        return tuple(row for row in rows if not row.startswith("mamba-"))

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        super().prepare(scale, rows)
        if is_cached(MAMBA):
            return
        if scale in ("gpu", "paper") and any(self.params(row, scale, 0).backbone == MAMBA for row in rows):
            try:
                fetch_from_hub(MAMBA)
            except RmtlibError as error:
                so = ", so no row of it runs by default" if scale == "gpu" else ""
                print(f"Mamba's weights cannot be had{so}: {error}", file=sys.stderr)

    def params(self, row: str, scale: str, seed: int) -> Params:
        task, stand_in = self.task(row), stand_in_of(row)
        model = row.removesuffix(f"-{task}").removesuffix(f"-{stand_in}")
        return settings(model, task, scale, seed, stand_in)

    def report(self) -> "Report":
        from rmtlib.experiments.babilong_table.report import report

        return report()
