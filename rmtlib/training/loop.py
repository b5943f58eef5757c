"""The training loop: curriculum and early stopping on validation. It drives any model with `initial_state`, `step`
and `logits`; what it shares with other kinds of training is in `training.run`.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn

from rmtlib.errors import Stopped
from rmtlib.segments import IGNORE, Segment, Tokens, cut
from rmtlib.training.bptt import RecurrentModel, backward
from rmtlib.training.curriculum import Stage, TrainConfig, learning_rate
from rmtlib.training.run import Run, autocast


class TrainingSample(Protocol):
    """Token ids and the target of each position (see `segments.next_token_labels`)."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def labels(self) -> Tokens: ...


class Trainer(Run):
    """Trains one model in one folder.

    Args:
        model: the model; its weights are the starting point where the folder has no checkpoint.
        config: how to train.
        folder: receives `metrics.jsonl` and the checkpoint.
        sample: ``sample(stage, index)`` gives training sample `index`, the same at every call.
        validate: ``validate(model, stage)`` scores the model on held-out samples; higher is better.
        progress: ``progress(label, step, steps, **numbers)`` is called at every step.
        should_stop: asked at every step boundary; True saves a checkpoint and raises `Stopped`.
        segment_sizes: one for each stage, where they differ from the config's.
        enough: a score at which a stage ends at once.
        clip_value: clip every entry of the gradient at it instead of the gradient's norm.
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
        *,
        segment_sizes: Sequence[int] | None = None,
        enough: float = math.inf,
        clip_value: float | None = None,
    ):
        super().__init__(
            model,
            folder,
            seed=config.seed,
            batch_size=config.batch_size,
            precision=config.precision,
            clip_norm=config.clip_norm,
            clip_value=clip_value,
            new_optimizer=lambda model: torch.optim.AdamW(
                model.parameters(), lr=0.0, betas=(0.9, config.beta2), weight_decay=config.weight_decay
            ),
            progress=progress,
            should_stop=should_stop,
        )
        self.config, self.sample, self.validate = config, sample, validate
        self.segment_sizes, self.enough = segment_sizes, enough

    def fit(self) -> "Trainer":
        """Train to the end of the last stage, from the folder's checkpoint where it has one.

        Raises:
            Stopped: asked to stop; a checkpoint was saved.
            RmtlibError: the loss is not a number, or the checkpoint is damaged or cannot be written.
        """
        self.restore()
        while self.at.stage < len(self.config.stages):
            self._run_stage(self.config.stages[self.at.stage])
            self._next_stage()
        return self

    def _run_stage(self, stage: Stage) -> None:
        c, at = self.config, self.at
        while at.step < stage.steps and at.evaluations_since_best < c.patience and at.best_score < self.enough:
            if self.should_stop():
                self.save()
                raise Stopped(f"stopped in stage {at.stage + 1} at step {at.step} with a checkpoint in {self.folder}")
            loss, norm, lr = self._train_step(stage)
            at.step += 1
            if at.step % c.log_every == 0 or at.step == 1:
                self.log(loss=loss, gradient_norm=norm, lr=lr)
            if at.step % (stage.evaluate_every or c.evaluate_every) == 0 or at.step == stage.steps:
                self.score(lambda: self.validate(self.model, stage))
            done = sum(s.steps for s in c.stages[: at.stage]) + at.step
            what = f"1-{stage.segments} segments" if stage.segments else "facts only"
            label = f"stage {at.stage + 1}/{len(c.stages)} ({what})"
            self.progress(label, done, sum(s.steps for s in c.stages), loss=loss, tokens=at.tokens)
            self.save_if_due()

    def _train_step(self, stage: Stage) -> tuple[float, float, float]:
        """One optimiser step on one batch; returns its loss per label, gradient norm and learning rate."""
        c, at = self.config, self.at
        samples = [self.sample(stage, at.samples + i) for i in range(c.batch_size)]
        lr = learning_rate(stage, at.step, c.warmup, c.horizon)
        loss, norm = self.update(lr, at.samples, lambda: self._backward(samples))
        at.samples += c.batch_size
        at.tokens += sum(len(s.tokens) for s in samples)
        return loss, norm, lr

    def _backward(self, samples: Sequence[TrainingSample]) -> float:
        """Gradient of the mean loss per label over the batch, in as many passes as the micro-batch needs."""
        c, size = self.config, self.at.micro_batch
        S = self.segment_sizes[self.at.stage] if self.segment_sizes else c.segment_size
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        cuts: list[list[Segment]] = [list(cut([s.tokens for s in part], [s.labels for s in part], S)) for part in parts]
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

    def _next_stage(self) -> None:
        """Go on from the stage's best weights, with a fresh optimiser, as the released scripts do."""
        self.take_best()
        self.at.stage, self.at.step = self.at.stage + 1, 0
        self.save()
