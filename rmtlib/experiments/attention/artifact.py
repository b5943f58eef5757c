"""Attention maps of copy and reverse (RMT paper, appendix B): what the heads of RMT and Tr-XL do with memory.

One row per model and task of the artifact `algorithmic`, one run per row and seed: train as that does, or take over its
weights, then read attention segment by segment, and answer without the memory of each segment.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.operations import OPERATIONS, unpack_weights
from rmtlib.experiments.algorithmic import artifact as algorithmic
from rmtlib.experiments.algorithmic.rows import task_row
from rmtlib.experiments.algorithmic.scales import settings
from rmtlib.experiments.attention.rules import numbers, title_of
from rmtlib.experiments.attention.settings import Params, cost
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import is_number
from rmtlib.runs.spec import Cost, Result, Row, RunConfig
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

SHOWN = (  # rows of `algorithmic`
    "reverse-2-rmt-24", "reverse-2-trxl-24", "copy-3-rmt-24", "copy-3-trxl-24", "reverse-4-rmt-12", "reverse-4-trxl-12",
    "reverse-4-rmt-6", "reverse-4-trxl-6", "copy-6-rmt-12", "copy-6-trxl-12",
)  # fmt: skip
SAMPLES = {"smoke": 8, "small": 128, "medium": 128, "gpu": 256, "paper": 256}


def _row(name: str) -> Row:
    row = task_row("algorithmic", name)
    return Row(name, row.label, row.task, {}, "RMT (Bulatov et al. 2022), appendix B, Figure 3: maps without numbers")


class AttentionMaps(Artifact):
    """RMT paper, appendix B: memory operations in attention."""

    name = "attention-maps"
    title = "Attention maps: how RMT and Tr-XL write, carry and read memory"
    settings_note = "Training is that of the artifact algorithmic."
    gpu_efficiency = algorithmic.Algorithmic.gpu_efficiency
    scales = algorithmic.Algorithmic.scales
    times_training = False
    rows = tuple(map(_row, SHOWN))

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return {"smoke": SHOWN[:4], "small": SHOWN[:4], "paper": SHOWN}.get(scale, SHOWN[:6])

    def default_seeds(self, scale: str) -> int:
        return algorithmic.Algorithmic().default_seeds(scale)

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run."""
        params = Params(settings(task_row("algorithmic", row), scale, seed), SAMPLES[scale])
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.attention.run import execute

        return execute(config, folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.attention.run import training_config

        params = from_dict(Params, config.params)
        return (
            algorithmic.Algorithmic().check_metrics(metrics, curves, training_config(config))
            or _check_operations(metrics.get("operations"), params)
            or _check_ablation(metrics.get("ablation"), params)
            or _check_sample(metrics.get("sample"), params)
        )

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """What the top heads do, and what is left without memory, one line a row."""
        lines = []
        for row in self.rows:
            own = [record for record in records if record["row"] == row.name]
            if runs := [numbers(record) for record in own]:
                mean = {name: fmean(run[name] for run in runs) for name in runs[0]}
                said = ", ".join(
                    f"{name} {mean[name]:+.2f}" for name in ("write", "carry", "read", "cache") if name in mean
                )
                lines.append(
                    f"{title_of(own[-1])}: excess over chance of {said}; accuracy {mean['solved']:.2f}, "
                    f"{mean['lost']:.2f} without memory, over {len(runs)} seed{'s' * (len(runs) > 1)}"
                )
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.attention.report import report

        return report()


def _check_operations(found: Any, params: Params) -> str | None:
    """Masses of every segment, layer and head lie in 0 to 1, keys in use from 1 up."""
    model, segments = params.training.model, params.training.segments
    if not isinstance(found, list) or [isinstance(x, dict) and x.get("segment") for x in found] != [
        *range(1, segments + 1)
    ]:
        return f"operations are not of segments 1 to {segments}"
    for of_segment in found:
        where = f"in segment {of_segment['segment']}"
        if wrong := set(of_segment) - {"segment", *OPERATIONS}:
            return f"operations {where} have {', '.join(sorted(wrong))}"
        for name in set(of_segment) - {"segment"}:
            operation = of_segment[name]
            if not is_number(operation.get("chance"), 0, 1) or operation["chance"] == 1:
                return f"chance of {name} {where} is {operation.get('chance')!r}"
            for key, least, most in (("mass", 0.0, 1.0001), ("keys_in_use", 0.9999, 1e6)):
                rows = operation.get(key)
                if not isinstance(rows, list) or [len(row) for row in rows] != [model.n_heads] * model.n_layers:
                    return f"{key} of {name} {where} is not of {model.n_layers} layers with {model.n_heads} heads"
                if wrong_values := [x for row in rows for x in row if not is_number(x, least, most)]:
                    return f"{key} of {name} {where} has {wrong_values[0]!r}"
    return None


def _check_ablation(found: Any, params: Params) -> str | None:
    """A row for each place, right answers no more than answers; before the place as intact."""
    segments, task = params.training.segments, params.training.tasks[-1]
    answers, rows = found["answers"], found["correct"]
    if len(answers) != segments or sum(answers) != params.samples * task.answer_size:
        return f"answers are {answers!r}, not {params.samples * task.answer_size} in {segments} segments"
    if [len(row) for row in rows] != [segments] * segments:
        return f"ablation is not of {segments} places and as many segments"
    for s, row in enumerate(rows):
        if not all(is_number(x, 0, most, whole=True) for x, most in zip(row, answers, strict=True)):
            return f"right answers without the memory after segment {s} are {row!r} of {answers!r}"
        if row[:s] != rows[0][:s]:
            return f"answers before segment {s + 1} differ by the memory after segment {s}"
    return None


def _check_sample(found: Any, params: Params) -> str | None:
    """Every map has its size, and the blocks are those of the model."""
    model, size = params.training.model, params.training.segment_sizes[-1]
    if len(found["tokens"]) != params.training.tasks[-1].length:
        return f"the sample has {len(found['tokens'])} tokens, not {params.training.tasks[-1].length}"
    for one in found["maps"]:
        cache, read, text, write = one["blocks"]
        if (read, text) != (model.memory_tokens, size) or write not in (0, read) or not 0 <= cache <= model.cache:
            return f"blocks of segment {one['segment']} are {one['blocks']!r}"
        try:
            unpack_weights(one["weights"], read + text + write, cache + read + text + write)
        except ValueError as error:
            return f"map of segment {one['segment']}: {error}"
    return None
