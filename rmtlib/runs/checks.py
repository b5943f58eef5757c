"""Numbers that cannot be: what a checksum does not see in a record that was changed and sealed again.

What holds for every record is here, and the tools of `Artifact.check_metrics`, which knows an artifact's own metrics.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rmtlib.data.catalogue import SOURCES
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.outcomes import unpack_outcomes
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.spec import RunConfig

NO_OUTCOMES = "it has no outcome of each sample: its counts are taken as written"


def check_record(record: Mapping[str, Any], artifact: Artifact) -> tuple[str | None, str | None]:
    """What in a record cannot be, and which of its values could not be computed anew, or why; None if nothing."""
    try:
        return _check(record, artifact)
    except Exception as error:  # metrics, curves and settings of a shape that no check expects
        return f"{type(error).__name__} while they were read: {str(error)[:200]!r}", None


def _check(record: Mapping[str, Any], artifact: Artifact) -> tuple[str | None, str | None]:
    for key, least in (("wall_s", 0), ("tokens", 1), ("peak_memory_bytes", 0), ("peak_host_memory_bytes", 0)):
        if not is_number(record[key], least):
            return f"{key} is {record[key]!r}", None
    if wrong := [d for d in record["data"] if not isinstance(d, dict) or "name" not in d]:
        return f"data has {wrong[0]!r}, without a name", None
    if why := _check_data(record["data"]):
        return why, None
    if why := _check_hardware(record["hardware"], record["schema"]):
        return why, None
    if not record["packages"]:
        return "packages are empty", None
    config, not_recomputed, why = RunConfig.from_json(record["config"]), None, None
    try:
        why = artifact.check_metrics(record["metrics"], record["curves"], config)
        why = why or _check_tokens(record["tokens"], artifact.cost(config).tokens)
    except RmtlibError as error:
        not_recomputed = str(error)
    why = why or _check_settings(record["metrics"], record["curves"], config.to_json()["params"])
    if why:
        return why, None
    have = {"outcomes" in point for point in record["metrics"].get("exact_match", ())}
    if len(have) > 1:
        return "some lengths of exact_match have outcomes and some have none", None
    return None, not_recomputed or (NO_OUTCOMES if have == {False} else None)


def _check_data(data: Sequence[Mapping[str, Any]]) -> str | None:
    """A file of the catalogue has its sha256 and its size there."""
    if not data:
        return "data is empty"
    for given in data:
        known = SOURCES.get(given["name"])
        for key in ("sha256", "bytes") if known else ():
            expected = getattr(known, key)
            if expected is not None and given.get(key) != expected:
                return f"data has {given['name']} with {key} {given.get(key)!r}, the catalogue has {expected!r}"
    return None


def _check_hardware(hardware: Mapping[str, Any], schema: int) -> str | None:
    right = isinstance(hardware.get("cpu"), str) and hardware["cpu"] != ""
    right = right and all(is_number(hardware.get(key), 1, whole=True) for key in ("cores", "memory_bytes"))
    if schema >= 2:  # None: what ran had no use for torch
        threads = hardware.get("threads", 0)
        right = right and (threads is None or is_number(threads, 1, whole=True))
    return None if right else f"hardware is {dict(hardware)!r}"


def _check_tokens(tokens: int, most: int) -> str | None:
    """A batch of drawn lengths may have more tokens than estimated, but not twice as many."""
    return f"tokens are {tokens}, the settings take at most {most}" if tokens > 2 * most else None


def _check_settings(metrics: Mapping[str, Any], curves: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
    """Whether settings, also those of earlier code, are of so many steps and of such lengths as were measured."""
    outer = params.get("tuning") or params.get("training") or {}  # settings within which those of training stand
    train = params.get("train") or outer.get("train") or {}
    stages = train.get("stages") or [{"steps": train.get("steps", math.inf)}]
    steps = [stage["steps"] if isinstance(stage, Mapping) else stage[1] for stage in stages]
    for name, curve in curves.items():
        for *place, step, _ in (point for point in curve if isinstance(point, list) and len(point) in (2, 3)):
            if place and not 1 <= place[0] <= len(steps):
                return f"the curve {name} has stage {place[0]}, the settings have {len(steps)}"
            if not 0 <= step <= (steps[int(place[0]) - 1] if place else sum(steps)):
                return f"the curve {name} has step {step}, the settings have {steps}"
    samples, size = params.get("test_samples"), train.get("segment_size")
    if isinstance(samples, Mapping) and size:
        for point in metrics.get("exact_match", []):
            if point["n"] > samples.get(str(point["segments"]), 0) or point["tokens"] != point["segments"] * size:
                return f"exact_match has {point['n']} samples of {point['tokens']} tokens, which the settings do not"
    return None


def is_number(value: Any, least: float = -math.inf, most: float = math.inf, *, whole: bool = False) -> bool:
    """Whether it is a number in these bounds."""
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most


def check_exact_match(metrics: Mapping[str, Any], curves: Mapping[str, Any]) -> str | None:
    """Accuracies as counts: {"exact_match": [{"segments", "tokens", "n", "correct"}, ...], "train_segments"}."""
    points = metrics.get("exact_match")
    if not isinstance(points, list) or not points:
        return f"exact_match is {points!r}"
    lengths: list[int] = []
    for point in points:
        if why := check_count("exact_match", point):
            return why
        lengths.append(point["segments"])
    if len(set(lengths)) < len(lengths):
        return "exact_match has a length twice"
    if not is_number(metrics.get("train_segments"), 1, whole=True):
        return f"train_segments is {metrics.get('train_segments')!r}"
    if not is_number(metrics.get("recency_accuracy", 0), 0, 1):
        return f"recency_accuracy is {metrics['recency_accuracy']!r}"
    return check_curves(curves, 0, 1)


def check_count(name: str, point: Any) -> str | None:
    """Answers counted at one length: {"segments", "tokens", "n", "correct"}, and "outcomes" in newer records.

    Facts alone, without a background, have no segments and no tokens.
    """
    if not isinstance(point, dict) or not {"segments", "tokens", "n", "correct"} <= set(point):
        return f"{name} has {point!r}"
    least = {"segments": 0, "tokens": 0 if point["segments"] == 0 else 1, "n": 1}
    if not all(is_number(point[key], low, whole=True) for key, low in least.items()):
        return f"{name} has {point!r}"
    if not is_number(point["correct"], 0, point["n"], whole=True):
        return f"{point['correct']!r} of {point['n']} correct at {point['segments']} segments"
    if "outcomes" in point and (why := _outcomes(point["outcomes"], point["n"], point["correct"])):
        return f"{why} at {point['segments']} segments"
    return None


def _outcomes(packed: Any, n: int, correct: int) -> str | None:
    """What is wrong with the packed bits, one a sample; older records have none."""
    try:
        fits = sum(unpack_outcomes(packed, n)) == correct
    except (TypeError, ValueError):
        fits = False
    return None if fits else f"outcomes are {packed!r}, not {correct} of {n}"


def check_curves(curves: Mapping[str, Any], least: float, most: float) -> str | None:
    """Losses are not negative, validation scores in these bounds; a number that was not finite is null."""
    for name, low, high in (("loss", 0.0, math.inf), ("validation", least, most)):
        curve = curves.get(name, [])
        if not isinstance(curve, list):
            return f"the curve {name} is {curve!r}"
        for point in curve:
            if not isinstance(point, list) or not point:
                return f"the curve {name} has {point!r}"
            if point[-1] is not None and not is_number(point[-1], low, high):
                return f"the curve {name} has {point[-1]!r}"
    return None


def differs(values: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first of the values that is there and not what the settings give."""
    for key, value in expected.items():
        if key in values and values[key] != value:
            return f"{prefix}{key} is {values[key]!r}, the settings give {value!r}"
    return None
