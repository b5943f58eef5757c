"""The settings of a run on tasks that end with an answer, and what it costs. Light to import: no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rmtlib.data.algorithmic import DRILLS, TASKS, AnswerSample, Split, Task
from rmtlib.models.config import TransformerXLConfig
from rmtlib.models.size import transformer_xl_weights
from rmtlib.runs.cost import activations, training_passes, transformer_cost
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least
from rmtlib.training.curriculum import TrainConfig
from rmtlib.training.plateau import PlateauConfig


class AnswerTask(Protocol):
    """What a run needs of a task; `data.algorithmic` has copy, reverse and retrieval, `data.quadratic` equations."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int:
        """How large its samples are, in the task's own measure."""
        ...

    @property
    def length(self) -> int:
        """Tokens of a sample."""
        ...

    @property
    def answer_size(self) -> int:
        """Positions that have a target: of a task the last ones."""
        ...

    @property
    def chance(self) -> float:
        """What a model that cannot see the question gets right."""
        ...

    def segment_size(self, segments: int) -> int: ...
    def sample(self, split: Split, index: int, seed: int) -> AnswerSample: ...


@dataclass(frozen=True, kw_only=True)
class AnswerParams:
    """All that a run depends on, but its tasks.

    Attributes:
        train: its stages' segments are how many a sample is cut into, their size follows from the task's length.
            `bptt_segments` 0 is a memory that is detached between segments.
        enough: of each stage, the validation score with teacher forcing at which it ends.
        train_samples: a fixed set of so many, in a new order every time; None: always new ones.
        plateau: how the learning rate falls; None: as `train` says alone.
        carry_cache: a batch begins with the cache that the one before has left, as in the released training.
    """

    model: TransformerXLConfig
    train: TrainConfig
    enough: tuple[float, ...]
    train_samples: int | None
    validation_samples: int
    test_samples: int
    evaluation_batch: int  # samples evaluated at once
    plateau: PlateauConfig | None = field(default=None, metadata={"since": 2})
    carry_cache: bool = field(default=False, metadata={"since": 2})

    def __post_init__(self) -> None:
        at_least(self, 1, "train_samples", "validation_samples", "test_samples", "evaluation_batch")
        self.one_a_stage("enough")

    def one_a_stage(self, *names: str) -> None:
        """ValueError unless these fields have a value for each stage."""
        for name in names:
            if len(getattr(self, name)) != (count := len(self.train.stages)):
                raise ValueError(f"{name} are {getattr(self, name)}; there must be one for each of {count} stages")

    @property
    def tasks(self) -> Sequence[AnswerTask]:
        """The task of each stage. Validation is of the stage's own, the test of the last."""
        raise NotImplementedError

    @property
    def segments(self) -> int:
        """How many segments a test sample has."""
        return self.train.stages[-1].segments

    @property
    def segment_sizes(self) -> tuple[int, ...]:
        """Of each stage."""
        return tuple(
            task.segment_size(stage.segments) for task, stage in zip(self.tasks, self.train.stages, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Params(AnswerParams):
    """All that a run of the artifacts algorithmic and algorithmic-long depends on.

    Attributes:
        task: a name of `data.algorithmic.TASKS`.
        sizes: of the task in each stage, see `data.algorithmic.Task`.
        drills: so many stages at the beginning have a drill in the place of retrieval.
        drill: which one, a name of `data.algorithmic.DRILLS`.
    """

    task: str
    alphabet: int
    sizes: tuple[int, ...]
    drills: int = field(default=0, metadata={"since": 3})
    drill: Literal["pairs", "letters"] = field(default="pairs", metadata={"since": 4})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}; it must be one of {', '.join(TASKS)}")
        self.one_a_stage("sizes")
        if not 0 <= self.drills < len(self.sizes) or (self.drills and self.task != "retrieval"):
            raise ValueError(f"drills is {self.drills}; only retrieval has drills, and its last stage is none")

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(
            DRILLS[self.drill](size) if stage < self.drills else TASKS[self.task](size, self.alphabet)
            for stage, size in enumerate(self.sizes)
        )


def weights(params: AnswerParams) -> int:
    """Of the whole model."""
    return transformer_xl_weights(params.model)


def _per_token(model: TransformerXLConfig, segment: int) -> float:
    """FLOP of a forward pass, memory and cache included, for each token of a segment."""
    inner, new = model.n_heads * model.d_head, segment + model.memory_tokens * (1 + model.recurrent)
    body = model.n_layers * (5 * model.d_model * inner + 2 * model.d_model * model.d_ff)
    keys = new + model.cache
    cached = model.n_layers * model.d_model * inner * 3 * model.cache
    attention = model.n_layers * 3 * inner * new * keys
    return 2 * (body * new + cached + attention) / segment + 2 * model.d_model * model.vocab_size


def work(params: AnswerParams) -> list[float]:
    """FLOP of every training stage with its validations, then of the test in all decodings."""
    train, parts = params.train, []
    for stage, task, size in zip(train.stages, params.tasks, params.segment_sizes, strict=True):
        checks = -(-stage.steps // (stage.evaluate_every or train.evaluate_every))
        tokens = training_passes() * stage.steps * train.batch_size + checks * params.validation_samples
        parts.append(tokens * task.length * _per_token(params.model, size))
    tested = 3 * params.test_samples * params.tasks[-1].length
    return [*parts, tested * _per_token(params.model, params.segment_sizes[-1])]


def cost(params: AnswerParams) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic; a stage that ends early makes it less."""
    model, train = params.model, params.train
    trained = sum(s.steps * train.batch_size * task.length for s, task in zip(train.stages, params.tasks, strict=True))
    new = params.segment_sizes[-1] + model.memory_tokens * (1 + model.recurrent)
    graph = activations(model.n_layers, model.d_model, new)
    graph += 6 * model.n_layers * model.n_heads * new * (new + model.cache)
    return transformer_cost(
        tokens=trained + 3 * params.test_samples * params.tasks[-1].length,
        work=work(params),
        weights=weights(params),
        kept=train.batch_size * params.segments * graph,
        precision=train.precision,
    )
