"""Tables 1 and 2 of the RMT paper: enwik8 and WikiText-103 by Baseline, MT, Tr-XL, RMT and Tr-XL + RMT."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from rmtlib.data import sources
from rmtlib.errors import RmtlibError
from rmtlib.experiments.language_modelling.rows import (
    DEFAULT_ROWS,
    TABLES,
    TableRow,
    as_rows,
    default_rows,
    table_row,
)
from rmtlib.experiments.language_modelling.scales import SCALES_OF, settings
from rmtlib.experiments.language_modelling.settings import NGramParams, cost, read_params, used_tokens
from rmtlib.experiments.language_modelling.trials import TRIALS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_curves, differs, is_number
from rmtlib.runs.spec import SCALES, Cost, Result, RunConfig, Trial
from rmtlib.settings import to_params

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder


class LanguageTable(Artifact):
    """What the two tables share."""

    unit: ClassVar[str]  # "bpc" or "perplexity"
    scales = SCALES
    least: ClassVar[float]  # the value that no text falls below, in that unit

    @property
    def typical_row(self) -> str:
        return DEFAULT_ROWS[self.name][-1]

    @property
    def trials(self) -> tuple[Trial, ...]:
        return TRIALS[self.name]

    def default_seeds(self, scale: str) -> int:
        return 3 if scale in ("medium", "paper") else 1

    def default_rows(self, scale: str) -> tuple[str, ...]:
        names = tuple(row.name for row in self.rows)
        return names if scale in ("gpu", "paper") else default_rows(self.name, scale)

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config; it does not depend on this machine. Counting n-grams takes no chance: its seed is 0."""
        params = settings(self.name, table_row(self.name, row), scale, seed)
        seed = 0 if isinstance(params, NGramParams) else seed
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch the corpus, so that runs that start together do not."""
        corpus = SCALES_OF[self.name][scale].corpus
        for name in (corpus, *(f"{corpus}-{part}" for part in ("train", "valid", "test"))):
            if name in sources.SOURCES:
                with suppress(RmtlibError):  # the run itself says what is missing
                    sources.fetch(name)

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.language_modelling.run import count, execute

        params = read_params(config.params)
        if isinstance(params, NGramParams):
            return count(params, folder, self.unit)
        return execute(params, folder, self.unit)

    def cost(self, config: RunConfig) -> Cost:
        return cost(read_params(config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.language_modelling.run import model_size

        unit = self.unit
        if metrics.get("unit") != unit:
            return f"unit is {metrics.get('unit')!r}, not {unit!r}"
        for key in ("value", "validation"):
            if not is_number(metrics.get(key), self.least):
                return f"{key} is {metrics.get(key)!r} {unit}"
        if not is_number(metrics.get("tokens"), 1, whole=True):
            return f"tokens of the test are {metrics.get('tokens')!r}"
        if not is_number(metrics.get("nats"), 0):
            return f"nats are {metrics.get('nats')!r}"
        mean = metrics["nats"] / metrics["tokens"]
        expected = mean / math.log(2) if unit == "bpc" else math.exp(min(mean, 700))
        if not math.isclose(metrics["value"], expected, rel_tol=1e-9):
            return f"value is {metrics['value']!r} {unit}, its nats over its tokens are {expected:.6g}"
        if why := check_curves(curves, self.least, math.inf):
            return why
        params = read_params(config.params)
        sizes = {"tokens": used_tokens(params)["test"]}
        if isinstance(params, NGramParams):
            return differs(metrics, sizes | {"segment": params.order, "cache": 0, "memory_tokens": 0, "state_size": 0})
        best = min((point[-1] for point in curves.get("validation", []) if point[-1] is not None), default=None)
        if metrics["validation"] != best:
            return f"validation is {metrics['validation']!r}, the best of its curve is {best!r}"
        sizes |= {"segment": params.train.segment_size, "cache": params.model.cache}
        sizes |= {"memory_tokens": params.model.memory_tokens}
        return differs(metrics, sizes) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """A line for each scale and model: its best row, worst value, and runs. Variants are left out."""
        lines = []
        table = [row for row in TABLES[self.name] if not row.variant]
        for scale in SCALES:
            for kind in dict.fromkeys(row.kind for row in table):
                values = {row: _values(records, row, scale) for row in table if row.kind == kind}
                means = {row: mean(runs) for row, runs in values.items() if runs}
                if means:
                    best, runs = min(means, key=lambda row: means[row]), sum(map(len, values.values()))
                    lines.append(
                        f"{kind}, {scale} scale: best {means[best]:.3f} {self.unit} ({best.name}), worst "
                        f"{max(means.values()):.3f}; {len(means)} row{'s' * (len(means) > 1)}, "
                        f"{runs} run{'s' * (runs > 1)}"
                    )
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.language_modelling.report import report

        return report(self.name)


def _values(records: Sequence[dict[str, Any]], row: TableRow, scale: str) -> list[float]:
    return [r["metrics"]["value"] for r in records if (r["row"], r["scale"]) == (row.name, scale)]


class Enwik8(LanguageTable):
    """RMT paper, Table 4 (Table 1 of the supplement): bits per character on enwik8."""

    name = "enwik8"
    title = "RMT, Table 4: bits per character on enwik8"
    unit = "bpc"
    least = 0.0
    rows = as_rows("enwik8", "RMT (Bulatov et al. 2022), Table 4")


class WikiText103(LanguageTable):
    """RMT paper, Table 5 (Table 2 of the supplement): perplexity on WikiText-103, below scale `paper` on WikiText-2."""

    name = "wikitext-103"
    title = "RMT, Table 5: perplexity on WikiText-103"
    unit = "perplexity"
    least = 1.0
    note = "below paper scale trained and tested on WikiText-2"
    rows = as_rows("wikitext-103", "RMT (Bulatov et al. 2022), Table 5")
