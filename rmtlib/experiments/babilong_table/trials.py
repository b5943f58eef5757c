"""The trials that the settings of two and three facts were chosen from, with a seed of no result."""

from dataclasses import replace

from rmtlib.experiments.babilong.settings import Params
from rmtlib.experiments.babilong_table.scales import settings
from rmtlib.models.config import DecoderConfig
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params
from rmtlib.training.curriculum import Stage

SEED = 100


def _facts_alone(
    task: str, name: str, note: str, steps: int, *, width: int = 64, layers: int = 2, lr: float = 3e-3, tracked: int
) -> Trial:
    """RMT on the facts alone, then on one segment with its background."""
    params: Params = settings("rmt", task, "small", SEED)
    assert isinstance(params.backbone, DecoderConfig)
    train = replace(params.train, stages=(Stage(0, steps, lr), Stage(1, 500, lr)), evaluate_every=250)
    params = replace(
        params,
        questions="simulator" if task == "qa3" else "files",
        backbone=replace(params.backbone, d_model=width, n_layers=layers),
        train=train,
        tracked_questions=tracked,
        enough=(0.98, 0.98),
        test_samples={"1": params.validation_samples},
    )
    return Trial(f"{task}-{name}", note, RunConfig("babilong", f"rmt-{task}", PILOT, SEED, to_params(params)))


TRIALS = (
    _facts_alone("qa2", "tracked-64", "facts alone, 8 tracked questions, width 64", 3000, tracked=8),
    _facts_alone("qa2", "tracked-128", "facts alone, 8 tracked questions, width 128", 3000, width=128, tracked=8),
    _facts_alone("qa3", "tracked-128", "facts alone, 12 tracked questions, width 128", 3000, width=128, tracked=12),
)
