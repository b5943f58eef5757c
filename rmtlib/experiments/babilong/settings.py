"""The settings of a BABILong run, and what it costs. Light to import: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from rmtlib.models.config import DecoderConfig
from rmtlib.models.size import decoder_weights
from rmtlib.runs.cost import activations, training_passes, transformer_cost
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least
from rmtlib.training.curriculum import Stage, TrainConfig

ANSWER_ROOM = 20  # tokens that the released scripts leave in the last segment for question, GEN, answer and EOS
PRETRAINED = {"gpt2": (12, 768, 50_257), "smollm2": (30, 576, 49_152)}  # layers, width, vocabulary: for the cost


@dataclass(frozen=True)
class Params:
    """All that a run depends on besides its task."""

    backbone: DecoderConfig | str  # a decoder trained from scratch, or the name of a pretrained one
    memory_tokens: int
    memory_mask: str
    tokenizer: str  # "word-N" (N entries), "gpt2", "smollm2" or a hub name
    questions: str  # "files" or "simulator"
    background: str  # a collection of `data.books`, or "synthetic"
    join: str
    every_question: bool
    train: TrainConfig
    validation_samples: int
    test_samples: Mapping[str, int]  # segments -> number of test samples
    evaluation_batch: int  # samples evaluated at once

    def __post_init__(self) -> None:
        at_least(self, 1, "validation_samples", "evaluation_batch")


def context_tokens(segments: int, segment_size: int) -> int:
    """Length of a context that fills `segments` segments together with its question and answer."""
    return segments * segment_size - ANSWER_ROOM


def work(params: Params) -> list[float]:
    """FLOP of every training stage with its validations, then of the tests."""
    train, S = params.train, params.train.segment_size
    layers, width, _ = _sizes(params)
    positions = (S + 2 * params.memory_tokens) / S  # memory tokens are computed too
    per_token = positions * (24 * layers * width**2 + 2 * layers * (S + 2 * params.memory_tokens) * width)
    parts = []
    for stage in train.stages:
        checks = -(-stage.steps // (stage.evaluate_every or train.evaluate_every))
        validated = checks * params.validation_samples * max(stage.segments, 1) * S
        parts.append(per_token * (training_passes(train.recompute) * _trained(stage, train) + validated))
    return [*parts, per_token * _tested(params)]


def _sizes(params: Params) -> tuple[int, int, int]:
    """Layers, width and vocabulary of the backbone."""
    b = params.backbone
    return PRETRAINED[b] if isinstance(b, str) else (b.n_layers, b.d_model, b.vocab_size)


def _trained(stage: Stage, train: TrainConfig) -> int:
    """Tokens of a stage; facts alone count as one segment."""
    return stage.steps * train.batch_size * context_tokens(1, train.segment_size) * (1 + max(stage.segments, 1)) // 2


def _tested(params: Params) -> int:
    """Tokens of all tests."""
    S = params.train.segment_size
    return sum(context_tokens(int(segments), S) * count for segments, count in params.test_samples.items())


def cost(params: Params) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic."""
    train, M = params.train, params.memory_tokens
    layers, width, _ = _sizes(params)
    segments = 1 if train.recompute else max(max(stage.segments, 1) for stage in train.stages)
    positions = train.batch_size * (train.segment_size + 2 * M) * segments
    return transformer_cost(
        tokens=sum(_trained(stage, train) for stage in train.stages) + _tested(params),
        work=work(params),
        weights=weights(params),
        kept=activations(layers, width, positions),
        precision=train.precision,
    )


def weights(params: Params) -> int:
    """Of the whole model; of a pretrained backbone, to a few per cent."""
    layers, width, vocabulary = _sizes(params)
    if isinstance(params.backbone, str):
        return 12 * layers * width**2 + vocabulary * width
    return decoder_weights(params.backbone) + params.memory_tokens * width
