"""What runs that are not there yet would take, for pages and lists of claims."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rmtlib.errors import RmtlibError
from rmtlib.report.measurements import Record, latest
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.plan import cost_of_run, plan
from rmtlib.runs.progress import amount, duration, size
from rmtlib.runs.spec import RunConfig


def config_of(artifact: Artifact, records: Iterable[Record], row: str, scale: str, seed: int = 0) -> RunConfig:
    """The config of the run's record if there is one, else that of a machine which has all files."""
    for record in latest(records):
        if (record["row"], record["scale"], record["seed"]) == (row, scale, seed):
            return RunConfig.from_json(record["config"])
    return artifact.with_all_files(row, scale, seed)


def cost_of(
    artifact: Artifact, records: Iterable[Record], scale: str, runs: Iterable[tuple[str, int]], results: Path
) -> str:
    """What these runs of a scale, (row, seed) each, take: from published runs of it if there are any, else computed."""
    none_yet = results / "no-local-runs"  # what this machine has trained does not make a run cheaper
    records, configs = list(records), []
    for row, seed in runs:
        config = config_of(artifact, records, row, scale, seed)
        try:
            cost_of_run(artifact, config)
        except RmtlibError:  # settings of earlier code
            config = artifact.with_all_files(row, scale, seed)
        configs.append(config)
    planned = plan(artifact, configs, runs_dir=none_yet, results_dir=results)
    total = planned["total"]
    device = re.sub("; there is none here[^)]*", "", planned["device"] or "")  # the book is read elsewhere
    where = f" on {device}" if device else ", as measured in the published runs"
    return (
        f"{duration(total['seconds'])}, {amount(total['tokens'])} tokens, {size(total['memory_bytes'])} of memory and "
        f"{size(total['disk_bytes'])} of disk for {total['runs']} runs, {planned['jobs']} at once{where}"
    )
