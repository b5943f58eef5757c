"""`memory-capacity` slow enough to be interrupted; as a program it is `rmtlib` with that one in its place."""

import signal
import sys
import time
from typing import Any

from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.runs.spec import Result, RunConfig

STEP_SECONDS = 0.15


class SlowCapacity(MemoryCapacity):
    def execute(self, config: RunConfig, folder: Any) -> Result:
        asked = folder.should_stop

        def should_stop() -> bool:
            time.sleep(STEP_SECONDS)
            return asked()

        folder.should_stop = should_stop
        return super().execute(config, folder)


if __name__ == "__main__":
    from rmtlib.cli import main

    ARTIFACTS["memory-capacity"] = "slow_capacity:SlowCapacity"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test started in the background would ignore it
    sys.exit(main())
