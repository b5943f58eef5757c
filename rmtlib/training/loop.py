"""The training loop: curriculum, early stopping on validation, checkpoints, exact resume.

It drives any model with `initial_state`, `step` and `logits`. Everything random is a function of the seed and the
step, so that a run that was killed and continued is bitwise the run that was not (on a CPU with as many threads).
"""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.seeds import torch_seed
from rmtlib.segments import IGNORE, Segment, Tokens, cut
from rmtlib.training.bptt import RecurrentModel, backward
from rmtlib.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from rmtlib.training.curriculum import Stage, learning_rate


class TrainingSample(Protocol):
    """Token ids and the target of each position (see `segments.next_token_labels`)."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def labels(self) -> Tokens: ...


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Lengths are in segments, `warmup` and `horizon` in parts of a stage (see `learning_rate`)."""

    stages: tuple[Stage, ...]
    segment_size: int
    batch_size: int
    seed: int
    warmup: float = 0.1
    horizon: float = 2.0
    weight_decay: float = 0.01
    beta2: float = 0.999
    clip_norm: float = 1.0
    precision: Literal["float32", "bf16"] = "float32"
    bptt_segments: int | None = None
    recompute: bool = False  # segment-level activation checkpointing
    evaluate_every: int = 100
    patience: int = 15  # evaluations without a better score before a stage ends
    log_every: int = 10
    save_every: int = 200


@dataclass
class _Position:
    """Where the run is; all of it is in the checkpoint."""

    stage: int = 0
    step: int = 0  # optimiser steps taken in this stage
    samples: int = 0  # samples used in all stages: the index of the next one
    tokens: int = 0
    best_score: float = -math.inf
    evaluations_since_best: int = 0
    metrics_bytes: int = 0
    micro_batch: int = 0  # samples a forward pass; shrinks when memory runs out
    notes: list[str] = field(default_factory=list)


class Trainer:
    """Trains one model in one folder.

    Args:
        model: the model; its weights are the starting point where the folder has no checkpoint.
        config: how to train.
        folder: receives `metrics.jsonl` and the checkpoint.
        sample: ``sample(stage, index)`` gives training sample `index`, the same at every call.
        validate: ``validate(model, stage)`` scores the model on held-out samples; higher is better.
        progress: ``progress(label, step, steps, **numbers)`` is called at every step.
        should_stop: asked at every step boundary; True saves a checkpoint and raises `Stopped`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        folder: Path,
        sample: Callable[[Stage, int], TrainingSample],
        validate: Callable[[nn.Module, Stage], float],
        progress: Callable[..., None] = lambda *args, **numbers: None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self.model, self.config, self.folder = model, config, folder
        self.sample, self.validate = sample, validate
        self.progress, self.should_stop = progress, should_stop
        self.device = next(model.parameters()).device
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.optimizer = self._new_optimizer()
        self.at = _Position(micro_batch=config.batch_size)
        self.best: dict[str, Tensor] = {}
        self.metrics_path = folder / "metrics.jsonl"

    def fit(self) -> "Trainer":
        """Train to the end of the last stage, from the folder's checkpoint where it has one.

        Raises:
            Stopped: asked to stop; a checkpoint was saved.
            RmtlibError: the loss is not a number, or the checkpoint is damaged or cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._restore()
        while self.at.stage < len(self.config.stages):
            self._run_stage(self.config.stages[self.at.stage])
            self._next_stage()
        return self

    def _run_stage(self, stage: Stage) -> None:
        c, at = self.config, self.at
        while at.step < stage.steps and at.evaluations_since_best < c.patience:
            if self.should_stop():
                self.save()
                raise Stopped(f"stopped in stage {at.stage + 1} at step {at.step} with a checkpoint in {self.folder}")
            loss, norm, lr = self._train_step(stage)
            at.step += 1
            if at.step % c.log_every == 0 or at.step == 1:
                self._log(loss=loss, gradient_norm=norm, lr=lr)
            if at.step % c.evaluate_every == 0 or at.step == stage.steps:
                self._evaluate(stage)
            done = sum(s.steps for s in c.stages[: at.stage]) + at.step
            what = f"1-{stage.segments} segments" if stage.segments else "facts only"
            label = f"stage {at.stage + 1}/{len(c.stages)} ({what})"
            self.progress(label, done, sum(s.steps for s in c.stages), loss=loss, tokens=at.tokens)
            if at.step % c.save_every == 0:
                self.save()

    def _train_step(self, stage: Stage) -> tuple[float, float, float]:
        """One optimiser step on one batch; returns its loss per label, gradient norm and learning rate."""
        c, at = self.config, self.at
        samples = [self.sample(stage, at.samples + i) for i in range(c.batch_size)]
        lr = learning_rate(stage, at.step, c.warmup, c.horizon)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(torch_seed(c.seed, "dropout", at.samples))  # a function of the step, so that resume is exact
        self.model.train()
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = self._backward(samples)
                break
            except torch.cuda.OutOfMemoryError:
                if at.micro_batch == 1:
                    raise RmtlibError(
                        "one sample does not fit in the GPU's memory; recompute, or use fewer segments"
                    ) from None
                at.micro_batch = math.ceil(at.micro_batch / 2)
                at.notes.append(f"out of memory in stage {at.stage + 1}, step {at.step}: micro-batch {at.micro_batch}")
                torch.cuda.empty_cache()
        if not math.isfinite(loss):
            raise RmtlibError(f"the loss is {loss} in stage {at.stage + 1}, step {at.step}; use a lower learning rate")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.clip_norm).item()
        self.optimizer.step()
        at.samples += c.batch_size
        at.tokens += sum(len(s.tokens) for s in samples)
        return loss, norm, lr

    def _backward(self, samples: Sequence[TrainingSample]) -> float:
        """Gradient of the mean loss per label over the batch, in as many passes as the micro-batch needs."""
        c, size = self.config, self.at.micro_batch
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        cuts: list[list[Segment]] = [
            list(cut([s.tokens for s in part], [s.labels for s in part], c.segment_size)) for part in parts
        ]
        labels = sum(int((segment.labels_BS != IGNORE).sum()) for segments in cuts for segment in segments)
        total = 0.0
        for segments in cuts:
            here = [segment.to(self.device) for segment in segments]
            with autocast(self.device, c.precision):
                total += backward(
                    cast(RecurrentModel, self.model),
                    here,
                    scale=1 / labels,
                    bptt_segments=c.bptt_segments,
                    recompute=c.recompute,
                )
        return total / labels

    def _evaluate(self, stage: Stage) -> None:
        """Validate; remember the weights of the best score (the later one of equals)."""
        at = self.at
        self.model.eval()
        with torch.no_grad(), autocast(self.device, self.config.precision):
            score = self.validate(self.model, stage)
        self._log(validation=score)
        if score >= at.best_score:
            self.best = {name: x.detach().clone() for name, x in self.model.state_dict().items()}
        at.evaluations_since_best = 0 if score > at.best_score else at.evaluations_since_best + 1
        at.best_score = max(score, at.best_score)

    def _next_stage(self) -> None:
        """Go on from the stage's best weights, with a fresh optimiser, as the released scripts do."""
        if self.best:
            self.model.load_state_dict(self.best)
        self.optimizer = self._new_optimizer()
        self.best = {}
        at = self.at
        at.stage, at.step, at.best_score, at.evaluations_since_best = at.stage + 1, 0, -math.inf, 0
        self.save()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.AdamW(self.model.parameters(), lr=0.0, betas=(0.9, c.beta2), weight_decay=c.weight_decay)

    def _log(self, **numbers: float) -> None:
        line = {"stage": self.at.stage + 1, "step": self.at.step, **numbers}
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint; the previous one stays in force until this one is whole."""
        if self.metrics_path.exists():
            self.at.metrics_bytes = self.metrics_path.stat().st_size
        tensors = {f"model.{name}": x for name, x in self.model.state_dict().items()}
        tensors |= {f"best.{name}": x for name, x in self.best.items()}
        tensors |= optimizer_tensors(self.optimizer, self.names)
        state: dict[str, Any] = asdict(self.at)
        if self.at.best_score == -math.inf:  # JSON has no infinity
            state["best_score"] = None
        save_checkpoint(self.folder, tensors, state)

    def _restore(self) -> None:
        found = load_checkpoint(self.folder)
        if found is None:
            self.metrics_path.unlink(missing_ok=True)
            return
        tensors, state = found
        state["best_score"] = -math.inf if state["best_score"] is None else state["best_score"]
        self.at = _Position(**state)
        self.model.load_state_dict(_part(tensors, "model."))
        self.best = {name: x.to(self.device) for name, x in _part(tensors, "best.").items()}
        restore_optimizer(self.optimizer, self.names, tensors)
        with open(self.metrics_path, "ab") as file:  # lines after the checkpoint will be written again
            file.truncate(self.at.metrics_bytes)


def autocast(device: torch.device, precision: str) -> Any:
    """bf16 autocast where asked for, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
