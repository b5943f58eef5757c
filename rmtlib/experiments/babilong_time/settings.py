"""The settings of a measurement of reading times, and what it costs. Light to import: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rmtlib.experiments.babilong.settings import context_tokens, forward_flops, model_weights
from rmtlib.models.config import ARMTConfig, DecoderConfig, MambaConfig, RMTConfig
from rmtlib.runs.cost import PROCESS_BYTES, activations
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least

RECORD_BYTES = 100_000


@dataclass(frozen=True)
class Params:
    """All that decides what is read, and how.

    Attributes:
        kind: the model, with drawn weights: time does not depend on them.
        shape: of its backbone.
        reads: "loop": segment after segment; "wavefront": several segments at once, each in another layer.
        batch: samples read at once.
        samples: tokens of a context -> samples that a round reads, shortest context first.
        rounds: how often all of it is measured.
    """

    kind: Literal["rmt", "armt", "mamba"]
    shape: DecoderConfig | MambaConfig
    memory_tokens: int
    memory_mask: Literal["causal", "bidirectional"]
    d_memory: int
    segment_size: int
    precision: Literal["float32", "bf16"]
    tokenizer: str  # "word-N" or "gpt2"
    background: str  # a collection of `data.books`, or "synthetic"
    reads: Literal["loop", "wavefront"]
    batch: int
    samples: Mapping[str, int]
    rounds: int
    seed: int

    def __post_init__(self) -> None:
        at_least(self, 1, "segment_size", "batch", "rounds")
        if self.reads == "wavefront" and self.kind != "armt":
            raise ValueError(f"reads is 'wavefront', which {self.kind} cannot: its memory runs through all layers")
        if self.lengths != sorted(self.lengths) or len(self.lengths) < 2:
            raise ValueError(f"samples has contexts of {self.lengths} tokens; it must have two or more, shortest first")
        for length in self.lengths:
            if length % self.segment_size:
                raise ValueError(f"samples has a context of {length} tokens, not whole segments of {self.segment_size}")

    @property
    def lengths(self) -> list[int]:
        """Tokens of the contexts."""
        return [int(length) for length in self.samples]

    @property
    def tokens(self) -> int:
        """Tokens read in all rounds; that which warms up is not counted."""
        return self.rounds * sum(int(length) * count for length, count in self.samples.items())

    @property
    def model(self) -> RMTConfig | ARMTConfig | MambaConfig:
        """What `models.registry` builds."""
        if isinstance(self.shape, MambaConfig):
            return self.shape
        if self.kind == "armt":
            return ARMTConfig(self.shape, self.memory_tokens, self.d_memory)
        return RMTConfig(self.shape, self.memory_tokens, self.memory_mask)

    def context(self, length: int) -> int:
        """Tokens of facts and background, so that question and answer fit into the same segments."""
        return context_tokens(length // self.segment_size, self.segment_size)


def flops_per_token(params: Params) -> float:
    """Of the arithmetic that cannot be left out: a forward pass without the vocabulary. The floor rests on it."""
    shape = params.shape
    looked_up = 2.0 * shape.vocab_size * shape.d_model if isinstance(shape, MambaConfig) else 0.0
    return forward_flops(shape, params.kind, params.memory_tokens, params.d_memory, params.segment_size) - looked_up


def weights(params: Params) -> int:
    """Of the whole model."""
    return model_weights(params.shape, params.kind, params.memory_tokens, params.d_memory)


def cost(params: Params) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic: the activations of one layer, or of all at once."""
    layers = params.shape.n_layers if params.reads == "wavefront" else 1
    positions = params.batch * (params.segment_size + 2 * params.memory_tokens)
    kept = activations(layers, params.shape.d_model, positions)
    return Cost(
        tokens=params.tokens,
        flops=params.tokens * flops_per_token(params),
        memory_bytes=int(PROCESS_BYTES + 4 * (weights(params) + kept)),
        disk_bytes=RECORD_BYTES,
        precision=params.precision,
    )
