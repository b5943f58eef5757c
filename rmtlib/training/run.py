"""What every kind of training shares: the optimiser step, the log, the best weights, checkpoints and exact resume.

Everything random is a function of the seed and the step, so that a run that was killed and continued is bitwise the
run that was not (on a CPU with as many threads).
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmtlib.errors import RmtlibError
from rmtlib.files import unwritable
from rmtlib.seeds import torch_seed
from rmtlib.training.checkpoint import damaged, load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint


@dataclass
class Position:
    """Where a run is; all of it is in the checkpoint."""

    stage: int = 0
    step: int = 0  # steps taken in this stage
    samples: int = 0  # samples used in all stages: the index of the next one
    tokens: int = 0
    best_score: float = -math.inf
    evaluations_since_best: int = 0
    metrics_bytes: int = 0
    micro_batch: int = 0  # samples a forward pass; shrinks when memory runs out
    notes: list[str] = field(default_factory=list)


SAVE_SECONDS = 60.0
"""Time between two checkpoints. Where they fall makes no difference to the result."""


class Run:
    """A model in training in a folder, which receives `metrics.jsonl` and the checkpoint.

    Subclasses say what a step is; they may add tensors of their own to the checkpoint (`extra_tensors`,
    `restore_extra`).
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        *,
        seed: int,
        batch_size: int,
        precision: str,
        clip_norm: float,
        clip_value: float | None = None,
        new_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        progress: Callable[..., None],
        should_stop: Callable[[], bool],
    ):
        self.model, self.folder = model, folder
        self.seed, self.batch_size, self.precision, self.clip_norm = seed, batch_size, precision, clip_norm
        self.clip_value = clip_value
        self.progress, self.should_stop = progress, should_stop
        self.device = next(model.parameters()).device
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.new_optimizer = new_optimizer
        self.optimizer = new_optimizer(model)
        self.at = Position(micro_batch=batch_size)
        self.best: dict[str, Tensor] = {}
        self.metrics_path = folder / "metrics.jsonl"
        self.saved = time.monotonic()

    def where(self) -> str:
        """The place of the run in words, for messages."""
        return f"stage {self.at.stage + 1}, step {self.at.step}"

    def update(self, lr: float, index: int, backward: Callable[[], float]) -> tuple[float, float]:
        """One optimiser step.

        Args:
            index: what the dropout masks are a function of, besides the seed.
            backward: leaves the gradient and returns the loss.

        Returns:
            The loss and the gradient's norm before clipping.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        loss = self._with_enough_memory(backward, torch_seed(self.seed, "dropout", index))
        if not math.isfinite(loss):
            raise RmtlibError(f"the loss is {loss} in {self.where()}; use a lower learning rate")
        norm = self._clip()
        self.optimizer.step()
        return loss, norm

    def _clip(self) -> float:
        """Clip the gradient, by its norm or entry by entry; returns its norm before."""
        if self.clip_value is None:
            return nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm).item()
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None]).item()
        nn.utils.clip_grad_value_(self.model.parameters(), self.clip_value)
        return norm

    def _with_enough_memory(self, backward: Callable[[], float], seed: int) -> float:
        """Halve the micro-batch until the pass fits; without dropout the step's result stays."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(seed)  # a function of the step, so that resume is exact
            try:
                return backward()
            except torch.cuda.OutOfMemoryError:
                if self.at.micro_batch <= 1:
                    raise RmtlibError(
                        "one pass does not fit in the GPU's memory: it takes a GPU with more of it, or settings with "
                        "fewer segments in one graph or a smaller batch"
                    ) from None
            # Outside the handler: the traceback would keep the failed pass's tensors.
            self.at.micro_batch = math.ceil(self.at.micro_batch / 2)
            self.at.notes.append(f"out of memory in {self.where()}: micro-batch {self.at.micro_batch}")
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def score(self, validate: Callable[[], float]) -> float:
        """Validate (higher is better); remember the weights of the best score (the later one of equals)."""
        at = self.at
        self.model.eval()
        with torch.no_grad(), autocast(self.device, self.precision):
            score = validate()
        self.log(validation=score)
        if score >= at.best_score:
            self.best = {name: x.detach().clone() for name, x in self.model.state_dict().items()}
        at.evaluations_since_best = 0 if score > at.best_score else at.evaluations_since_best + 1
        at.best_score = max(score, at.best_score)
        return score

    def take_best(self) -> None:
        """Go on from the best weights, with a fresh optimiser."""
        if self.best:
            self.model.load_state_dict(self.best)
        self.optimizer = self.new_optimizer(self.model)
        self.best = {}
        self.at.best_score, self.at.evaluations_since_best = -math.inf, 0

    def log(self, **numbers: float) -> None:
        """A line in metrics.jsonl."""
        line = {"stage": self.at.stage + 1, "step": self.at.step, **numbers}
        try:
            with open(self.metrics_path, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.metrics_path, error) from error

    def extra_tensors(self) -> dict[str, Tensor]:
        """What a subclass keeps in the checkpoint besides weights, best weights and optimiser."""
        return {}

    def restore_extra(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `extra_tensors`."""

    def save_if_due(self) -> None:
        """A checkpoint, if the last one is more than `SAVE_SECONDS` old."""
        if time.monotonic() - self.saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the checkpoint; the previous one stays in force until this one is whole."""
        self.at.metrics_bytes = self.metrics_path.stat().st_size
        tensors = {f"model.{name}": x for name, x in self.model.state_dict().items()}
        tensors |= {f"best.{name}": x for name, x in self.best.items()}
        tensors |= {f"extra.{name}": x for name, x in self.extra_tensors().items()}
        tensors |= optimizer_tensors(self.optimizer, self.names)
        state: dict[str, Any] = asdict(self.at)
        if self.at.best_score == -math.inf:  # JSON has no infinity
            state["best_score"] = None
        save_checkpoint(self.folder, tensors, state)
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Continue from the folder's checkpoint, or begin an empty log if it has none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = load_checkpoint(self.folder)
        if found is None:
            self._cut_log()
            return
        tensors, state = found
        if set(state) != (known := {field.name for field in fields(Position)}):
            wrong = ", ".join(sorted(known ^ set(state)))
            raise damaged(self.folder, f"its state lacks or adds {wrong}: other code wrote it, or it was changed")
        state["best_score"] = -math.inf if state["best_score"] is None else state["best_score"]
        state["micro_batch"] = state["micro_batch"] or self.batch_size  # earlier code left it 0 for streams
        self.at = Position(**state)
        try:
            self.model.load_state_dict(part(tensors, "model."))
        except RuntimeError as error:
            raise damaged(self.folder, "its weights are those of another model") from error
        self.best = {name: x.to(self.device) for name, x in part(tensors, "best.").items()}
        restore_optimizer(self.optimizer, self.names, tensors)
        self.restore_extra({name: x.to(self.device) for name, x in part(tensors, "extra.").items()})
        self._cut_log()

    def _cut_log(self) -> None:
        """End the log where the run is: lines after the checkpoint will be written again."""
        try:
            with open(self.metrics_path, "ab") as file:  # made here if no line was logged yet
                if file.tell() < self.at.metrics_bytes:
                    raise RmtlibError(
                        f"{self.metrics_path}: lines that the checkpoint counts on are missing; delete {self.folder} "
                        "to train this run from the start"
                    )
                file.truncate(self.at.metrics_bytes)
        except OSError as error:
            raise unwritable(self.metrics_path, error) from error


def autocast(device: torch.device, precision: str) -> Any:
    """bf16 autocast where asked for, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
