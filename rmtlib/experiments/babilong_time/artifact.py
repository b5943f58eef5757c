"""BABILong Table 3: how long it takes to read contexts of 4k to 1M tokens, and in how much memory.

One row for a model and a way to read, one run for a row and a seed. Nothing is trained: the weights are drawn, as time
does not depend on them. A run is a process of its own, which reads the lengths from the shortest to the longest.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.data import sources
from rmtlib.experiments.babilong_time.numbers import contexts, memory_growth, time_slope
from rmtlib.experiments.babilong_time.rows import MODELS, ROWS, split
from rmtlib.experiments.babilong_time.scales import READINGS, settings
from rmtlib.experiments.babilong_time.settings import Params, cost, flops_per_token
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import differs, is_number
from rmtlib.runs.progress import duration, size
from rmtlib.runs.spec import Cost, Result, RunConfig
from rmtlib.settings import from_dict, to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

BEYOND_FLOOR = 2.0  # a reading that is so many times as fast as the arithmetic of a large product cannot be


class BABILongTime(Artifact):
    """BABILong, Table 3: the time of reading against context length."""

    name = "babilong-time"
    title = "Reading time and memory against context length: RMT, ARMT and Mamba"
    note = "Seconds and bytes are of one machine, which each record names; those of two machines do not compare."
    settings_note = "Weights are drawn: time does not depend on them."
    scales = tuple(READINGS)
    alone = True
    rows = ROWS

    def default_rows(self, scale: str) -> tuple[str, ...]:
        if scale == "smoke":
            return (*MODELS, "rmt-batch")
        return tuple(row.name for row in self.rows if split(row.name)[1] != "-long")

    def default_seeds(self, scale: str) -> int:
        return 1 if scale == "smoke" else 3

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch the books and the tokeniser."""
        params = settings(rows[0], scale, 0)
        if params.background == "baseten":
            sources.fetch("books-baseten")
        if params.tokenizer == "gpt2":
            sources.fetch("gpt2-encoder")
            sources.fetch("gpt2-bpe")

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run."""
        return RunConfig(self.name, row, scale, seed, to_params(settings(row, scale, seed)))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.babilong_time.run import execute

        return execute(from_dict(Params, config.params), folder)

    def rehearsed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Contexts of two and four segments, once: a batch of each."""
        lengths = [str(segments * params["segment_size"]) for segments in (2, 4)]
        return params | {"rounds": 1, "samples": dict.fromkeys(lengths, params["batch"])}

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.babilong_time.run import model_size

        params = from_dict(Params, config.params)
        found = metrics.get("contexts")
        if not isinstance(found, list) or [(x["tokens"], x["samples"]) for x in found] != [
            (int(length), count) for length, count in params.samples.items()
        ]:
            return f"contexts are not the settings' {', '.join(params.samples)} tokens with their samples"
        if not is_number(metrics.get("product_flops"), 1.0):
            return f"product_flops is {metrics.get('product_flops')!r}"
        peaks = [context["peak_bytes"] for context in found]
        if not all(is_number(peak, 1, whole=True) for peak in peaks) or peaks != sorted(peaks):
            return f"peak_bytes are {peaks}: a peak cannot fall as a process goes on"
        for context in found:
            if why := _check_context(context, params, metrics["product_flops"]):
                return f"at {context['tokens']} tokens {why}"
        return differs(metrics, {"flops_per_token": flops_per_token(params)}) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """Of each row the time and memory of the longest context, and how both grow."""
        lines = []
        for row in self.rows:
            runs = [record["metrics"] for record in records if record["row"] == row.name]
            if runs:
                last = [contexts(run)[-1] for run in runs]
                lines.append(
                    f"{row.label}: {last[0].tokens:,} tokens in {_took(fmean(x.seconds for x in last))}, "
                    f"{size(max(x.peak_bytes for x in last))} of memory; time grows as the length to the power of "
                    f"{fmean(map(time_slope, runs)):.2f}, memory by {100 * fmean(map(memory_growth, runs)):.1f} % over "
                    f"the last step ({len(runs)} run{'s' * (len(runs) > 1)})"
                )
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.babilong_time.report import report

        return report()


def _took(seconds: float) -> str:
    return duration(seconds) if seconds >= 9.5 else f"{seconds:.2g} s"


def _check_context(context: Mapping[str, Any], params: Params, product_flops: float) -> str | None:
    for key, least in (("wall_s", 1e-9), ("cpu_s", 0.0), ("load", 0.0)):
        values = context[key]
        if len(values) != params.rounds or not all(is_number(value, least) for value in values):
            return f"{key} is {values!r}, not {params.rounds} numbers"
    least_s = context["samples"] * context["tokens"] * flops_per_token(params) / product_flops / BEYOND_FLOOR
    if min(context["wall_s"]) < least_s:
        return f"{min(context['wall_s'])!r} s are less than the arithmetic takes"
    if context["finite"] is not True:
        return "the state is not finite"
    answers, words = context["answers"], params.shape.vocab_size
    if not answers or not all(is_number(token, 0, words - 1, whole=True) for token in answers):
        return f"the answers are {answers!r}"
    return None
