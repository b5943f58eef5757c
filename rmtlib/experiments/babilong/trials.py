"""The trials that the settings of the scale medium were chosen from, with a seed of no result."""

from collections.abc import Sequence
from dataclasses import replace

from rmtlib.experiments.babilong.scales import settings
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params
from rmtlib.training.curriculum import Stage

SEED = 100


def _trial(name: str, note: str, segments: Sequence[int], steps: Sequence[int]) -> Trial:
    """qa1 with the model of the scale small and this curriculum, tested at the training length alone."""
    small = settings("qa1", "small", SEED)
    stages = tuple(Stage(n, count, 3e-3) for n, count in zip(segments, steps, strict=True))
    params = replace(
        small,
        questions="files",
        train=replace(small.train, stages=stages),
        test_samples={str(segments[-1]): small.validation_samples},
    )
    return Trial(name, note, RunConfig("figure-5", "qa1", PILOT, SEED, to_params(params)))


TRIALS = (_trial("qa1-to-8", "six stages to 8 segments", (0, 1, 2, 4, 6, 8), (300, 300, 400, 600, 600, 1200)),)
