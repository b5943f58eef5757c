"""An artifact whose runs take a moment: for tests of all that is around training.

As a program it is `rmtlib` with this artifact known: ``python tests/fake_artifact.py run fake --scale small``.
What a run does besides depends on the words in the variable FAKE_ORDERS: brief, slow, deaf, long, raise, module,
error, absent, killed, full, nan, preparing, and not-seed-N, which spares seed N from them.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rmtlib.errors import NotHere, RmtlibError, Stopped
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.spec import Cost, Result, Row, RunConfig

STEPS = 20
STEP_S = {"brief": 0.03, "slow": 0.15, "deaf": 0.15}
PATIENCE_S = 30.0  # how long a slow run waits at its last step to be stopped, however busy the machine is


class Fake(Artifact):
    name = "fake"
    title = "a fake"
    rows = (
        Row("qa1", "one", "qa1", {"1k": 1.0}, "nowhere"),
        Row("qa2", "two", "qa2", {}, "nowhere"),
        Row("base", "no task", None, {}, "nowhere"),
    )

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return ("qa1",)

    def default_seeds(self, scale: str) -> int:
        return 2

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        return RunConfig("fake", row, scale, seed, {"steps": STEPS, "sizes": [1, 2]})

    def cost(self, config: RunConfig) -> Cost:
        return Cost(tokens=config.params["steps"] * 100, flops=1e9, memory_bytes=2**20, disk_bytes=2**10)

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        return [f"{len(records)} fakes", "a second line", "a third line"]

    def execute(self, config: RunConfig, folder: Any) -> Result:
        orders = os.environ.get("FAKE_ORDERS", "").split()
        if f"not-seed-{config.seed}" in orders:
            orders = []
        began = time.monotonic()
        if "preparing" in orders:  # for a minute, without asking whether to stop
            folder.progress("preparing data", 1, 2)
            time.sleep(60.0)
        checkpoint: Path = folder.path / "checkpoint.json"
        state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "began_at": []}
        state["began_at"].append(state["step"])
        while state["step"] < STEPS:
            if folder.should_stop() and "deaf" not in orders:
                checkpoint.write_text(json.dumps(state))
                raise Stopped("with a checkpoint")
            state["step"] += 1
            folder.progress("stage 1", state["step"], STEPS, loss=1 / state["step"], tokens=100 * state["step"])
            if state["step"] == 5:
                checkpoint.write_text(json.dumps(state))
                self.obey(orders)
            time.sleep(next((seconds for word, seconds in STEP_S.items() if word in orders), 0.001))
            deadline = time.monotonic() + PATIENCE_S
            while "slow" in orders and state["step"] == STEPS - 1 and time.monotonic() < deadline:
                if folder.should_stop():
                    break
                time.sleep(0.05)
        folder.note("noted once")
        return Result(
            metrics={
                "loss": float("nan") if "nan" in orders else 0.5,
                "began_at": state["began_at"],
                "times": [began, time.monotonic()],
                "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            },
            curves={"loss": [[1, 1.0]]},
            data=[{"name": "none"}],
            tokens=STEPS * 100,
            precision="float32",
            notes=["a note"],
            micro_batch=4,
        )

    def obey(self, orders: list[str]) -> None:
        if "raise" in orders:
            raise ValueError("something odd")
        if "module" in orders:  # which cannot be pickled
            raise LookupError("no module", os)
        if "error" in orders:
            raise RmtlibError("no data here: bring some")
        if "absent" in orders:
            raise NotHere("no weights here: connect to the hub")
        if "killed" in orders:
            os.kill(os.getpid(), signal.SIGKILL)
        if "long" in orders:
            time.sleep(2.0)
        if "full" in orders:  # as on a full disk, no file of some size can be written from now on
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))


if __name__ == "__main__":
    from rmtlib.cli import main

    ARTIFACTS.clear()
    ARTIFACTS["fake"] = "fake_artifact:Fake"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test started in the background would ignore it
    sys.exit(main())
