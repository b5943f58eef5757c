"""The settings of an attention-maps run, and what it costs. Light to import: no torch."""

from dataclasses import dataclass, replace

from rmtlib.experiments.algorithmic import settings as algorithmic
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least


@dataclass(frozen=True)
class Params:
    """All that a run depends on.

    Attributes:
        training: what the artifact `algorithmic` trains and tests.
        samples: test samples whose attention is averaged, and that are answered without memory. The first is shown.
    """

    training: algorithmic.Params
    samples: int

    def __post_init__(self) -> None:
        at_least(self, 1, "samples")
        if self.training.task not in ("copy", "reverse"):
            raise ValueError(f"task is {self.training.task!r}; it must be 'copy' or 'reverse'")
        length = self.training.tasks[-1].length
        if length % self.training.segments:
            raise ValueError(
                f"sizes end with a task of {length} tokens, which cannot be split into {self.training.segments} equal "
                "segments"
            )


def cost(params: Params) -> Cost:
    """That of `algorithmic`, and the tokens read here: once for attention, then with each memory lost."""
    trained = algorithmic.cost(params.training)
    tokens = params.samples * params.training.tasks[-1].length * (1 + params.training.segments)
    per_token = algorithmic.work(params.training)[-1] / (
        3 * params.training.test_samples * params.training.tasks[-1].length
    )
    return replace(trained, tokens=trained.tokens + tokens, flops=trained.flops + tokens * per_token)
