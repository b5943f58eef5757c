"""Training on a stream, segment by segment: truncated backpropagation through exactly k earlier segments (BPTT-k).

    step t:   state before t-k  ->  segments t-k ... t-1, read again  ->  segment t  ->  loss of segment t  ->  update

One optimiser step a segment, as in the RMT paper's language modelling. With k = 0 nothing that is written is ever
read within reach of a loss: without an auxiliary one the write block gets no gradient, and only reading is learned.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rmtlib.data.streams import Stream, train_segment, train_segments
from rmtlib.errors import Stopped
from rmtlib.models.interface import detach, join, select
from rmtlib.segments import Segment
from rmtlib.training.run import Run, autocast
from rmtlib.training.stream_config import Replay, StreamConfig


class StreamModel(Protocol):
    """What training on a stream needs of a model."""

    def initial_state(self, batch: int) -> Any: ...
    def step(self, input_ids_BS: Tensor, state: Any) -> tuple[Tensor, Any]: ...
    def nll(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor: ...
    def auxiliary_loss(self, state: Any) -> Tensor: ...


class Read(NamedTuple):
    """A segment and the state before it; None stands for the initial state, which has a gradient."""

    segment: Segment
    state: Any


def replayed_loss(
    model: StreamModel, recent: list[Read], replay: Replay, auxiliary: float = 0.0
) -> tuple[Tensor, Tensor, Any]:
    """The loss of the last of `recent` with gradient through all of them.

    Args:
        recent: up to k earlier segments and the current one, oldest first.

    Returns:
        The loss to differentiate, the mean loss per token without the auxiliary one (nats), and the next state.
    """
    batch = len(recent[0].segment.input_ids_BS)
    state = model.initial_state(batch) if recent[0].state is None else recent[0].state
    if replay == "newest" and recent[-1].state is not None:
        state = state._replace(memory_BMD=recent[-1].state.memory_BMD)
    for segment, _ in recent[:-1]:
        _, state = model.step(segment.input_ids_BS, state)
    return _segment_loss(model, recent[-1].segment, state, auxiliary)


def window_loss(
    model: StreamModel, segments: list[Segment], state: Any, auxiliary: float = 0.0
) -> tuple[Tensor, Tensor, Any]:
    """The mean loss of successive segments in one graph; returns the same as `replayed_loss`."""
    state = model.initial_state(len(segments[0].input_ids_BS)) if state is None else state
    losses, plain = [], []
    for segment in segments:
        loss, mean, state = _segment_loss(model, segment, state, auxiliary)
        losses.append(loss)
        plain.append(mean)
    return torch.stack(losses).mean(), torch.stack(plain).mean(), state


def _segment_loss(model: StreamModel, segment: Segment, state: Any, auxiliary: float) -> tuple[Tensor, Tensor, Any]:
    hidden_BSD, state = model.step(segment.input_ids_BS, state)
    mean = model.nll(hidden_BSD.flatten(0, 1), segment.labels_BS.flatten()).mean()
    return mean + auxiliary * model.auxiliary_loss(state) if auxiliary else mean, mean, state


def _columns(segment: Segment, which: slice) -> Segment:
    return Segment(segment.input_ids_BS[which], segment.labels_BS[which], None)


class StreamTrainer(Run):
    """Trains a model on a stream, from segment to segment of an epoch; a new epoch starts from the initial state.

    Args:
        model: the model; its weights are the starting point where the folder has no checkpoint.
        stream: the training text.
        validate: ``validate(model)`` scores the model; higher is better. The best weights are kept.
        progress: ``progress(label, step, steps, **numbers)`` is called at every step.
        should_stop: asked at every step boundary; True saves a checkpoint and raises `Stopped`.
    """

    model: Any

    def __init__(
        self,
        model: nn.Module,
        config: StreamConfig,
        folder: Path,
        stream: Stream,
        validate: Callable[[Any], float],
        progress: Callable[..., None] = lambda *args, **numbers: None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__(
            model,
            folder,
            seed=config.seed,
            batch_size=config.batch_size,
            precision=config.precision,
            clip_norm=config.clip_norm,
            new_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.0),
            progress=progress,
            should_stop=should_stop,
        )
        self.config, self.stream, self.validate = config, stream, validate
        self.epoch = train_segments(stream, config.batch_size, config.segment_size)
        self.recent: deque[Read] = deque(maxlen=config.bptt + 1 if config.replay != "none" else 1)
        self.state: Any = None  # before the next segment; None: the initial state

    def fit(self) -> "StreamTrainer":
        """Train to the last step, from the folder's checkpoint where it has one, and take the best weights.

        Raises:
            Stopped: asked to stop; a checkpoint was saved.
            RmtlibError: the loss is not a number, or the checkpoint is damaged or cannot be written.
        """
        c, at = self.config, self.at
        self.restore()
        at = self.at
        while at.stage == 0 and at.step < c.steps:
            if self.should_stop():
                self.save()
                raise Stopped(f"stopped at segment {at.step} with a checkpoint in {self.folder}")
            before = at.step
            loss, norm, lr = self._train_step()
            crossed = lambda every, before=before: at.step // every > before // every or at.step == c.steps  # noqa: E731
            if crossed(c.log_every) or before == 0:
                self.log(loss=loss, gradient_norm=norm, lr=lr)
            if crossed(c.evaluate_every):
                self.score(lambda: self.validate(self.model))
            self.progress("training", at.step, c.steps, loss=loss, tokens=at.tokens)
            self.save_if_due()
        if at.stage == 0:
            self.take_best()
            at.stage = 1
            self.save()
        return self

    def _train_step(self) -> tuple[float, float, float]:
        """Read on by one segment, or by a window of them without replay; one update."""
        c, at = self.config, self.at
        place = at.step % self.epoch
        if place == 0:
            self.state = None
            self.recent.clear()
        count = 1 if c.replay != "none" else min(c.bptt + 1, self.epoch - place, c.steps - at.step)
        segments = [self._segment(place + i) for i in range(count)]
        if c.replay != "none":
            self.recent.append(Read(segments[0], self.state))
        passes: list[tuple[float, Any]] = []  # loss and next state of every part of the batch

        def backward() -> float:
            passes[:] = [self._backward(segments, columns) for columns in self._parts()]
            return sum(loss for loss, _ in passes)

        lr = c.learning_rate(at.step)
        loss, norm = self.update(lr, at.step, backward)
        states = [state for _, state in passes]
        self.state = join(states)
        at.step += count
        at.tokens += count * c.batch_size * c.segment_size
        return loss, norm, lr

    def _parts(self) -> list[slice]:
        """The columns of every pass: all at once where memory suffices."""
        B, size = self.config.batch_size, self.at.micro_batch
        return [slice(first, min(first + size, B)) for first in range(0, B, size)]

    def _backward(self, segments: list[Segment], which: slice) -> tuple[float, Any]:
        """Add some columns' part to the gradient; returns their part of the loss, and their next state."""
        c = self.config
        part = (which.stop - which.start) / c.batch_size
        with autocast(self.device, c.precision):
            if c.replay == "none":
                mine = [_columns(segment, which) for segment in segments]
                loss, mean, state = window_loss(self.model, mine, self.state and select(self.state, which), c.auxiliary)
            else:
                recent = [Read(_columns(each, which), state and select(state, which)) for each, state in self.recent]
                loss, mean, state = replayed_loss(self.model, recent, c.replay, c.auxiliary)
        (loss * part).backward()
        return mean.item() * part, detach(state)

    def _segment(self, place: int) -> Segment:
        return train_segment(self.stream, self.config.batch_size, self.config.segment_size, place).to(self.device)

    def extra_tensors(self) -> dict[str, Tensor]:
        """The states that the next step may start from: the newest, and those stored for replay."""
        states = [read.state for read in self.recent] + [self.state]
        return {f"{i}.{k}": x for i, state in enumerate(states) if state for k, x in state._asdict().items()}

    def restore_extra(self, tensors: dict[str, Tensor]) -> None:
        """Fill `recent` again: the segments from the stream, their states from the checkpoint."""
        if self.at.stage:
            return
        held = min(self.recent.maxlen or 0, (self.at.step - 1) % self.epoch + 1) if self.at.step else 0
        if self.config.replay == "none":
            held = 0
        kind = type(self.model.initial_state(1))
        states = []
        for i in range(held + 1):
            found = {name.split(".", 1)[1]: x for name, x in tensors.items() if name.startswith(f"{i}.")}
            states.append(kind(**found) if found else None)
        last = (self.at.step - 1) % self.epoch
        for i in range(held):
            self.recent.append(Read(self._segment(last - held + 1 + i), states[i]))
        self.state = states[-1]
