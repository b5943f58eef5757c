"""The settings of every row of the algorithmic tasks at every scale."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rmtlib.data.algorithmic import TASKS
from rmtlib.experiments.algorithmic.rows import Model, TaskRow
from rmtlib.experiments.algorithmic.settings import Params
from rmtlib.models.config import TransformerXLConfig
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.plateau import PlateauConfig

CONSTANT = 1e6  # a horizon at which the learning rate stays

COPY_MODEL: Mapping[str, Any] = dict(d_model=128, n_layers=4, n_heads=4, d_head=64, d_ff=256)
RETRIEVAL_MODEL: Mapping[str, Any] = dict(d_model=64, n_layers=6, n_heads=4, d_head=32, d_ff=128)


def model_of(model: Model, vocabulary: int, memory: int, **shape: Any) -> TransformerXLConfig:
    """A row's model: what passes from segment to segment is the row's, the shape the scale's."""
    return TransformerXLConfig(
        vocab_size=vocabulary,
        memory_tokens=memory if model in ("mt", "rmt") else 0,
        recurrent=model != "mt",
        cache=memory if model == "trxl" else 0,
        **shape,
    )


@dataclass(frozen=True)
class Recipe:
    """How the rows of a task are trained at a scale.

    Attributes:
        lengths: the task's size in each stage, of the row's own size, so that (0.25, 1.0) begins with a quarter.
        steps: the most of each stage.
        enough: of each stage.
        train: fields of `TrainConfig`.
        segments: the most that samples are cut into in the first stages; in the others it is the row's own number.
        growing: no segment is longer than the row's own, so that their number grows with the task.
        drills, drill: see `Params`.
        end: what the last stage's rate is of the others'.
    """

    lengths: tuple[float, ...]
    steps: tuple[int, ...]
    enough: tuple[float, ...]
    lr: float
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    segments: tuple[int, ...] = ()
    growing: bool = False
    drills: int = 0
    drill: Literal["pairs", "letters"] = "letters"
    end: float = 1.0


def params_of(row: TaskRow, recipe: Recipe, seed: int, *, shrink: float = 1.0, **samples: Any) -> Params:
    """The row's settings by a recipe; `shrink` divides sizes and memory."""
    size = max(round(row.size / shrink), 1)
    memory = max(round(row.memory / shrink), 1) if row.memory else 0
    alphabet = 8 if row.size >= 120 else 10  # symbols of the released data
    sizes = tuple(max(round(size * part), 1) for part in recipe.lengths)
    task = TASKS[row.task](size, alphabet)
    S = task.segment_size(row.segments)
    count = len(recipe.steps)
    if recipe.growing:
        cuts = [-(-TASKS[row.task](each, alphabet).length // S) for each in sizes]
    else:
        first = [min(most, row.segments) for most in recipe.segments]
        cuts = first + [row.segments] * (count - len(first))
    rates = [recipe.lr] * (count - 1) + [recipe.lr * recipe.end]
    stages = tuple(Stage(*stage) for stage in zip(cuts, recipe.steps, rates, strict=True))
    return Params(
        task=row.task,
        alphabet=alphabet,
        sizes=sizes,
        model=model_of(row.model, task.vocabulary, memory, **recipe.model),
        train=TrainConfig(
            stages=stages,
            segment_size=S,
            seed=seed,
            bptt_segments=0 if row.variant == "detached" else None,
            **recipe.train,
        ),
        enough=recipe.enough,
        carry_cache=row.variant == "carried",
        drills=recipe.drills,
        drill=recipe.drill if recipe.drills else "pairs",
        **samples,
    )


SOLVED = 0.9995  # the validation score at which a run has solved its task

SMOKE = Recipe(
    lengths=(0.5, 1.0),
    steps=(6, 6),
    enough=(0.99, SOLVED),
    lr=3e-3,
    model=dict(d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=32, dropout=0.0, init_std=0.1),
    train=dict(batch_size=8, evaluate_every=6, weight_decay=0.0, continued=True, horizon=CONSTANT),
)
SMALL = Recipe(  # in float32: so narrow a model gains nothing from bf16
    lengths=(*(k / 6 for k in range(1, 7)), 1.0),
    steps=(400, 200, 200, 200, 200, 400, 400),
    enough=(*[0.99] * 6, SOLVED),
    lr=2e-3,
    model=dict(d_model=64, n_layers=2, n_heads=4, d_head=16, d_ff=128, dropout=0.0, init_std=0.15),
    train=dict(
        batch_size=32, evaluate_every=25, weight_decay=0.0, beta2=0.98, clip_norm=0.25, continued=True,
        horizon=CONSTANT, patience=10_000, log_every=20, warmup=0.3,
    ),
    growing=True,
    end=0.25,
)  # fmt: skip
SYMBOLS = Recipe(  # found by the trials: the task grows by four symbols whenever it is learned
    lengths=tuple(k / 6 for k in range(1, 7)),
    steps=(1000, 400, 400, 400, 400, 1400),
    enough=(0.99, 0.99, 0.99, 0.99, 0.99, SOLVED),
    lr=5e-4,
    model=dict(dropout=0.0, init_std=0.05),
    train=dict(
        batch_size=32, evaluate_every=50, weight_decay=0.0, beta2=0.98, clip_norm=0.25, continued=True,
        horizon=CONSTANT, patience=10_000, log_every=50, warmup=0.3, precision="bf16",
    ),
)  # fmt: skip
COPY = replace(  # and segments are at most as long as the row's; the rate falls at the end
    SYMBOLS,
    lengths=(*SYMBOLS.lengths, 1.0),
    steps=(1000, 400, 400, 400, 400, 800, 800),
    enough=(*[0.99] * 6, SOLVED),
    growing=True,
    end=0.25,
)
PAIRS = replace(  # found by the trials: drills of two and of all pairs, whose segments grow to the row's number
    SYMBOLS,
    lengths=(0.5, 1.0, 1.0, 1.0, 1.0, 1.0),
    steps=(1000, 400, 1000, 1000, 1500, 1500),
    enough=(0.99, 0.99, 0.97, 0.97, 0.95, SOLVED),
    lr=2e-3,
    train={**SYMBOLS.train, "batch_size": 128},
    segments=(1, 1, 2),
    drills=4,
    end=0.25,
)
SMALL_PAIRS = replace(PAIRS, steps=(700, 200, 300, 300, 300, 300), lr=SMALL.lr, model=SMALL.model, train=SMALL.train)
SMOKE_PAIRS = replace(SMOKE, segments=(1,), drills=1)


def published_shape(row: TaskRow) -> Mapping[str, Any]:
    """Widths and layers of the released models."""
    return RETRIEVAL_MODEL if row.task == "retrieval" else COPY_MODEL


def recipe_of(row: TaskRow) -> Recipe:
    """At medium, the same for all models of a task and number of segments."""
    if row.task == "retrieval":
        return PAIRS
    return COPY if row.task == "copy" and row.segments > 3 else SYMBOLS


def medium(row: TaskRow, seed: int, recipe: Recipe | None = None) -> Params:
    """The published model, data and segments, in fewer steps; `recipe` is another than the one that was chosen."""
    recipe = recipe or recipe_of(row)
    shaped = replace(recipe, model={**published_shape(row), **recipe.model})
    samples: dict[str, Any] = dict(train_samples=None, validation_samples=256, test_samples=1000, evaluation_batch=256)
    return params_of(row, shaped, seed, **samples)


def shrink(row: TaskRow, scale: str) -> float:
    """What the row's symbols and memory are divided by at this scale; retrieval has as many pairs at all."""
    if row.task == "retrieval":
        return 1.0
    return {"smoke": row.size / 6, "small": 2.0}.get(scale, 1.0)


def _smoke(row: TaskRow, seed: int) -> Params:
    samples: dict[str, Any] = dict(train_samples=None, validation_samples=16, test_samples=32, evaluation_batch=16)
    recipe = SMOKE_PAIRS if row.task == "retrieval" else SMOKE
    return params_of(row, recipe, seed, shrink=shrink(row, "smoke"), **samples)


def _small(row: TaskRow, seed: int) -> Params:
    samples: dict[str, Any] = dict(train_samples=None, validation_samples=256, test_samples=1000, evaluation_batch=250)
    recipe = SMALL_PAIRS if row.task == "retrieval" else SMALL
    return params_of(row, recipe, seed, shrink=shrink(row, "small"), **samples)


def _gpu(row: TaskRow, seed: int) -> Params:
    """As `medium` in batches of 256."""
    params = medium(row, seed)
    return replace(
        params,
        train=replace(params.train, batch_size=256),
        validation_samples=1000,
        test_samples=5000,
        evaluation_batch=1000,
    )


def _paper(row: TaskRow, seed: int) -> Params:
    """The released settings; the rate falls by the validation score, where the released code takes the loss."""
    batch, every, plateau = 32, 12_000, PlateauConfig(patience=10 if row.task == "retrieval" else 8)
    if row.size >= 120:
        batch, every, plateau = 128, 40_000, PlateauConfig(patience=5, floor=1e-5)
    recipe = Recipe(
        lengths=(1.0,),
        steps=(1000 * row.steps,),
        enough=(1.01,),  # no early stop
        lr=1e-4,
        model={**published_shape(row), "dropout": 0.1, "init_std": 0.02},
        train=dict(
            batch_size=batch, evaluate_every=every, weight_decay=0.0, clip_norm=0.25, warmup=0.0, horizon=CONSTANT,
            patience=10_000, log_every=200,
        ),
    )  # fmt: skip
    samples: dict[str, Any] = dict(
        train_samples=100_000, validation_samples=5_000, test_samples=10_000, evaluation_batch=500
    )
    return params_of(row, recipe, seed, plateau=plateau, **samples)


_SCALES = {"smoke": _smoke, "small": _small, "medium": medium, "gpu": _gpu, "paper": _paper}


def settings(row: TaskRow, scale: str, seed: int) -> Params:
    """All that a run depends on."""
    return _SCALES[scale](row, seed)
