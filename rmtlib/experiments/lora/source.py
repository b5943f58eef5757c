"""What a tuning run reads at each step: windows of a text, the same tokens for every row that is compared."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.windows import Window, WindowSample, window_sample, windows_of
from rmtlib.experiments.lora.settings import Tuning
from rmtlib.seeds import generator
from rmtlib.training.sources import CurriculumSource


class TuningSource(CurriculumSource):
    """Windows of a text in an order drawn from the seed, new in every epoch.

    With labels "all" a step reads chunks of consecutive segments, which are cut into windows of `segments` segments:
    the chunks of a step do not depend on how they are cut, so that a model without memory, which reads each segment
    alone, and one with memory read the same tokens, and each token is a target once.

    Args:
        backbone_sha256: of the weights that are tuned. A checkpoint holds the trained weights alone, and cannot go on
            with another backbone.
    """

    def __init__(self, tuning: Tuning, stream: Stream, backbone_sha256: str):
        super().__init__(tuning.train, lambda _, index: self.window(index))
        self.tuning, self.stream = tuning, stream
        self.backbone = torch.frombuffer(bytearray.fromhex(backbone_sha256), dtype=torch.uint8)
        size = tuning.train.segment_size
        if tuning.labels == "last":
            self.windows = windows_of(len(stream), tuning.window, size, "last")
            self.per_place, self.places = 1, len(self.windows)
        else:
            self.per_place, self.places = tuning.chunk // tuning.segments, len(stream) // (tuning.chunk * size)
        if not self.places:
            need = tuning.chunk * size
            raise RmtlibError(f"the training text has {len(stream):,} tokens, fewer than {need:,}: use a longer one")
        self.order = lru_cache(maxsize=2)(self._order)

    def window(self, index: int) -> WindowSample:
        """Training window `index`, the same at every call."""
        place, part = divmod(index, self.per_place)
        epoch, at = divmod(place, self.places)
        chosen = int(self.order(epoch)[at])
        if self.tuning.labels == "last":
            return window_sample(self.stream, self.windows[chosen], "last")
        start = chosen * self.tuning.chunk * self.config.segment_size + part * self.tuning.window
        return window_sample(self.stream, Window(start, start, start + self.tuning.window), "all")

    def _order(self, epoch: int) -> np.ndarray:
        return generator(self.config.seed, "train", "order", epoch).permutation(self.places)

    def tensors(self) -> dict[str, Tensor]:
        return {"backbone": self.backbone}

    def restore(self, tensors: dict[str, Tensor], model: Any, stage: int, step: int) -> None:
        if not torch.equal(tensors.get("backbone", self.backbone[:0]).cpu(), self.backbone):
            raise ValueError("the checkpoint is of another backbone")
