"""The settings of a BABILong run, and what it costs. Light to import: no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rmtlib.models.config import (
    ARMTConfig,
    DecoderConfig,
    LoRAConfig,
    MambaConfig,
    PRMTConfig,
    RMTConfig,
    RMTRConfig,
    RWKVConfig,
)
from rmtlib.models.size import (
    DECODERS,
    armt_state,
    armt_weights,
    decoder_weights,
    lora_weights,
    mamba_weights,
    retrieval_weights,
    rwkv_weights,
)
from rmtlib.runs.cost import activations, recompute_from, training_passes, transformer_cost
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least
from rmtlib.training.curriculum import Stage, TrainConfig

ANSWER_ROOM = 20  # tokens that the released scripts leave in the last segment for question, GEN, answer and EOS
SCORED_AS_TEXT = 100
"""Test samples of one length: what the model writes after these is also judged as the benchmark judges text."""
MAMBA = "state-spaces/mamba-130m-hf"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"
PRETRAINED: Mapping[str, DecoderConfig | MambaConfig] = {
    **DECODERS,
    MAMBA: MambaConfig(50_280, 768, 24),
    MISTRAL: DecoderConfig(
        32_000, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, d_ff=14_336, positions="rotary", rope_theta=1e6,
        norm="rms", activation="swiglu", bias=False, tied=False, names="llama",
    ),
}  # fmt: skip


Kind = Literal["rmt", "rmt-r", "rmt-r-top-1", "armt", "prmt", "mamba", "rwkv", "rag", "rag-dense", "full-attention"]
Shape = DecoderConfig | MambaConfig | RWKVConfig
RWKV_CHUNK = 16  # `models.rwkv.CHUNK`, which imports torch


@dataclass(frozen=True)
class Params:
    """All that a run depends on besides its task.

    Attributes:
        kind: the model around the backbone. "rmt" with no memory tokens is the backbone on its window of one segment,
            "rag" the same on a window of the sentences that BM25 finds, "rag-dense" of those whose mean-pooled states
            in the backbone before training are nearest the question's (`evaluation.retrieval`), "full-attention" the
            same on the whole sample at once, as one long segment.
        d_memory: width of ARMT's keys before its feature map.
        tracked_questions: of each training sample, see `data.babilong.SampleBuilder`.
        endless: stories of training come from the simulator, new ones in every pass, whatever `questions` says.
        lora: adapters on the backbone, whose own weights are then frozen; None: all weights are trained.
        enough: validation score at which a stage ends before its steps are over; empty: never, else one a stage.
            A stage of the facts alone is then also validated on them alone.
    """

    backbone: Shape | str  # trained from scratch, or the name of a pretrained model
    memory_tokens: int
    memory_mask: str
    tokenizer: str  # "word-N" (N entries), "gpt2", "smollm2" or a hub name
    questions: str  # "files" or "simulator"
    background: str  # a collection of `data.books`, or "synthetic"
    join: str
    every_question: bool
    train: TrainConfig
    validation_samples: int
    test_samples: Mapping[str, int]  # segments, 0 for the facts alone -> number of test samples
    evaluation_batch: int  # samples evaluated at once
    kind: Kind = field(default="rmt", metadata={"since": 2})
    d_memory: int = field(default=0, metadata={"since": 2})
    tracked_questions: int = field(default=0, metadata={"since": 2})
    enough: tuple[float, ...] = field(default=(), metadata={"since": 2})
    lora: LoRAConfig | None = field(default=None, metadata={"since": 3})
    endless: bool = field(default=False, metadata={"since": 4})

    def __post_init__(self) -> None:
        at_least(self, 1, "validation_samples", "evaluation_batch")
        at_least(self, 0, "memory_tokens", "d_memory", "tracked_questions")
        if self.enough and len(self.enough) != len(self.train.stages):
            raise ValueError(f"enough is {self.enough}; it must be empty or have one number a stage")
        if isinstance(self.backbone, str) and self.backbone not in PRETRAINED:
            known = ", ".join(PRETRAINED)
            raise ValueError(f"backbone is {self.backbone!r}; it must be {known}, or a model's settings")
        if self.lora is not None and not (isinstance(self.shape, DecoderConfig) and self.kind == "full-attention"):
            raise ValueError(f"lora goes with kind 'full-attention' of a decoder, not {self.kind!r}")
        if self.lora is not None and self.lora.targets:
            raise ValueError("lora has targets; here it adapts query, key and value")
        if not any(key != "0" for key in self.test_samples):
            raise ValueError("test_samples has the facts alone; it must have a length with a background too")
        if wrong := [key for key in self.test_samples if not (key.isascii() and key.isdecimal())]:
            raise ValueError(f"test_samples has {wrong[0]!r}; its names must be numbers of segments")

    @property
    def shape(self) -> Shape:
        """The backbone's, of a pretrained one as far as its size goes."""
        return PRETRAINED[self.backbone] if isinstance(self.backbone, str) else self.backbone

    @property
    def scored_as_text(self) -> tuple[int, int]:
        """Which test answers are also scored as text: those of the longest trained length in segments; how many."""
        lengths, trained = sorted(map(int, self.test_samples)), max(stage.segments for stage in self.train.stages)
        segments = max((n for n in lengths if n <= trained), default=lengths[0])
        return segments, min(SCORED_AS_TEXT, self.test_samples[str(segments)])

    def read_at_once(self, segments: int, *, training: bool = False) -> int:
        """Tokens of one step of the model on samples of at most so many segments.

        In training questions along the story can make a sample longer than that, if its facts fill it.
        """
        S = self.train.segment_size
        if self.kind != "full-attention":
            return S
        more = training and (self.every_question or self.tracked_questions > 0)
        return S * (max(segments, 1) + more)

    def model(self, shape: Any) -> RMTConfig | RMTRConfig | ARMTConfig | PRMTConfig | MambaConfig | RWKVConfig:
        """The config that `models.registry` builds, with this backbone's shape."""
        if isinstance(shape, (MambaConfig, RWKVConfig)):
            return shape
        if self.kind == "armt":
            return ARMTConfig(shape, self.memory_tokens, self.d_memory)
        if self.kind == "prmt":
            return PRMTConfig(shape, self.memory_tokens)
        if self.kind.startswith("rmt-r"):
            longest = max(max(map(int, self.test_samples)), max(stage.segments for stage in self.train.stages))
            mode: Any = "top_1" if self.kind == "rmt-r-top-1" else "attention"
            return RMTRConfig(shape, self.memory_tokens, mode, past_segments=longest)
        return RMTConfig(shape, self.memory_tokens, self.memory_mask)  # type: ignore[arg-type]


def context_tokens(segments: int, segment_size: int) -> int:
    """Length of a context that fills `segments` segments together with its question and answer."""
    return segments * segment_size - ANSWER_ROOM


def work(params: Params) -> list[float]:
    """FLOP of every training stage with its validations, then of the tests."""
    train, S = params.train, params.train.segment_size
    parts = []
    for stage in train.stages:
        per_token = _flops_per_token(params, stage.segments)
        checks = -(-stage.steps // (stage.evaluate_every or train.evaluate_every))
        validated = checks * params.validation_samples * max(stage.segments, 1) * S
        passes = training_passes(train.recomputes(stage), frozen=params.lora is not None)
        parts.append(per_token * (passes * _trained(stage, train) + validated))
    return [*parts, sum(_flops_per_token(params, segments) * tokens for segments, tokens in _tested(params))]


def _flops_per_token(params: Params, segments: int) -> float:
    """Of a forward pass over so many segments. RMT-R also maps all past memories to keys and values in each of them."""
    S, M = params.read_at_once(segments), params.memory_tokens
    past = 2 * segments * M * params.shape.d_model**2 / S if params.kind.startswith("rmt-r") else 0.0
    return forward_flops(params.shape, params.kind, M, params.d_memory, S) + past


def forward_flops(b: DecoderConfig | MambaConfig | RWKVConfig, kind: Kind, M: int, d_memory: int, S: int) -> float:
    """Of a forward pass, for each token of the text; memory tokens are computed too.

    ARMT has no read block, RMT-R one that is twice as long.
    """
    if isinstance(b, RWKVConfig):
        return 2.0 * rwkv_weights(b) + b.n_layers * b.d_model * (5 * RWKV_CHUNK + 4 * b.head_width)
    if isinstance(b, MambaConfig):
        return 2.0 * mamba_weights(b) + 10 * b.n_layers * b.d_inner * (b.state_size + b.conv_taps - 1)
    blocks = 1 if kind == "armt" else 3 if kind.startswith("rmt-r") else 2
    layers, width, positions = b.n_layers, b.d_model, (S + blocks * M) / S
    own = 2 * armt_state(layers, width, d_memory) if kind == "armt" else 0
    return positions * (24 * layers * width**2 + 2 * layers * (S + blocks * M) * width + own)


def _trained(stage: Stage, train: TrainConfig) -> int:
    """Tokens of a stage; facts alone count as one segment."""
    return stage.steps * train.batch_size * context_tokens(1, train.segment_size) * (1 + max(stage.segments, 1)) // 2


def _tested(params: Params) -> Iterator[tuple[int, int]]:
    """Segments and tokens of every test."""
    counts = [(int(segments), count) for segments, count in params.test_samples.items()]
    for segments, count in [*counts, params.scored_as_text]:
        yield segments, context_tokens(max(segments, 1), params.train.segment_size) * count


def cost(params: Params) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic."""
    train, whole = params.train, params.kind == "full-attention"
    segments = max(1 if train.recomputes(stage) and not whole else max(stage.segments, 1) for stage in train.stages)
    return transformer_cost(
        tokens=sum(_trained(stage, train) for stage in train.stages) + sum(tokens for _, tokens in _tested(params)),
        work=work(params),
        weights=weights(params),
        trained=trained_weights(params),
        kept=segments * _activations(params) + _past_memories(params),
        precision=train.precision,
    )


def _past_memories(params: Params) -> float:
    """Numbers that RMT-R keeps of a batch of its longest test."""
    if not params.kind.startswith("rmt-r"):
        return 0.0
    longest = max(map(int, params.test_samples))
    return (
        longest
        * params.memory_tokens
        * params.shape.d_model
        * min(params.evaluation_batch, params.test_samples[str(longest)])
    )


def _activations(params: Params) -> float:
    """Numbers kept for the backward pass, a segment of the batch: ARMT's with its state, which is in float32."""
    train, shape = params.train, params.shape
    positions = train.batch_size * (train.segment_size + 2 * params.memory_tokens)
    kept = activations(shape.n_layers, shape.d_model, positions)
    if params.kind != "armt":
        return kept
    state = train.batch_size * armt_state(shape.n_layers, shape.d_model, params.d_memory)
    return kept + state * (2 if train.precision == "bf16" else 1)


def recomputing(params: Params) -> Params:
    """The same, with recomputation in the stages whose activations a GPU would not hold in bf16."""
    segments = recompute_from(2 * _activations(params))
    return replace(params, train=replace(params.train, recompute=True, recompute_from=segments))


def weights(params: Params) -> int:
    """Of the whole model, adapters included."""
    return model_weights(params.shape, params.kind, params.memory_tokens, params.d_memory) + adapters(params)


def trained_weights(params: Params) -> int:
    """Those that training changes."""
    frozen = decoder_weights(params.shape) if params.lora and isinstance(params.shape, DecoderConfig) else 0
    return weights(params) - frozen


def adapters(params: Params) -> int:
    """Weights of LoRA."""
    return (
        lora_weights(params.shape, params.lora.rank) if params.lora and isinstance(params.shape, DecoderConfig) else 0
    )


def model_weights(b: DecoderConfig | MambaConfig | RWKVConfig, kind: Kind, M: int, d_memory: int) -> int:
    """Of a backbone of this shape and the model around it."""
    if isinstance(b, MambaConfig):
        return mamba_weights(b)
    if isinstance(b, RWKVConfig):
        return rwkv_weights(b)
    own = M * b.d_model * (b.n_layers if kind == "prmt" else 1)
    if kind == "armt":
        own += armt_weights(b, d_memory)
    if kind.startswith("rmt-r"):
        own += M * b.d_model + retrieval_weights(b.d_model)  # the read block has 2 M vectors
    return own + decoder_weights(b)
