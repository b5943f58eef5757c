"""Bits per byte on each segment of a text (ARMT paper, Figure 6): RMT, ARMT, and their backbone without memory.

One row per model, one run per row and seed: train on windows of up to 8 segments, then read the test text after 0 to 14
segments of history.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rmtlib.data import sources
from rmtlib.errors import RmtlibError
from rmtlib.experiments.segments.rows import NGRAM, ROWS
from rmtlib.experiments.segments.rules import numbers
from rmtlib.experiments.segments.scales import ngram_settings, settings
from rmtlib.experiments.segments.settings import NGramParams, cost, read_params, target_tokens
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.backbones import GPT2, SMOLLM2, SMOLLM2_FILE, at_hand, fetch_gpt2_or_other
from rmtlib.runs.checks import check_curves, differs, is_number
from rmtlib.runs.cost import pretraining_cost
from rmtlib.runs.spec import SCALES, Cost, Once, Result, RunConfig
from rmtlib.settings import to_params
from rmtlib.training.pretrain_config import PretrainConfig

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

WIKITEXT_103 = "wikitext-103"
WIKITEXT_2 = tuple(f"wikitext-2-raw-{part}" for part in ("train", "valid", "test"))
FILES = {
    "small": ("books-baseten", *WIKITEXT_2),
    "medium": WIKITEXT_2,
    "gpu": (WIKITEXT_103, *WIKITEXT_2, SMOLLM2_FILE),
    "paper": (WIKITEXT_103,),
}


def _lacks_the_papers() -> bool:
    """Whether the paper's text, or its backbone where another one is here, is not on this machine."""
    return sources.state(WIKITEXT_103) == "absent" or at_hand() == SMOLLM2


class LMSegments(Artifact):
    """ARMT paper, Figure 6: what memory is worth in language modelling, segment by segment."""

    name = "lm-segments"
    title = "Bits per byte on each segment: RMT, ARMT and their backbone"
    settings_note = "A stage's segments are those of a training window."
    note = "below gpu scale trained and tested on WikiText-2"
    scales = SCALES
    rows = ROWS

    @property
    def typical_row(self) -> str:
        return "armt"

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return tuple(row.name for row in ROWS)

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch the text and weights, so that runs that start together do not; `config` then sees what is there."""
        if scale == "gpu":
            fetch_gpt2_or_other()
        for name in FILES.get(scale, ()):
            with suppress(RmtlibError):  # the run itself says what is missing
                sources.fetch(name)

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config. At the scale `gpu` it depends on whether WikiText-103 and GPT-2 are on this machine."""
        return self._config(row, scale, seed, scale == "gpu" and _lacks_the_papers())

    def remarks(self, scale: str) -> list[str]:
        if scale != "gpu" or (sources.state(WIKITEXT_103) != "absent" and at_hand() == GPT2):
            return []
        return [
            "WikiText-103 or GPT-2 is not here: a run asks for both; if one cannot be had, SmolLM2 is tuned on "
            "WikiText-2, as other runs"
        ]

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        return self._config(row, scale, seed, offline=False)

    def _config(self, row: str, scale: str, seed: int, offline: bool) -> RunConfig:
        """Counting takes no chance: its seed is 0."""
        if row == NGRAM:
            return RunConfig(self.name, row, scale, 0, to_params(ngram_settings(scale, offline=offline)))
        return RunConfig(self.name, row, scale, seed, to_params(settings(row, scale, seed, offline=offline)))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.segments.run import count, execute

        params = read_params(config.params)
        return count(params, folder) if isinstance(params, NGramParams) else execute(params, folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(read_params(config.params))

    def once(self, config: RunConfig) -> Once | None:
        """The small decoder of all rows and seeds, if the scale has one."""
        params = read_params(config.params)
        backbone = None if isinstance(params, NGramParams) else params.model.backbone
        if not isinstance(backbone, PretrainConfig):
            return None
        return Once("the small decoder", backbone.key, pretraining_cost(backbone), backbone.is_kept)

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.segments.run import model_size

        params = read_params(config.params)
        for key in ("tokens", "bytes"):
            if not is_number(metrics.get(key), 1, whole=True):
                return f"{key} of the test are {metrics.get(key)!r}"
        if why := _check_segments(metrics, params.histories) or check_curves(curves, 0.0, math.inf):
            return why
        if not is_number(metrics.get("validation"), 0):
            return f"validation is {metrics.get('validation')!r} nats a token"
        sizes = {"train_segments": params.train_segments}
        if (expected := target_tokens(params)) is not None:
            sizes["tokens"] = expected
        if isinstance(params, NGramParams):
            return differs(metrics, sizes | {"segment_size": params.segment_size, "state_size": 0})
        last = [point[-1] for point in curves.get("validation", []) if point[0] == len(params.train.stages)]
        best = min((score for score in last if score is not None), default=None)
        if metrics["validation"] != best:
            return f"validation is {metrics['validation']!r}, the best of its last stage's curve is {best!r}"
        sizes |= {"segment_size": params.train.segment_size}
        return differs(metrics, sizes) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """Bits per byte without history, over the segments of training and beyond them, one line a row."""
        lines = []
        for row in self.rows:
            runs = [numbers(record) for record in records if record["row"] == row.name]
            if runs:
                first, within = (fmean(run[name] for run in runs) for name in ("segment 1", "within"))
                last = fmean(run[f"segment {max(_segments(run))}"] for run in runs)
                lines.append(
                    f"{row.label}: {first:.3f} bits per byte on the first segment, {within:.3f} on the others of "
                    f"training, {last:.3f} on segment {max(_segments(runs[0]))}, over "
                    f"{len(runs)} seed{'s' * (len(runs) > 1)}"
                )
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.segments.report import report

        return report()


def _segments(run: Mapping[str, float]) -> list[int]:
    return [int(name.removeprefix("segment ")) for name in run if name.startswith("segment ")]


def _check_segments(metrics: Mapping[str, Any], histories: int) -> str | None:
    """Every bits per byte anew from its nats and the bytes; the segments are 1, 2, ... as the settings say."""
    points = metrics.get("segments")
    if not isinstance(points, list) or [isinstance(p, dict) and p.get("segment") for p in points] != [
        *range(1, histories + 1)
    ]:
        return f"segments are not those of the settings, 1 to {histories}"
    off = metrics.get("memory_off")
    if not isinstance(off, dict):
        return f"memory_off is {off!r}"
    swapped = [{key.removeprefix("swapped_"): p[key] for key in p if key.startswith("swapped_")} for p in points]
    named = [
        *((f"at segment {p['segment']}", p) for p in points),
        *((f"with swapped memory at segment {i}", p) for i, p in enumerate(swapped, start=1) if p),
        ("without memory", off),
    ]
    for where, point in named:
        nats, bits = point.get("nats"), point.get("bits_per_byte")
        if not is_number(nats, 0) or not is_number(bits, 0):
            return f"nats are {nats!r} and bits_per_byte {bits!r} {where}"
        expected = nats / metrics["bytes"] / math.log(2)
        if not math.isclose(bits, expected, rel_tol=1e-9):
            return f"bits_per_byte is {bits!r} {where}, its nats over its bytes are {expected:.6g}"
    return None
