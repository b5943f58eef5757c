"""The settings of every row of quadratic at every scale."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rmtlib.data.quadratic import VOCABULARY
from rmtlib.experiments.algorithmic.scales import CONSTANT, model_of
from rmtlib.experiments.quadratic.rows import SOLVERS
from rmtlib.experiments.quadratic.settings import Params
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.plateau import PlateauConfig

NEARLY = 0.998  # of the validation tokens, with the true ones before: on to larger numbers
SOLVED = 0.9999  # the run has learned its task
NEVER = 1.01
PUBLISHED: Mapping[str, Any] = dict(d_model=128, n_layers=6, n_heads=6, d_head=64, d_ff=256)


@dataclass(frozen=True)
class Recipe:
    """How the rows are trained at a scale, all alike.

    Attributes:
        roots: their range in each stage.
        steps: the most of each stage; one ends before if validation is `NEARLY` perfect, the last if it is `enough`.
        model: fields of `TransformerXLConfig`; memory and cache are as large as a step.
        train: fields of `TrainConfig`.
        samples: how many, as `AnswerParams` has it.
    """

    roots: tuple[int, ...]
    steps: tuple[int, ...]
    lr: float
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    samples: Mapping[str, Any]
    multiplier: int = 10
    width: int = 30
    fixed: bool = False
    enough: float = SOLVED
    plateau: PlateauConfig | None = None


SMOKE = Recipe(
    roots=(3, 4),
    steps=(4, 4),
    lr=3e-3,
    model=dict(d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=32, dropout=0.0, init_std=0.1),
    train=dict(batch_size=8, evaluate_every=4, weight_decay=0.0, continued=True),
    samples=dict(train_samples=None, validation_samples=16, test_samples=16, evaluation_batch=16),
    multiplier=2,
    width=20,
)
SMALL = Recipe(
    roots=(5,),
    steps=(3000,),
    lr=2e-3,
    model=dict(
        d_model=64, n_layers=2, n_heads=4, d_head=16, d_ff=128, dropout=0.0, init_std=0.06, initial_memory="distinct"
    ),
    train=dict(
        batch_size=32, evaluate_every=100, weight_decay=0.0, beta2=0.98, clip_norm=0.25, horizon=1.0,
        patience=10_000, log_every=20, warmup=0.1,
    ),
    samples=dict(train_samples=None, validation_samples=256, test_samples=250, evaluation_batch=250),
    multiplier=2,
    width=21,
)  # fmt: skip
MEDIUM = Recipe(
    roots=(5, 10, 20, 40, 70, 100),
    steps=(700, 500, 500, 500, 500, 1100),
    lr=1e-3,
    model=dict(**PUBLISHED, dropout=0.0, init_std=0.05, initial_memory="distinct"),
    train=dict(
        batch_size=32, evaluate_every=200, weight_decay=0.0, beta2=0.98, clip_norm=0.25, continued=True,
        patience=10_000, log_every=20, warmup=0.2, precision="bf16",
    ),
    samples=dict(train_samples=None, validation_samples=256, test_samples=1000, evaluation_batch=256),
)  # fmt: skip
GPU = replace(
    MEDIUM,
    train={**MEDIUM.train, "batch_size": 256},
    samples=dict(train_samples=None, validation_samples=1000, test_samples=5000, evaluation_batch=1000),
)
PAPER = Recipe(
    roots=(100,),
    steps=(600_000,),
    lr=1e-4,
    model=dict(**PUBLISHED, dropout=0.1, init_std=0.02, memory_sees_cache=True),
    train=dict(
        batch_size=32, evaluate_every=12_000, weight_decay=0.0, clip_norm=0.25, warmup=0.0, horizon=CONSTANT,
        patience=10_000, log_every=200,
    ),
    samples=dict(train_samples=100_000, validation_samples=10_000, test_samples=20_000, evaluation_batch=500),
    fixed=True,
    enough=NEVER,
    plateau=PlateauConfig(patience=10),
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = {"smoke": SMOKE, "small": SMALL, "medium": MEDIUM, "gpu": GPU, "paper": PAPER}


def params_of(row: str, seed: int, recipe: Recipe) -> Params:
    """The row's settings by a recipe."""
    solver = SOLVERS[row]
    return Params(
        model=model_of(solver.model, VOCABULARY, recipe.width, **recipe.model),
        train=TrainConfig(
            stages=tuple(Stage(solver.segments, steps, recipe.lr) for steps in recipe.steps),
            segment_size=6 * recipe.width // solver.segments,
            seed=seed,
            **recipe.train,
        ),
        enough=(*[NEARLY] * (len(recipe.steps) - 1), recipe.enough),
        roots=recipe.roots,
        multiplier=recipe.multiplier,
        width=recipe.width,
        fixed=recipe.fixed,
        plateau=recipe.plateau,
        **recipe.samples,
    )


def settings(row: str, scale: str, seed: int) -> Params:
    """All that a run depends on."""
    return params_of(row, seed, RECIPES[scale])
