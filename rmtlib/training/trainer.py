"""The training loop: steps, log, validation, early stopping, best weights, checkpoints, exact resume.

Everything random is a function of the seed and the step, so that a run that was killed and continued is bitwise the
run that was not (on a CPU with as many threads).
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.files import unwritable, write_atomically
from rmtlib.seeds import torch_seed
from rmtlib.training.captured import GraphsDropped
from rmtlib.training.checkpoint import damaged, load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from rmtlib.training.peers import ALONE, Peers
from rmtlib.training.sources import Batch, Source

SAVE_SECONDS = 60.0
"""Time between two checkpoints. Where they fall makes no difference to the result."""
SAVE_SHARE = 20
"""Between two checkpoints lies at least so many times what the last one took: a large model's takes seconds."""
SAVE_MOST = 900.0
"""But no longer than that."""


@dataclass
class TrainState:
    """How far a run is; all of it is in the checkpoint."""

    stage: int = 0
    step: int = 0  # steps taken in this stage
    samples: int = 0  # samples used in all stages: the index of the next one
    tokens: int = 0
    best_score: float = -math.inf
    evaluations_since_best: int = 0
    micro_batch: int = 0  # samples a forward pass; shrinks when memory runs out
    notes: list[str] = field(default_factory=list)


class Trainer:
    """Trains one model in one folder, which receives the checkpoint and the log, `metrics.jsonl`.

    The file is for people: results come from the log that the checkpoint holds, and it is written anew from there.

    Args:
        model: the model; its weights are the starting point if the folder has no checkpoint.
        source: what it is trained on, and how.
        folder: made if it is not there.
        validate: ``validate(model, stage)`` scores the model on held-out text; higher is better.
        progress: ``progress(label, step, steps, stage, part, **numbers)`` is called at every step: steps of the whole
            training, and which part of the stage's own is done.
        should_stop: asked at every step boundary; True saves a checkpoint and raises `Stopped`.
        enough: a score at which a stage ends at once; or one for each stage.
        clip_value: clip every entry of the gradient at it instead of the gradient's norm.
        peers: the processes that train this run together; the first one's `folder`, `validate` and `should_stop` count.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        folder: Path,
        validate: Callable[[Any, int], float],
        progress: Callable[..., None] = lambda *args, **numbers: None,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        enough: float | Sequence[float] = math.inf,
        clip_value: float | None = None,
        peers: Peers = ALONE,
    ):
        self.model, self.source, self.folder, self.validate = model, source, folder, validate
        self.progress, self.should_stop = progress, should_stop
        self.enough = [enough] * source.stages if isinstance(enough, int | float) else enough
        self.clip_value = clip_value
        self.config, self.peers, source.peers = source.config, peers, peers
        self.device = next(model.parameters()).device
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.optimizer = source.new_optimizer(model)
        self.state = TrainState(micro_batch=self.config.batch_size)
        self.best: dict[str, Tensor] = {}
        self.lines: list[str] = []  # of the log
        self.metrics_path = folder / "metrics.jsonl"
        self.saved = time.monotonic()
        self.save_s = 0.0  # what the last checkpoint took

    def fit(self) -> "Trainer":
        """Train to the end of the last stage, from the folder's checkpoint if it has one.

        Raises:
            Stopped: asked to stop; a checkpoint was saved.
            RmtlibError: the loss or its gradient is not finite, or the checkpoint is damaged or cannot be written.
        """
        self.restore()
        while self.state.stage < self.source.stages:
            self._run_stage(self.state.stage)
            self._next_stage()
        return self

    def _run_stage(self, stage: int) -> None:
        source, state = self.source, self.state
        steps = [source.steps(i) for i in range(source.stages)]
        while state.step < steps[stage] and not self._ends_early():
            if self.peers.agree(self.should_stop()):
                self.save()
                raise Stopped(f"stopped in {self.where()} with a checkpoint in {self.folder}")
            first = state.step
            loss, norm, lr = self._train_step()
            if first == 0 or _crossed(first, state.step, self.config.log_every):
                self.log(loss=loss, gradient_norm=norm, lr=lr)
            if state.step == steps[stage] or _crossed(first, state.step, source.evaluate_every(stage)):
                self._score()
            done = sum(steps[:stage]) + state.step
            part = state.step / steps[stage]
            self.progress(source.label(stage), done, sum(steps), stage, part, loss=loss, tokens=state.tokens)
            pause = max(SAVE_SECONDS, min(SAVE_SHARE * self.save_s, SAVE_MOST))
            if self.peers.agree(time.monotonic() - self.saved >= pause):
                self.save()

    def _ends_early(self) -> bool:
        state = self.state
        return state.evaluations_since_best > self.source.patience or state.best_score >= self.enough[state.stage]

    def _train_step(self) -> tuple[float, float, float]:
        """One optimiser step; returns the loss, the gradient's norm before clipping, and the learning rate."""
        source, state = self.source, self.state
        lr = source.learning_rate(state.stage, state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batch = source.next_batch(state.stage, state.step, state.samples)
        self.model.train()
        loss = self.peers.total(self._backward(batch))
        self.peers.add_gradients(self.model.parameters())
        if not math.isfinite(loss):
            raise RmtlibError(f"the loss is {loss} in {self.where()}; use a lower learning rate")
        norm = self._clip()
        clipped = self.clip_value is not None and not math.isnan(norm)  # entry by entry, whatever their size
        if not math.isfinite(norm) and not clipped:
            raise RmtlibError(f"the gradient's norm is {norm} in {self.where()}; use a lower learning rate")
        self.optimizer.step()
        state.step += batch.steps
        state.samples += batch.samples
        state.tokens += batch.tokens
        return loss, norm, lr

    def _backward(self, batch: Batch) -> float:
        """This process's gradient and loss; halves the micro-batch until it fits. Without dropout the result stays."""
        part = (self.peers.rank,) if not self.peers.first else ()  # other samples, other masks
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(torch_seed(self.config.seed, "dropout", batch.index, *part))
            try:
                with autocast(self.device, self.config.precision):
                    return self.source.backward(self.model, batch, self.state.micro_batch)
            except GraphsDropped:
                halved = self.state.micro_batch
            except torch.cuda.OutOfMemoryError:
                halved = math.ceil(self.state.micro_batch / 2)
                if self.state.micro_batch <= 1:
                    raise RmtlibError(
                        "one pass does not fit in the GPU's memory: use a GPU with more memory, or settings with fewer "
                        "segments in one graph or a smaller batch"
                    ) from None
            # Outside the handler: the traceback would keep the failed pass's tensors.
            now = f"micro-batch {halved}" if halved < self.state.micro_batch else "no CUDA graphs in this stage"
            self.state.micro_batch = halved
            self.state.notes.append(f"out of memory in {self.where()}: {now}")
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _clip(self) -> float:
        """Clip the gradient, by its norm or entry by entry; returns its norm before."""
        if self.clip_value is None:
            return nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm).item()
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None]).item()
        nn.utils.clip_grad_value_(self.model.parameters(), self.clip_value)
        return norm

    def _score(self) -> None:
        """Validate; remember the weights of the best score (the later one of equals)."""
        state = self.state
        self.model.eval()
        with torch.no_grad(), autocast(self.device, self.config.precision):
            score = self.peers.agree(self.validate(self.model, state.stage) if self.peers.first else 0.0)
        self.source.hear(score)
        self.log(validation=score)
        if score >= state.best_score:
            self.best = {name: x.detach().clone() for name, x in trained_state(self.model).items()}
        state.evaluations_since_best = 0 if score > state.best_score else state.evaluations_since_best + 1
        state.best_score = max(score, state.best_score)

    def _next_stage(self) -> None:
        """Go on from the stage's best weights, with a fresh optimiser, as the released scripts do."""
        best, enough = self.state.best_score, self.enough[self.state.stage]
        if best < enough <= 1:  # more than 1 is never reached, and not meant to be
            ended = f"stage {self.state.stage + 1} ended after {self.state.step:,} steps"
            self.state.notes.append(f"{ended} with a score of {best:.3f}; {enough:g} would have ended it as learned")
        if self.best:
            load_trained(self.model, self.best)
        self.optimizer = self.source.new_optimizer(self.model)
        self.best = {}
        self.state.best_score, self.state.evaluations_since_best = -math.inf, 0
        self.state.stage, self.state.step = self.state.stage + 1, 0
        if self.state.stage < self.source.stages:  # a later stage may recompute, and then needs less memory
            self.state.micro_batch = self.config.batch_size
        self.save()

    def where(self) -> str:
        """How far the run is in words, for messages."""
        return f"stage {self.state.stage + 1}, step {self.state.step}"

    # The log.

    def log(self, **numbers: float) -> None:
        """A line in metrics.jsonl."""
        self.lines.append(json.dumps({"stage": self.state.stage + 1, "step": self.state.step, **numbers}) + "\n")
        try:
            with open(self.metrics_path, "a") as file:
                file.write(self.lines[-1])
        except OSError as error:
            raise unwritable(self.metrics_path, error) from error

    def curve(self, name: str) -> list[list[float]]:
        """[stage, step, value] of every line of the log that has the number `name`."""
        lines = [json.loads(line) for line in self.lines]
        return [[line["stage"], line["step"], line[name]] for line in lines if name in line]

    def _logged(self, size: int) -> list[str]:
        """The lines that an earlier version's checkpoint, which had no log of its own, left in `size` bytes of file."""
        try:
            content = self.metrics_path.read_bytes()[:size]
        except OSError:
            content = b""
        lines = content.decode(errors="replace").splitlines(keepends=True)
        whole = list(takewhile(_is_line, lines))
        if lost := size - len("".join(whole)):
            self.state.notes.append(f"{lost} bytes of the log were lost before {self.where()}; the curves lack them")
        return whole

    # The checkpoint.

    def save(self) -> None:
        """Write the checkpoint; the previous one stays in force until this one is whole."""
        started = time.monotonic()
        tensors = {f"model.{name}": x for name, x in trained_state(self.model).items()}
        tensors |= {f"best.{name}": x for name, x in self.best.items()}
        tensors |= {f"extra.{name}": x for name, x in self.source.tensors().items()}
        tensors |= optimizer_tensors(self.optimizer, self.names)
        tensors["log"] = torch.from_numpy(np.frombuffer("".join(self.lines).encode(), np.uint8).copy())
        state: dict[str, Any] = asdict(self.state)
        if self.state.best_score == -math.inf:  # JSON has no infinity
            state["best_score"] = None
        if self.peers.first:
            save_checkpoint(self.folder, tensors, state)
        self.saved = time.monotonic()
        self.save_s = self.saved - started

    def restore(self) -> None:
        """Continue from the folder's checkpoint if it has one; the log file then holds what is known to it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = self.peers.agree(load_checkpoint(self.folder) if self.peers.first else None)
        if checkpoint:
            self._restore(*checkpoint)
        write_atomically(self.metrics_path, "".join(self.lines).encode(), durable=False)

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        logged = state.pop("metrics_bytes", 0)
        if set(state) != (known := {field.name for field in fields(TrainState)}):
            wrong = ", ".join(sorted(known ^ set(state)))
            raise damaged(self.folder, f"its state lacks or adds {wrong}: other code wrote it, or it was changed")
        state["best_score"] = -math.inf if state["best_score"] is None else state["best_score"]
        state["micro_batch"] = state["micro_batch"] or self.config.batch_size  # earlier code left it 0 for streams
        self.state = TrainState(**state)
        try:
            load_trained(self.model, _part(tensors, "model."))
        except RuntimeError as error:
            raise damaged(self.folder, "its weights are those of another model") from error
        self.best = {name: x.to(self.device) for name, x in _part(tensors, "best.").items()}
        restore_optimizer(self.optimizer, self.names, tensors)
        extra = {name: x.to(self.device) for name, x in _part(tensors, "extra.").items()}
        try:
            self.source.restore(extra, self.model, self.state.stage, self.state.step)
        except (TypeError, ValueError) as error:
            raise damaged(self.folder, "its stored states are those of another model") from error
        log = tensors.get("log")
        self.lines = self._logged(logged) if log is None else log.numpy().tobytes().decode().splitlines(keepends=True)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors without its frozen parameters, which a checkpoint does not need."""
    frozen = _frozen(model)
    return {name: x for name, x in model.state_dict().items() if name not in frozen}


def load_trained(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `trained_state`. Raises RuntimeError if the tensors are another model's."""
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if wrong := (set(missing) - _frozen(model)) | set(unexpected):
        raise RuntimeError(f"tensors missing or unexpected: {', '.join(sorted(wrong))}")


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the weights of the folder's checkpoint: after training, the best ones of the last stage.

    Raises:
        RmtlibError: there is no checkpoint, it is damaged, or it is another model's.
    """
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        raise RmtlibError(f"{folder} has no checkpoint: train this run first")
    try:
        load_trained(model, _part(checkpoint[0], "model."))
    except RuntimeError as error:
        raise damaged(folder, "its weights are those of another model") from error


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def autocast(device: torch.device, precision: str) -> Any:
    """bf16 autocast if asked for, else nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def _is_line(text: str) -> bool:
    """Whether it is a whole line of the log."""
    try:
        return text.endswith("\n") and isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` was reached; a step of a stream may count as several."""
    return after // every > before // every


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
