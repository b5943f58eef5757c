"""Numbers that cannot be, whatever was trained: what a checksum does not see in a record that was sealed again."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from rmtlib.evaluation.outcomes import unpack_outcomes

Check = Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]


def impossible(record: Mapping[str, Any]) -> str | None:
    """What in a record cannot be, in words; None where nothing is."""
    for key, least in (("wall_s", 0), ("tokens", 1), ("peak_memory_bytes", 0), ("peak_host_memory_bytes", 0)):
        if not _number(record[key], least):
            return f"{key} is {record[key]!r}"
    check = _CHECKS.get(record["artifact"])
    return check(record["metrics"], record["curves"]) if check else None


def _number(value: Any, least: float = -math.inf, most: float = math.inf, *, whole: bool = False) -> bool:
    """Whether it is a number in these bounds."""
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most


def _exact_match(metrics: Mapping[str, Any], curves: Mapping[str, Any]) -> str | None:
    """Accuracies: figure-5 and memory-capacity."""
    points = metrics.get("exact_match")
    if not isinstance(points, list) or not points:
        return f"exact_match is {points!r}"
    lengths: list[int] = []
    for point in points:
        if not isinstance(point, dict) or not {"segments", "tokens", "n", "correct"} <= set(point):
            return f"exact_match has {point!r}"
        if not all(_number(point[key], 1, whole=True) for key in ("segments", "tokens", "n")):
            return f"exact_match has {point!r}"
        if not _number(point["correct"], 0, point["n"], whole=True):
            return f"{point['correct']!r} of {point['n']} right at {point['segments']} segments"
        if "outcomes" in point and (why := _outcomes(point["outcomes"], point["n"], point["correct"])):
            return f"{why} at {point['segments']} segments"
        lengths.append(point["segments"])
    if len(set(lengths)) < len(lengths):
        return "exact_match has a length twice"
    if not _number(metrics.get("train_segments"), 1, whole=True):
        return f"train_segments is {metrics.get('train_segments')!r}"
    if not _number(metrics.get("recency_accuracy", 0), 0, 1):
        return f"recency_accuracy is {metrics['recency_accuracy']!r}"
    return _curves(curves, 0, 1)


def _outcomes(packed: Any, n: int, correct: int) -> str | None:
    """What is wrong with the packed bits, one a sample; older records have none."""
    try:
        fits = sum(unpack_outcomes(packed, n)) == correct
    except (TypeError, ValueError):
        fits = False
    return None if fits else f"outcomes are {packed!r}, not {correct} of {n}"


def _language(unit: str, least: float) -> Check:
    """A likelihood in `unit`, which is at least `least`: enwik8 and wikitext-103."""

    def check(metrics: Mapping[str, Any], curves: Mapping[str, Any]) -> str | None:
        if metrics.get("unit") != unit:
            return f"unit is {metrics.get('unit')!r}, not {unit!r}"
        for key in ("value", "validation"):
            if not _number(metrics.get(key), least):
                return f"{key} is {metrics.get(key)!r} {unit}"
        if not _number(metrics.get("tokens"), 1, whole=True):
            return f"tokens of the test are {metrics.get('tokens')!r}"
        if "nats" in metrics:
            mean = metrics["nats"] / metrics["tokens"] if _number(metrics["nats"], 0) else math.inf
            expected = mean / math.log(2) if unit == "bpc" else math.exp(min(mean, 700))
            if not math.isclose(metrics["value"], expected, rel_tol=1e-6):
                return f"value is {metrics['value']!r} {unit}, its nats over its tokens are {expected:.6g}"
        return _curves(curves, least, math.inf)

    return check


def _curves(curves: Mapping[str, Any], least: float, most: float) -> str | None:
    """Losses are not negative, validation scores in these bounds; a number that was not finite is null."""
    for name, low, high in (("loss", 0.0, math.inf), ("validation", least, most)):
        for point in curves.get(name, []):
            if not isinstance(point, list) or not point:
                return f"the curve {name} has {point!r}"
            if point[-1] is not None and not _number(point[-1], low, high):
                return f"the curve {name} has {point[-1]!r}"
    return None


_CHECKS: dict[str, Check] = {
    "figure-5": _exact_match,
    "memory-capacity": _exact_match,
    "enwik8": _language("bpc", 0.0),
    "wikitext-103": _language("perplexity", 1.0),
}
