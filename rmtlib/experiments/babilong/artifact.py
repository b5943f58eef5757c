"""Figure 5 of the BABILong paper: RMT's accuracy on five tasks against context length, over training seeds.

One row per bAbI task, one run per task and seed: train with the curriculum, then evaluate by exact match from one
segment to far beyond the training length.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from rmtlib.data import sources
from rmtlib.data.babi import TASKS, available_questions
from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.rows import ROWS
from rmtlib.experiments.babilong.rules import SEEDS
from rmtlib.experiments.babilong.scales import gpu_from_scratch, settings
from rmtlib.experiments.babilong.settings import Params, cost
from rmtlib.experiments.babilong.trials import TRIALS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_exact_match, differs
from rmtlib.runs.spec import Cost, Result, RunConfig, Trial
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder


def _stories(records: list[dict[str, Any]], row: str) -> str:
    """ "bAbI's files", "the simulator", or both, as the records of a row say."""
    simulated = {
        any(part.get("source") == "simulator" for part in record["data"]) for record in records if record["row"] == row
    }
    return " and ".join(("the simulator" if made else "bAbI's files") for made in sorted(simulated))


class Figure5(Artifact):
    """BABILong Figure 5: RMT performance on five BABILong tasks varies between training seeds."""

    name = "figure-5"
    title = "RMT on five BABILong tasks, over training seeds"
    rows = ROWS
    scales = ("smoke", "small", "medium", "gpu", "paper")

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return ("qa1",) if scale in ("smoke", "small", "medium") else TASKS

    def default_seeds(self, scale: str) -> int:
        return {"smoke": 1, "medium": SEEDS}.get(scale, 3)

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch what runs of these rows can use, if it can be had; `config` then sees what is there."""
        if scale == "smoke":
            return
        for row in rows:
            if available_questions(row) == "simulator":
                print(
                    f"bAbI's files of {row} cannot be had here: its stories come from the simulator, and the results "
                    "compare with those on the files in kind, not to the digit",
                    file=sys.stderr,
                )
        if scale != "paper":
            sources.fetch("books-baseten")
        if scale == "gpu":
            try:
                sources.fetch("smollm2-135m-instruct")
            except RmtlibError:
                sources.fetch("gpt2-encoder")
                sources.fetch("gpt2-bpe")

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config. What depends on the files of this machine is decided here, without the network."""
        params = settings(row, scale, seed)
        if params.backbone == "smollm2" and sources.state("smollm2-135m-instruct") == "absent":
            params = gpu_from_scratch(row, seed)
        if params.questions == "auto":
            params = replace(params, questions=available_questions(row, fetch=False))
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        params = settings(row, scale, seed)
        if params.questions == "auto":
            params = replace(params, questions="files")
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.babilong.run import execute

        return execute(config.row, from_dict(Params, config.params), folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.babilong.run import model_size

        if why := check_exact_match(metrics, curves):
            return why
        params = from_dict(Params, config.params)
        points = {str(point["segments"]): point for point in metrics["exact_match"]}
        if list(points) != list(params.test_samples):
            return f"exact_match is not of the settings' {', '.join(params.test_samples)} segments"
        for segments, point in points.items():
            if why := differs(point, {"tokens": int(segments) * params.train.segment_size}, f"at {segments} segments "):
                return why
            if point["n"] > params.test_samples[segments]:  # fewer if the facts of few questions fit into the context
                return f"at {segments} segments n is {point['n']}, the settings give {params.test_samples[segments]}"
        expected = {"train_segments": max(stage.segments for stage in params.train.stages)}
        return differs(metrics, expected) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """For each task the mean accuracy within and beyond the training length, and what the recency reader has."""
        lines = []
        for row in self.rows:
            runs = [record["metrics"] for record in records if record["row"] == row.name]
            if not runs:
                continue
            trained = max(run["train_segments"] for run in runs)
            curves = [{p["segments"]: p["correct"] / p["n"] for p in run["exact_match"]} for run in runs]
            lengths = sorted(set.intersection(*(set(curve) for curve in curves)))
            inside, last = ([n for n in lengths if n <= trained] or lengths[:1])[-1], lengths[-1]
            near, far = ([curve[n] for curve in curves] for n in (inside, last))
            lines += [
                f"{row.name}: exact match {mean(near):.2f} at {inside} segments, the longest trained on "
                f"({len(runs)} {'seed' if len(runs) == 1 else 'seeds'}, from {min(near):.2f} to {max(near):.2f})",
                f"{row.name}: exact match {mean(far):.2f} at {last} segments (from {min(far):.2f} to {max(far):.2f})",
                f"{row.name}: naming the most recent answer alone would give {runs[0]['recency_accuracy']:.2f}; "
                f"stories from {_stories(records, row.name)}",
            ]
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.babilong.report import report

        return report()
