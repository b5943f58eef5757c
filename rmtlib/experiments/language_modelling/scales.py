"""The settings of every row of the two language tables at every scale.

A row's memory and segment are the paper's. At `smoke` and `small` all lengths are divided by the same number (cache,
memory tokens and segment alike, rounded to the nearest, at least 1), so that rows keep their proportions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rmtlib.experiments.language_modelling.rows import TableRow
from rmtlib.experiments.language_modelling.settings import VOCABULARIES, NGramParams, Params
from rmtlib.models.config import TransformerXLConfig
from rmtlib.training.stream_config import Replay, StreamConfig


@dataclass(frozen=True)
class Scale:
    """What the rows of a table share at one scale.

    Attributes:
        tokens: how many of each split are read, from its beginning; None: all.
        model, train: fields of `TransformerXLConfig` and `StreamConfig` that no row decides.
        batch: batch size by the segment that a row has in the paper.
        divisor: of the row's cache, memory and segment.
    """

    corpus: str
    tokens: Mapping[str, int | None]
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    batch: Mapping[int, int]
    divisor: float = 1.0
    compile: bool = False


def _tokens(train: int | None, validation: int | None, test: int | None) -> dict[str, int | None]:
    return {"train": train, "validation": validation, "test": test}


ENWIK8_MODEL = dict(d_model=512, n_layers=12, n_heads=8, d_head=64, d_ff=2048)
WIKITEXT_MODEL = dict(d_model=410, n_layers=16, n_heads=10, d_head=41, d_ff=2100)
WIKITEXT_CUTOFFS = (20_000, 40_000, 200_000)
# The deviation of new weights grows with 1/sqrt(width): with the published 0.02 so narrow a model stays at frequencies.
MEDIUM_MODEL = dict(d_model=192, n_layers=4, n_heads=4, d_head=48, d_ff=768)
SMALL_MODEL = dict(d_model=64, n_layers=4, n_heads=4, d_head=16, d_ff=256, dropout=0.0, init_std=0.06)
SMOKE_MODEL = dict(d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=32, dropout=0.0, init_std=0.1)
MEDIUM_TRAIN = dict(warmup=200, precision="bf16", log_every=50, order="rotated")
SMALL_TRAIN = dict(lr=4e-3, warmup=100, evaluate_every=400, log_every=20)
SMOKE_TRAIN = dict(steps=20, lr=4e-3, evaluate_every=10, log_every=5)

SCALES_OF: Mapping[str, Mapping[str, Scale]] = {
    "enwik8": {
        "smoke": Scale(
            "synthetic-characters",
            _tokens(None, 2_000, 2_000),
            SMOKE_MODEL,
            SMOKE_TRAIN,
            batch={128: 8, 512: 8},
            divisor=8,
        ),
        "small": Scale(
            "enwik8",
            _tokens(4_000_000, 50_000, 200_000),
            SMALL_MODEL,
            dict(steps=2000, **SMALL_TRAIN),
            batch={128: 32, 512: 11},
            divisor=4,
        ),
        "medium": Scale(  # the settings of its best trial
            "enwik8",
            _tokens(4_096_000, 100_000, None),
            dict(dropout=0.0, init_std=0.0327, **MEDIUM_MODEL),
            dict(steps=6000, lr=2e-3, evaluate_every=750, **MEDIUM_TRAIN),
            batch={128: 16, 512: 4},
        ),
        "gpu": Scale(
            "enwik8",
            _tokens(None, 500_000, None),
            ENWIK8_MODEL,
            dict(steps=6000, lr=2.5e-4, evaluate_every=1000, precision="bf16"),
            batch={128: 64, 512: 22},
            compile=True,
        ),
        "paper": Scale(
            "enwik8",
            _tokens(None, None, None),
            ENWIK8_MODEL,
            dict(steps=400_000, lr=2.5e-4, evaluate_every=4000),
            batch={128: 64, 512: 22},
            compile=True,
        ),
    },
    "wikitext-103": {
        "smoke": Scale(
            "synthetic-words",
            _tokens(None, 1_000, 1_000),
            dict(cutoffs=(100,), **SMOKE_MODEL),
            SMOKE_TRAIN,
            batch={50: 8, 150: 8},
            divisor=5,
        ),
        "small": Scale(
            "wikitext-2",
            _tokens(None, 50_000, None),
            dict(cutoffs=(2_000, 10_000), **SMALL_MODEL),
            dict(steps=1600, **SMALL_TRAIN),
            batch={50: 32, 150: 15},
            divisor=2.5,
        ),
        "medium": Scale(  # the settings of its only trial
            "wikitext-2",
            _tokens(None, 100_000, None),
            dict(dropout=0.1, init_std=0.0292, cutoffs=(2_000, 10_000), **MEDIUM_MODEL),
            dict(steps=6500, lr=1e-3, evaluate_every=812, **MEDIUM_TRAIN),
            batch={50: 32, 150: 12},
        ),
        "gpu": Scale(
            "wikitext-2",
            _tokens(None, None, None),
            dict(cutoffs=WIKITEXT_CUTOFFS[:1], **WIKITEXT_MODEL),
            dict(steps=3000, lr=2.5e-4, evaluate_every=500, precision="bf16"),
            batch={50: 128, 150: 60},
            compile=True,
        ),
        "paper": Scale(
            "wikitext-103",
            _tokens(None, None, None),
            dict(cutoffs=WIKITEXT_CUTOFFS, **WIKITEXT_MODEL),
            dict(steps=200_000, lr=2.5e-4, evaluate_every=4000),
            batch={50: 128, 150: 60},
            compile=True,
        ),
    },
}
"""Artifact -> scale -> what its rows share; see the notebooks for what is less below the scale `paper`."""

REPLAY: Mapping[str, Replay] = {"": "stored", "newest": "newest", "released": "newest", "window": "none"}
AUXILIARY = {"enwik8": 0.0, "wikitext-103": 0.01}  # weight of the memory loss of Tr-XL + RMT: appendix A.5


def shrunk(length: int, divisor: float) -> int:
    """A length divided and rounded; what is not 0 stays at least 1."""
    return max(round(length / divisor + 1e-9), 1) if length else 0


def settings(artifact: str, row: TableRow, scale: str, seed: int) -> Params | NGramParams:
    """All that a run depends on. An n-gram row reads the same text as the others."""
    shared = SCALES_OF[artifact][scale]
    if row.order:
        return NGramParams(shared.corpus, shared.tokens, row.order)
    cache, memory, segment = (shrunk(length, shared.divisor) for length in (row.cache, row.memory, row.segment))
    evaluation = {"segment": segment, "cache": cache, "columns": 10}
    if row.segment == 512:  # the published evaluation is on windows of 128, with a cache longer by the difference
        cache_512 = shrunk(row.cache + 384, shared.divisor) if row.cache else 0
        evaluation |= {"segment": shrunk(128, shared.divisor), "cache": cache_512}
    auxiliary = AUXILIARY[artifact] if row.kind == "Tr-XL + RMT" else 0.0
    model = TransformerXLConfig(
        vocab_size=VOCABULARIES[shared.corpus],
        memory_tokens=memory,
        recurrent=row.recurrent,
        cache=cache,
        memory_positions="released" if row.variant == "released" else "signed",
        auxiliary_token=auxiliary > 0,
        **shared.model,
    )
    train = dict(shared.train)
    config = StreamConfig(
        steps=train.pop("steps") * (1 + row.double),
        segment_size=segment,
        batch_size=shared.batch[row.segment],
        seed=seed,
        bptt=row.bptt or 0,
        replay=REPLAY[row.variant],
        auxiliary=auxiliary,
        **train,
    )
    return Params(shared.corpus, shared.tokens, model, config, evaluation, shared.compile)
