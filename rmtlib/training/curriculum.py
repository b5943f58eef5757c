"""The curriculum of the BABILong runs, and how to train on it: stages of growing length, weights carried along.

In stage n every sample's length is drawn from 1 .. n segments (BABILong paper, Appendix C).
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from rmtlib.seeds import generator
from rmtlib.settings import at_least, one_of

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Stage:
    """One stage: up to `segments` segments a sample (0: the facts alone, no background), for at most `steps` steps."""

    segments: int
    steps: int
    lr: float
    evaluate_every: int | None = None  # steps between two validations; None: as in the other stages

    def __post_init__(self) -> None:
        at_least(self, 0, "segments", "lr")
        at_least(self, 1, "steps", "evaluate_every")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        segment_size: tokens.
        batch_size: samples.
        warmup, horizon: in parts of a stage (see `learning_rate`).
        clip_norm: the largest L2 norm of a gradient.
        bptt_segments: k of BPTT-k, in segments; None: full BPTT.
        recompute: segment-level activation checkpointing, in stages of at least `recompute_from` segments.
        evaluate_every, log_every: optimiser steps.
        patience: validations without a better score that are put up with; one more ends the stage.
        continued: a later stage goes on with the optimiser's moments and without a warm-up of its own; False: with a
            fresh optimiser, as the released scripts of the curriculum do.
    """

    stages: tuple[Stage, ...]
    segment_size: int
    batch_size: int
    seed: int
    warmup: float = 0.1
    horizon: float = 2.0
    weight_decay: float = 0.01
    beta2: float = 0.999
    clip_norm: float = 1.0
    precision: Precision = "float32"
    bptt_segments: int | None = None
    recompute: bool = False
    evaluate_every: int = 100
    patience: int = 15
    log_every: int = 10
    continued: bool = field(default=False, metadata={"since": 2})
    recompute_from: int = field(default=0, metadata={"since": 3})

    def __post_init__(self) -> None:
        at_least(self, 0, "warmup", "weight_decay", "clip_norm", "bptt_segments", "patience", "recompute_from")
        at_least(self, 1, "segment_size", "batch_size", "evaluate_every", "log_every", "horizon")
        one_of(self, precision=get_args(Precision))
        if not self.stages:
            raise ValueError("stages is empty; it must have at least one stage")
        if self.recompute and self.bptt_segments is not None:
            raise ValueError("recompute goes with full BPTT only: leave bptt_segments None")

    def recomputes(self, stage: Stage) -> bool:
        """Whether a stage runs every segment again in the backward pass, which costs time and saves memory."""
        return self.recompute and stage.segments >= self.recompute_from


def draw_segments(stage: Stage, seed: int, index: int) -> int:
    """How many segments sample `index` of the training stream has in this stage."""
    if stage.segments <= 1:
        return stage.segments
    return int(generator(seed, "train", "length", index).integers(1, stage.segments + 1))


def learning_rate(stage: Stage, step: int, warmup: float, horizon: float) -> float:
    """Linear warm-up over `warmup` of the stage's steps, then linear decay to zero at `horizon` times its steps.

    The released scripts set the horizon to twice the stage, so that a stage ends at half its peak.
    """
    rise = max(warmup * stage.steps, 1.0)
    if step < rise:
        return stage.lr * min((step + 1) / rise, 1.0)
    return stage.lr * (horizon * stage.steps - step) / (horizon * stage.steps - rise)
