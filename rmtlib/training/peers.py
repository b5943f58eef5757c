"""Several processes that train one run together, each on its part of every batch (data parallelism).

All hold the same weights. Each adds up the gradient of its own samples, or of its own columns of a stream; the sum over
the processes is the batch's gradient, so that the result is that of one process to rounding (with dropout: to other
masks). What is not a function of the weights and the step (when to stop, when to save, a validation score, the
checkpoint to begin from) the first one says. It alone validates and writes.

Plain all-reduces, not DistributedDataParallel: BPTT-k calls backward many times a step, in parts of the graph, and
DistributedDataParallel reduces at each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from rmtlib.errors import RmtlibError

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class Peers:
    """The processes of a run, of which this one has number `rank` of `size`. Every method is called by all of them.

    With a size above 1, torch.distributed has been initialised.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def mine(self, count: int) -> slice:
        """Which of `count` samples of a batch are this process's."""
        if count < self.size:
            raise RmtlibError(f"a batch of {count} cannot be shared by {self.size} processes: use --devices {count}")
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over the processes; one that no process has stays None."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        trained = [p for p in parameters if p.requires_grad]
        counts = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device)
        dist.all_reduce(counts)
        for parameter, count in zip(trained, counts.tolist(), strict=True):
            if count:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
                dist.all_reduce(parameter.grad)

    def total(self, part: float) -> float:
        """The sum of the processes' parts."""
        return sum(self.gather(part)) if self.size > 1 else part

    def agree(self, value: T) -> T:
        """The first one's value."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in order."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


ALONE = Peers()


class PeerDone(Exception):
    """The end of a process that took its part in training; no error."""
