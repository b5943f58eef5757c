"""The curriculum of the BABILong runs: stages of growing length, weights carried from stage to stage.

In stage n every sample's length is drawn from 1 .. n segments (BABILong paper, Appendix C).
"""

from dataclasses import dataclass

from rmtlib.seeds import generator


@dataclass(frozen=True)
class Stage:
    """One stage: up to `segments` segments a sample (0: the facts alone, no background), for at most `steps` steps."""

    segments: int
    steps: int
    lr: float


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
        return stage.lr * (step + 1) / rise
    return stage.lr * (horizon * stage.steps - step) / (horizon * stage.steps - rise)
