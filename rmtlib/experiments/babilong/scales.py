"""The settings of every task of Figure 5 at every scale."""

from collections.abc import Sequence
from dataclasses import replace

from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.settings import Params, recomputing
from rmtlib.models.config import DecoderConfig
from rmtlib.training.curriculum import Stage, TrainConfig

LEARNED = 0.98  # the validation score at which a stage has taught what it can
NEVER = 1.01
TRACKED = {"qa2": 8, "qa3": 12}
"""Questions about where people and objects are along the story, a named difference from the papers: without them small
models from scratch do not leave the plateau of answering by recency."""


def until_learned(params: Params) -> Params:
    """These settings, but every stage except the last ends as soon as it is learned."""
    return replace(params, enough=(*[LEARNED] * (len(params.train.stages) - 1), NEVER))


def _stages(segments: Sequence[int], steps: Sequence[int], lr: float) -> tuple[Stage, ...]:
    return tuple(Stage(n, count, lr) for n, count in zip(segments, steps, strict=True))


def _small(task: str, seed: int) -> Params:
    """Two layers from scratch, word level. Longer segments if one question's facts need them.

    qa2 does not leave the plateau of answering by recency with these steps, so qa3, whose segments cost more, gets
    far fewer and a smaller test.
    """
    steps = {"qa2": (1000, 200, 400, 600), "qa3": (150, 50, 50, 50), "qa4": (800, 200, 400, 600)}
    steps |= {"qa1": (200, 200, 400, 600), "qa5": (400, 200, 400, 600)}
    tests = (200, 100, 50) if task == "qa3" else (500, 250, 250)
    return Params(
        backbone=DecoderConfig(vocab_size=1000, d_model=64, n_layers=2, n_heads=4, positions="rotary", conv_taps=6),
        memory_tokens=8,
        memory_mask="causal",
        tokenizer="word-1000",
        questions="auto",
        background="baseten",
        join="space",
        every_question=True,
        train=TrainConfig(
            stages=_stages((0, 1, 2, 4), steps[task], 3e-3),
            segment_size={"qa1": 128, "qa2": 256, "qa3": 512, "qa4": 128, "qa5": 256}[task],
            batch_size=32,
            seed=seed,
            horizon=1.0,
            beta2=0.99,
            evaluate_every=100,
            patience=100,
        ),
        validation_samples=200,
        test_samples={str(n): tests[0 if n < 16 else 1 if n < 32 else 2] for n in (1, 2, 4, 8, 16, 32, 64)},
        evaluation_batch=50,
    )


def _smoke(task: str, seed: int) -> Params:
    small = _small(task, seed)
    assert isinstance(small.backbone, DecoderConfig)
    return replace(
        small,
        backbone=replace(small.backbone, vocab_size=600, d_model=32),
        memory_tokens=4,
        tokenizer="word-600",
        questions="simulator",
        background="synthetic",
        train=replace(
            small.train, stages=_stages((0, 2), (10, 10), 3e-3), segment_size=64, batch_size=8, evaluate_every=10
        ),
        validation_samples=16,
        test_samples={"1": 32, "2": 32, "4": 32},
        evaluation_batch=16,
    )


def _medium(task: str, seed: int) -> Params:
    """The model of `small` with a longer curriculum, up to eight segments, read to eight times that length.

    On two and three facts training also asks tracked questions, and every stage but the last ends when it is learned.
    """
    small = _small(task, seed)
    first = {"qa2": 3000, "qa3": 5000}.get(task, 300)
    params = replace(
        small,
        train=replace(small.train, stages=_stages((0, 1, 2, 4, 6, 8), (first, 300, 400, 600, 600, 1200), 3e-3)),
        test_samples={str(n): 500 if n <= 16 else 250 for n in (1, 2, 4, 8, 16, 32, 64)},
        tracked_questions=TRACKED.get(task, 0),
    )
    return until_learned(params) if task in TRACKED else params


def _paper(task: str, seed: int) -> Params:
    """Appendix C with the steps and rates of the released scripts: they validate twenty times a stage."""
    iterations, rate = (10_000 if task in ("qa2", "qa4") else 5_000), (3e-5 if task == "qa3" else 1e-5)
    first = {"qa1": 2000, "qa2": 2000, "qa3": 10_000, "qa4": 5000, "qa5": 5000}[task]
    lengths = ((1, first), *((n, iterations) for n in (2, 4, 6, 8, 16, 32)))
    return Params(
        backbone="gpt2",
        memory_tokens=16,
        memory_mask="causal",
        tokenizer="gpt2",
        questions="files",
        background="pg19",
        join="released",
        every_question=False,
        train=TrainConfig(
            stages=tuple(Stage(n, steps, rate, evaluate_every=steps // 20) for n, steps in lengths),
            segment_size=512,
            batch_size=64,
            seed=seed,
            warmup=0.2 if task == "qa3" else 0.1,
            precision="bf16",
        ),
        validation_samples=1000,
        test_samples={str(2**n): 1000 for n in range(1, 12)} | {"19532": 100},
        evaluation_batch=64,
    )


def _gpu(task: str, seed: int) -> Params:
    """GPT-2 fine-tuned with the papers' curriculum in far fewer steps.

    The steps are not tuned, so a stage but the last ends when it is learned, and none because the score stands still.
    """
    paper = _paper(task, seed)
    params = replace(
        paper,
        questions="auto",
        background="baseten",
        join="space",
        train=replace(
            paper.train,
            stages=_stages((1, 2, 4, 8, 16, 32), (600, 400, 400, 400, 200, 200), 5e-5),
            batch_size=32,
            warmup=0.1,
            evaluate_every=50,
            patience=100,
        ),
        validation_samples=100,
        test_samples={str(2**n): 200 if n < 8 else 20 for n in range(1, 12)} | {"19532": 4},
    )
    return until_learned(params)


def _gpu_smollm2(task: str, seed: int) -> Params:
    """SmolLM2 in GPT-2's place, whose weights have more mirrors."""
    return replace(_gpu(task, seed), backbone="smollm2", tokenizer="smollm2")


def _gpu_from_scratch(task: str, seed: int) -> Params:
    """If no pretrained weights can be had: the recipe of the small scale, eight layers deep."""
    gpu = _gpu(task, seed)
    params = replace(
        gpu,
        backbone=DecoderConfig(vocab_size=50_257, d_model=512, n_layers=8, n_heads=8, positions="rotary", conv_taps=6),
        tokenizer="gpt2",
        every_question=True,
        tracked_questions=TRACKED.get(task, 0),
        train=replace(
            gpu.train,
            stages=_stages((0, 1, 2, 4, 8, 16, 32), (2000, 500, 500, 400, 300, 200, 200), 5e-4),
            horizon=1.0,
            beta2=0.99,
            evaluate_every=100,
        ),
        enough=(),  # of as many stages as before
    )
    return until_learned(params)


STAND_INS = {"smollm2": _gpu_smollm2, "scratch": _gpu_from_scratch}
"""What is fine-tuned or trained at the scale gpu if GPT-2's weights cannot be had, as rows of their own."""
_SCALES = {"smoke": _smoke, "small": _small, "medium": _medium, "gpu": _gpu, "paper": _paper}


def settings(task: str, scale: str, seed: int, stand_in: str = "") -> Params:
    """All that a run depends on; questions "auto" stand for what is on the machine.

    Args:
        stand_in: one of `STAND_INS`, which are for the scale gpu alone.
    """
    if stand_in and scale != "gpu":
        raise RmtlibError(f"{stand_in} stands in for GPT-2 at the scale gpu, not at {scale}: leave it out")
    params = (STAND_INS[stand_in] if stand_in else _SCALES[scale])(task, seed)
    return recomputing(params) if scale in ("gpu", "paper") else params
