"""The artifact: its rows, the settings of each at every scale, and where its other parts are."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rmtlib.report.report import Report
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import is_number
from rmtlib.runs.spec import Cost, Result, Row, RunConfig
from rmtlib.settings import from_dict, to_params
from toy_artifact.settings import Settings

RATES = {"slow": 0.05, "fast": 0.3}


class Toy(Artifact):
    """Error of gradient descent over its steps, with two step sizes."""

    name = "toy"
    title = "Toy: the error of gradient descent"
    scales: ClassVar[tuple[str, ...]] = ("smoke", "small")
    rows = tuple(Row(name, f"{name} descent", None, {"error": 0.1}, "a paper, Table 1") for name in RATES)

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return tuple(RATES)

    def default_seeds(self, scale: str) -> int:
        return 3

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        return RunConfig(self.name, row, scale, seed, to_params(Settings(4 if scale == "smoke" else 8, RATES[row])))

    def execute(self, config: RunConfig, folder: Any) -> Result:
        from toy_artifact.run import execute

        return execute(from_dict(Settings, config.params), config.seed, folder)

    def cost(self, config: RunConfig) -> Cost:
        return Cost(tokens=config.params["steps"], flops=1e3, memory_bytes=2**20, disk_bytes=2**10)

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        wrong = [error for _, error in metrics["errors"] if not is_number(error, 0)]
        return f"errors has {wrong[0]!r}" if wrong else None

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        return [f"{record['row']}: error {record['metrics']['errors'][-1][1]:.3f}" for record in records]

    def report(self) -> Report:
        from toy_artifact.report import report

        return report()
