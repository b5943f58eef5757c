"""Settings as parameters of a run: what of a dataclass is hashed into a run's id.

A run's id is the hash of its settings. A field that a later version adds is made with `added`: at its default it stays
out of the parameters, so that the runs that were made before it keep their ids.
"""

from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any


def added(*, since: int, default: Any) -> Any:
    """A dataclass field that settings before version `since` do not have."""
    return field(default=default, metadata={"since": since})


def to_params(value: Any) -> Any:
    """`value` with all dataclasses in it as dicts, without added fields that are at their default."""
    if is_dataclass(value):
        pairs = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: to_params(x) for f, x in pairs if not (f.name in added_fields(value) and x == f.default)}
    if isinstance(value, Mapping):
        return {key: to_params(item) for key, item in value.items()}
    return type(value)(map(to_params, value)) if isinstance(value, (list, tuple)) else value


def added_fields(settings: Any) -> set[str]:
    """Names of the added fields of a dataclass: the only ones that parameters may lack."""
    return {f.name for f in fields(settings) if "since" in f.metadata}
