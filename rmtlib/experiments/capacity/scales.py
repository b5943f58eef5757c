"""The settings of every row of memory-capacity at every scale."""

from dataclasses import replace

from rmtlib.experiments.capacity.rows import LARGE
from rmtlib.experiments.capacity.settings import ModelConfig, Params, recomputing
from rmtlib.models.config import DecoderConfig, DeltaRule, MambaConfig
from rmtlib.training.curriculum import Stage, TrainConfig

RULES = {
    "armt": DeltaRule("sequential", "paper"),
    "armt-released": DeltaRule("batched", "released"),
    "armt-nogamma": DeltaRule("sequential", "off"),
    "armt-attached": DeltaRule("sequential", "paper", detach_gamma=False),
    "armt-dpfp-1": DeltaRule("sequential", "paper", nu=1),
}
EQUAL = {  # width of ARMT's memory, RMT's memory tokens: the states nearest to Mamba's
    "smoke": (4, 44),
    "small": (6, 76),
    "medium": (6, 76),
    "gpu": (12, 280),
    "paper": (12, 280),
}
VOCABULARY = 128


def _model(model: str, scale: str) -> ModelConfig:
    """The paper's kind of models: GPT-NeoX with an MLP as wide as the model, and Mamba.

    At the scale `paper` they start as released: as Hugging Face initialises both.
    """
    kind, _, variant = model.partition("-")
    size = "paper" if model in LARGE else scale
    width, layers = {"smoke": (32, 2), "small": (64, 2), "medium": (64, 2)}.get(size, (128, 4))
    if kind == "mamba":
        states = {"smoke": 8, "small": 16, "medium": 16}.get(size, 32)
        return ModelConfig(
            kind, MambaConfig(VOCABULARY, width, layers, states, init="huggingface" if scale == "paper" else "torch")
        )
    released = scale in ("gpu", "paper")
    decoder = DecoderConfig(
        VOCABULARY,
        width,
        layers,
        n_heads=4,
        d_ff=width,
        positions="rotary",
        rotary_fraction=0.25,
        parallel_residual=True,
        activation="gelu",
        tied=False,
        conv_taps=0 if released else 4,
        init_std=0.02 if scale == "paper" else None,
    )
    if variant in ("equal", "large"):
        d_memory, tokens = EQUAL[size]
    else:
        d_memory, tokens = 64 if released else 8 if scale == "smoke" else 16, 4
    if kind == "prmt":
        return ModelConfig(kind, decoder, 4)
    if kind == "rmt":
        return ModelConfig(kind, decoder, 32 if released and not variant else tokens)
    rule = RULES.get(model, RULES["armt"])
    d_memory = d_memory * RULES["armt"].nu // rule.nu  # as many features, whatever their order
    return ModelConfig(kind, decoder, 4, d_memory, rule, normalised=not released)


def _smoke(model: str, task: str, seed: int) -> Params:
    return Params(
        task=task,
        value_size=1,
        model=_model(model, "smoke"),
        train=TrainConfig(
            stages=(Stage(1, 6, 3e-3), Stage(3, 6, 3e-3)), segment_size=4, batch_size=8, seed=seed, evaluate_every=6
        ),
        key_sizes=(1, 1),
        vary_pairs=True,
        enough=1.0,
        clip_value=None,
        train_samples=None,
        validation_samples=16,
        test_pairs=(1, 3, 8),
        test_samples=32,
        evaluation_batch=16,
    )


def _small(model: str, task: str, seed: int) -> Params:
    stages: tuple[Stage, ...] = (Stage(3, 600, 3e-3), Stage(10, 300, 3e-3))
    if task == "rewrite":  # more updates than keys, so that training has to overwrite
        stages = (Stage(3, 600, 3e-3), Stage(10, 150, 3e-3), Stage(30, 150, 3e-3))
    return Params(
        task=task,
        value_size=1,
        model=_model(model, "small"),
        train=TrainConfig(
            stages=stages,
            segment_size=4,
            batch_size=256,
            seed=seed,
            weight_decay=1e-3,
            beta2=0.99,
            evaluate_every=50,
            patience=100,
        ),
        key_sizes=(1,) * len(stages),
        vary_pairs=model != "armt-fixed",
        enough=0.98,
        clip_value=None,
        train_samples=None,
        validation_samples=256,
        test_pairs=(1, 2, 4, 6, 8, 10, 12, 14, 16) if task == "remember" else (1, 3, 10, 30, 60, 100, 300, 500),
        test_samples=500,
        evaluation_batch=250,
    )


def _medium(model: str, task: str, seed: int) -> Params:
    """The models of `small` in smaller batches, each stage until its level is reached or 3,000 steps, for all alike.

    Those of the paper's size go on to 20 pairs, with keys of two symbols then and in the tests, at the rate that they
    have at the scale gpu.
    """
    small = _small(model, task, seed)
    pairs, key_sizes, rate = (3, 10) if task == "remember" else (3, 10, 30), small.key_sizes, 3e-3
    tested = small.test_pairs if task == "remember" else (1, 3, 10, 30, 60, 100, 300, 1500)
    if model in LARGE:
        pairs, key_sizes, rate, tested = (3, 10, 20), (1, 1, 2), 1e-3, (*tested, 20, 30)
    return replace(
        small,
        model=_model(model, "medium"),
        train=replace(
            small.train,
            stages=tuple(Stage(n, 3000, rate) for n in pairs),
            segment_size=small.segment_size(key_sizes[-1]),
            batch_size=64,
        ),
        key_sizes=key_sizes,
        enough=0.995,
        test_pairs=tested,
        test_samples=1000,
    )


def _curriculum(task: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pairs and key sizes of the released scripts' stages."""
    if task == "rewrite":
        return (1, 2, 3, 5, 10, 20, 40, 50), (1,) * 8
    return (1, 2, 3, 5, 10, 20, 40, 50, 50, 200), (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)


def _stages(pairs: tuple[int, ...], first: int, middle: int, last: int, rate: float) -> tuple[Stage, ...]:
    steps = [first, *[middle] * (len(pairs) - 2), last]
    return tuple(Stage(n, count, rate) for n, count in zip(pairs, steps, strict=True))


def _grid(task: str, key_size: int) -> tuple[int, ...]:
    """Numbers of pairs to test; remember has no more than there are keys."""
    grid = (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500)
    return tuple(n for n in grid if task == "rewrite" or n <= 16**key_size)


def _gpu(model: str, task: str, seed: int) -> Params:
    pairs, key_sizes = _curriculum(task)
    return Params(
        task=task,
        value_size=1,
        model=_model(model, "gpu"),
        train=TrainConfig(
            stages=_stages(pairs, 500, 1000, 2000, 1e-3),
            segment_size=key_sizes[-1] + 3,
            batch_size=512,
            seed=seed,
            weight_decay=1e-3,
            evaluate_every=100,
            patience=10,
        ),
        key_sizes=key_sizes,
        vary_pairs=model != "armt-fixed",
        enough=1.0,
        clip_value=None,
        train_samples=None,
        validation_samples=1000,
        test_pairs=_grid(task, key_sizes[-1]),
        test_samples=1000,
        evaluation_batch=500,
    )


def _paper(model: str, task: str, seed: int) -> Params:
    """The released scripts' settings."""
    kind = model.split("-")[0]
    pairs, key_sizes = _curriculum(task)
    last = 30_000 if task == "rewrite" else {"armt": 15_000, "rmt": 20_000}.get(kind, 30_000)
    if kind == "prmt" and task == "remember":
        pairs, key_sizes = pairs[:8], key_sizes[:8]
    return Params(
        task=task,
        value_size=1,
        model=_model(model, "paper"),
        train=TrainConfig(
            stages=_stages(pairs, 2000, 10_000, last, 3e-4),
            segment_size=key_sizes[-1] + 3,
            batch_size=512,
            seed=seed,
            weight_decay=1e-3,
            evaluate_every=500 if kind == "prmt" else 250,
            patience=50 if kind in ("rmt", "prmt") else 30,
        ),
        key_sizes=key_sizes,
        vary_pairs=kind != "prmt" and model != "armt-fixed",
        enough=1.0,
        clip_value=1.0,
        train_samples=1_000_000,
        validation_samples=1000,
        test_pairs=_grid(task, key_sizes[-1]),
        test_samples=10_000,
        evaluation_batch=500,
    )


_SCALES = {"smoke": _smoke, "small": _small, "medium": _medium, "gpu": _gpu, "paper": _paper}


def settings(row: str, scale: str, seed: int) -> Params:
    """All that a run depends on."""
    model, _, task = row.rpartition("-")
    params = _SCALES[scale](model, task, seed)
    return recomputing(params) if scale in ("gpu", "paper") else params
