"""Tables 1 and 2 of the RMT paper: enwik8 and WikiText-103 by Baseline, MT, Tr-XL, RMT and Tr-XL + RMT.

A row's memory and segment are the paper's. Below the scale `gpu` all lengths are divided by the same number (cache,
memory tokens and segment alike, rounded to the nearest, at least 1), so that rows keep their proportions.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
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
from rmtlib.experiments.language_modelling.settings import (
    VOCABULARIES,
    NGramParams,
    Params,
    cost,
    read_params,
    used_tokens,
)
from rmtlib.experiments.language_modelling.trials import TRIALS
from rmtlib.models.config import TransformerXLConfig
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_curves, differs, is_number
from rmtlib.runs.spec import SCALES, Cost, Result, RunConfig, Trial
from rmtlib.settings import to_params
from rmtlib.training.stream_config import Replay, StreamConfig

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

REPLAY: dict[str, Replay] = {"": "stored", "newest": "newest", "released": "newest", "window": "none"}

ENWIK8_MODEL = TransformerXLConfig(vocab_size=204, d_model=512, n_layers=12, n_heads=8, d_head=64, d_ff=2048)
WIKITEXT_MODEL = TransformerXLConfig(
    vocab_size=267_735, d_model=410, n_layers=16, n_heads=10, d_head=41, d_ff=2100, cutoffs=(20_000, 40_000, 200_000)
)
# The deviation of new weights grows with 1/sqrt(width): with the published 0.02 so narrow a model stays at frequencies.
SMALL: dict[str, Any] = dict(d_model=64, n_layers=4, n_heads=4, d_head=16, d_ff=256, dropout=0.0, init_std=0.06)
SMOKE: dict[str, Any] = dict(d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=32, dropout=0.0, init_std=0.1)
SMALL_TRAIN: dict[str, Any] = dict(lr=4e-3, warmup=100, evaluate_every=400, log_every=20)
SMOKE_TRAIN: dict[str, Any] = dict(steps=20, batch_size=8, lr=4e-3, evaluate_every=10, log_every=5)
MEDIUM: dict[str, dict[str, Any]] = {  # `batch` by segment size
    "enwik8": dict(
        model=dict(d_model=192, n_layers=4, n_heads=4, d_head=48, d_ff=768, dropout=0.0, init_std=0.0327),
        tokens={"train": 4_096_000, "validation": 100_000, "test": None},
        batch={128: 16, 512: 4},
        train=dict(steps=6000, lr=2e-3, warmup=200, precision="bf16", evaluate_every=750, log_every=50),
    ),
    "wikitext-103": dict(
        model=dict(
            d_model=192,
            n_layers=4,
            n_heads=4,
            d_head=48,
            d_ff=768,
            dropout=0.1,
            init_std=0.0292,
            cutoffs=(2_000, 10_000),
        ),
        tokens={"train": None, "validation": 100_000, "test": None},
        batch={50: 32, 150: 12},
        train=dict(steps=6500, lr=1e-3, warmup=200, precision="bf16", evaluate_every=812, log_every=50),
    ),
}
"""enwik8's are those of its best trial. WikiText-2's only trial was stopped: it has to be finished before any run."""


def shrunk(length: int, divisor: float) -> int:
    """A length divided and rounded; what is not 0 stays at least 1."""
    return max(round(length / divisor + 1e-9), 1) if length else 0


class LanguageTable(Artifact):
    """What the two tables share."""

    unit: ClassVar[str]  # "bpc" or "perplexity"
    scales = SCALES
    least: ClassVar[float]  # the value that no text falls below, in that unit
    auxiliary: ClassVar[float] = 0.0  # weight of the memory loss of Tr-XL + RMT

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

    def settings(self, row: TableRow, scale: str, seed: int) -> Params:
        """All that the run depends on."""
        raise NotImplementedError

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config; it does not depend on this machine. Counting n-grams takes no chance: its seed is 0."""
        of_table, params = table_row(self.name, row), None
        if of_table.order:
            neural = self.settings(table_row(self.name, self.typical_row), scale, seed)
            params, seed = to_params(NGramParams(neural.corpus, neural.tokens, of_table.order)), 0
        return RunConfig(self.name, row, scale, seed, params or to_params(self.settings(of_table, scale, seed)))

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch the corpus, so that runs that start together do not."""
        corpus = self.config(rows[0], scale, 0).params["corpus"]
        files = [name for name in sources.SOURCES if name == corpus or name in _parts(corpus)]
        for name in files:
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
                    best = min(means, key=lambda row: means[row])
                    lines.append(
                        f"{kind}, {scale} scale: best {means[best]:.3f} {self.unit} ({best.name}), worst "
                        f"{max(means.values()):.3f}; {len(means)} row(s), {sum(map(len, values.values()))} run(s)"
                    )
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.language_modelling.report import report

        return report(self.name)

    def _medium(
        self,
        row: TableRow,
        seed: int,
        corpus: str,
        shape: TransformerXLConfig,
        evaluation: dict[str, int] | None = None,
    ) -> Params:
        """A row at the scale medium."""
        m = MEDIUM[self.name]
        train = m["train"] | {"batch_size": m["batch"][row.segment], "order": "rotated"}
        shape = replace(shape, vocab_size=VOCABULARIES[corpus], **m["model"])
        return self._params(row, seed, corpus, shape, 1, m["tokens"], evaluation=evaluation, **train)

    def _params(
        self,
        row: TableRow,
        seed: int,
        corpus: str,
        shape: TransformerXLConfig,
        divisor: float,
        tokens: dict[str, int | None],
        *,
        steps: int,
        compile: bool = False,
        evaluation: dict[str, int] | None = None,
        **train: Any,
    ) -> Params:
        """A row's run: memory, segment, replay and auxiliary loss are the row's, all else is given."""
        auxiliary = self.auxiliary if row.kind == "Tr-XL + RMT" else 0.0
        cache, segment = shrunk(row.cache, divisor), shrunk(row.segment, divisor)
        return Params(
            corpus=corpus,
            tokens=tokens,
            model=replace(
                shape,
                vocab_size=VOCABULARIES[corpus],
                memory_tokens=shrunk(row.memory, divisor),
                recurrent=row.recurrent,
                cache=cache,
                memory_positions="released" if row.variant == "released" else "signed",
                auxiliary_token=auxiliary > 0,
            ),
            train=StreamConfig(
                steps=steps * (1 + row.double),
                segment_size=segment,
                seed=seed,
                bptt=row.bptt or 0,
                replay=REPLAY[row.variant],
                auxiliary=auxiliary,
                **train,
            ),
            evaluation={"segment": segment, "cache": cache, "columns": 10} | (evaluation or {}),
            compile=compile,
        )


def _values(records: Sequence[dict[str, Any]], row: TableRow, scale: str) -> list[float]:
    return [r["metrics"]["value"] for r in records if (r["row"], r["scale"]) == (row.name, scale)]


def _parts(corpus: str) -> tuple[str, ...]:
    return tuple(f"{corpus}-{part}" for part in ("train", "valid", "test"))


class Enwik8(LanguageTable):
    """RMT paper, Table 1: bits per character on enwik8."""

    name = "enwik8"
    title = "RMT, Table 1: bits per character on enwik8"
    unit = "bpc"
    least = 0.0
    rows = as_rows("enwik8", "RMT (Bulatov et al. 2022), Table 1")

    def settings(self, row: TableRow, scale: str, seed: int) -> Params:
        """The paper's model, text and steps; see the notebook for what is less below the scale `paper`."""
        long = row.segment == 512
        divisor = {"smoke": 8, "small": 4}.get(scale, 1)
        cache = shrunk(row.cache + 384, divisor) if row.cache else 0  # the rows of 512 were evaluated so
        evaluation = {"segment": shrunk(128, divisor), "cache": cache} if long else None
        if scale == "smoke":
            tokens: dict[str, int | None] = {"train": None, "validation": 2_000, "test": 2_000}
            shape = replace(ENWIK8_MODEL, **SMOKE)
            text = "synthetic-characters"
            return self._params(row, seed, text, shape, divisor, tokens, evaluation=evaluation, **SMOKE_TRAIN)
        if scale == "small":
            tokens = {"train": 4_000_000, "validation": 50_000, "test": 200_000}
            shape = replace(ENWIK8_MODEL, **SMALL)
            train = dict(steps=2000, batch_size=11 if long else 32, **SMALL_TRAIN)
            return self._params(row, seed, "enwik8", shape, divisor, tokens, evaluation=evaluation, **train)
        if scale == "medium":
            return self._medium(row, seed, "enwik8", ENWIK8_MODEL, evaluation)
        gpu = scale == "gpu"
        return self._params(
            row,
            seed,
            "enwik8",
            ENWIK8_MODEL,
            divisor,
            {"train": None, "validation": 500_000 if gpu else None, "test": None},
            steps=6000 if gpu else 400_000,
            batch_size=22 if long else 64,
            lr=2.5e-4,
            evaluate_every=1000 if gpu else 4000,
            precision="bf16" if gpu else "float32",
            evaluation=evaluation,
            compile=True,
        )


class WikiText103(LanguageTable):
    """RMT paper, Table 2: perplexity on WikiText-103. Below the scale `paper` the text is WikiText-2."""

    name = "wikitext-103"
    title = "RMT, Table 2: perplexity on WikiText-103"
    unit = "perplexity"
    least = 1.0
    note = "below paper scale trained and tested on WikiText-2"
    auxiliary = 0.01  # appendix A.5
    rows = as_rows("wikitext-103", "RMT (Bulatov et al. 2022), Table 2")

    def settings(self, row: TableRow, scale: str, seed: int) -> Params:
        """The paper's model, text and steps; see the notebook for what is less below the scale `paper`."""
        batch = 128 if row.segment == 50 else 60
        if scale == "smoke":
            tokens: dict[str, int | None] = {"train": None, "validation": 1_000, "test": 1_000}
            shape = replace(WIKITEXT_MODEL, **SMOKE, vocab_size=VOCABULARIES["synthetic-words"], cutoffs=(100,))
            return self._params(row, seed, "synthetic-words", shape, 5, tokens, **SMOKE_TRAIN)
        if scale == "small":
            tokens = {"train": None, "validation": 50_000, "test": None}
            shape = replace(WIKITEXT_MODEL, **SMALL, vocab_size=VOCABULARIES["wikitext-2"], cutoffs=(2_000, 10_000))
            train = dict(steps=1600, batch_size=batch // 4, **SMALL_TRAIN)
            return self._params(row, seed, "wikitext-2", shape, 2.5, tokens, **train)
        if scale == "medium":
            return self._medium(row, seed, "wikitext-2", WIKITEXT_MODEL)
        gpu = scale == "gpu"
        return self._params(
            row,
            seed,
            "wikitext-2" if gpu else "wikitext-103",
            replace(WIKITEXT_MODEL, cutoffs=(20_000,)) if gpu else WIKITEXT_MODEL,
            1,
            {"train": None, "validation": None, "test": None},
            steps=3000 if gpu else 200_000,
            batch_size=batch,
            lr=2.5e-4,
            evaluate_every=500 if gpu else 4000,
            precision="bf16" if gpu else "float32",
            compile=True,
        )
