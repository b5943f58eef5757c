"""Right tokens of answers as counts, which a record keeps: {"n", "samples_by_correct", "correct_by_position"}.

"n" samples; how many of them have 0, 1, ... A right tokens; how many have the first, second, ... token right. Tokens of
an answer are not independent, so that intervals of per-token accuracy are made from samples. No torch.

Answers are decoded in three ways:

    forced      every position reads the true tokens before it (teacher forcing)
    generated   a position of the answer reads what the model itself has answered before it
    released    as "generated", but the first token of every segment is the true one: the released code overwrites
                positions from the second on
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Literal

Decoding = Literal["forced", "generated", "released"]
DECODINGS: tuple[Decoding, ...] = ("generated", "forced", "released")


def token_accuracy(counted: Mapping[str, Any]) -> float:
    """Right tokens of all tokens."""
    by_correct = counted["samples_by_correct"]
    return sum(k * n for k, n in enumerate(by_correct)) / (counted["n"] * (len(by_correct) - 1))


def whole_answers(counted: Mapping[str, Any]) -> int:
    """Samples whose every token is right."""
    return int(counted["samples_by_correct"][-1])


def token_interval(counted: Mapping[str, Any], level: float = 0.95) -> tuple[float, float]:
    """Interval of per-token accuracy over samples: each counts with its share of right tokens.

    Wilson's interval of a share with the samples' own variance: near 0 and 1 it stays inside.
    """
    by_correct, n = counted["samples_by_correct"], counted["n"]
    size = len(by_correct) - 1
    mean = token_accuracy(counted)
    variance = sum(count * (k / size - mean) ** 2 for k, count in enumerate(by_correct)) / n
    binomial = mean * (1 - mean)
    # as many independent tokens as would vary as much: from one a sample to all of them
    effective = n * (min(binomial / variance, size) if variance else (size if binomial else 1))
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * math.sqrt(binomial / effective + z * z / (4 * effective**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def check_counts(counted: Any, samples: int, answer_size: int) -> str | None:
    """What is wrong with counts of so many samples with answers of that size; None if nothing."""
    if not isinstance(counted, Mapping) or not {"n", "samples_by_correct", "correct_by_position"} <= set(counted):
        return f"the counts are {counted!r}"
    by_correct, by_position = counted["samples_by_correct"], counted["correct_by_position"]
    if counted["n"] != samples or len(by_correct) != answer_size + 1 or len(by_position) != answer_size:
        return f"n is {counted['n']!r} with {len(by_position)} positions, not {samples} with {answer_size}"
    if any(not isinstance(x, int) or isinstance(x, bool) or not 0 <= x <= samples for x in [*by_correct, *by_position]):
        return "a count is not a whole number from 0 to n"
    if sum(by_correct) != samples:
        return f"samples_by_correct add up to {sum(by_correct)}, not {samples}"
    if (right := sum(k * n for k, n in enumerate(by_correct))) != sum(by_position):
        return f"{right} tokens are right by samples, {sum(by_position)} by positions"
    return None
