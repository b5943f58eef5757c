"""Trials, with a seed of no result: baselines for the settings of the scale medium, and what bf16 costs at small."""

from dataclasses import replace
from typing import Any

from rmtlib.experiments.language_modelling.rows import table_row
from rmtlib.experiments.language_modelling.scales import settings
from rmtlib.experiments.language_modelling.settings import VOCABULARIES, Params
from rmtlib.models.config import TransformerXLConfig
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params
from rmtlib.training.stream_config import StreamConfig

SEED = 100
SHAPE: dict[str, Any] = dict(d_model=192, n_layers=4, n_heads=4, d_head=48, d_ff=768)


def _trial(artifact: str, name: str, note: str, *, train_tokens: int | None = None, **train: Any) -> Trial:
    characters = artifact == "enwik8"
    corpus, segment = ("enwik8", 128) if characters else ("wikitext-2", 50)
    model = TransformerXLConfig(vocab_size=VOCABULARIES[corpus], **SHAPE, dropout=0.0, init_std=0.0327)
    if not characters:
        model = replace(model, dropout=0.1, init_std=0.0292, cutoffs=(2_000, 10_000))
    config = StreamConfig(
        segment_size=segment,
        seed=SEED,
        warmup=200,
        precision="bf16",
        evaluate_every=train["steps"] // 8,
        log_every=50,
        **train,
    )
    params = Params(
        corpus=corpus,
        tokens={"train": train_tokens, "validation": 100_000, "test": 10_000},
        model=model,
        train=config,
        evaluation={"segment": segment, "cache": 0, "columns": 10},
    )
    return Trial(name, note, RunConfig(artifact, f"baseline-seg{segment}", PILOT, SEED, to_params(params)))


def _in_precision(row: str, precision: str) -> Trial:
    """A row of the scale small as it is, but for the precision."""
    params = settings("enwik8", table_row("enwik8", row), "small", SEED)
    assert isinstance(params, Params)
    params = replace(params, train=replace(params.train, precision=precision))  # type: ignore[arg-type]
    note = f"small in {precision}: what bf16 costs in quality; made after medium's runs"
    return Trial(f"{row}-{precision}", note, RunConfig("enwik8", row, PILOT, SEED, to_params(params)))


TRIALS = {
    "enwik8": (
        _trial("enwik8", "lr-2e-3", "the whole text", steps=4000, batch_size=16, lr=2e-3),
        _trial("enwik8", "lr-1e-3", "stopped for lack of time", steps=4000, batch_size=16, lr=1e-3),
        _trial(
            "enwik8",
            "three-epochs",
            "a smaller text, three epochs; the settings of medium",
            train_tokens=4_096_000,
            steps=6000,
            batch_size=16,
            lr=2e-3,
        ),
        *(_in_precision(row, p) for row in ("baseline-seg128", "rmt-5-bptt-1-seg128") for p in ("float32", "bf16")),
    ),
    "wikitext-103": (
        _trial(
            "wikitext-103",
            "lr-1e-3",
            "the settings of medium, whose runs were begun beside it",
            steps=6500,
            batch_size=32,
            lr=1e-3,
        ),
    ),
}
