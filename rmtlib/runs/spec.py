"""The words of an experiment: a row at a scale with a seed is a run, a `RunConfig`, of which a `Result` is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.runs.storage import json_sha256, to_jsonable

SCALES = ("smoke", "small", "medium", "gpu", "paper")
"""Smallest first. An artifact may lack some of them, see `Artifact.scales`."""
PILOT = "pilot"
"""The scale of recorded trials, from which an artifact's settings were chosen. No table of results shows them."""
PUBLISHED_SEEDS = range(3)
"""Training seeds of published results: no setting is chosen by what a run with one of these shows."""


@dataclass(frozen=True)
class Row:
    """One line of a table or curve of a figure, with the paper's values and where in the paper they stand.

    `scales` are those that have it; empty: all of its artifact. `stands_in`: it replaces a row whose weights are not
    on this machine; the queue trains it only then.
    """

    name: str
    label: str
    task: str | None
    paper: Mapping[str, Any]
    source: str
    scales: tuple[str, ...] = ()
    stands_in: bool = False


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run's result. Equal configs have equal ids, on every machine.

    `params` is frozen at construction: read-only mappings and tuples all the way down, JSON values at the
    leaves.
    """

    artifact: str
    row: str
    scale: str
    seed: int
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("artifact", "row", "scale"):
            if not isinstance(getattr(self, name), str):
                raise RmtlibError(f"a run config's {name} is text, not {getattr(self, name)!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise RmtlibError(f"a run config's seed is a whole number, not {self.seed!r}")
        if not isinstance(self.params, Mapping):
            raise RmtlibError(f"a run config's params are a mapping, not {self.params!r}")
        object.__setattr__(self, "params", _freeze(to_jsonable(self.params)))
        try:
            object.__setattr__(self, "_id", json_sha256(self.to_json())[:12])
        except ValueError as error:
            raise RmtlibError(f"{self.artifact} {self.row}: a run config holds finite numbers only") from error

    @property
    def id(self) -> str:
        """The first 12 hex digits of the sha256 of the config's canonical JSON."""
        return str(self._id)  # type: ignore[attr-defined]

    @property
    def slug(self) -> str:
        """The name of the run's folder and of its published record."""
        return f"{self.row}-{self.scale}-s{self.seed}-{self.id}"

    @property
    def title(self) -> str:
        """The run in words, for messages."""
        return f"{self.artifact} {self.row} {self.scale} seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """The config as a plain dict (params thawed: dicts and lists)."""
        return {field.name: to_jsonable(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunConfig:
        """The inverse of `to_json`. RmtlibError on unknown or missing keys and on values of a wrong type."""
        known = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != known:
            wrong = sorted(set(data) ^ known) if isinstance(data, Mapping) else data
            raise RmtlibError(f"a run config has the keys {', '.join(sorted(known))}; unknown or missing: {wrong}")
        return cls(**data)

    def __hash__(self) -> int:
        return hash(self.id)


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _freeze(item) for key, item in value.items()})
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Trial:
    """A run of the search for an artifact's settings: its name, why it was made, and its config of scale "pilot"."""

    name: str
    note: str
    config: RunConfig

    def __post_init__(self) -> None:
        if self.config.scale != PILOT or self.config.seed in PUBLISHED_SEEDS:
            raise ValueError(f"trial {self.name}: a trial has scale {PILOT!r} and a seed that no result is made with")


@dataclass(frozen=True)
class Cost:
    """What a run takes at most, computed before it starts: tokens (training and evaluation), FLOP and in what, bytes,
    and how many weights its model has.

    A run whose stages may end early takes less; how much less, only its records tell.
    """

    tokens: int
    flops: float
    memory_bytes: int
    disk_bytes: int
    precision: str = "float32"
    weights: int = 0


@dataclass(frozen=True)
class Once:
    """What the first run that needs it makes for all others, e.g. a small decoder: its cost, or it is there."""

    name: str
    key: str
    cost: Cost
    there: bool


@dataclass(frozen=True)
class Result:
    """What `Artifact.execute` hands back; the runner adds the provenance and makes a record of it.

    `data` are provenance dicts of the files used, `tokens` those processed, `precision` e.g. "float32" or
    "bf16", `micro_batch` the samples of a forward pass in training, None without any.
    """

    metrics: dict[str, Any]
    curves: dict[str, Any]
    data: list[dict[str, Any]]
    tokens: int
    precision: str
    notes: list[str]
    micro_batch: int | None = None
