"""Training as a run's part: in the run's folder, with progress and stops."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rmtlib.runs.progress import share
from rmtlib.training.peers import PeerDone
from rmtlib.training.sources import Source
from rmtlib.training.trainer import Trainer

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    model: nn.Module,
    source: Source,
    validate: Callable[[Any, int], float],
    folder: "RunFolder",
    work: Sequence[float],
    **options: Any,
) -> Trainer:
    """Train, from what the folder holds; the model then has the best weights and is in eval mode.

    Args:
        work: of every stage, then of the tests, in any unit: what progress is measured by.
        options: `enough` and `clip_value` of the trainer.

    Raises:
        Stopped: asked to stop; there is a checkpoint.
        PeerDone: trained, in a process that only helped: the first one tests and writes the record.
    """

    def progress(label: str, step: int, steps: int, stage: int, part: float, **numbers: float) -> None:
        folder.progress(label, step, steps, done=share(work, stage, part), **numbers)

    trainer = Trainer(model, source, folder.path, validate, progress, folder.should_stop, peers=folder.peers, **options)
    if folder.peers.size > 1:
        folder.note(f"trained by {folder.peers.size} processes, each with its part of every batch and its own dropout")
    trainer.fit()
    if not folder.peers.first:
        raise PeerDone
    model.eval()
    return trainer
