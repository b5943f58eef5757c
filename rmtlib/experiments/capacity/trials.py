"""The trials that the settings of the scale medium were chosen from, with a seed of no result."""

from dataclasses import replace

from rmtlib.experiments.capacity.scales import settings
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params
from rmtlib.training.curriculum import Stage

SEED = 100


def _trial(row: str, note: str, enough: float) -> Trial:
    """The row's model at the scale small, in batches of 64, 3,000 steps a stage; tested at its training length."""
    pairs = (3, 10, 30) if row.endswith("rewrite") else (3, 10)
    small = settings(row, "small", SEED)
    params = replace(
        small,
        train=replace(small.train, stages=tuple(Stage(n, 3000, 3e-3) for n in pairs), batch_size=64),
        enough=enough,
        test_pairs=pairs[-1:],
    )
    return Trial(f"{row}-batch-64", note, RunConfig("memory-capacity", row, PILOT, SEED, to_params(params)))


TRIALS = (
    _trial("armt-remember", "each stage until 0.98", 0.98),
    _trial("rmt-remember", "stopped for lack of time", 0.98),
    _trial("armt-rewrite", "stopped for lack of time", 0.995),
)
