"""The settings of a run, which make its id."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Gradient descent on (w - 1)^2 from w = 0 plus noise of the seed."""

    steps: int
    lr: float
    noise: float = 0.01
