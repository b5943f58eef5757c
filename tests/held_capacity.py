"""`memory-capacity` that waits to be interrupted; as a program it is `rmtlib` with that one in its place."""

import signal
import sys
import time
from typing import Any

from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.runs.folder import read_slices
from rmtlib.runs.spec import Result, RunConfig

STEPS = 3  # that a process takes while the file `hold` lies in the artifact's folder of runs/; it then waits


class HeldCapacity(MemoryCapacity):
    def execute(self, config: RunConfig, folder: Any) -> Result:
        asked, hold, steps = folder.should_stop, folder.path.parent / "hold", iter(range(STEPS))
        process = len(read_slices(folder.path))

        def should_stop() -> bool:
            while next(steps, None) is None and hold.exists() and not asked():
                (folder.path / f"held-{process}").touch()
                time.sleep(0.05)
            return asked()

        folder.should_stop = should_stop
        return super().execute(config, folder)


if __name__ == "__main__":
    from rmtlib.cli import main

    ARTIFACTS["memory-capacity"] = "held_capacity:HeldCapacity"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test started in the background would ignore it
    sys.exit(main())
