"""Runs as a Slurm job array: `rmtlib run ARTIFACT --executor slurm` writes the script, `sbatch` submits it.

Each element of the array trains one run, in a folder that all nodes share (see `executors.node`). A minute before its
time is up, or if it is pre-empted, Slurm sends SIGUSR1 (where PreemptParameters has send_user_signal); the run then
writes a checkpoint and its job goes back into the queue. SIGTERM, from `scancel`, writes the checkpoint alone.

The directives are those of sbatch(1), Slurm 20.02 and later.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmtlib.files import write_atomically
from rmtlib.runs.artifact import Artifact, reference
from rmtlib.runs.executors.node import host_bytes, train_here
from rmtlib.runs.job import package_path
from rmtlib.runs.plan import plan
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import json_sha256

MEMORY_MARGIN = 1.5
"""Slurm ends what takes more memory than it asked for, and the plan's is an estimate."""
WARNING_SECONDS = 60
"""Time for the checkpoint."""


def write_script(
    artifact: Artifact,
    configs: Sequence[RunConfig],
    folders: Sequence[Path],
    jobs: int | None,
    time_limit: float | None,
) -> tuple[Path, dict[str, str]]:
    """Write the array that trains these runs into the artifact's folder; the script's path, and its directives.

    Args:
        folders: of the runs, in which their configs are.
        jobs: runs at once at most.
        time_limit: seconds after which a job of the array makes room for others (None: the partition's limit).
    """
    planned = plan(artifact, list(configs))["runs"]
    most = max(
        host_bytes(config.scale, replace(artifact.cost(config), memory_bytes=run["memory_bytes"]))
        for config, run in zip(configs, planned, strict=True)
    )
    root = folders[0].resolve().parent
    directives = {
        "job-name": f"rmtlib-{artifact.name}",
        "array": f"0-{len(folders) - 1}" + (f"%{jobs}" if jobs else ""),
        "ntasks": "1",
        "cpus-per-task": "1",
        "mem": f"{math.ceil(MEMORY_MARGIN * most / 2**20)}M",
        "signal": f"B:USR1@{WARNING_SECONDS}",
        "requeue": "",
        "open-mode": "append",
        "output": shlex.quote(f"{root}/slurm-%A_%a.out"),
        "chdir": shlex.quote(str(Path.cwd())),
    }
    if configs[0].scale in ("gpu", "paper"):
        directives["gres"] = "gpu:1"
    if time_limit is not None:
        directives["time"] = str(max(2, math.ceil(time_limit / 60)))
    path = root / f"slurm-{configs[0].scale}-{json_sha256([config.id for config in configs])[:8]}.sh"
    write_atomically(path, _script(artifact, directives, folders).encode())
    return path, directives


def _script(artifact: Artifact, directives: Mapping[str, str], folders: Sequence[Path]) -> str:
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{name}{f'={value}' if value else ''}" for name, value in directives.items()]
    lines += ["", "folders=("]
    lines += [f"    {shlex.quote(str(folder.resolve()))}" for folder in folders]
    command = f"{shlex.quote(sys.executable)} -P -m rmtlib.cli slurm-task"
    lines += [
        ")",
        f"export PYTHONPATH={shlex.quote(package_path())}",
        "# exec: the signal goes to the process that Slurm started.",
        f'exec {command} "${{folders[$SLURM_ARRAY_TASK_ID]}}" --artifact {shlex.quote(reference(artifact))}',
    ]
    return "\n".join(lines) + "\n"


def task(folder: str, artifact: str) -> int:
    """What an element of the array does; its exit status: 0 finished, 75 stopped, else failed."""
    asked: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    ended = train_here(Path(folder), artifact, lambda: bool(asked))
    if ended.why:
        print(f"error: {ended.why}", file=sys.stderr)
    if ended.status == 75 and signal.SIGUSR1 in asked:
        print("stopped with a checkpoint; back into the queue", file=sys.stderr, flush=True)
        subprocess.run(["scontrol", "requeue", _job_id(os.environ)], check=False)  # ends this process, too
    return ended.status


def _job_id(environment: Mapping[str, Any]) -> str:
    return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
