"""What decides the primary claims of babilong-time: rules as data, declared before the runs (see book/protocol.md).

A run's time at a length is the median of its rounds; its slope is that of log time over log length. A seed is a process
of its own. In the world in which the sentence is true, time is proportional to the length; the paper's own numbers have
a slope below one (`PAPER_SLOPE`). Times that differ by three per cent from process to process make slopes that differ
by less than `SLOPE_SPREAD`.
"""

from collections.abc import Iterable, Mapping
from math import log
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.babilong_time.numbers import contexts, memory_growth, other_load, slope, time_slope
from rmtlib.experiments.babilong_time.rows import LENGTHS, MINUTES, MODELS

LINEAR = 1.05  # the power of the length as which time grows; the paper's own numbers give less than one
FLAT = 0.02  # the part of its peak by which memory may grow over the last step, eight times the length at large scales
BUSY = 0.5  # processes beside the measurement
SLOPE_SPREAD, GROWTH_SPREAD = 0.01, 0.005
PAPER_SLOPE = round(slope([(LENGTHS[name], minutes) for name, minutes in MINUTES.items()]), 4)


def _quiet(*rows: str) -> tuple[Gate, ...]:
    return tuple(Gate(f"{row}: other load", below=BUSY, why="other work ran beside the measurement") for row in rows)


_GROWTH = [f"{model}: memory growth" for model in MODELS]

RULES: dict[str, Rule] = {
    # Appendix C and Table 3: "evaluation time grows linearly with context length".
    "time-is-linear": Rule(
        (Contrast({"rmt: slope": 1}, LINEAR),),
        _quiet("rmt"),
        paper={"rmt: slope": 1.0},
        spread={"rmt: slope": SLOPE_SPREAD},
    ),
    # What a recurrent model is for; a peak does not depend on who else runs.
    "memory-is-flat": Rule(
        tuple(Contrast({arm: 1}, FLAT) for arm in _GROWTH),
        paper=dict.fromkeys(_GROWTH, 0.0),
        spread=dict.fromkeys(_GROWTH, GROWTH_SPREAD),
    ),
}


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the claims compare, one a seed, from the records of one scale.

    "<row>: slope", "<row>: memory growth", "<row>: other load"; "<row>: log seconds" at the longest context.
    """
    found: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        metrics, threads = record["metrics"], record["hardware"].get("threads") or 1
        numbers = {
            "slope": time_slope(metrics),
            "memory growth": memory_growth(metrics),
            "other load": other_load(metrics, threads),
            "log seconds": log(contexts(metrics)[-1].seconds),
        }
        for name, value in numbers.items():
            found.setdefault(f"{record['row']}: {name}", []).append(value)
    return found
