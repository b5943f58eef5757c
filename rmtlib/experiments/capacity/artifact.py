"""Memory capacity (ARMT paper, Figures 2 and 4): pairs stored and rewritten by ARMT, RMT, PRMT and Mamba.

One row per model and task, one run per row and seed: train with the curriculum, then ask for pairs from one to far more
than training had.
"""

from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.capacity import pairs_stored
from rmtlib.experiments.capacity.rows import LARGE, ROWS, VALUES
from rmtlib.experiments.capacity.scales import settings
from rmtlib.experiments.capacity.settings import Params, cost
from rmtlib.experiments.capacity.trials import TRIALS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_exact_match, differs
from rmtlib.runs.spec import SCALES, Cost, Result, RunConfig, Trial
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder


class MemoryCapacity(Artifact):
    """ARMT paper, Figures 2 and 4: how many pairs a memory holds, and how long it can be rewritten."""

    name = "memory-capacity"
    title = "Pairs stored and rewritten: ARMT, RMT, PRMT and Mamba"
    settings_note = "A stage's segments are pairs."
    scales = SCALES
    shares_tests = True
    gpu_efficiency = 0.01  # models of half a million weights: launches and the traffic of states, not products
    rows = ROWS

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        models = ("armt", "rmt", "prmt", "mamba")
        if scale == "medium":
            remember = ("armt", "armt-equal", "mamba", "rmt", "prmt", "rmt-equal")
            return tuple(f"{model}-remember" for model in remember) + tuple(f"{model}-rewrite" for model in models)
        return tuple(f"{model}-remember" for model in models) + (
            () if scale == "smoke" else ("armt-rewrite", "armt-nogamma-rewrite")
        )

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def seeds_of(self, row: str, scale: str) -> int:
        """One seed of a model of the paper's size."""
        return 1 if row.removesuffix("-remember") in LARGE else self.default_seeds(scale)

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run."""
        return RunConfig(self.name, row, scale, seed, to_params(settings(row, scale, seed)))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.capacity.run import execute

        return execute(from_dict(Params, config.params), folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.capacity.run import model_size

        if why := check_exact_match(metrics, curves):
            return why
        params = from_dict(Params, config.params)
        points = metrics["exact_match"]
        if [point.get("pairs") for point in points] != list(params.test_pairs):
            return f"exact_match is not of the settings' {', '.join(map(str, params.test_pairs))} pairs"
        for point in points:
            segments = point["pairs"] + 1
            expected = {"segments": segments, "tokens": segments * params.segment_sizes[-1], "n": params.test_samples}
            if why := differs(point, expected, f"at {point['pairs']} pairs "):
                return why
        expected = {"train_segments": params.train_pairs + 1, "values": VALUES**params.value_size}
        return differs(metrics, expected) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """Pairs stored of most asked for, or the rewrite accuracy within and beyond training, one line a row."""
        lines = []
        for row in self.rows:
            runs = [record for record in records if record["row"] == row.name]
            if not runs:
                continue
            curves = [{p["segments"] - 1: p["correct"] / p["n"] for p in run["metrics"]["exact_match"]} for run in runs]
            lengths = sorted(set.intersection(*(set(curve) for curve in curves)))
            trained = max(n for n in lengths if n <= runs[0]["metrics"]["train_segments"] - 1)
            accuracy = {n: mean(curve[n] for curve in curves) for n in lengths}
            if row.task == "remember":
                stored = [mean(pairs_stored(c[n], n, runs[0]["metrics"]["values"]) for c in curves) for n in lengths]
                best = max(range(len(lengths)), key=stored.__getitem__)
                said = f"stores {stored[best]:.1f} of {lengths[best]} pairs (trained up to {trained})"
            else:
                longest = lengths[-1]
                said = f"exact match {accuracy[trained]:.2f} after {trained} updates, as trained, "
                said += f"{accuracy[longest]:.2f} after {longest}"
            lines.append(f"{row.label}: {said}, over {len(runs)} seed{'s' * (len(runs) > 1)}")
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.capacity.report import report

        return report()
