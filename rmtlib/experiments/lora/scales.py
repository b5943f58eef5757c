"""The settings of every row of the LoRA study at every scale.

Controlled rows read segments of the same text tokens, memory besides, and as many training tokens: `budget` segments.
Published rows have the study's context: a segment is what it leaves beside two memory blocks.
"""

from dataclasses import dataclass, replace
from typing import Literal

from rmtlib.experiments.lora.rows import STUDY, Study
from rmtlib.experiments.lora.settings import Params, Reading, Tuning
from rmtlib.experiments.small_decoder import SMALL_DECODERS
from rmtlib.models.config import LoRAConfig
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.pretrain_config import PretrainConfig

CHUNK = 8  # segments of consecutive text; windows of 6 are cut from 6
LENGTHS = (2, 4)  # of full attention that the ceiling has, in segments
CONTEXTS = {"gpt2": 1024, "smollm2": 2048}  # the longest that the backbones were trained on
CONSTANT = 1e9  # a horizon so far away that the rate stays


@dataclass(frozen=True)
class Scale:
    """What the rows of a scale share. Lengths are in tokens.

    Attributes:
        segment: text tokens of a controlled segment.
        context: positions of a published segment, memory included.
        budget: segments that every controlled row is trained on; a multiple of 24, so that 6 and 8 fit.
        chunks: of `CHUNK` segments in a step.
        rates: of the controlled rows.
        published_steps: of one window each; full tuning has 3 of 10.
        published_rate: of the published rows, with LoRA and of all weights.
        validation: tokens of the validation text, which choose the weights.
        test: tokens of the test text; None: all.
        batch: windows read at once in tests.
    """

    backbone: PretrainConfig | str
    tokenizer: str
    segment: int
    context: int
    budget: int
    chunks: int
    rates: dict[Literal["lora", "full"], float]
    published_steps: int
    published_rate: float
    validation: int
    test: int | None
    batch: int
    d_memory: int
    precision: Literal["float32", "bf16"] = "float32"
    text: str = "wikitext-2-raw"
    published_text: str = "wikitext-2-words"
    other_text: str = "books"
    joined: bool = True  # the published texts are joined as the study's notebook does


GPU = Scale(
    backbone="gpt2",
    tokenizer="gpt2",
    segment=448,
    context=1024,
    budget=10_656,
    chunks=2,
    rates={"lora": 5e-4, "full": 3e-5},
    published_steps=4800,
    published_rate=1e-4,
    validation=100_000,
    test=None,
    batch=8,
    d_memory=64,
    precision="bf16",
)
SCALE = {
    "smoke": Scale(
        backbone=SMALL_DECODERS["smoke"],
        tokenizer="bpe-300-synthetic",
        text="synthetic",
        published_text="synthetic",
        other_text="synthetic",
        segment=16,
        context=160,
        budget=48,
        chunks=1,
        rates={"lora": 5e-3, "full": 3e-3},
        published_steps=6,
        published_rate=1e-3,
        validation=1_300,
        test=1_280,
        batch=4,
        d_memory=4,
        joined=False,
    ),
    "small": Scale(
        backbone=SMALL_DECODERS["small"],
        tokenizer="bpe-4096-books",
        segment=32,
        context=160,
        budget=4608,
        chunks=4,
        rates={"lora": 3e-3, "full": 1e-3},
        published_steps=400,
        published_rate=1e-3,
        validation=16_384,
        test=32_768,
        batch=32,
        d_memory=16,
    ),
    "medium": Scale(
        backbone="smollm2",
        tokenizer="smollm2",
        segment=256,
        context=512,
        budget=2304,
        chunks=1,
        rates={"lora": 1e-3, "full": 5e-5},
        published_steps=600,
        published_rate=1e-4,
        validation=32_768,
        test=65_536,
        batch=8,
        d_memory=64,
        precision="bf16",
    ),
    "gpu": GPU,
    "paper": replace(
        GPU,
        budget=53_280,
        rates={"lora": 1e-4, "full": 3e-5},
        published_steps=24_100,
        validation=250_000,
        precision="float32",
    ),
}


def settings(row: str, scale: str, seed: int, backbone: str | None = None) -> Params:
    """All that a run depends on.

    Args:
        backbone: in the place of the scale's, by name, with its tokeniser.
    """
    study, s = STUDY[row], SCALE[scale]
    published = study.published
    tuning = None if not study.tuning else _published(study, s, seed) if published else _controlled(study, s, seed)
    return Params(
        backbone=backbone or s.backbone,
        tokenizer=backbone or s.tokenizer,
        memory=study.memory,
        memory_tokens=study.tokens,
        d_memory=s.d_memory if study.memory == "armt" else 0,
        tuning=tuning,
        readings=_published_readings(study, s) if published else _readings(study, s),
        other_text=s.other_text,
        seed=0 if tuning is None else seed,
        batch=s.batch,
        precision=s.precision,
    )


def _controlled(study: Study, s: Scale, seed: int) -> Tuning:
    """Equal tokens for every row: a step reads whole chunks, cut into the row's windows."""
    if study.memory == "none":  # a window is one segment, however long
        chunk = CHUNK // study.segments
        whole, steps = replace(study, segments=1), s.budget // (s.chunks * CHUNK)
        return _tuning(whole, s, seed, chunk, s.chunks * chunk, steps, study.segments * s.segment)
    chunk = CHUNK if CHUNK % study.segments == 0 else study.segments
    batch = s.chunks * chunk // study.segments
    return _tuning(study, s, seed, chunk, batch, s.budget // (s.chunks * chunk), s.segment)


def _published(study: Study, s: Scale, seed: int) -> Tuning:
    """A window a step, labels on its last segment, AdamW at 1e-4: LoRA for 10 epochs with a warm-up of one and a linear
    decay, all weights for 3 epochs at a constant rate."""
    return _tuning(study, s, seed, study.segments, 1, s.published_steps, s.context - 2 * study.tokens)


def _tuning(study: Study, s: Scale, seed: int, chunk: int, batch: int, steps: int, segment: int) -> Tuning:
    published, lora = study.published, study.tuning == "lora"
    rate = s.published_rate if published else s.rates["lora" if lora else "full"]
    if published and not lora:
        steps = steps * 3 // 10
    return Tuning(
        lora=LoRAConfig() if lora else None,
        text=s.published_text if published else s.text,
        segments=study.segments,
        labels="last" if published else "all",
        chunk=chunk,
        train=TrainConfig(
            stages=(Stage(study.segments, steps, rate),),
            segment_size=segment,
            batch_size=batch,
            seed=seed,
            warmup=0.0 if published and not lora else 0.1,
            horizon=CONSTANT if published and not lora else 1.0,
            precision=s.precision,
            evaluate_every=max(steps // 6, 1),
            patience=1000,
            log_every=max(steps // 60, 1),
        ),
        validation_tokens=s.validation,
    )


def _readings(study: Study, s: Scale) -> tuple[Reading, ...]:
    """The raw test text: as trained, with other memories, and, without memory, with full attention over more."""

    def test(name: str, window: int, segment: int, **more: str) -> Reading:
        return Reading(name, s.text, "test", s.test, window * s.segment, segment * s.segment, **more)  # type: ignore

    if study.memory != "none":
        own = [test("test", study.segments, 1)]
        others = [(f"memory {whose}", whose) for whose in ("off", "shuffled", "other") if study.segments > 1]
        return (*own, *(test(name, study.segments, 1, memory=whose) for name, whose in others))
    context = s.backbone.train.segment_size if isinstance(s.backbone, PretrainConfig) else CONTEXTS[s.backbone]
    readings = [test("test", study.segments, study.segments)]
    if study.segments == 1:
        readings += [test(f"window of {n} segments", n, n) for n in LENGTHS if n * s.segment <= context]
    if not study.tuning:
        readings += _notebook(s, s.context, s.context)
    return tuple(readings)


def _notebook(s: Scale, window: int, segment: int) -> list[Reading]:
    """The study's notebook: windows of the context that stand alone, of the raw and of the word-level test text."""
    joined = "-joined" * s.joined
    texts = [("raw", s.text), ("words", s.published_text)]
    return [
        Reading(f"notebook, {form}", f"{text}{joined}", "test", s.test, window, segment, "inside")
        for form, text in texts
    ]


def _published_readings(study: Study, s: Scale) -> tuple[Reading, ...]:
    """As the study: the validation text's last segments with history, and its notebook's windows."""
    segment = s.context - 2 * study.tokens
    window = study.segments * segment
    last = Reading("validation, last segment", s.published_text, "validation", s.validation, window, segment, "last")
    raw = Reading("test", s.text, "test", s.test, window, segment)
    return (last, *_notebook(s, s.context, segment), raw)
