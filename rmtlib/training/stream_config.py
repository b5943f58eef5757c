"""How to train on a stream. No torch, so that experiments can be listed and planned without it."""

import math
from dataclasses import dataclass
from typing import Literal

Replay = Literal["stored", "newest", "none"]


@dataclass(frozen=True)
class StreamConfig:
    """How to train on a stream. Steps are segments, whatever the replay: all settings read the same text.

    Attributes:
        replay: where the k earlier segments are read again from. "stored": the state stored before the first of
            them, k segments ago. "newest": the newest memory, as released; training then reads each segment k + 1
            times in a row, evaluation once. "none": they are not; k + 1 segments are read in one graph, with all
            their losses, for one update. That costs k + 1 times less, the gradient reaches 0 to k segments, k/2 on
            average, and there are k + 1 times fewer updates.
        auxiliary: weight of the auxiliary memory loss (0.01 for Tr-XL + RMT).
        decay: "cosine" to zero over all steps, as released (the paper's text says linear).
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
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: int = 4000
    log_every: int = 200

    def __post_init__(self) -> None:
        if self.replay not in ("stored", "newest", "none"):
            raise ValueError(f"replay is {self.replay!r}; it must be stored, newest or none")
        if self.bptt < 0:
            raise ValueError(f"bptt is {self.bptt}; it must be 0 or more")

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero at the last step."""
        rise = min((step + 1) / self.warmup, 1.0) if self.warmup else 1.0
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))
