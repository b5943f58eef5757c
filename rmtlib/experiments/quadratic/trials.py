"""The trials that settings were chosen from, with a seed of no result."""

from dataclasses import replace

from rmtlib.experiments.quadratic.scales import SMALL, Recipe, params_of
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params

SEED = 100


def _trial(name: str, row: str, note: str, recipe: Recipe) -> Trial:
    params = to_params(params_of(row, SEED, recipe))
    return Trial(f"{row}-{name}", note, RunConfig("quadratic", row, PILOT, SEED, params))


SHORT = replace(SMALL, steps=(1500,), samples={**SMALL.samples, "test_samples": 1000})
FIRST = replace(
    SHORT,
    roots=(10,),
    multiplier=3,
    width=22,
    enough=0.995,  # of whole solutions, by the code that it was made with
    model={**SMALL.model, "initial_memory": "copied"},
)
TRIALS = (
    _trial("small", "rmt-6", "roots up to 9; stopped at half its steps, which had taught it next to nothing", FIRST),
    _trial("narrow", "rmt-6", "roots up to 4, distinct memory vectors", SHORT),
    _trial("small", "baseline-1", "whether 2,500 steps are enough in one segment", replace(SMALL, steps=(2500,))),
)
