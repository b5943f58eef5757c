"""Memory capacity (ARMT paper, Figures 2 and 4): pairs stored and rewritten by ARMT, RMT, PRMT and Mamba.

One row per model and task, one run per row and seed: train with the curriculum, then ask for pairs from one to far more
than training had.
"""

from collections.abc import Mapping
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.capacity import pairs_stored
from rmtlib.experiments.capacity.settings import ModelConfig, Params, cost
from rmtlib.models.config import DecoderConfig, DeltaRule, MambaConfig
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_exact_match, differs
from rmtlib.runs.spec import SCALES, Cost, Result, Row, RunConfig
from rmtlib.settings import from_dict, to_params
from rmtlib.training.curriculum import Stage, TrainConfig

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

MODELS = {
    "armt": "ARMT",
    "rmt": "RMT",
    "prmt": "PRMT",
    "mamba": "Mamba",
    "armt-released": "ARMT, update as in the released code",
    "armt-nogamma": "ARMT without gamma correction",
    "armt-attached": "ARMT with gradients through gamma",
    "armt-fixed": "ARMT, always the most pairs in training",
    "armt-equal": "ARMT with a state as large as Mamba's",
    "rmt-equal": "RMT with a state as large as Mamba's",
}
VALUES = 16  # of one symbol
FIGURES = {"remember": "Figure 2a", "rewrite": "Figure 2b", "armt-nogamma": "Figure 4a", "prmt": "Figure 4b"}
SAID = {  # the paper prints no numbers
    "armt-remember": "stores the most pairs; best capacity of the three (Table 2)",
    "mamba-remember": "stores more than RMT, fewer than ARMT",
    "rmt-remember": "stores the fewest pairs",
    "prmt-remember": "does not improve on RMT",
    "armt-rewrite": "perfect recall on over 10 times the trained updates",
    "rmt-rewrite": "degrades slightly beyond the trained updates",
    "mamba-rewrite": "degrades slightly beyond the trained updates",
    "armt-nogamma-rewrite": "struggles to extrapolate to more updates than trained",
}


RULES = {
    "armt": DeltaRule("sequential", "paper"),
    "armt-released": DeltaRule("batched", "released"),
    "armt-nogamma": DeltaRule("sequential", "off"),
    "armt-attached": DeltaRule("sequential", "paper", detach_gamma=False),
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
    width, layers = {"smoke": (32, 2), "small": (64, 2), "medium": (64, 2)}.get(scale, (128, 4))
    if kind == "mamba":
        states = {"smoke": 8, "small": 16, "medium": 16}.get(scale, 32)
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
    d_memory, tokens = EQUAL[scale] if variant == "equal" else (64 if released else 8 if scale == "smoke" else 16, 4)
    if kind == "prmt":
        return ModelConfig(kind, decoder, 4)
    if kind == "rmt":
        return ModelConfig(kind, decoder, 32 if released and not variant else tokens)
    rule = RULES.get(model, RULES["armt"])
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
    """The models of `small` in smaller batches, each stage until its level is reached or 3,000 steps, for all alike."""
    small = _small(model, task, seed)
    pairs = (3, 10) if task == "remember" else (3, 10, 30)
    return replace(
        small,
        model=_model(model, "medium"),
        train=replace(small.train, stages=tuple(Stage(n, 3000, 3e-3) for n in pairs), batch_size=64),
        enough=0.995,
        test_pairs=small.test_pairs if task == "remember" else (1, 3, 10, 30, 60, 100, 300, 1500),
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
            recompute=True,
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
            recompute=True,
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


def _row(model: str, task: str) -> Row:
    name = f"{model}-{task}"
    source = f"ARMT (Rodkin et al. 2024), {FIGURES.get(model, FIGURES[task])}" if name in SAID else "not in the paper"
    return Row(name, f"{MODELS[model]}, {task}", task, {"said": SAID[name]} if name in SAID else {}, source)


class MemoryCapacity(Artifact):
    """ARMT paper, Figures 2 and 4: how many pairs a memory holds, and how long it can be rewritten."""

    name = "memory-capacity"
    title = "Pairs stored and rewritten: ARMT, RMT, PRMT and Mamba"
    settings_note = "A stage's segments are pairs."
    scales = SCALES
    gpu_efficiency = 0.01  # models of half a million weights: launches and the traffic of states, not products
    rows = tuple(_row(model, task) for task in ("remember", "rewrite") for model in MODELS)

    def default_rows(self, scale: str) -> tuple[str, ...]:
        models = ("armt", "rmt", "prmt", "mamba")
        if scale == "medium":
            remember = ("armt", "armt-equal", "mamba", "rmt", "prmt", "rmt-equal")
            return tuple(f"{model}-remember" for model in remember) + tuple(f"{model}-rewrite" for model in models)
        return tuple(f"{model}-remember" for model in models) + (
            () if scale == "smoke" else ("armt-rewrite", "armt-nogamma-rewrite")
        )

    def default_seeds(self, scale: str) -> int:
        return 1 if scale in ("smoke", "small") else 3

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run."""
        model, _, task = row.rpartition("-")
        make = {"smoke": _smoke, "small": _small, "medium": _medium, "gpu": _gpu, "paper": _paper}[scale]
        params = make(model, task, seed)
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.capacity.run import execute

        return execute(from_dict(Params, config.params), folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.capacity.run import model_size

        if why := check_exact_match(metrics, curves):
            return why
        params = from_dict(Params, config.params)
        points = metrics["exact_match"]
        if [point.get("pairs") for point in points] != list(params.test_pairs):
            return f"exact_match is not of the settings' {', '.join(map(str, params.test_pairs))} pairs"
        for point in points:
            segments = point["pairs"] + 1
            expected = {"segments": segments, "tokens": segments * params.segment_sizes[-1], "n": params.test_samples}
            if why := differs(point, expected, f"at {point['pairs']} pairs "):
                return why
        expected = {"train_segments": params.train_pairs + 1, "values": VALUES**params.value_size}
        return differs(metrics, expected) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """Pairs stored of most asked for, or the rewrite accuracy within and beyond training, one line a row."""
        lines = []
        for row in self.rows:
            runs = [record for record in records if record["row"] == row.name]
            if not runs:
                continue
            curves = [{p["segments"] - 1: p["correct"] / p["n"] for p in run["metrics"]["exact_match"]} for run in runs]
            lengths = sorted(set.intersection(*(set(curve) for curve in curves)))
            trained = max(n for n in lengths if n <= runs[0]["metrics"]["train_segments"] - 1)
            at = {n: mean(curve[n] for curve in curves) for n in lengths}
            if row.task == "remember":
                stored = [mean(pairs_stored(c[n], n, runs[0]["metrics"]["values"]) for c in curves) for n in lengths]
                best = max(range(len(lengths)), key=stored.__getitem__)
                said = f"stores {stored[best]:.1f} of {lengths[best]} pairs (trained up to {trained})"
            else:
                said = (
                    f"exact match {at[trained]:.2f} after {trained} updates, as trained, {at[lengths[-1]]:.2f} after "
                )
                said += str(lengths[-1])
            lines.append(f"{row.label}: {said}, over {len(runs)} seed(s)")
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.capacity.report import report

        return report()
