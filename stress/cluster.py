"""A Ray cluster of two machines, one of which is lost; not installed with the rest: it is large, and slow to start."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import sleep

from stress.trials import ROOT, NotRun, Trial

TEST = "tests/test_ray.py::test_ctrl_c_and_a_lost_machine_lose_no_run_and_none_is_trained_twice"
ATTEMPTS = 2
"""Ray's processes have half a minute to start, which a busy machine may not give them."""


def lost_machines(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """Two runs of `memory-capacity` train on a Ray cluster of two machines (processes of this one); the command gets
    Ctrl-C and is called again, then a machine is lost with its worker; no run is lost, none trained twice."""
    if find_spec("ray") is None:
        raise NotRun("Ray is not installed: pip install 'rmtlib[cluster]'")
    for number in count():
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", TEST]
        command += ["--basetemp", str(scratch / str(number))]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if skipped := re.search(r"^SKIPPED .*?: (.*)$", done.stdout, re.M):
            if number + 1 < ATTEMPTS:
                sleep(10)
                continue
            raise NotRun(skipped[1])
        lines = [line for line in done.stdout.splitlines() if line.startswith("E ")]
        yield Trial(
            "Ctrl-C, then a lost machine",
            None if done.returncode == 0 else "; ".join(lines)[:300] or done.stdout[-300:],
        )
