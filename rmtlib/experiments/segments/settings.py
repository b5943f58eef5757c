"""The settings of an lm-segments run, and what it costs. Light to import: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any, Literal

from rmtlib.models.config import ARMTConfig, DecoderConfig, DeltaRule, RMTConfig
from rmtlib.models.size import armt_state, decoder_weights
from rmtlib.runs.cost import PROCESS_BYTES, activations, training_passes, transformer_cost
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least, from_dict
from rmtlib.training.curriculum import TrainConfig
from rmtlib.training.pretrain_config import PretrainConfig

SHAPES = {  # of pretrained backbones, for what can be said without them: layers, width, vocabulary
    "gpt2": (12, 768, 50_257),
    "smollm2": (30, 576, 49_152),
}
SPLIT_TOKENS = {  # in the pieces of the tokenisers used here; of the last text about
    "synthetic": {"train": 83_343, "validation": 10_684, "test": 11_052},
    "wikitext-2-raw": {"train": 3_095_885, "validation": 324_041, "test": 369_448},
    "wikitext-103-words": {"train": 120_000_000, "validation": 250_000, "test": 290_000},
}


@dataclass(frozen=True)
class ModelConfig:
    """A decoder with RMT's or ARMT's memory, or with none. `d_memory`, `rule` and `normalised` are ARMT's."""

    kind: Literal["backbone", "rmt", "armt"]
    backbone: DecoderConfig | PretrainConfig | str  # a new decoder, one trained here first, or the name of one
    memory_tokens: int = 0
    d_memory: int = 0
    rule: DeltaRule | None = None
    normalised: bool = False

    def __post_init__(self) -> None:
        if (self.memory_tokens > 0) != (self.kind != "backbone"):
            raise ValueError(f"memory_tokens is {self.memory_tokens}; a backbone has none, RMT and ARMT have some")
        if isinstance(self.backbone, str) and self.backbone not in SHAPES:
            raise ValueError(f"backbone is {self.backbone!r}; it must be one of {', '.join(SHAPES)}, or settings")

    def of(self, backbone: DecoderConfig) -> RMTConfig | ARMTConfig:
        """The config that `models.registry` builds around such a decoder."""
        if self.kind == "armt":
            rule = self.rule or DeltaRule()
            return ARMTConfig(backbone, self.memory_tokens, self.d_memory, rule, self.normalised)
        return RMTConfig(backbone, self.memory_tokens)

    @property
    def decoder(self) -> DecoderConfig | None:
        """The backbone's config; None if its weights would have to be here to know it."""
        b = self.backbone
        return b.decoder if isinstance(b, PretrainConfig) else None if isinstance(b, str) else b

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, width and vocabulary."""
        d = self.decoder
        return (d.n_layers, d.d_model, d.vocab_size) if d else SHAPES[str(self.backbone)]

    @property
    def parameters(self) -> int:
        """Weights; of a pretrained backbone, to a few per cent."""
        L, D, V = self.shape
        own = L * (D * D + 2 * D * self.d_memory + D + 1) if self.kind == "armt" else 0
        body = decoder_weights(self.decoder) if self.decoder else 12 * L * D * D + V * D
        return body + own + self.memory_tokens * D

    @property
    def state_size(self) -> int:
        """Floats that pass from segment to segment, per sample."""
        layers, width, _ = self.shape
        nu = (self.rule or DeltaRule()).nu
        return armt_state(layers, width, self.d_memory, nu) if self.kind == "armt" else self.memory_tokens * width


@dataclass(frozen=True)
class Params:
    """All that a run depends on.

    Attributes:
        text, tokenizer: names of `data.subwords`.
        tokens: how many tokens of each split are used, from its beginning; None: all.
        context: segments that are read at once, without memory.
        histories: the test reads every segment after 0 .. histories - 1 of those before it.
        validation_windows: how many windows of the longest stage validation reads.
        evaluation_batch: windows read at once.
    """

    text: str
    tokenizer: str
    tokens: Mapping[str, int | None]
    model: ModelConfig
    train: TrainConfig
    context: int
    histories: int
    validation_windows: int
    evaluation_batch: int

    def __post_init__(self) -> None:
        _check_text(self.text, self.tokens)
        at_least(self, 1, "context", "histories", "validation_windows")
        at_least(self, 2, "evaluation_batch")  # memories are swapped within a batch
        if self.context > 1 and self.model.memory_tokens:
            raise ValueError(f"context is {self.context}; a model with memory reads one segment at a time")
        if any(stage.segments < 1 for stage in self.train.stages):
            raise ValueError("stages has one of 0 segments; a stage needs 1 or more")
        if not 2 <= self.train_segments <= self.histories:
            raise ValueError(
                f"histories is {self.histories} and training has {self.train_segments} segments; training must have "
                "2 or more, and histories at least as many"
            )

    @property
    def train_segments(self) -> int:
        """The most segments that training has read in a row."""
        return max(stage.segments for stage in self.train.stages)


@dataclass(frozen=True)
class NGramParams:
    """All that the n-gram depends on: the text as in `Params`, what is tested of it, and n. Nothing is random."""

    text: str
    tokenizer: str
    tokens: Mapping[str, int | None]
    segment_size: int
    train_segments: int
    histories: int
    order: int

    def __post_init__(self) -> None:
        _check_text(self.text, self.tokens)
        at_least(self, 1, "segment_size", "train_segments", "histories", "order")


def read_params(params: Mapping[str, Any]) -> Params | NGramParams:
    """A config's params. Raises RmtlibError on those of other code."""
    return from_dict(NGramParams, params) if "order" in params else from_dict(Params, params)


def _check_text(text: str, tokens: Mapping[str, int | None]) -> None:
    """ValueError unless it is a known text, of which so many tokens of each split can be used."""
    if text not in SPLIT_TOKENS:
        raise ValueError(f"text is {text!r}; it must be one of {', '.join(SPLIT_TOKENS)}")
    if set(tokens) != set(SPLIT_TOKENS[text]) or any(count is not None and count < 1 for count in tokens.values()):
        raise ValueError(f"tokens are {dict(tokens)}; they must count {', '.join(SPLIT_TOKENS[text])} from 1 up")


def target_tokens(params: Params | NGramParams) -> int | None:
    """Tokens that the test is about; None if it has the whole text, whose length the settings do not say."""
    size = params.segment_size if isinstance(params, NGramParams) else params.train.segment_size
    tokens = params.tokens["test"]
    return None if tokens is None else (tokens // size - params.histories + 1) * size


def _used(params: Params | NGramParams) -> dict[str, int]:
    """Tokens of each split, about."""
    return {split: min(n, params.tokens[split] or n) for split, n in SPLIT_TOKENS[params.text].items()}


def _per_token(params: Params) -> float:
    """FLOP of a forward step, memory positions included."""
    (L, D, V), S, model = params.model.shape, params.train.segment_size, params.model
    blocks = 1 if model.kind == "armt" else 2
    positions = (S + blocks * model.memory_tokens) / S
    attention = 4 * L * D * S * params.context / 2
    return positions * (2 * (model.parameters - V * D) + attention) + 2 * V * D


def _trained(params: Params) -> list[int]:
    """Tokens of each stage."""
    train = params.train
    return [stage.steps * train.batch_size * stage.segments * train.segment_size for stage in train.stages]


def _tested(params: Params) -> int:
    """Tokens that the test reads: every segment once for each history, and twice to swap memories."""
    readings = 2 * params.histories if params.model.memory_tokens else params.context
    return _used(params)["test"] * (readings + 1)


def work(params: Params) -> list[float]:
    """FLOP of every training stage with its validations, then of the test."""
    train, per_token, parts = params.train, _per_token(params), []
    for stage, tokens in zip(train.stages, _trained(params), strict=True):
        checks = -(-stage.steps // (stage.evaluate_every or train.evaluate_every))
        validated = checks * params.validation_windows * stage.segments * train.segment_size
        parts.append((training_passes() * tokens + validated) * per_token)
    return [*parts, _tested(params) * per_token]


def cost(params: Params | NGramParams) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic."""
    used = _used(params)
    if isinstance(params, NGramParams):  # measured on enwik8: a comparison takes as long as 100 FLOP
        flops = 100 * params.order * sum(used.values()) * log2(used["train"])
        memory = PROCESS_BYTES + 6 * params.order * used["train"]
        return Cost(used["train"] + used["test"], flops, int(memory), 0)
    model, train = params.model, params.train
    layers, width, vocabulary = model.shape
    kept = activations(layers, width, train.segment_size + 2 * model.memory_tokens) + model.state_size
    read_at_once = train.batch_size * params.train_segments
    return transformer_cost(
        tokens=sum(_trained(params)) + _tested(params),
        work=work(params),
        weights=model.parameters,
        kept=read_at_once * kept,
        precision=train.precision,
        float32_bytes=12 * read_at_once * train.segment_size * vocabulary,  # logits
    )
