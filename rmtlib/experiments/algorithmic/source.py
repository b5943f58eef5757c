"""What trains a model on a task: samples in stages, a rate that may fall, a cache that may carry over.

Shapes: B batch.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.algorithmic import AnswerSample
from rmtlib.experiments.algorithmic.settings import AnswerParams
from rmtlib.models.interface import State, join, select
from rmtlib.seeds import generator
from rmtlib.segments import IGNORE, cut
from rmtlib.training.bptt import carried_backward, with_cache_of
from rmtlib.training.plateau import Plateau
from rmtlib.training.sources import Batch, CurriculumSource, whole_batch

HELD_OUT_SEED = 42  # validation and test samples are the same for all runs
FIXED_SEED = 43  # and so are those of a fixed training set


class TaskSource(CurriculumSource):
    """Samples of one task, of another size or in other segments in every stage."""

    def __init__(self, params: AnswerParams):
        super().__init__(params.train, self.training_sample, params.segment_sizes)
        self.params, self.tasks = params, params.tasks
        self.order: tuple[int, np.ndarray] = (-1, np.empty(0))  # of the fixed set in an epoch
        self.plateau = Plateau(params.plateau) if params.plateau else None
        self.carried: State | None = None  # after the last batch; its cache is the next one's

    def label(self, stage: int) -> str:
        task, segments = self.tasks[stage], self.config.stages[stage].segments
        return f"stage {stage + 1}/{self.stages} ({task.name} of {task.size} in {segments} segments)"

    def training_sample(self, stage: int, index: int) -> AnswerSample:
        """Sample `index` of the run: a new one, or one of the fixed set."""
        count, seed = self.params.train_samples, self.config.seed
        if count is None:
            return self.tasks[stage].sample("train", index, seed)
        epoch, position = divmod(index, count)
        if self.order[0] != epoch:
            self.order = (epoch, generator(seed, "algorithmic", "order", epoch).permutation(count))
        return self.tasks[stage].sample("train", int(self.order[1][position]), FIXED_SEED)

    def hear(self, score: float) -> None:
        """A validation's score: the learning rate may fall after it."""
        if self.plateau:
            self.plateau.hear(score)

    def learning_rate(self, stage: int, step: int) -> float:
        lr = super().learning_rate(stage, step)
        return self.plateau.learning_rate(lr) if self.plateau else lr

    def backward(self, model: Any, batch: Batch, micro_batch: int) -> float:
        """As a curriculum's, or with the cache that the batch before has left."""
        if not self.params.carry_cache:
            return super().backward(model, batch, micro_batch)
        (samples, S, _), device = batch.content, next(model.parameters()).device
        labels = sum(int((sample.labels != IGNORE).sum()) for sample in samples)
        samples = samples[self.peers.mine(len(samples))]
        total = 0.0
        states: list[State] = []
        for first in range(0, len(samples), micro_batch):
            part = samples[first : first + micro_batch]
            segments = [segment.to(device) for segment in cut([s.tokens for s in part], [s.labels for s in part], S)]
            start = model.initial_state(len(part))
            if self.carried is not None:
                start = with_cache_of(start, select(self.carried, slice(first, first + len(part))))
            loss, state = carried_backward(model, segments, start, 1 / labels)
            total += loss
            states.append(state)
        self.carried = join(states)
        return total / labels

    def tensors(self) -> dict[str, Tensor]:
        """The carried state, and how far the learning rate has fallen."""
        carried = None if self.carried is None else whole_batch(self.carried, self.peers)
        found = {} if carried is None else {f"carried.{k}": x for k, x in carried._asdict().items()}
        if self.plateau:
            best = max(self.plateau.best, -1.0)  # scores are not negative; a tensor file has no infinity
            numbers = (best, self.plateau.waited, self.plateau.falls)
            found["plateau"] = torch.tensor(numbers, dtype=torch.float64)
        return found

    def restore(self, tensors: dict[str, Tensor], model: Any, stage: int, step: int) -> None:
        """Raises ValueError if the tensors are another model's."""
        fields = {name.removeprefix("carried."): x for name, x in tensors.items() if name.startswith("carried.")}
        if fields:
            carried = model.initial_state(self.config.batch_size)._replace(**fields)
            self.carried = select(carried, self.peers.mine(self.config.batch_size))
        if self.plateau and "plateau" in tensors:
            best, waited, falls = tensors["plateau"].tolist()
            self.plateau.best = -math.inf if best < 0 else best
            self.plateau.waited, self.plateau.falls = int(waited), int(falls)
