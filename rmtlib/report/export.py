"""All numbers and claims as CSV and JSON, for other programs, with a JSON schema that explains every column.

`measurements` has a line for each number of a run and each that a paper prints; `claims` one for each contrast of a
claim at a scale, in JSON one for each claim with its contrasts in `effects`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rmtlib.files import write_atomically
from rmtlib.report.claims import Effect
from rmtlib.report.measurements import Measurement, csv_text
from rmtlib.report.verdicts import ClaimData, as_data
from rmtlib.report.view import View

UNITS = {
    "bits per character": "bits per character",
    "bits per byte": "bits per byte",
    "gain": "bits per byte",
    "perplexity": "perplexity",
    ", tokens": "tokens",
    "minutes for": "minutes",
    "seconds a sample": "seconds",
    "tokens a second": "tokens per second",
    "peak memory": "MB",
    "slope": "power of the length",
    "symbols a ": "symbols a key",
    "excess": "of what chance leaves",
    "pairs stored": "pairs",
    "training steps": "steps",
}
"""Part of a metric's name -> its unit; all others are shares."""
SHARE = "share, 0 to 1"

COLUMNS = {
    "artifact": "table or figure of a paper, as in `rmtlib run ARTIFACT`",
    "row": "line or curve of it: a model with its settings",
    "metric": "what was measured",
    "value": "the number, in `unit`",
    "unit": f"of value, low, high and std; a share may be negative if it is a difference; {', '.join(UNITS.values())}",
    "source": "published: a record in results/; paper: printed there; authors: one of their own runs",
    "scale": "size of the run; empty of printed numbers",
    "seed": "training seed; empty of printed numbers",
    "x": "what it is drawn against: tokens of context, pairs, updates, segments or steps",
    "x_trained": "the largest x of training",
    "segments": "segments of the context",
    "tokens": "tokens of the context",
    "n": "test samples, or scored tokens",
    "low": "lower end of the 95 % interval that a finite test set leaves",
    "high": "its upper end",
    "std": "standard deviation over seeds, as a paper prints it",
    "data": "which text or stories",
    "record": "the record's name: results/<artifact>/<record>.json",
}
CLAIM_COLUMNS = {
    "artifact": COLUMNS["artifact"],
    "claim": "name of the claim within its artifact",
    "text": "what the paper says",
    "source": "which paper, and where",
    "rule": "the contrasts in words",
    "primary": "whether the rule decides it; if not, it is described",
    "power": "of a primary rule with n seeds: how often it holds in simulations with the paper true, and at its margin",
    "seen": "of a primary rule with its runs: how often it holds with the paper true and our seeds' spread",
    "scale": "size of the runs",
    "verdict": "what the records say",
    "effects": "its contrasts as measured, in the unit of what is compared: below 0 if the claim is true",
    "p": "of a primary claim, after Holm's correction",
    "why": "what is missing, or which gate is shut",
    "note": "what to know before believing the verdict",
    "commit": "where the rule was declared",
    "older": "whether a record is older than the rule",
    "former": "whether it is by an earlier form of the rule; words and power are those of the newest",
    "cost": "what the missing runs are estimated to take",
}
EFFECT_COLUMNS = {
    "contrast": "the weighted sum of arms, less its limit",
    "effect": "its value",
    "low": "lower end of its 95 % interval",
    "high": "its upper end",
    "n": "runs of each arm",
    "weights": "arm -> its weight in the sum",
    "limit": "what is subtracted: the margin",
    "share": "size of a difference of two arms relative to the second arm's mean",
}
OF_CLAIMS = tuple(name for name in CLAIM_COLUMNS if name not in ("power", "seen", "effects"))  # of the CSV
OF_EFFECTS = ("contrast", "effect", "low", "high", "n", "limit", "share")  # beside them


def unit_of(metric: str) -> str:
    """What a metric is measured in."""
    return next((unit for part, unit in UNITS.items() if part in metric), SHARE)


def measurements(views: Iterable[View]) -> list[dict[str, Any]]:
    """Every measurement of the views, with its unit."""
    return [
        {name: fields[name] for name in COLUMNS}
        for view in views
        for m in view.results.long_form()
        for fields in [m._asdict() | {"unit": unit_of(m.metric)}]
    ]


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas of measurements.json and claims.json, from the types of what they are written from."""
    numbers = _described(get_type_hints(Measurement) | {"unit": str}, COLUMNS)
    claims = _described(get_type_hints(ClaimData) | {"effects": list[Effect]}, CLAIM_COLUMNS)
    effects = claims["properties"]["effects"]["items"]
    for name, said in EFFECT_COLUMNS.items():
        effects["properties"][name]["description"] = said
    return {"measurements": _list("Every number of rmtlib's records", numbers), "claims": _list("Every claim", claims)}


def _described(hints: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    return _object({name: _schema(hints[name]) | {"description": said} for name, said in columns.items()})


def _list(title: str, items: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, "type": "array", "items": items}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


_PLAIN = {str: "string", float: "number", int: "integer", bool: "boolean"}


def _schema(hint: Any) -> dict[str, Any]:
    """The schema of a type, of those that `Measurement` and `ClaimData` are made of."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, UnionType):
        (some,) = (part for part in parts if part is not NoneType)
        return {"anyOf": [_schema(some), {"type": "null"}]}
    if origin in (list, tuple):
        return {"type": "array", "items": _schema(parts[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(parts[1])}
    return _object({name: _schema(part) for name, part in get_type_hints(hint).items()})


def _by_effect(claims: Iterable[ClaimData]) -> Iterator[list[Any]]:
    """The lines of claims.csv: a claim without a measured contrast has one as well."""
    for claim in claims:
        about: Mapping[str, Any] = claim
        for effect in claim["effects"] or [dict.fromkeys(OF_EFFECTS)]:
            yield [*(about[name] for name in OF_CLAIMS), *(effect[name] for name in OF_EFFECTS)]


def export(views: Iterable[View], folder: Path) -> list[Path]:
    """Write measurements and claims as CSV and JSON, and the schema of each JSON; returns the paths.

    An interval or effect of no size, as of equal numbers, is written as it is; what JSON has no word for is null.

    Raises:
        RmtlibError: the folder cannot be written.
    """
    views = list(views)
    lines, claims = measurements(views), [claim for view in views for claim in as_data(view)]
    texts = {
        "measurements.csv": csv_text(COLUMNS, (line.values() for line in lines)),
        "measurements.json": _json(lines),
        "claims.csv": csv_text([*OF_CLAIMS, *OF_EFFECTS], _by_effect(claims)),
        "claims.json": _json(claims),
    } | {f"{name}.schema.json": _json(schema) for name, schema in schemas().items()}
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
