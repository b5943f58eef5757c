"""An artifact's view by its name, for notebooks and the book."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rmtlib.experiments.registry import get_artifact
from rmtlib.report.measurements import Record
from rmtlib.report.view import View
from rmtlib.runs.artifact import select
from rmtlib.runs.records import find_records
from rmtlib.runs.scheduler import run


def view_of(artifact: str, live: Iterable[Record] = (), published: Iterable[Record] = ()) -> View:
    """The view of the artifact called `artifact`."""
    return View(get_artifact(artifact), live, published)


def enter_project() -> Path:
    """Make the project's folder the working directory, from a notebook opened in `notebooks/`; returns it.

    `runs/`, `results/` and `out/` are relative to it. Outside a checkout the working directory stays.
    """
    here = Path.cwd()
    root = next((p for p in (here, *here.parents) if (p / "rmtlib").is_dir() and (p / "notebooks").is_dir()), here)
    os.chdir(root)
    return root


def open_view(
    artifact: str,
    scale: str | None = None,
    seeds: int | str | None = None,
    rows: str | None = None,
    tasks: str | None = None,
    precision: str | None = None,
    *,
    train: bool = True,
    published_only: bool = False,
) -> View:
    """An artifact's runs and published records, for its notebook; see `runs.artifact.select` for what None means.

    Args:
        train: train what runs/ does not hold yet. False: show the records that are there.
        published_only: train nothing and show the published records only.
    """
    enter_project()
    chosen, train = get_artifact(artifact), train and not published_only
    configs = select(chosen, scale, seeds, rows, tasks, precision, prepare=train)
    live: Sequence[Record] = []
    if train:
        live = run(chosen, configs)
    elif not published_only:
        live = find_records(artifact, scale=configs[0].scale, where=("runs",))
        if precision:
            live = [record for record in live if record["run_id"] in {config.id for config in configs}]
    return View(chosen, live, find_records(artifact, where=("results",)))
