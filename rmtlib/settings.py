"""Settings as frozen dataclasses: what of them is hashed and kept in records, and how they are read from there.

A record's settings are complete, and a field more would give every run another id. A field that is added later is
therefore marked, ``field(default=..., metadata={"since": 2})``: at its default it is left out, and read as such.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rmtlib.errors import RmtlibError

T = TypeVar("T")


def to_params(settings: Any) -> dict[str, Any]:
    """A dataclass as nested dicts, lists and single values, without later fields that are at their defaults."""
    values = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not (_is_later(field) and value == field.default):
            values[field.name] = _jsonable(value)
    return values


def _jsonable(value: Any) -> Any:
    if is_dataclass(value):
        return to_params(value)
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, (tuple, list)) else value


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """The inverse of `to_params`: the dataclass, with all that is in it.

    Types are checked by pydantic, if it is installed (training needs torch, transformers, numpy and safetensors alone);
    names and bounds always, bounds by the dataclasses themselves.

    Raises:
        RmtlibError: a field is unknown or missing, at any depth, or has a value that it cannot have.
    """
    return _read(cls, data, "")


def _read(cls: type[T], data: Mapping[str, Any], prefix: str) -> T:
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    needed = {name for name, field in known.items() if not _is_later(field)}
    if wrong := (set(data) - set(known)) | (needed - set(data)):
        names = ", ".join(f"{prefix}{name}" for name in sorted(wrong))
        raise RmtlibError(f"{cls.__name__} settings unknown or missing: {names}")
    hints = _hints(cls)  # type: ignore[arg-type]
    values = {name: _value(hints[name], value, f"{prefix}{name}") for name, value in data.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:  # TypeError: a wrong type that nothing has checked
        raise RmtlibError(f"{cls.__name__} settings{f' in {prefix[:-1]}' if prefix else ''}: {error}") from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(hint: Any, value: Any, name: str) -> Any:
    """A field's value: nested settings are read in turn, single values checked and kept as they are."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, Mapping) and (nested := [kind for kind in options if is_dataclass(kind)]):
        closest = min(nested, key=lambda kind: len({field.name for field in fields(kind)} ^ set(value)))
        return _read(closest, value, f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)) and is_dataclass(get_args(hint)[0]):
        return tuple(_value(get_args(hint)[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    _check(hint, value, name)
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(value) if isinstance(value, list) else value


def _check(hint: Any, value: Any, name: str) -> None:
    try:
        from pydantic import ValidationError
    except ImportError:
        return
    try:
        _adapter(hint).validate_json(json.dumps(value, default=dict))  # as JSON, a list is a tuple
    except ValidationError as error:
        raise RmtlibError(f"{name} is {value!r}: {error.errors()[0]['msg'].lower()}") from error


@cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return TypeAdapter(hint) if is_dataclass(hint) else TypeAdapter(hint, config=config)


def at_least(settings: Any, least: float, *names: str) -> None:
    """For a dataclass's `__post_init__`: ValueError if one of these fields is below `least`; None is no number."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value!r}; it must be {least} or more")


def one_of(settings: Any, **choices: tuple[str, ...]) -> None:
    """For a dataclass's `__post_init__`: ValueError if one of these fields is none of its choices."""
    for name, known in choices.items():
        if (value := getattr(settings, name)) not in known:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")


def _is_later(field: Field[Any]) -> bool:
    return "since" in field.metadata
