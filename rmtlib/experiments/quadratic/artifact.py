"""Quadratic equations (RMT paper, Table 1): solved step by step by a model without memory, Tr-XL and RMT."""

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.counted import DECODINGS
from rmtlib.experiments.algorithmic.artifact import check_validation
from rmtlib.experiments.algorithmic.settings import cost
from rmtlib.experiments.quadratic.counts import answers, check_counts
from rmtlib.experiments.quadratic.rows import ROWS
from rmtlib.experiments.quadratic.scales import RECIPES, settings
from rmtlib.experiments.quadratic.settings import Params
from rmtlib.experiments.quadratic.trials import TRIALS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import differs
from rmtlib.runs.spec import Cost, Result, RunConfig, Trial
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder


class Quadratic(Artifact):
    """RMT paper, Table 1: how many quadratic equations are answered right."""

    name = "quadratic"
    title = "Quadratic equations, solved step by step: Baseline, Tr-XL and RMT"
    settings_note = "A stage's segments are those of every sample; they end where steps of the solution end."
    scales = tuple(RECIPES)
    gpu_efficiency = 0.02  # models of two million weights on short segments: launches, not products
    rows = ROWS

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows if row.paper)

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run."""
        return RunConfig(self.name, row, scale, seed, to_params(settings(row, scale, seed)))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.quadratic.run import execute

        return execute(from_dict(Params, config.params), folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.algorithmic.run import model_size

        params = from_dict(Params, config.params)
        tested = metrics.get("test")
        if not isinstance(tested, Mapping) or set(tested) != set(DECODINGS):
            return f"test is {tested!r}"
        for decoding, counted in tested.items():
            if why := check_counts(counted, params.test_samples, params.width):
                return f"test ({decoding}): {why}"
        if why := check_validation(metrics, curves, len(params.train.stages)):
            return why
        expected = {"segments": params.segments, "segment_size": params.segment_sizes[-1]}
        return differs(metrics, expected) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """Right answers of each row, generated and as the released code evaluates."""
        lines = []
        for row in self.rows:
            runs = [record["metrics"]["test"] for record in records if record["row"] == row.name]
            if runs:
                own, released = (fmean(answers(r[d]) / r[d]["n"] for r in runs) for d in ("generated", "released"))
                lines.append(
                    f"{row.label}: {own:.3f} of the answers right ({released:.3f} as the released code evaluates), "
                    f"over {len(runs)} seed{'s' * (len(runs) > 1)}"
                )
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.quadratic.report import report

        return report()
