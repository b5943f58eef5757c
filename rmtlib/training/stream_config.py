"""How to train on a stream. No torch, so that experiments can be listed and planned without it."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from rmtlib.settings import at_least, one_of
from rmtlib.training.curriculum import Precision

Replay = Literal["stored", "newest", "released", "none"]
Order = Literal["text", "rotated"]


@dataclass(frozen=True)
class StreamConfig:
    """How to train on a stream. Steps are segments, whatever the replay: all settings read the same text.

    Attributes:
        segment_size: tokens of a column.
        batch_size: columns.
        lr: the peak rate of Adam.
        bptt: k of BPTT-k, in segments.
        replay: how the k earlier segments are read again. "stored": from the state stored before the first of them,
            k segments ago. "newest": from the newest memory, with the cache of that time; training then reads each
            segment k + 1 times in a row, evaluation once. "released": that, and each of them with the cache stored
            for it instead of the cache that reading again makes; the same as "newest" if k < 2 or nothing is cached.
            "none": not at all; k + 1 segments are read in one graph, with all their losses, for one update. That
            costs k + 1 times less, the gradient reaches 0 to k segments, k/2 on average, and there are k + 1 times
            fewer updates.
        auxiliary: weight of the auxiliary memory loss (0.01 for Tr-XL + RMT).
        warmup, evaluate_every, log_every: in steps.
        clip_norm: the largest L2 norm of a gradient.
        order: which segments of the columns are read together. "text": every column from its beginning, so that all
            seeds and epochs have the same batches. "rotated": in every epoch each column starts at a segment drawn
            from the seed and goes round, so that each has other batches and every segment is still read once. Memory
            and cache carry over where a column wraps from its end to its beginning, once an epoch.
    """

    steps: int
    segment_size: int
    batch_size: int
    lr: float
    seed: int
    bptt: int = 0
    replay: Replay = "stored"
    auxiliary: float = 0.0
    warmup: int = 0
    clip_norm: float = 0.25
    precision: Precision = "float32"
    evaluate_every: int = 4000
    log_every: int = 200
    order: Order = field(default="text", metadata={"since": 2})

    def __post_init__(self) -> None:
        one_of(self, replay=get_args(Replay), order=get_args(Order), precision=get_args(Precision))
        at_least(self, 0, "bptt", "lr", "warmup", "auxiliary", "clip_norm")
        at_least(self, 1, "steps", "segment_size", "batch_size", "evaluate_every", "log_every")

    def learning_rate(self, step: int) -> float:
        """Linear warm-up times a cosine to zero over all steps, as released (the paper's text says linear)."""
        rise = min((step + 1) / self.warmup, 1.0) if self.warmup else 1.0
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))
