"""The shape of a record: its keys, and of each value the type and the length. Nothing in it is trusted before that.

A record is text that others hand in. What this lets through can be hashed, named as a file and shown on a page: it is
not deep, its strings are short and of one line, and its names have no other characters than names have.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import NoneType
from typing import Any

SCHEMA = 2
"""Since 2 a record has `inputs`, `micro_batch` and the number of threads. Records of schema 1 stay valid."""

DEPTH = 16
LINE = 500
"""The most characters of a note, a source or another line of text."""
TEXT = 100_000
"""The most characters of a string among metrics: outcomes of tests, four samples a character."""

Check = Callable[[Any], bool]


def is_line(value: Any) -> bool:
    """Whether it is text of one line, of at most `LINE` characters, all of them printable."""
    return isinstance(value, str) and len(value) <= LINE and value.isprintable()


def is_name(value: Any) -> bool:
    """Whether it is text that can name a file: letters, digits, and signs between them."""
    return (
        isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,98}[A-Za-z0-9])?", value) is not None
    )


def _is_hex(digits: int) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_commit(value: Any) -> bool:
    return value is None or _is_hex(40)(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_plain(value: Any) -> bool:
    """Text of one line, a number, a flag or nothing."""
    return isinstance(value, (bool, NoneType)) or _is_number(value) or is_line(value)


def _is_mapping_of(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(is_line(k) and check(item) for k, item in value.items())


def _is_list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_git(value: Any) -> bool:
    checks: dict[str, Check] = {"commit": _is_commit, "dirty": _is_flag}
    return isinstance(value, Mapping) and set(value) == set(checks) and all(checks[k](value[k]) for k in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_CHECKS: dict[str, Check] = {
    "schema": _is_whole,
    "run_id": _is_hex(12),
    "artifact": is_name,
    "row": is_name,
    "scale": is_name,
    "seed": _is_whole,
    "config": _is_mapping,
    "metrics": _is_mapping,
    "curves": _is_mapping,
    "data": _is_list_of(_is_mapping_of(_is_plain)),
    "packages": _is_mapping_of(is_line),
    "hardware": _is_mapping_of(_is_plain),
    "precision": is_name,
    "wall_s": _is_number,
    "peak_memory_bytes": _is_whole,
    "peak_host_memory_bytes": _is_whole,
    "tokens": _is_whole,
    "git": _is_git,
    "modules_sha256": _is_hex(64),
    "notes": _is_list_of(is_line),
    "finished": _is_time,
    "sha256": _is_hex(64),
}
_SINCE_2: dict[str, Check] = {
    "inputs": _is_mapping_of(_is_hex(64)),
    "micro_batch": lambda value: value is None or _is_whole(value),
}
KEYS = frozenset(_CHECKS | _SINCE_2)
"""The keys of a record of this schema, all of them always there."""


def misshapen(record: Mapping[str, Any]) -> str | None:
    """What of a record has another shape than a record's, in a few words; None if nothing has."""
    schema = record.get("schema")
    if schema not in (1, SCHEMA) or not _is_whole(schema):
        return f"schema {schema!r:.40}, this rmtlib reads 1 to {SCHEMA}"
    checks = _CHECKS | (_SINCE_2 if schema >= 2 else {})
    if wrong := sorted(set(record) ^ set(checks)):
        return f"lacks or adds keys ({', '.join(wrong)[:LINE]!r})"
    if not _is_shallow(record):
        return f"is more than {DEPTH} levels deep, or has a text of more than {TEXT} characters or a control character"
    wrong = [key for key, check in checks.items() if not check(record[key])]
    return f"holds values of another type or length ({', '.join(wrong)})" if wrong else None


def _is_shallow(value: Any) -> bool:
    """Without recursion: the limits on depth and on every text, at any depth."""
    level, values = 0, [value]
    while values:
        level += 1
        if level > DEPTH:
            return False
        below: list[Any] = []
        for item in values:
            if isinstance(item, Mapping):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and not (len(item) <= TEXT and item.isprintable()):
                return False
        values = below
    return True
