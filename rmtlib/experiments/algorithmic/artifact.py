"""Algorithmic tasks of the RMT paper: copy, reverse and associative retrieval by Baseline, MT, Tr-XL and RMT."""

from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from rmtlib.evaluation.counted import check_counts, token_accuracy
from rmtlib.experiments.algorithmic.rows import (
    DEFAULT_ROWS,
    LONG_CSV,
    MEDIUM_ROWS,
    SHORT_CSV,
    SMOKE_ROWS,
    TABLES,
    as_rows,
    task_row,
)
from rmtlib.experiments.algorithmic.scales import settings
from rmtlib.experiments.algorithmic.settings import Params, cost
from rmtlib.experiments.algorithmic.trials import TRIALS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_curves, differs, is_number
from rmtlib.runs.spec import SCALES, Cost, Result, RunConfig, Trial
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder


class Tasks(Artifact):
    """What the artifacts of short and long sequences share."""

    scales: ClassVar[tuple[str, ...]] = SCALES
    settings_note = "A stage's segments are those of every sample; their size follows from the task's length."
    gpu_efficiency = 0.02  # models of a million weights on short segments: launches, not products

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run."""
        return RunConfig(self.name, row, scale, seed, to_params(settings(task_row(self.name, row), scale, seed)))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.algorithmic.run import execute

        return execute(from_dict(Params, config.params), folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.algorithmic.run import model_size

        params = from_dict(Params, config.params)
        task = params.tasks[-1]
        for decoding, counted in metrics.get("test", {"": None}).items():
            if why := check_counts(counted, params.test_samples, task.answer_size):
                return f"test ({decoding}): {why}"
        if why := check_validation(metrics, curves, len(params.sizes)):
            return why
        expected: dict[str, Any] = {"segments": params.segments, "segment_size": params.segment_sizes[-1]}
        expected |= {"answer_size": task.answer_size, "chance": task.chance}
        return differs(metrics, expected) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """Per-token accuracy of generated answers, a line for each task and number of segments."""
        lines = []
        for task, segments in dict.fromkeys((row.task, row.segments) for row in TABLES[self.name]):
            said = []
            for row in TABLES[self.name]:
                runs = [r["metrics"]["test"]["generated"] for r in records if r["row"] == row.name]
                if (row.task, row.segments) == (task, segments) and runs:
                    said.append(f"{row.name} {mean(map(token_accuracy, runs)):.3f}")
            if said:
                lines.append(f"per-token accuracy, {task} in {segments} segment(s): {', '.join(said)}")
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.algorithmic.report import report

        return report(self.name)


def check_validation(metrics: Mapping[str, Any], curves: Mapping[str, Any], stages: int) -> str | None:
    """Why `validation` is not the best score of the last stage; None if it is."""
    if not is_number(metrics.get("validation"), 0, 1):
        return f"validation is {metrics.get('validation')!r}"
    if why := check_curves(curves, 0, 1):
        return why
    best = max((point[-1] for point in curves.get("validation", []) if point[0] == stages), default=None)
    return None if metrics["validation"] == best else f"validation is {metrics['validation']!r}, its curve has {best!r}"


class Algorithmic(Tasks):
    """RMT paper, Figure 3 and appendix A.1, A.2: per-token accuracy over the number of segments."""

    name = "algorithmic"
    title = "Copy, reverse and associative retrieval: Baseline, MT, Tr-XL and RMT"
    rows = as_rows("algorithmic", f"RMT (Bulatov et al. 2022), Figure 3 and appendix A; {SHORT_CSV}")

    @property
    def typical_row(self) -> str:
        return "copy-3-rmt-24"

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        if scale in ("gpu", "paper"):
            return tuple(row.name for row in self.rows)
        return {"smoke": SMOKE_ROWS, "medium": MEDIUM_ROWS}.get(scale, DEFAULT_ROWS)

    def seeds_of(self, row: str, scale: str) -> int:
        """At medium one of what has no recurrence, which cannot know all answers and never ends early."""
        found = task_row(self.name, row)
        alone = scale == "medium" and found.model in ("baseline", "mt") and found.segments > 1
        return 1 if alone else self.default_seeds(scale)


class AlgorithmicLong(Tasks):
    """RMT paper, appendix A.1: copy of 120, 240 and 360 symbols, reverse of 120."""

    name = "algorithmic-long"
    title = "Copy and reverse of long sequences: Baseline, Tr-XL and RMT"
    scales = ("smoke", "gpu", "paper")
    rows = as_rows("algorithmic-long", f"RMT (Bulatov et al. 2022), appendix A.1; {LONG_CSV}")

    @property
    def typical_row(self) -> str:
        return "copy120-3-rmt-60"

    def default_rows(self, scale: str) -> tuple[str, ...]:
        if scale == "smoke":
            return ("copy120-3-trxl-60", "copy120-3-rmt-60", "reverse120-2-rmt-60")
        return tuple(row.name for row in self.rows)
