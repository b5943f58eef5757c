"""What decides the primary claims of lm-segments: rules as data, declared before the runs (see book/protocol.md).

The paper's Figure 6 prints no numbers, so the worlds that power is simulated in are assumptions. The margins are parts
of what memory brings, so that they mean the same for every model, text and tokeniser.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.segments.rows import NGRAM

SIMILAR = 0.2  # of what attention to eight segments gains over one: by less than that "similar" models differ
LITTLE = (
    0.1  # of what the memory is worth at the last segment of training: what segments beyond may add to be "no better"
)
WORTH = 0.002  # bits per byte: a memory that is worth less than that was not learned

_BACKBONE = Gate("backbone: within", than=f"{NGRAM}: within", why="the backbone is no better than counting tokens")


def _used(row: str) -> Gate:
    return Gate(f"{row}: worth", above=WORTH, why="its memory is worth no more than that of another place")


def _not_worse(row: str, other: str) -> Contrast:
    """The row has at most `SIMILAR` of attention's gain more bits per byte than the other."""
    margin = {"backbone: within": -SIMILAR, "backbone-window: within": SIMILAR}
    return Contrast({f"{row}: within": 1.0, f"{other}: within": -1.0} | margin)


def _no_better_beyond(row: str) -> Contrast:
    return Contrast({f"{row}: gain beyond": 1.0, f"{row}: worth": -LITTLE})


_MEANS = {
    "armt: within": 1.57,
    "rmt: within": 1.57,
    "rmt: swapped": 1.605,
    "backbone: within": 1.60,
    "backbone-window: within": 1.50,
}
_DIFFERENCES = {  # of the same run on the same text, so that seeds spread less
    "armt: worth": 0.03,
    "rmt: worth": 0.03,
    "armt: gain beyond": -0.005,
    "rmt: gain beyond": -0.005,
}
_SPREAD = dict.fromkeys(_MEANS, 0.003) | dict.fromkeys(_DIFFERENCES, 0.002)


def _rule(contrasts: tuple[Contrast, ...], *gates: Gate) -> Rule:
    return Rule(contrasts, (_BACKBONE, *gates), paper=_MEANS | _DIFFERENCES, spread=_SPREAD)


RULES: dict[str, Rule] = {
    # "ARMT still performs similarly to RMT in language modeling" (appendix G), on the segments of training.
    "alike": _rule((_not_worse("armt", "rmt"), _not_worse("rmt", "armt")), _used("rmt")),
    # What Figure 6 takes for granted: memory brings something at all, and by what it holds.
    "memory-helps": _rule(
        (
            Contrast({"rmt: within": 1.0, "backbone: within": -1.0}),
            Contrast({"rmt: within": 1.0, "rmt: swapped": -1.0}),
        )
    ),
    # "struggles to extrapolate on longer sequences" (appendix K): segments beyond training are no better than the last.
    "no-better-beyond": _rule((_no_better_beyond("armt"), _no_better_beyond("rmt")), _used("armt"), _used("rmt")),
}


def curve(record: Mapping[str, Any], key: str = "bits_per_byte") -> dict[int, float]:
    """Segment (1, 2, ...) -> bits per byte; empty if the record does not have this curve."""
    return {point["segment"]: point[key] for point in record["metrics"]["segments"] if key in point}


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """What the rules read of a record, in bits per byte; T is the last segment of training.

    "within": mean of segments 2 to T, and "swapped": with the memory of another place. "worth": what the own memory
    gains over another one at segment T. (Over an empty one would not do: a model that is used to a full memory gains by
    any.) "gain beyond": what the segments after T gain over T. "worth of one": what the own memory is worth after one
    segment, "worth of more": what more of them add to that, on average up to T.
    """
    own, swapped, last = curve(record), curve(record, "swapped_bits_per_byte"), record["metrics"]["train_segments"]
    found = {f"segment {segment}": bits for segment, bits in own.items()}
    found["off"] = record["metrics"]["memory_off"]["bits_per_byte"]
    found["within"] = fmean(own[segment] for segment in range(2, last + 1))
    if beyond := [bits for segment, bits in own.items() if segment > last]:
        found["gain beyond"] = own[last] - fmean(beyond)
    if swapped:
        worth = {segment: swapped[segment] - own[segment] for segment in own}
        found["swapped"] = fmean(swapped[segment] for segment in range(2, last + 1))
        found["worth"], found["worth of one"] = worth[last], worth[2]
        if last > 2:
            found["worth of more"] = fmean(worth[segment] for segment in range(3, last + 1)) - worth[2]
    return found


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the rules compare, "<row>: <number>", one a seed, from the records of one scale."""
    found: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        for name, number in numbers(record).items():
            found.setdefault(f"{record['row']}: {name}", []).append(number)
    return found
