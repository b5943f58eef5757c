"""The commands about finished work: `rmtlib publish` and `rmtlib verify`; and which runs a command means."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rmtlib.errors import RmtlibError
from rmtlib.terminal import print_json

if TYPE_CHECKING:
    from rmtlib.runs.artifact import Artifact
    from rmtlib.runs.spec import RunConfig


def selected(options: argparse.Namespace, *, prepare: bool = False) -> tuple[Artifact, list[RunConfig]]:
    """The artifact, and the runs of it that the options mean."""
    from rmtlib.experiments.registry import get_artifact
    from rmtlib.runs.artifact import select

    artifact = get_artifact(options.artifact)
    chosen = (options.scale, options.seeds, options.rows, options.tasks, options.precision)
    return artifact, select(artifact, *chosen, prepare=prepare)


def publish(options: argparse.Namespace) -> int:
    """Copy finished records to results/, or the weights of one run to results/checkpoints/."""
    from rmtlib.experiments.registry import get_artifact
    from rmtlib.runs import records

    if options.checkpoint:
        from rmtlib.runs.weights import publish_weights

        artifact, configs = selected(options)
        card = str(publish_weights(artifact, configs[0], options.checkpoint))
        print_json({"published": [card]}) if options.json else print(f"published: {card}")
        return 0
    artifact = get_artifact(options.artifact)
    chosen = options.scale or options.seeds or options.rows or options.tasks or options.precision
    slugs = [config.slug for config in selected(options)[1]] if chosen else None
    done = records.publish(artifact, slugs=slugs)
    if options.json:
        print_json(vars(done))
    else:
        for word in ("published", "superseded", "unchanged"):
            for path in getattr(done, word):
                print(f"{word}: {path}")
        if done.left_out:
            print(f"left out: {len(done.left_out)} of scale smoke; --scale smoke publishes them")
        for refused in done.refused:
            print(f"not published: {refused['run']}: {refused['reason']}")
    if done.refused:
        raise RmtlibError(
            f"{len(done.refused)} of {len(done.refused) + len(done.published) + len(done.unchanged)} runs "
            f"not published; the first: {done.refused[0]['run']}: {done.refused[0]['reason']}"
        )
    return 0


def verify(options: argparse.Namespace) -> int:
    """Rehash what results/ holds."""
    from rmtlib.experiments.registry import all_artifacts
    from rmtlib.runs import records
    from rmtlib.runs.checks import NO_OUTCOMES
    from rmtlib.runs.weights import verify_weights, weights_names

    if not Path(options.folder).is_dir():
        raise RmtlibError(f"no folder {options.folder}: call this in the project's folder, or name another")
    done = records.verify(all_artifacts(), options.folder)
    of_weights = verify_weights(options.folder)
    done.problems += of_weights
    problems, count = done.problems, len(records.record_files(options.folder))
    if options.json:
        print_json({"folder": options.folder, "records": count, **vars(done)})
    else:
        print("\n".join(problems) if problems else f"{count} records in {options.folder}/ are as they were written")
        without = sum(line.endswith(NO_OUTCOMES) for line in done.not_recomputed)
        if unread := len(done.not_recomputed) - without:
            print(f"{unread} records have settings of earlier code: numbers not computed anew (--json names them)")
        if without:
            print(f"counts taken as written, for want of each sample's outcome: {without} records (--json names them)")
        if (names := weights_names(options.folder)) and not of_weights:
            print(f"{len(names)} published checkpoints are as their cards say")
    if problems:
        raise RmtlibError(
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in {options.folder}/, first: {problems[0]}"
        )
    return 0
