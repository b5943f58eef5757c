"""What a record's measurements say: seconds a sample, tokens a second, share of the floor, growth. No torch."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple


class Context(NamedTuple):
    """One length: tokens, the median and the fastest round's seconds a sample, peak bytes."""

    tokens: int
    seconds: float
    fastest: float
    peak_bytes: int

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def contexts(metrics: Mapping[str, Any]) -> list[Context]:
    """Every length of a record, shortest first."""
    return [
        Context(
            found["tokens"],
            median(found["wall_s"]) / found["samples"],
            min(found["wall_s"]) / found["samples"],
            found["peak_bytes"],
        )
        for found in metrics["contexts"]
    ]


def floor_share(metrics: Mapping[str, Any], context: Context) -> float:
    """The part of the time that the arithmetic alone would take at the speed of a large matrix product."""
    return float(context.speed * metrics["flops_per_token"] / metrics["product_flops"])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of log y over log x: y grows as x to that power."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x_mean, y_mean = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return sum((x - x_mean) * (y - y_mean) for x, y in logs) / sum((x - x_mean) ** 2 for x, _ in logs)


def time_slope(metrics: Mapping[str, Any]) -> float:
    """Time grows as the length to this power."""
    return slope([(context.tokens, context.seconds) for context in contexts(metrics)])


def memory_growth(metrics: Mapping[str, Any]) -> float:
    """By what part the peak grows from the last length but one to the last: from 128k to 1M tokens at large scales."""
    *_, before, last = contexts(metrics)
    return last.peak_bytes / before.peak_bytes - 1


def other_load(metrics: Mapping[str, Any], threads: int) -> float:
    """How many processes ran beside the measurement: the median load less its own threads, 0 at least."""
    loads = [load for found in metrics["contexts"] for load in found["load"]]
    return max(0.0, median(loads) - threads)
