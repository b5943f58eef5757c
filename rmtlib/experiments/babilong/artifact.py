"""Figure 5 of the BABILong paper: RMT's accuracy on five tasks against context length, over training seeds.

One row per bAbI task, one run per task and seed: train with the curriculum, then evaluate by exact match from one
segment to far beyond the training length.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from rmtlib.data import sources
from rmtlib.data.babi import TASKS, available_questions
from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.rows import ROWS, stand_in_of, tested_on_the_simulator
from rmtlib.experiments.babilong.rules import SEEDS
from rmtlib.experiments.babilong.scales import settings
from rmtlib.experiments.babilong.settings import Params, cost
from rmtlib.experiments.babilong.trials import TRIALS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.backbones import GPT2, SMOLLM2, SMOLLM2_FILE, at_hand, fetch_gpt2_or_other
from rmtlib.runs.checks import check_count, check_exact_match, differs
from rmtlib.runs.spec import Cost, Result, RunConfig, Trial
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder


def _stories(records: list[dict[str, Any]], row: str) -> str:
    """Where a row's test questions come from: "bAbI's files", "the simulator", or both, as its records say."""
    simulated = {tested_on_the_simulator(record) for record in records if record["row"] == row}
    return " and ".join(("the simulator" if made else "bAbI's files") for made in sorted(simulated))


class BABILong(Artifact):
    """A table or figure of exact match on BABILong's tasks, one row for a task and a model."""

    scales = ("smoke", "small", "medium", "gpu", "paper")
    shares_tests = True

    def params(self, row: str, scale: str, seed: int) -> Params:
        """The row's settings; questions "auto" stand for what is on the machine."""
        raise NotImplementedError

    def task(self, row: str) -> str:
        """The row's task."""
        return next(each.task for each in self.rows if each.name == row) or ""

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch what runs of these rows can use, if it can be had; `config` then sees what is there."""
        if scale == "smoke":
            return
        for task in dict.fromkeys(self.task(row) for row in rows):
            if available_questions(task) == "simulator":
                print(
                    f"bAbI's files of {task} cannot be had here: its stories come from the simulator, and the results "
                    "compare with those on the files in kind, not to the digit",
                    file=sys.stderr,
                )
        if scale != "paper":
            sources.fetch("books-baseten")
        if scale == "gpu":
            self._prepare_backbones(rows)
        elif any(self.params(row, scale, 0).backbone == SMOLLM2 for row in rows):
            sources.fetch(SMOLLM2_FILE)

    def _prepare_backbones(self, rows: Sequence[str]) -> None:
        """GPT-2 or what can be had in its place, as far as these rows need it; the run itself says what is missing."""
        wanted = {stand_in_of(row) for row in rows}
        if "" in wanted:
            fetch_gpt2_or_other()
        with suppress(RmtlibError):
            if "smollm2" in wanted:
                sources.fetch(SMOLLM2_FILE)
        with suppress(RmtlibError):
            if at_hand() != SMOLLM2 or "scratch" in wanted:
                sources.fetch("gpt2-encoder")
                sources.fetch("gpt2-bpe")
        for line in self.remarks("gpu") if "" in wanted else []:
            print(line, file=sys.stderr)

    def rows_here(self, scale: str, *, fetched: bool) -> tuple[str, ...]:
        names = self.default_rows(scale)
        there = at_hand() or (None if fetched else GPT2)  # what was not asked for yet may be had
        return names if scale != "gpu" or there == GPT2 else self.in_place_of(names, there)

    def in_place_of(self, rows: Sequence[str], there: str | None) -> tuple[str, ...]:
        """The rows that stand in for these, which need GPT-2, if SmolLM2 or nothing is there."""
        raise NotImplementedError

    def remarks(self, scale: str) -> list[str]:
        if scale != "gpu" or (there := at_hand()) == GPT2:
            return []
        rows = self.in_place_of(self.default_rows(scale), there or SMOLLM2)
        others = next(row for row in rows if stand_in_of(row))
        return [
            "GPT-2's weights are not here: a run asks the hub for them; if they cannot be had, other rows run by "
            f"default ({others} and the like)"
        ]

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config. What depends on the files of this machine is decided here, without the network."""
        questions = available_questions(self.task(row), fetch=False)
        return self.frozen(row, scale, seed, self.params(row, scale, seed), questions)

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        return self.frozen(row, scale, seed, self.params(row, scale, seed), "files")

    def frozen(self, row: str, scale: str, seed: int, params: Params, questions: str) -> RunConfig:
        """The config of these settings, with questions from "files" or the "simulator" where they say "auto"."""
        if params.questions == "auto":
            params = replace(params, questions=questions)
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.babilong.run import execute

        return execute(self.task(config.row), from_dict(Params, config.params), folder)

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
        if (scored := metrics.get("babilong_scorer")) is not None:  # older records have none
            at, most = params.scored_as_text
            if why := check_count("babilong_scorer", scored):
                return why
            if "outcomes" not in scored:
                return "babilong_scorer has no outcomes"
            if (scored["segments"], scored["tokens"]) != (at, points[str(at)]["tokens"]):
                return f"babilong_scorer has samples of {scored['segments']} segments, the settings give {at}"
            if scored["n"] > min(most, points[str(at)]["n"]):
                return f"babilong_scorer has {scored['n']} samples, the settings give {min(most, points[str(at)]['n'])}"
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
            curves = [
                {p["segments"]: p["correct"] / p["n"] for p in run["exact_match"] if p["segments"]} for run in runs
            ]
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


class Figure5(BABILong):
    """BABILong Figure 5: RMT performance on five BABILong tasks varies between training seeds."""

    name = "figure-5"
    title = "RMT on five BABILong tasks, over training seeds"
    rows = ROWS

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return ("qa1",) if scale in ("smoke", "small", "medium") else TASKS

    def default_seeds(self, scale: str) -> int:
        return {"smoke": 1, "small": 3}.get(scale, SEEDS)

    def in_place_of(self, rows: Sequence[str], there: str | None) -> tuple[str, ...]:
        return tuple(f"{there or 'scratch'}-{row}" for row in rows)

    def params(self, row: str, scale: str, seed: int) -> Params:
        return settings(self.task(row), scale, seed, stand_in_of(row))

    def report(self) -> "Report":
        from rmtlib.experiments.babilong.report import report

        return report()
