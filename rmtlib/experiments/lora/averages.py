"""What follows from a reading's nats: perplexities and bits per byte, and the averages that the study's code took.

The study's evaluation scripts average in other ways than exp(nats / tokens); see `study_averages`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

OVER = 100
"""The scripts of the study's memory-size runs divide their sums by this constant, whatever was summed."""


def derived(sums: Mapping[str, Any], score: str) -> dict[str, Any]:
    """Perplexity a token; a word and bits per byte, if every token was a target; the study's averages, if it made any.

    Args:
        sums: {"nats", "tokens", "words", "bytes", "windows": [[nats, tokens], ...] or absent}.
        score: "all", "last" or "inside" (see `evaluation.windows`).
    """
    found: dict[str, Any] = {"perplexity": perplexity(sums["nats"], sums["tokens"])}
    if score != "inside":
        found["word_perplexity"] = perplexity(sums["nats"], sums["words"])
        found["bits_per_byte"] = sums["nats"] / sums["bytes"] / math.log(2)
    if "windows" in sums:
        found["study_averages"] = study_averages(sums["windows"])
    return found


def perplexity(nats: float, count: float) -> float:
    """exp(nats / count), at most e^700."""
    return math.exp(min(nats / count, 700.0))


def study_averages(windows: Sequence[Sequence[float]]) -> dict[str, float]:
    """The study's averages of windows [nats, tokens].

    Returns:
        {"window losses": exp of the mean of the windows' mean losses (its Trainer and its notebook),
        "window perplexities": mean of the windows' perplexities, "sums over 100": their sum over a constant}.
    """
    losses = [nats / tokens for nats, tokens in windows if tokens]
    each = [perplexity(loss, 1) for loss in losses]
    return {
        "window losses": perplexity(math.fsum(losses), len(losses)),
        "window perplexities": math.fsum(each) / len(each),
        f"sums over {OVER}": math.fsum(each) / OVER,
    }
