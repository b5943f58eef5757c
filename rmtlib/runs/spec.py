"""The words of an experiment: an artifact has rows; a row at a scale with a seed is a run, a `RunConfig`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from rmtlib.errors import RmtlibError
from rmtlib.runs.provenance import has_gpu
from rmtlib.runs.storage import digest, plain

if TYPE_CHECKING:
    from rmtlib.runs.worker import RunFolder

SCALES = ("smoke", "small", "medium", "gpu", "paper")
MAX_SEEDS = 1000  # more is a slip of the keyboard


@dataclass(frozen=True)
class Row:
    """One line of a table or curve of a figure, with the paper's values and where in the paper they stand."""

    name: str
    label: str
    task: str | None
    paper: Mapping[str, Any]
    source: str


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
        object.__setattr__(self, "params", _freeze(plain(self.params)))
        try:
            object.__setattr__(self, "_id", digest(self.to_json())[:12])
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
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

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
class Cost:
    """What a run takes, computed before it starts: tokens (training and evaluation), FLOP and in what, bytes."""

    tokens: int
    flops: float
    memory_bytes: int
    disk_bytes: int
    precision: str = "float32"


@dataclass(frozen=True)
class Result:
    """What `Artifact.execute` hands back; the runner adds the provenance and makes a record of it.

    `data` are provenance dicts of the files used, `tokens` those processed, `precision` e.g. "float32" or
    "bf16".
    """

    metrics: dict[str, Any]
    curves: dict[str, Any]
    data: list[dict[str, Any]]
    tokens: int
    precision: str
    notes: list[str]


class Artifact(ABC):
    """One table or figure of a paper."""

    name: ClassVar[str]
    title: ClassVar[str]
    rows: ClassVar[tuple[Row, ...]]
    scales: ClassVar[tuple[str, ...]] = tuple(scale for scale in SCALES if scale != "medium")
    note: ClassVar[str] = ""
    """What has to stand beside the title wherever results are shown."""
    settings_note: ClassVar[str] = ""
    """What is to be known to read the table of settings."""
    gpu_efficiency: ClassVar[float] = 0.25
    """The part of a GPU's matrix product speed that the scales gpu and paper are to reach (GPT-2: 0.35 M tokens/s)."""

    @property
    def typical_row(self) -> str:
        """The row whose settings are shown."""
        return self.rows[0].name

    @abstractmethod
    def default_rows(self, scale: str) -> tuple[str, ...]:
        """Names of the rows that a command without --rows and --tasks trains."""

    @abstractmethod
    def default_seeds(self, scale: str) -> int:
        """How many seeds (0, 1, ...) a command without --seeds trains."""

    def prepare(self, scale: str, rows: Sequence[str]) -> None:  # noqa: B027 - most need nothing
        """Fetch what the configs of these rows depend on, where it can be had; the others ask no network."""

    @abstractmethod
    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run, from what is on this machine."""

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        """The config on a machine that has all data and weights, whatever this one has."""
        return self.config(row, scale, seed)

    @abstractmethod
    def execute(self, config: RunConfig, folder: RunFolder) -> Result:
        """Train and evaluate, from `folder.path`'s checkpoint where there is one.

        Calls `folder.progress` often, and `folder.should_stop` at every step boundary; when it says so,
        writes a checkpoint and raises `Stopped`.
        """

    @abstractmethod
    def cost(self, config: RunConfig) -> Cost:
        """The run's cost, by arithmetic alone (no data, no model is made)."""

    @abstractmethod
    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """About three lines of plain English: what these records show."""

    def report(self) -> Any:
        """How records are shown: a `rmtlib.report.report.Report`, whose modules are imported only then."""
        raise RmtlibError(f"{self.name} does not say how its records are shown: define {type(self).__name__}.report")


ARTIFACTS: dict[str, str] = {
    "figure-5": "rmtlib.experiments.babilong.artifact:Figure5",
    "enwik8": "rmtlib.experiments.language_modelling.artifact:Enwik8",
    "wikitext-103": "rmtlib.experiments.language_modelling.artifact:WikiText103",
    "memory-capacity": "rmtlib.experiments.capacity.artifact:MemoryCapacity",
}
"""Name -> "module:class". Modules are imported when asked for; workers get the same reference."""


def load_artifact(reference: str) -> Artifact:
    """The artifact that "module:class" refers to."""
    module, _, attribute = reference.partition(":")
    artifact = getattr(importlib.import_module(module), attribute)()
    assert isinstance(artifact, Artifact), reference
    return artifact


def get_artifact(name: str) -> Artifact:
    """The artifact called `name`, e.g. "figure-5". Raises RmtlibError naming the known ones."""
    if name not in ARTIFACTS:
        raise RmtlibError(f"unknown artifact {name!r}: use one of {', '.join(ARTIFACTS)}")
    return load_artifact(ARTIFACTS[name])


def default_scale() -> str:
    """ "gpu" where torch has a GPU, else "small"."""
    return "gpu" if has_gpu() else "small"


def select(
    artifact: Artifact | str,
    scale: str | None = None,
    seeds: int | str | None = None,
    rows: str | None = None,
    tasks: str | None = None,
    *,
    prepare: bool = False,
) -> list[RunConfig]:
    """The runs that a command's options mean, in the artifact's row order, seeds 0, 1, ... of each row.

    None and "" mean the default: `default_scale()`, and the artifact's default seeds and rows. `rows` is a
    comma list of glob patterns over row names or "all", `tasks` one of task names; with both, rows that match both.
    `prepare` calls `Artifact.prepare` first, for a caller that will train them.

    Raises:
        RmtlibError: an unknown value; the message lists the valid ones.
    """
    if isinstance(artifact, str):
        artifact = get_artifact(artifact)
    scale = scale or default_scale()
    if scale not in artifact.scales:
        raise RmtlibError(f"unknown scale {scale!r} for {artifact.name}: use one of {', '.join(artifact.scales)}")
    count = artifact.default_seeds(scale) if seeds in (None, "") else _seeds(seeds)
    chosen = [row for row in artifact.rows if row.name in artifact.default_rows(scale)]
    if rows or tasks:
        chosen = list(artifact.rows)
    if rows and rows != "all":
        names = [row.name for row in artifact.rows]
        for pattern in (patterns := _items(rows, "rows")):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RmtlibError(f"no row of {artifact.name} matches {pattern!r}: use {', '.join(names)}")
        chosen = [row for row in chosen if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
    if tasks:
        known = list(dict.fromkeys(row.task for row in artifact.rows if row.task))
        for task in (wanted := _items(tasks, "tasks")):
            if task not in known:
                valid = f"use {', '.join(known)}" if known else "it has no tasks"
                raise RmtlibError(f"unknown task {task!r} for {artifact.name}: {valid}")
        chosen = [row for row in chosen if row.task in wanted]
    if not chosen:
        raise RmtlibError(f"no row of {artifact.name} matches both rows {rows!r} and tasks {tasks!r}")
    if prepare:
        artifact.prepare(scale, [row.name for row in chosen])
    return [artifact.config(row.name, scale, seed) for row in chosen for seed in range(count)]


def _items(text: Any, what: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()] if isinstance(text, str) else []
    if not items:
        raise RmtlibError(f"{what} {text!r} names nothing: give names between commas, or leave it empty for all")
    return items


def _seeds(seeds: int | str | None) -> int:
    try:
        count = int(seeds)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        count = 0
    if isinstance(seeds, (bool, float)) or not 1 <= count <= MAX_SEEDS:
        raise RmtlibError(f"seeds is how many seeds to train, a whole number from 1 to {MAX_SEEDS}, not {seeds!r}")
    return count
