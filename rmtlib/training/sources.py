"""What feeds the trainer: a curriculum of samples, or a stream that is read on from segment to segment.

A source says what a step reads and how its gradient comes about; all else is the trainer's.

Shapes: B batch, S segment length.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rmtlib.data.streams import Stream, train_segment, train_segments
from rmtlib.models.interface import State, detach, join, select
from rmtlib.seeds import generator
from rmtlib.segments import IGNORE, Segment, Tokens, cut, even, segment_count, without_finished
from rmtlib.training.bptt import Read, accumulate, replayed_loss, window_loss
from rmtlib.training.captured import Captured
from rmtlib.training.curriculum import TrainConfig, learning_rate
from rmtlib.training.graphs import backpropagate
from rmtlib.training.peers import ALONE, Peers
from rmtlib.training.stream_config import StreamConfig


@dataclass(frozen=True)
class Batch:
    """What one step reads, and how far it brings the run.

    `index` tells batches apart: dropout masks are a function of it and the seed. `steps` counts as the config does.
    """

    content: Any
    index: int
    steps: int
    samples: int
    tokens: int


class Source(Protocol):
    """What the trainer asks. Stages are numbered from 0, steps from 0 in each stage, samples from 0 through all."""

    config: Any  # with seed, batch_size, precision, clip_norm, log_every
    peers: Peers  # who shares a batch; the trainer's to set
    stages: int
    patience: float  # validations without a better score that are put up with; one more ends the stage

    def steps(self, stage: int) -> int:
        """The most steps of the stage."""
        ...

    def evaluate_every(self, stage: int) -> int:
        """Steps between two validations."""
        ...

    def label(self, stage: int) -> str:
        """The stage in words, for progress."""
        ...

    def new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh one; the trainer sets its learning rate."""
        ...

    def learning_rate(self, stage: int, step: int) -> float: ...

    def next_batch(self, stage: int, step: int, sample: int) -> Batch:
        """What the step reads; `sample` is the number of samples used so far."""
        ...

    def backward(self, model: Any, batch: Batch, micro_batch: int) -> float:
        """Add this process's part of the gradient, in passes of at most `micro_batch` samples.

        Returns its part of the mean loss (nats): the processes' parts add up to the batch's.

        May be called again for the same batch if memory ran out.
        """
        ...

    def hear(self, score: float) -> None:
        """A validation's score, told to every process: the learning rate may follow it."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold so that `restore` can continue; the same from every process."""
        ...

    def restore(self, tensors: dict[str, Tensor], model: Any, stage: int, step: int) -> None:
        """Stand where the run was when `tensors` were taken. Raises ValueError if they are another model's."""
        ...


class TrainingSample(Protocol):
    """Token ids and the target of each position (see `segments.next_token_labels`)."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def labels(self) -> Tokens: ...


class CurriculumSource:
    """Samples in stages of growing length; a step is one batch of them, each read from the initial state.

    Args:
        config: how to train.
        sample: ``sample(stage, index)`` gives training sample `index`, the same at every call.
        segment_sizes: one for each stage, if they differ from the config's.
        counts: the unit of a stage's length, for progress.
    """

    def __init__(
        self,
        config: TrainConfig,
        sample: Callable[[int, int], TrainingSample],
        segment_sizes: Sequence[int] | None = None,
        counts: str = "segments",
    ):
        self.config, self.sample, self.counts = config, sample, counts
        self.segment_sizes = segment_sizes or [config.segment_size] * len(config.stages)
        self.stages, self.patience = len(config.stages), float(config.patience)
        self.optimizer: torch.optim.Optimizer | None = None
        self.captured: Captured | None = None
        self.peers = ALONE

    def steps(self, stage: int) -> int:
        return self.config.stages[stage].steps

    def evaluate_every(self, stage: int) -> int:
        return self.config.stages[stage].evaluate_every or self.config.evaluate_every

    def label(self, stage: int) -> str:
        segments = self.config.stages[stage].segments
        return f"stage {stage + 1}/{self.stages} ({f'up to {segments} {self.counts}' if segments else 'facts only'})"

    def new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        c, self.captured = self.config, None  # a stage has shapes of its own
        if self.optimizer is None or not c.continued:
            betas = (0.9, c.beta2)
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=betas, weight_decay=c.weight_decay)
        return self.optimizer

    def learning_rate(self, stage: int, step: int) -> float:
        c = self.config
        return learning_rate(c.stages[stage], step, 0.0 if c.continued and stage else c.warmup, c.horizon)

    def next_batch(self, stage: int, step: int, sample: int) -> Batch:
        samples = [self.sample(stage, sample + i) for i in range(self.config.batch_size)]
        content = (samples, self.segment_sizes[stage], self.config.recomputes(self.config.stages[stage]))
        return Batch(content, sample, 1, len(samples), sum(len(s.tokens) for s in samples))

    def backward(self, model: Any, batch: Batch, micro_batch: int) -> float:
        """Gradient of the mean loss per label over the batch."""
        c, (samples, S, recompute) = self.config, batch.content
        labels = sum(int(np.count_nonzero(s.labels[0 : len(s.labels)] != IGNORE)) for s in samples)
        samples = samples[self.peers.mine(len(samples))]
        parts = [samples[i : i + micro_batch] for i in range(0, len(samples), micro_batch)]
        total = 0.0
        for part in parts:
            part = sorted(part, key=lambda sample: -segment_count(len(sample.tokens), S))
            segments = list(cut([sample.tokens for sample in part], [sample.labels for sample in part], S))
            if not recompute and (step := self._step(model)).possible:  # few shapes, as each has a graph of its own
                loss = step(even(segments), torch.tensor(1 / labels, dtype=torch.float32))
            else:
                here = [without_finished(segment).to(_device(model)) for segment in segments]
                loss = accumulate(model, here, scale=1 / labels, bptt_segments=c.bptt_segments, recompute=recompute)
            total += loss.item()
        return total / labels

    def hear(self, score: float) -> None: ...

    def _step(self, model: Any) -> Captured:
        """Adds the gradient of some segments' summed loss, times a factor."""
        if self.captured is None or self.captured.model is not model:
            self.captured = Captured(model, partial(_accumulate, model, self.config.bptt_segments), self.peers)
        return self.captured

    def tensors(self) -> dict[str, Tensor]:
        """Empty: samples are a function of their index."""
        return {}

    def restore(self, tensors: dict[str, Tensor], model: Any, stage: int, step: int) -> None: ...


class StreamSource:
    """A text in B columns, read on from segment to segment of an epoch; a new epoch starts from the initial state.

    A step reads one new segment, and the k before it again (BPTT-k); with ``replay="none"`` it reads k + 1 new ones.
    """

    stages, patience = 1, math.inf

    def __init__(self, config: StreamConfig, stream: Stream):
        self.config, self.stream = config, stream
        self.epoch = train_segments(stream, config.batch_size, config.segment_size)
        self.recent: deque[Read] = deque(maxlen=config.bptt + 1 if config.replay != "none" else 0)
        self.state: State | None = None  # of this process's columns before the next segment; None: the initial state
        self.captured: Captured | None = None
        self.peers = ALONE

    def steps(self, stage: int) -> int:
        return self.config.steps

    def evaluate_every(self, stage: int) -> int:
        return self.config.evaluate_every

    def label(self, stage: int) -> str:
        return "training"

    def new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        self.captured = None  # it holds memory of the GPU
        return torch.optim.Adam(model.parameters(), lr=0.0)

    def learning_rate(self, stage: int, step: int) -> float:
        return self.config.learning_rate(step)

    def next_batch(self, stage: int, step: int, sample: int) -> Batch:
        c, position = self.config, step % self.epoch
        if position == 0:
            self.state = None
            self.recent.clear()
        count = 1 if c.replay != "none" else min(c.bptt + 1, self.epoch - position, c.steps - step)
        segments = [self._segment(step + i) for i in range(count)]
        self.recent.append(Read(segments[0], self.state))
        return Batch(segments, step, count, 0, count * c.batch_size * c.segment_size)

    def backward(self, model: Any, batch: Batch, micro_batch: int) -> float:
        """Gradient of the mean loss per token; moves on to the next state."""
        mine = self.peers.mine(self.config.batch_size)
        starts = range(mine.start, mine.stop, micro_batch)
        columns = [slice(first, min(first + micro_batch, mine.stop)) for first in starts]
        passes = [self._pass(model, batch.content, part) for part in columns]
        self.state = join([state for _, state in passes])
        return sum(loss for loss, _ in passes)

    def hear(self, score: float) -> None: ...

    def _pass(self, model: Any, segments: list[Segment], columns: slice) -> tuple[float, State]:
        """Add some columns' part to the gradient; returns their part of the loss, and their next state."""
        if self.config.replay == "none":
            reads = [Read(segment, None) for segment in segments]
            reads[0] = Read(segments[0], self.state)
        else:
            reads = list(self.recent)
        mine = [Read(_columns(segment, columns), self._state_of(state, columns)) for segment, state in reads]
        if self.captured is None or self.captured.model is not model:
            self.captured = Captured(model, partial(self._add, model), self.peers)
        part = (columns.stop - columns.start) / self.config.batch_size
        mean, state = self.captured(mine, part)
        return mean.item() * part, state

    def _add(self, model: Any, reads: list[Read], part: float) -> tuple[Tensor, State]:
        """Add some columns' gradient; returns their mean loss, and their next state."""
        c = self.config
        if c.replay == "none":
            segments, start = [segment for segment, _ in reads], reads[0].state
            loss, mean, state = window_loss(model, segments, start, c.auxiliary)
        else:
            loss, mean, state = replayed_loss(model, reads, c.replay, c.auxiliary)
        backpropagate([loss * part])
        return mean, state

    def _state_of(self, state: State | None, columns: slice) -> State | None:
        """The part of this process's state that belongs to some of its columns."""
        first = self.peers.mine(self.config.batch_size).start
        return None if state is None else select(state, slice(columns.start - first, columns.stop - first))

    def _segment(self, step: int) -> Segment:
        """The new segment of a step, a function of the config and the step alone."""
        c, (epoch, position) = self.config, divmod(step, self.epoch)
        first = None
        if c.order == "rotated":
            first = generator(c.seed, "column starts", epoch).integers(self.epoch, size=c.batch_size).tolist()
        return train_segment(self.stream, c.batch_size, c.segment_size, position, first)

    def tensors(self) -> dict[str, Tensor]:
        """The states that the next step may start from: those stored for replay, then the newest."""
        states = [*(read.state for read in self.recent), self.state]
        whole = [None if state is None else whole_batch(state, self.peers) for state in states]
        return {f"{i}.{k}": x for i, state in enumerate(whole) if state for k, x in state._asdict().items()}

    def restore(self, tensors: dict[str, Tensor], model: Any, stage: int, step: int) -> None:
        """Fill `recent` again: the segments from the stream, their states from the checkpoint.

        Raises:
            ValueError: the states are those of another model.
        """
        if stage or not step:
            return
        newest = step - 1
        held = min(self.recent.maxlen or 0, newest % self.epoch + 1)
        start, mine = detach(model.initial_state(self.config.batch_size)), self.peers.mine(self.config.batch_size)
        states: list[State | None] = []
        for i in range(held + 1):
            fields = {name.split(".", 1)[1]: x for name, x in tensors.items() if name.startswith(f"{i}.")}
            # A field that earlier code did not have yet stands as at the start.
            states.append(select(start._replace(**fields), mine) if fields else None)
        *stored, self.state = states
        self.recent.extend(Read(self._segment(newest - held + 1 + i), state) for i, state in enumerate(stored))


def whole_batch(state: State, peers: Peers) -> State:
    """The state of all of a batch, from each process's state of its part (then on the CPU)."""
    return state if peers.size == 1 else join(peers.gather(type(state)(*(x.cpu() for x in state))))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _accumulate(model: Any, bptt_segments: int | None, segments: list[Segment], scale: float | Tensor) -> Tensor:
    return accumulate(model, segments, scale=scale, bptt_segments=bptt_segments)


def _columns(segment: Segment, columns: slice) -> Segment:
    return Segment(segment.input_ids_BS[columns], segment.labels_BS[columns], None).to("cpu")
