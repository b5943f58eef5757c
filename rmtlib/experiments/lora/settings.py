"""The settings of a run of the LoRA study, and what it costs. Light to import: no torch."""

from dataclasses import dataclass
from typing import Literal

from rmtlib.models.config import DecoderConfig, LoRAConfig
from rmtlib.models.size import DECODERS, armt_weights, decoder_weights, lora_weights, qkv_width
from rmtlib.runs.cost import CHECKPOINT_BYTES, PROCESS_BYTES, activations, training_passes
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least
from rmtlib.training.curriculum import TrainConfig
from rmtlib.training.pretrain_config import PretrainConfig

WHOLE_TEXT = 300_000  # about how many tokens WikiText-2's test text has

Scored = Literal["all", "last", "inside"]
MemoryOf = Literal["own", "off", "shuffled", "other"]


@dataclass(frozen=True)
class Reading:
    """One way to read a text for a number (`evaluation.windows`).

    Attributes:
        name: its key in the record.
        text: a text of `data.subwords`, and its split.
        tokens: read from the split's beginning; None: all.
        window: tokens that are read from one initial memory.
        segment: tokens of a segment; a model without memory reads windows of one segment.
        score: which tokens of a window are targets.
        memory: whose memory the segments after the first are read with.
    """

    name: str
    text: str
    split: str
    tokens: int | None
    window: int
    segment: int
    score: Scored = "all"
    memory: MemoryOf = "own"

    def __post_init__(self) -> None:
        at_least(self, 1, "tokens", "window", "segment")

    @property
    def segments(self) -> int:
        """Segments of a window."""
        return -(-self.window // self.segment)


@dataclass(frozen=True)
class Tuning:
    """What is trained, and on which windows.

    Attributes:
        lora: adapters on a frozen decoder; None: all weights are trained.
        text: its train split is read, and its validation split chooses the weights.
        segments: of a window.
        labels: "all": every token of a window is a target, and every row reads the same tokens in every step. "last":
            those of the last segment, as published; windows then overlap by their history.
        chunk: segments of consecutive text that a step's windows are cut from (labels "all").
        train: `train.segment_size` counts text tokens, memory comes besides.
        validation_tokens: of the validation split, from its beginning.
    """

    lora: LoRAConfig | None
    text: str
    segments: int
    labels: Literal["all", "last"]
    chunk: int
    train: TrainConfig
    validation_tokens: int

    def __post_init__(self) -> None:
        at_least(self, 1, "segments", "chunk", "validation_tokens")
        if self.labels == "all" and self.chunk % self.segments:
            raise ValueError(f"chunk is {self.chunk} segments; it must be a multiple of segments, {self.segments}")
        if self.labels == "all" and self.train.batch_size * self.segments % self.chunk:
            raise ValueError(
                f"batch_size is {self.train.batch_size}; its {self.train.batch_size * self.segments} segments must be "
                f"whole chunks of {self.chunk}"
            )

    @property
    def steps(self) -> int:
        return self.train.stages[0].steps

    @property
    def window(self) -> int:
        """Tokens of a window."""
        return self.segments * self.train.segment_size

    @property
    def tokens(self) -> int:
        """Tokens of training that are targets."""
        scored = self.window if self.labels == "all" else self.train.segment_size
        return self.steps * self.train.batch_size * scored


@dataclass(frozen=True)
class Params:
    """All that a run depends on.

    Attributes:
        backbone: the small decoder's settings, or "gpt2" or "smollm2".
        tokenizer: the backbone's, a name of `models.backbones.load_tokenizer`.
        memory: the model around the backbone; "none" has no state.
        d_memory: of ARMT.
        tuning: None: the backbone as it is.
        readings: the tests, in order.
        other_text: what memory "other" is written from: its validation split.
        seed: of new weights, of the order of the text and of dropout.
        batch: windows read at once in tests.
        precision: of the tests; training has its own, which is the same.
    """

    backbone: PretrainConfig | str
    tokenizer: str
    memory: Literal["none", "rmt", "armt"]
    memory_tokens: int
    d_memory: int
    tuning: Tuning | None
    readings: tuple[Reading, ...]
    other_text: str
    seed: int
    batch: int
    precision: Literal["float32", "bf16"] = "float32"

    def __post_init__(self) -> None:
        at_least(self, 0, "memory_tokens", "d_memory")
        at_least(self, 1, "batch")
        if isinstance(self.backbone, str) and self.backbone not in DECODERS:
            raise ValueError(f"backbone is {self.backbone!r}; it must be one of {', '.join(DECODERS)}")
        if (self.memory == "none") != (self.memory_tokens == 0):
            raise ValueError(f"memory is {self.memory!r} with {self.memory_tokens} tokens; a memory has at least one")

    @property
    def model(self) -> tuple[DecoderConfig, str, int, int, LoRAConfig | None]:
        """What the model's shape depends on."""
        lora = self.tuning.lora if self.tuning is not None else None
        return self.decoder, self.memory, self.memory_tokens, self.d_memory, lora

    @property
    def decoder(self) -> DecoderConfig:
        """The backbone's shape."""
        return DECODERS[self.backbone] if isinstance(self.backbone, str) else self.backbone.decoder


def _per_token(params: Params, segment: int) -> float:
    """FLOP of a forward pass a token: the maps, attention to half of the positions, and the vocabulary."""
    c = params.decoder
    blocks = {"none": 0, "rmt": 2, "armt": 1}[params.memory]
    positions = segment + blocks * params.memory_tokens
    per_position = 2 * _body(c) + 2 * c.n_layers * c.d_model * positions
    return per_position * positions / segment + 2 * c.vocab_size * c.d_model


def _body(c: DecoderConfig) -> int:
    """Weights of the blocks' maps."""
    maps = 3 if c.activation == "swiglu" else 2
    return c.n_layers * c.d_model * (qkv_width(c) + c.d_model + maps * (c.d_ff or 4 * c.d_model))


def _passes(reading: Reading) -> float:
    """How often a text's segments are read: with history each several times, with another's memory twice."""
    repeats = reading.window / reading.segment if reading.score == "last" else 1.0
    return repeats * (2 if reading.memory in ("shuffled", "other") else 1)


def work(params: Params) -> list[float]:
    """FLOP of pretraining, of training with its validations, and of each reading."""
    parts = [0.0]
    if isinstance(params.backbone, PretrainConfig) and params.tuning is None:
        train = params.backbone.train
        parts = [3 * train.steps * train.batch_size * train.segment_size * _per_token(params, train.segment_size)]
    if params.tuning is not None:
        t = params.tuning
        read = t.steps * t.train.batch_size * t.window
        checks = -(-t.steps // t.train.evaluate_every) * t.validation_tokens * (t.segments if t.labels == "last" else 1)
        passes = training_passes(frozen=t.lora is not None)
        parts.append((passes * read + checks) * _per_token(params, t.train.segment_size))
    for reading in params.readings:
        parts.append(_passes(reading) * (reading.tokens or WHOLE_TEXT) * _per_token(params, reading.segment))
    return parts


def own_weights(params: Params) -> int:
    """What the model has besides its backbone: memory, and adapters."""
    c, t = params.decoder, params.tuning
    lora = lora_weights(c, t.lora.rank) if t is not None and t.lora is not None else 0
    armt = armt_weights(c, params.d_memory) if params.memory == "armt" else 0
    return lora + armt + params.memory_tokens * c.d_model


def weights(params: Params) -> int:
    """Of the whole model."""
    return decoder_weights(params.decoder) + own_weights(params)


def trained_weights(params: Params) -> int:
    """Those that tuning changes."""
    if params.tuning is None:
        return 0
    return own_weights(params) if params.tuning.lora is not None else weights(params)


def cost(params: Params) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic. The small decoder's FLOP are those of `Artifact.once`."""
    c, t = params.decoder, params.tuning
    trained, positions, read, targets = trained_weights(params), 0, 0, 0
    if t is not None:
        targets = t.train.batch_size * t.window
        positions = t.train.batch_size * t.segments * (t.train.segment_size + 2 * params.memory_tokens)
        read = t.steps * targets
    elif isinstance(params.backbone, PretrainConfig):
        made = params.backbone.train
        trained, targets = weights(params), made.batch_size * made.segment_size
        positions, read = targets, made.steps * targets
    kept = activations(c.n_layers, c.d_model, positions) * (2 if params.precision == "bf16" else 4)
    tested = sum(_passes(reading) * (reading.tokens or WHOLE_TEXT) for reading in params.readings)
    return Cost(
        tokens=int(read + tested),
        flops=sum(work(params)[1:]),
        memory_bytes=int(PROCESS_BYTES + 4 * weights(params) + 16 * trained + kept + 12 * targets * c.vocab_size),
        disk_bytes=CHECKPOINT_BYTES * trained,
        precision=params.precision,
        weights=weights(params),
    )
