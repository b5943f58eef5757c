"""The settings of a run on quadratic equations. Light to import: no torch."""

from dataclasses import dataclass

from rmtlib.data.quadratic import QuadraticTask
from rmtlib.experiments.algorithmic.settings import AnswerParams


@dataclass(frozen=True, kw_only=True)
class Params(AnswerParams):
    """All that a run depends on.

    Attributes:
        roots: their range in each stage, see `data.quadratic.QuadraticTask`.
        multiplier: the largest factor of an equation.
        width: tokens of a step.
        fixed: train and test on the published kind of sets.
    """

    roots: tuple[int, ...]
    multiplier: int
    width: int
    fixed: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_a_stage("roots")

    @property
    def tasks(self) -> tuple[QuadraticTask, ...]:
        return tuple(QuadraticTask(roots, self.multiplier, self.width, self.fixed) for roots in self.roots)
