"""What decides the primary claims of lm-segments: rules as data, declared before the runs (see book/protocol.md).

The paper's Figure 6 prints no numbers, so the worlds that power is simulated in are assumptions. The margins are parts
of what memory brings, so that they mean the same for every model, text and tokeniser.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.segments.rows import NGRAM

ENOUGH = 0.5  # of the other model's gain over the backbone: what "performs similarly" has to have
LITTLE = 0.1  # of the gain by the last trained segment: what segments beyond may add and be "no better"

_BACKBONE = Gate("backbone: within", than=f"{NGRAM}: within", why="the backbone is no better than counting tokens")


def _used(row: str) -> Gate:
    return Gate(f"{row}: gain", above=0.0, why="its memory gains nothing where it was trained")


def _has_enough(row: str, other: str) -> Contrast:
    """The row has at least `ENOUGH` of what the other gains over the backbone."""
    weights = {f"{row}: within": 1.0, f"{other}: within": -ENOUGH, "backbone: within": ENOUGH - 1}
    return Contrast(weights)


def _no_better_beyond(row: str) -> Contrast:
    return Contrast({f"{row}: gain beyond": 1.0, f"{row}: gain": -LITTLE})


RULES: dict[str, Rule] = {
    # "ARMT still performs similarly to RMT in language modeling" (appendix G), on the segments of training.
    "alike": Rule(
        (_has_enough("armt", "rmt"), _has_enough("rmt", "armt")),
        gates=(_BACKBONE,),
        paper={"armt: within": 1.57, "rmt: within": 1.57, "backbone: within": 1.60},
        spread={"armt: within": 0.003, "rmt: within": 0.003, "backbone: within": 0.003},
    ),
    # What Figure 6 takes for granted: memory brings something at all.
    "memory-helps": Rule(
        (Contrast({"rmt: within": 1.0, "backbone: within": -1.0}),),
        gates=(_BACKBONE,),
        paper={"rmt: within": 1.57, "backbone: within": 1.60},
        spread={"rmt: within": 0.003, "backbone: within": 0.003},
    ),
    # "struggles to extrapolate on longer sequences" (appendix K): segments beyond training are no better than the last.
    "no-better-beyond": Rule(
        (_no_better_beyond("armt"), _no_better_beyond("rmt")),
        gates=(_BACKBONE, _used("armt"), _used("rmt")),
        paper={"armt: gain beyond": -0.005, "armt: gain": 0.03, "rmt: gain beyond": -0.005, "rmt: gain": 0.03},
        spread={"armt: gain beyond": 0.002, "armt: gain": 0.003, "rmt: gain beyond": 0.002, "rmt: gain": 0.003},
    ),
}


def curve(record: Mapping[str, Any], key: str = "bits_per_byte") -> dict[int, float]:
    """Segment (1, 2, ...) -> bits per byte; empty if the record does not have this curve."""
    return {point["segment"]: point[key] for point in record["metrics"]["segments"] if key in point}


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """What the rules read of a record, in bits per byte; T is the last segment of training.

    "within": mean of segments 2 to T, and "swapped": with another place's memory. "off": with the memory emptied.
    "gain": what T gains over the first segment, "gain beyond": what the segments after T gain over T. "gain of the
    first": what one segment of history gains, "gain of the others": what more of it, up to T, gains over that.
    """
    own, swapped, last = curve(record), curve(record, "swapped_bits_per_byte"), record["metrics"]["train_segments"]
    trained, beyond = range(2, last + 1), [segment for segment in own if segment > last]
    found = {f"segment {segment}": bits for segment, bits in own.items()}
    found["off"] = record["metrics"]["memory_off"]["bits_per_byte"]
    if trained and last in own:
        found["within"] = fmean(own[segment] for segment in trained)
        found["gain"] = own[1] - own[last]
        found["gain of the first"] = own[1] - own[2]
        if last > 2:
            found["gain of the others"] = own[2] - fmean(own[segment] for segment in trained if segment > 2)
        if swapped:
            found["swapped"] = fmean(swapped[segment] for segment in trained)
        if beyond:
            found["gain beyond"] = own[last] - fmean(own[segment] for segment in beyond)
    return found


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the rules compare, "<row>: <number>", one a seed, from the records of one scale."""
    found: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        for name, number in numbers(record).items():
            found.setdefault(f"{record['row']}: {name}", []).append(number)
    return found
