"""The trials that the settings of two and three facts were chosen from, with a seed of no result."""

from dataclasses import replace

from rmtlib.experiments.babilong.scales import LEARNED
from rmtlib.experiments.babilong.settings import Params
from rmtlib.experiments.babilong_table.scales import settings
from rmtlib.models.config import DecoderConfig
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params
from rmtlib.training.curriculum import Stage

SEED = 100


def _facts_alone(
    task: str,
    name: str,
    note: str,
    steps: int,
    *,
    then: int = 500,
    layers: int = 2,
    endless: bool = True,
) -> Trial:
    """RMT on the facts alone, then on one segment with its background."""
    params = settings("rmt", task, "small", SEED)
    assert isinstance(params.backbone, DecoderConfig)
    params = replace(
        params,
        backbone=replace(params.backbone, n_layers=layers),
        questions="files",
        train=replace(params.train, stages=(Stage(0, steps, 3e-3), Stage(1, then, 3e-3)), evaluate_every=250),
        enough=(LEARNED, LEARNED),
        test_samples={"1": params.validation_samples},
        endless=endless,
    )
    return _trial(task, name, note, params)


def _medium(task: str, name: str, note: str) -> Trial:
    """The settings of medium, tested at the training length alone."""
    params = settings("rmt", task, "medium", SEED)
    longest = str(params.train.stages[-1].segments)
    params = replace(params, questions="files", test_samples={longest: params.validation_samples})
    return _trial(task, name, note, params)


def _trial(task: str, name: str, note: str, params: Params) -> Trial:
    return Trial(f"{task}-{name}", note, RunConfig("babilong", f"rmt-{task}", PILOT, SEED, to_params(params)))


TRIALS = (
    _facts_alone("qa2", "tracked-64", "facts alone, 8 tracked questions, bAbI's files", 3000, endless=False),
    _facts_alone(
        "qa2", "layers-3", "facts alone, 8 tracked questions, endless stories, 3 layers", 1500, then=100, layers=3
    ),
    _facts_alone("qa3", "layers-3", "facts alone, 12 tracked questions, endless stories, 3 layers", 5000, layers=3),
    _medium("qa1", "to-8", "medium's settings: six stages up to 8 segments"),
    _medium("qa2", "to-8", "medium's settings: endless stories, six stages up to 8 segments"),
)
