"""The trials that settings were chosen from, with a seed of no result."""

from dataclasses import replace

from rmtlib.experiments.quadratic.scales import SMALL, Recipe, params_of
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params

SEED = 100


def _trial(name: str, row: str, note: str, recipe: Recipe) -> Trial:
    params = to_params(params_of(row, SEED, recipe))
    return Trial(f"{row}-{name}", note, RunConfig("quadratic", row, PILOT, SEED, params))


FIRST = replace(SMALL, enough=0.995)  # of whole solutions, by the code that it was made with

TRIALS = (_trial("small", "rmt-6", "roots up to 9, 1,500 steps of 32; validated by whole solutions", FIRST),)
