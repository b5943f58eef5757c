"""What in a record of the LoRA study cannot be: every derived number is computed anew."""

import math
from collections.abc import Mapping
from typing import Any

from rmtlib.experiments.lora.averages import derived
from rmtlib.experiments.lora.settings import Params, Reading, trained_weights, weights
from rmtlib.models.size import armt_state
from rmtlib.runs.checks import check_curves, differs, is_number


def check(metrics: Mapping[str, Any], curves: Mapping[str, Any], params: Params) -> str | None:
    """What is wrong with these numbers, in words; None if nothing is."""
    readings = metrics.get("readings")
    names = [reading.name for reading in params.readings]
    if not isinstance(readings, dict) or sorted(readings) != sorted(names):
        return f"readings are not the settings' {', '.join(names)}"
    for reading in params.readings:
        if why := _check_reading(readings[reading.name], reading):
            return f"{reading.name}: {why}"
    if why := check_curves(curves, 0.0, math.inf):
        return why
    best = min((point[-1] for point in curves.get("validation", []) if point[-1] is not None), default=None)
    if metrics.get("validation") != best:
        return f"validation is {metrics.get('validation')!r}, the best of its curve is {best!r}"
    c = params.decoder
    state = params.memory_tokens * c.d_model
    if params.memory == "armt":
        state = armt_state(c.n_layers, c.d_model, params.d_memory)
    expected: dict[str, Any] = {"state_size": state, "parameters": weights(params)}
    expected["trained_parameters"] = trained_weights(params)
    if params.tuning is not None and params.tuning.labels == "all":
        expected["train_tokens"] = params.tuning.tokens
    return differs(metrics, expected)


def _check_reading(found: Any, reading: Reading) -> str | None:
    if not isinstance(found, dict):
        return f"it is {found!r}"
    for key in ("tokens", "words", "bytes"):
        if not is_number(found.get(key), 1, whole=True):
            return f"{key} is {found.get(key)!r}"
    if not is_number(found.get("nats"), 0):
        return f"nats are {found.get('nats')!r}"
    if reading.tokens is not None and found["tokens"] > reading.tokens:
        return f"tokens are {found['tokens']!r}, the settings give {reading.tokens}"
    parts = found.get("by_segment")
    if not isinstance(parts, list) or len(parts) != reading.segments:
        return f"by_segment is {parts!r}, the settings give {reading.segments} segments"
    sums = [[part[0] for part in parts], [part[1] for part in parts]]
    if "windows" in found:
        sums = [sums[0], sums[1], *([window[i] for window in found["windows"]] for i in range(2))]
    for values, whole in zip(sums, (found["nats"], found["tokens"]) * 2, strict=False):
        if not math.isclose(math.fsum(values), whole, rel_tol=1e-9):
            return f"its parts add up to {math.fsum(values)!r}, not {whole!r}"
    for key, value in derived(found, reading.score).items():
        if isinstance(value, dict):
            if set(found.get(key, {})) != set(value):
                return f"{key} are {found.get(key)!r}"
            pairs = [(f"{key}, {name}", found[key][name], each) for name, each in value.items()]
        else:
            pairs = [(key, found.get(key), value)]
        for name, given, each in pairs:
            if not is_number(given) or not math.isclose(given, each, rel_tol=1e-9):
                return f"{name} is {given!r}, its sums give {each!r}"
    return None
