"""The settings of every row of lm-segments at every scale."""

from dataclasses import replace

from rmtlib.experiments.segments.rows import NGRAM
from rmtlib.experiments.segments.settings import ModelConfig, NGramParams, Params
from rmtlib.experiments.small_decoder import SMALL_DECODERS
from rmtlib.models.config import DecoderConfig
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.pretrain_config import PretrainConfig
from rmtlib.training.stream_config import StreamConfig

ORDER = int(NGRAM.removeprefix("ngram-"))
WINDOW = 8  # segments that `backbone-window` reads at once: as many as the others are trained on
TEXT, BPE = "wikitext-2-raw", "bpe-4096-wikitext-2-raw"


def _model(row: str, backbone: DecoderConfig | PretrainConfig | str, memory: int, d_memory: int) -> ModelConfig:
    """RMT and ARMT have equally many memory tokens; of a small ARMT key features are normalised (not as released)."""
    if row == "rmt":
        return ModelConfig("rmt", backbone, memory)
    if row == "armt":
        return ModelConfig("armt", backbone, memory, d_memory, normalised=not isinstance(backbone, str))
    return ModelConfig("backbone", backbone)


def _smoke(row: str, seed: int) -> Params:
    decoder = SMALL_DECODERS["smoke"]
    return Params(
        text=decoder.text,
        tokenizer=decoder.tokenizer,
        tokens={"train": 4_000, "validation": 400, "test": 400},
        model=_model(row, decoder, 2, 4),
        train=TrainConfig(
            stages=(Stage(1, 6, 3e-3), Stage(3, 6, 3e-3)), segment_size=8, batch_size=4, seed=seed, evaluate_every=3
        ),
        context=3 if row == "backbone-window" else 1,
        histories=6,
        validation_windows=8,
        evaluation_batch=16,
    )


def _small(row: str, seed: int) -> Params:
    """From the small decoder, about a minute a run on a CPU core: shows how the figure is made, and little else."""
    medium, decoder = _medium(row, seed), SMALL_DECODERS["small"]
    return replace(
        medium,
        tokenizer=decoder.tokenizer,
        tokens={"train": None, "validation": 16_384, "test": 16_384},
        model=_model(row, decoder, 8, 16),
        train=replace(
            medium.train,
            stages=(Stage(2, 150, 1e-3), Stage(4, 50, 1e-3), Stage(8, 30, 1e-3)),
            precision="float32",
            evaluate_every=25,
        ),
        validation_windows=16,
    )


def _medium(row: str, seed: int) -> Params:
    """Most updates are on two segments, where they cost least and a memory has to be learned first."""
    return Params(
        text=TEXT,
        tokenizer=BPE,
        tokens={"train": None, "validation": 40_960, "test": 49_152},
        model=_model(row, _decoder(), 16, 32),
        train=TrainConfig(
            stages=(Stage(2, 1200, 1e-3), Stage(4, 400, 1e-3), Stage(8, 300, 1e-3)),
            segment_size=128,
            batch_size=4,
            seed=seed,
            horizon=1.0,
            beta2=0.99,
            precision="bf16",
            evaluate_every=100,
            patience=100,
        ),
        context=WINDOW if row == "backbone-window" else 1,
        histories=15,
        validation_windows=40,
        evaluation_batch=32,
    )


def _decoder() -> PretrainConfig:
    """The backbone of all rows and seeds, first trained on the same text, as the GPT-2 of the released script is."""
    return PretrainConfig(
        text=TEXT,
        tokenizer=BPE,
        decoder=DecoderConfig(4096, d_model=256, n_layers=4, n_heads=4, positions="rotary", norm="rms", bias=False),
        train=StreamConfig(
            steps=1500,
            segment_size=256,
            batch_size=16,
            lr=2e-3,
            seed=0,
            warmup=100,
            clip_norm=1.0,
            precision="bf16",
            evaluate_every=250,
            log_every=50,
            order="rotated",
        ),
        validation_tokens=40_960,
    )


def _paper(row: str, seed: int) -> Params:
    """The released script's settings, with the curriculum that the paper's text has."""
    return Params(
        text="wikitext-103-words",
        tokenizer="gpt2",
        tokens={"train": None, "validation": None, "test": None},
        model=_model(row, "gpt2", 16, 96),
        train=TrainConfig(
            stages=tuple(Stage(n, 36_000, 1e-4) for n in (1, 2, 4, 8)),
            segment_size=128,
            batch_size=32,
            seed=seed,
            warmup=1000 / 36_000,
            horizon=1.0,
            clip_norm=5.0,
            precision="bf16",
            evaluate_every=250,
            log_every=50,
        ),
        context=WINDOW if row == "backbone-window" else 1,
        histories=15,
        validation_windows=100,
        evaluation_batch=32,
    )


def _gpu(row: str, seed: int) -> Params:
    """The paper's models with far fewer steps: a few minutes a run."""
    paper = _paper(row, seed)
    stages = (Stage(2, 500, 1e-4), Stage(4, 500, 1e-4), Stage(8, 1500, 1e-4))
    return replace(paper, train=replace(paper.train, stages=stages, warmup=0.1))


def _gpu_offline(row: str, seed: int) -> Params:
    """If the text of the paper cannot be had: SmolLM2 on WikiText-2, and fewer steps, for so much less text."""
    gpu = _gpu(row, seed)
    stages = (Stage(2, 100, 5e-5), Stage(4, 100, 5e-5), Stage(8, 200, 5e-5))
    return replace(
        gpu,
        text=TEXT,
        tokenizer="smollm2",
        model=_model(row, "smollm2", 16, 72),
        train=replace(gpu.train, stages=stages, evaluate_every=50),
    )


_SCALES = {"smoke": _smoke, "small": _small, "medium": _medium, "gpu": _gpu, "paper": _paper}


def settings(row: str, scale: str, seed: int, *, offline: bool = False) -> Params:
    """All that a run depends on; `offline` if WikiText-103 cannot be had, which makes a difference at `gpu` alone."""
    return (_gpu_offline if offline and scale == "gpu" else _SCALES[scale])(row, seed)


def ngram_settings(scale: str, *, offline: bool = False) -> NGramParams:
    """The n-gram of the same text, tested on the same part of it."""
    p = settings("backbone", scale, 0, offline=offline)
    return NGramParams(p.text, p.tokenizer, p.tokens, p.train.segment_size, p.train_segments, p.histories, ORDER)
