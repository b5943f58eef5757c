"""What an artifact is to those who train and keep its runs, and how a command's options choose among them."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from rmtlib.errors import RmtlibError
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.provenance import has_gpu
from rmtlib.runs.spec import PILOT, Cost, Once, Result, Row, RunConfig, Trial

MAX_SEEDS = 1000  # more is a slip of the keyboard


class Artifact(ABC):
    """One table or figure of a paper."""

    name: ClassVar[str]
    title: ClassVar[str]
    rows: ClassVar[tuple[Row, ...]]
    scales: ClassVar[tuple[str, ...]] = ("smoke", "small", "gpu", "paper")
    """Those of `SCALES` that it has settings for."""
    note: ClassVar[str] = ""
    """What has to stand beside the title wherever results are shown."""
    settings_note: ClassVar[str] = ""
    """What is to be known to read the table of settings."""
    shares_tests: ClassVar[bool] = False
    """Whether several processes can share a run's tests: those go through `runs.testing.run_tests`."""
    gpu_efficiency: ClassVar[float] = 0.25
    """The part of a GPU's matrix product speed that the scales gpu and paper are to reach (GPT-2: 0.35 M tokens/s)."""
    alone: ClassVar[bool] = False
    """Whether its runs measure time, so that one runs at a time, whatever --jobs says."""
    times_training: ClassVar[bool] = True
    """Whether records tell how long training takes. False if runs may take weights that another artifact trained."""

    @property
    def typical_row(self) -> str:
        """The row whose settings are shown."""
        return self.rows[0].name

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The recorded trials of the search for its settings: what the scale "pilot" trains."""
        return ()

    @abstractmethod
    def default_rows(self, scale: str) -> tuple[str, ...]:
        """Names of the rows that a command without --rows and --tasks trains, if all files can be had."""

    def rows_here(self, scale: str, *, fetched: bool) -> tuple[str, ...]:
        """`default_rows` on this machine, where other rows may have to stand in for those whose weights are missing.

        Args:
            fetched: whether `prepare` was called, so that what is missing cannot be had.
        """
        return self.default_rows(scale)

    def remarks(self, scale: str) -> list[str]:
        """What on this machine decides which rows run by default, or with what, in lines for the plan."""
        return []

    def rows_at(self, scale: str) -> list[Row]:
        """The rows that a scale has."""
        return [row for row in self.rows if scale in (row.scales or self.scales)]

    @abstractmethod
    def default_seeds(self, scale: str) -> int:
        """How many seeds (0, 1, ...) of most rows a command without --seeds trains."""

    def seeds_of(self, row: str, scale: str) -> int:
        """How many it trains of this row."""
        return self.default_seeds(scale)

    def default_runs(self, scale: str) -> list[tuple[str, int]]:
        """(row, seed) of all runs that a command without --rows, --tasks and --seeds trains."""
        return [(row, seed) for row in self.default_rows(scale) for seed in range(self.seeds_of(row, scale))]

    def prepare(self, scale: str, rows: Sequence[str]) -> None:  # noqa: B027 - most need nothing
        """Fetch what the configs of these rows depend on, if it can be had; the others ask no network."""

    @abstractmethod
    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config of a run, from what is on this machine."""

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        """The config on a machine that has all data and weights, whatever this one has."""
        return self.config(row, scale, seed)

    @abstractmethod
    def execute(self, config: RunConfig, folder: RunFolder) -> Result:
        """Train and evaluate, from `folder.path`'s checkpoint if there is one.

        Calls `folder.progress` often, and `folder.should_stop` at every step boundary; when it says so,
        writes a checkpoint and raises `Stopped`.
        """

    def rehearsed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Settings that `runs.rehearsal` made smaller, mended so that they fit together again."""
        return params

    @abstractmethod
    def cost(self, config: RunConfig) -> Cost:
        """The most that the run takes, by arithmetic alone (no data, no model is made)."""

    def once(self, config: RunConfig) -> Once | None:
        """What the first run that needs it makes and keeps for the others, beyond the run's own cost."""
        return None

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        """What in a record's numbers cannot be, in words; None if nothing is.

        Every derived value is computed anew, from the values it was made from or from the settings.

        Raises:
            RmtlibError: the numbers as such may be right, but the settings are those of other code.
        """
        return None

    @abstractmethod
    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """About three lines of plain English: what these records show."""

    def report(self) -> Any:
        """How records are shown: a `rmtlib.report.report.Report`, whose modules are imported only then."""
        raise RmtlibError(f"{self.name} does not say how its records are shown: define {type(self).__name__}.report")


def reference(artifact: Artifact) -> str:
    """The "module:class" by which a worker, another process, finds the artifact's class."""
    kind = type(artifact)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise RmtlibError(
            f"{artifact.name}: workers cannot import {kind.__qualname__}; move it into a module's top level"
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def load_artifact(reference: str) -> Artifact:
    """The artifact that "module:class" refers to."""
    module, _, attribute = reference.partition(":")
    artifact = getattr(importlib.import_module(module), attribute)()
    assert isinstance(artifact, Artifact), reference
    return artifact


def default_scale(artifact: Artifact | None = None) -> str:
    """ "gpu" if torch has a GPU, else "small", or of an artifact that has no such scale its first."""
    scale = "gpu" if has_gpu() else "small"
    return scale if artifact is None or scale in artifact.scales else artifact.scales[0]


def select(
    artifact: Artifact,
    scale: str | None = None,
    seeds: int | str | None = None,
    rows: str | None = None,
    tasks: str | None = None,
    precision: str | None = None,
    *,
    prepare: bool = False,
) -> list[RunConfig]:
    """The runs that a command's options mean, in the artifact's row order, seeds 0, 1, ... of each row.

    None and "" mean the default: `default_scale`, and the artifact's default seeds and rows. `rows` is a
    comma list of glob patterns over row names or "all", `tasks` one of task names; with both, rows that match both.
    `precision` "bf16" computes the float32 runs of scale "paper" in bf16; these are other runs, with ids of their own.
    `prepare` calls `Artifact.prepare` first, for a caller that will train them. The scale "pilot" has the artifact's
    trials, which `rows` chooses by their names or their rows'.

    Raises:
        RmtlibError: an unknown value; the message lists the valid ones.
    """
    scale = scale or default_scale(artifact)
    if precision not in (None, "", "bf16"):
        raise RmtlibError(f"unknown precision {precision!r}: use bf16, or leave it out for the scale's own")
    if precision and scale != "paper":
        raise RmtlibError(f"precision is a choice of scale paper alone: scale {scale} has its own, leave it out")
    configs = _select(artifact, scale, seeds, rows, tasks, prepare)
    if not precision:
        return configs
    changed = [replace(config, params=_in_bf16(config.params)) for config in configs]
    if changed == configs:
        raise RmtlibError(f"none of these runs of {artifact.name} is in float32 at scale paper: leave precision out")
    return changed


def _in_bf16(params: Any) -> Any:
    """The same settings, in bf16 wherever they say float32."""
    if isinstance(params, Mapping):
        return {key: "bf16" if (key, x) == ("precision", "float32") else _in_bf16(x) for key, x in params.items()}
    return [_in_bf16(item) for item in params] if isinstance(params, list | tuple) else params


def _select(
    artifact: Artifact, scale: str, seeds: int | str | None, rows: str | None, tasks: str | None, prepare: bool
) -> list[RunConfig]:
    scales = (*artifact.scales, PILOT) if artifact.trials else artifact.scales
    if scale not in scales:
        why = f"{artifact.name} has no trials" if scale == PILOT else f"unknown scale {scale!r} for {artifact.name}"
        raise RmtlibError(f"{why}: use one of {', '.join(scales)}")
    if scale == PILOT:
        return _select_trials(artifact, seeds, rows, tasks)
    count = None if seeds in (None, "") else _seeds(seeds)
    if not rows and not tasks:
        if prepare:
            artifact.prepare(scale, artifact.default_rows(scale))
        named = {row.name: row for row in artifact.rows}
        return _configs(artifact, [named[name] for name in artifact.rows_here(scale, fetched=prepare)], scale, count)
    chosen = artifact.rows_at(scale)
    if rows and rows != "all":
        names = [row.name for row in chosen]
        for pattern in (patterns := _items(rows, "rows")):
            if not any(fnmatchcase(name, pattern) for name in names):
                elsewhere = [row for row in artifact.rows if fnmatchcase(row.name, pattern)]
                if elsewhere:
                    raise RmtlibError(
                        f"{artifact.name} has {elsewhere[0].name} at scale {' and '.join(elsewhere[0].scales)} alone, "
                        f"not at {scale}: give --scale {elsewhere[0].scales[0]}"
                    )
                raise RmtlibError(f"no row of {artifact.name} matches {pattern!r}: {_hint(pattern, names)}")
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
    return _configs(artifact, chosen, scale, count)


def _configs(artifact: Artifact, rows: Sequence[Row], scale: str, seeds: int | None) -> list[RunConfig]:
    """Of every row and seed (None: as many as it has by default), each once: a row may not depend on its seed."""
    runs = ((row.name, seed) for row in rows for seed in range(seeds or artifact.seeds_of(row.name, scale)))
    return list(dict.fromkeys(artifact.config(row, scale, seed) for row, seed in runs))


def _select_trials(artifact: Artifact, seeds: int | str | None, rows: str | None, tasks: str | None) -> list[RunConfig]:
    """The artifact's trials, all or those whose own or row's name a pattern matches."""
    if seeds or tasks:
        raise RmtlibError(f"a trial of {artifact.name} has its own task and seed: choose trials by rows alone")
    patterns = ["*"] if not rows or rows == "all" else _items(rows, "rows")
    names = {trial.name: (trial.name, trial.config.row) for trial in artifact.trials}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for both in names.values() for name in both):
            raise RmtlibError(f"no trial of {artifact.name} matches {pattern!r}: {_hint(pattern, list(names))}")
    return [
        trial.config
        for trial in artifact.trials
        if any(fnmatchcase(name, pattern) for name in names[trial.name] for pattern in patterns)
    ]


def _hint(pattern: str, names: Sequence[str]) -> str:
    """What may have been meant by a pattern that matches none of the names; all of them if none is near."""
    near = [name for name in names if name.startswith(pattern)] or [name for name in names if pattern in name]
    if not near:
        near = get_close_matches(pattern, names)
        return f"did you mean {' or '.join(near)}?" if near else f"use {', '.join(names)}"
    if len(near) == 1:
        return f"did you mean {near[0]}?"
    wider = f"{pattern}*" if near[0].startswith(pattern) else f"*{pattern}*"
    return f"{wider!r} would match {', '.join(near[:3])}" + f" and {len(near) - 3} more" * (len(near) > 3)


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
