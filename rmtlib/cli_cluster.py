"""The commands for days of work and for clusters: `rmtlib queue`, and `rmtlib run --executor`."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rmtlib.errors import RmtlibError

if TYPE_CHECKING:
    from rmtlib.runs.artifact import Artifact
    from rmtlib.runs.job import Executor
    from rmtlib.runs.spec import RunConfig

INNER = ("worker", "peer", "shard", "slurm-task")
"""Commands of the processes that other commands start; not for users, so not in --help."""


def inner(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Be such a process; its exit status."""
    parser.add_argument("folder")
    parser.add_argument("--artifact", required=True)
    for name in ("--parent", "--devices", "--rank"):
        parser.add_argument(name, type=int)
    parser.add_argument("--meeting")
    given = parser.parse_args(arguments[1:])
    if arguments[0] == "worker":
        from rmtlib.runs import worker

        return worker.main(given.folder, given.artifact, given.parent, given.devices or 1)
    if arguments[0] == "shard":
        from rmtlib.runs import shards

        return shards.help_test(Path(given.folder), given.artifact, given.parent)
    if arguments[0] == "peer":
        from rmtlib.runs import devices

        return devices.help_train(**vars(given))
    from rmtlib.runs.executors import slurm

    return slurm.task(given.folder, given.artifact)


def queue(options: argparse.Namespace) -> int:
    """Train what is missing of several artifacts, then say what was done and what is left."""
    from rmtlib.experiments.registry import get_artifact
    from rmtlib.runs.queue import queue

    artifacts = [get_artifact(name) for name in dict.fromkeys(options.artifacts)]
    worked = queue(artifacts, options.scale, options.seeds, jobs=options.jobs, time_budget=options.time_budget)
    print(json.dumps(worked.to_json(), indent=1) if options.json else "\n".join(worked.lines()))
    if worked.error:
        sys.stdout.flush()  # before the error, which goes to standard error
        raise worked.error
    return 0


def executor(artifact: Artifact, configs: list[RunConfig], options: argparse.Namespace) -> Executor | None:
    """Where `rmtlib run` trains; None: here."""
    if options.executor and options.devices:
        raise RmtlibError(f"--executor {options.executor} gives each run one device: leave out --devices")
    if options.executor != "ray":
        if options.address:
            raise RmtlibError(f"--address {options.address} is that of a Ray cluster: give --executor ray too")
        return None
    from rmtlib.runs.executors.ray_cluster import RayExecutor

    return RayExecutor(artifact, configs, options.address)


def write_slurm(artifact: Artifact, configs: list[RunConfig], options: argparse.Namespace) -> int:
    """Write the job array for the runs that are not finished, and say how to submit it."""
    from rmtlib.runs.display import Display
    from rmtlib.runs.executors.slurm import write_script
    from rmtlib.runs.folder import run_folder
    from rmtlib.runs.scheduler import claim, prepare
    from rmtlib.runs.storage import Lock

    if options.shards:
        raise RmtlibError("--executor slurm gives each run one job: leave out --shards")
    todo = []
    with contextlib.ExitStack() as locks:
        for config in dict.fromkeys(configs):
            folder = run_folder(config)
            claimed = claim(config, folder, options.fresh, Display(), locks)
            if isinstance(claimed, Lock):
                prepare(config, folder, claimed, options.fresh, artifact)
                todo.append((config, folder))
    if not todo:
        print(f"{artifact.name}: all {len(configs)} runs are finished; nothing to submit")
        return 0
    limit = options.time_budget
    path, directives = write_script(artifact, [c for c, _ in todo], [f for _, f in todo], options.jobs, limit)
    shown = Path(path).relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(f"{shown}: a job array of {len(todo)} of {len(configs)} runs, " + _what_each_takes(directives))
    print(f"submit it with:     sbatch {shlex.quote(str(shown))}")
    print(f"see how far it is:  rmtlib status {artifact.name}")
    print("A job that is pre-empted or out of time writes a checkpoint and goes back into the queue.")
    return 0


def _what_each_takes(directives: dict[str, str]) -> str:
    time = f"{directives['time']} minutes at a time" if "time" in directives else "the partition's time limit"
    return f"each with 1 CPU, {directives['mem']}B of memory, {'1 GPU, ' * ('gres' in directives)}{time}"
