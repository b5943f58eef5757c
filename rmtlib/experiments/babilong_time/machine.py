"""The clock, the memory and the load of the machine, and how fast it multiplies: all that a measurement asks of it."""

import os
import time

import torch

from rmtlib.runs import provenance

PRODUCT = {"cpu": 1024, "cuda": 8192}  # rows of the square matrices whose product is timed


class Machine:
    """What is asked of the device and of the machine around it. Tests put another one in its place."""

    def __init__(self, device: torch.device):
        self.device = device

    def now(self) -> float:
        """Seconds of wall time, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def cpu(self) -> float:
        """Seconds of this process on all cores."""
        return time.process_time()

    def load(self) -> float:
        """Processes that ran or waited for a core, the mean of the last minute, this one among them."""
        return os.getloadavg()[0]

    def peak(self) -> int:
        """The most bytes so far: on the GPU if that is the device, else of this process."""
        found = provenance.peak_memory()
        return found["gpu"] or found["host"] or 0

    def product_flops(self, precision: str) -> float:
        """FLOP/s of a large matrix product in this precision, with the threads that torch has: the best of five."""
        size = PRODUCT[self.device.type]
        a = torch.randn(size, size, device=self.device).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        best = float("inf")
        for _ in range(5):
            began = self.now()
            a @ a
            best = min(best, self.now() - began)
        return 2.0 * size**3 / best
