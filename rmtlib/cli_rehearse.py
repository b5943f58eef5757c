"""The command `rmtlib rehearse`: of one artifact or all; the outcomes are shown, or also kept as the book's record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rmtlib.errors import RmtlibError
from rmtlib.terminal import print_json, print_table

if TYPE_CHECKING:
    from rmtlib.runs.artifact import Artifact

EVERY = "all"


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of its own."""
    command.add_argument(
        "--record", metavar="FILE", help="keep each row's outcome there, and rehearse only rows that it lacks"
    )
    command.add_argument("--fresh", action="store_true", help="also rows that the record has")


def rehearse(options: argparse.Namespace) -> int:
    """Rehearse rows of an artifact, or of all that have the scale; exit status 2 if one fails."""
    from rmtlib.runs.artifact import select
    from rmtlib.runs.rehearsal import NOT_HERE, PASSED, as_table
    from rmtlib.runs.rehearsal import rehearse as lines_of
    from rmtlib.runs.rehearsals import rehearse_and_keep

    lines = []
    for artifact in _artifacts(options):
        configs = select(artifact, options.scale, options.seeds, options.rows, options.tasks, prepare=True)
        if options.record:
            found = rehearse_and_keep(artifact, configs, Path(options.record), fresh=options.fresh)
        else:
            found = lines_of(artifact, configs)
        for line in found:
            lines.append(line | {"artifact": artifact.name})
            print(f"{artifact.name} {line['row']}: {line['outcome']}", file=sys.stderr, flush=True)
    if options.json:
        print_json(lines)
    elif not lines:
        print("nothing to rehearse: the record has all of these rows (--fresh rehearses them again)")
    else:
        print_table(as_table(lines))
    missing = [line["outcome"].startswith(NOT_HERE) for line in lines]
    if any(missing):
        print(
            f"{sum(missing)} of {len(lines)} rows were not rehearsed, as what they need cannot be had here",
            file=sys.stderr,
        )
    if failed := [
        f"{line['artifact']} {line['row']}"
        for line, absent in zip(lines, missing, strict=True)
        if line["outcome"] not in PASSED and not absent
    ]:
        raise RmtlibError(f"{len(failed)} of {len(lines)} rows failed: {', '.join(failed)}")
    return 0


def _artifacts(options: argparse.Namespace) -> list[Artifact]:
    from rmtlib.experiments.registry import all_artifacts, get_artifact

    if options.artifact != EVERY:
        return [get_artifact(options.artifact)]
    if not options.scale:
        raise RmtlibError("rehearse all needs a scale: give e.g. --scale gpu")
    return [artifact for artifact in all_artifacts().values() if options.scale in artifact.scales]
