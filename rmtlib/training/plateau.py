"""A learning rate that falls when the validation score stops rising: PyTorch's ReduceLROnPlateau, as a value.

Every higher score counts as better; PyTorch's default asks for a ten-thousandth more.
"""

import math
from dataclasses import dataclass

from rmtlib.settings import at_least


@dataclass(frozen=True)
class PlateauConfig:
    """After `patience` validations without a better score, one more lowers the rate by `factor`, down to `floor`."""

    patience: int
    factor: float = 0.5
    floor: float = 1e-6

    def __post_init__(self) -> None:
        at_least(self, 0, "patience", "floor")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor is {self.factor}; it must be between 0 and 1")


@dataclass
class Plateau:
    """How far the rate has fallen."""

    config: PlateauConfig
    best: float = -math.inf
    waited: int = 0
    falls: int = 0

    def hear(self, score: float) -> None:
        """A validation's score; higher is better."""
        self.waited = 0 if score > self.best else self.waited + 1
        self.best = max(score, self.best)
        if self.waited > self.config.patience:
            self.falls, self.waited = self.falls + 1, 0

    def learning_rate(self, lr: float) -> float:
        """The rate of `lr` now; one below the floor stays as it is."""
        return max(lr * self.config.factor**self.falls, min(lr, self.config.floor))
