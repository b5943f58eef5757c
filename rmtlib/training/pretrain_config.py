"""A small decoder that is first trained on books, as settings. No torch, so that runs can be planned without it."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rmtlib.data.sources import cache_folder
from rmtlib.models.config import DecoderConfig
from rmtlib.settings import at_least, to_params
from rmtlib.training.stream_config import StreamConfig

ABOUT = "about.json"
"""What is said of the weights: with this file their folder is whole."""


@dataclass(frozen=True)
class PretrainConfig:
    """What a pretrained small decoder is: its text, tokeniser and shape, and how it was trained.

    Attributes:
        text: a text of `data.subwords`; its train split is read, its validation split chooses the weights.
        tokenizer: a name of `models.backbones.load_tokenizer`.
        decoder: its vocabulary is the tokeniser's.
        train: segments are read alone, each as the context of its own tokens: its size is the longest context seen.
        validation_tokens: read for a validation, from the beginning of the split.
    """

    text: str
    tokenizer: str
    decoder: DecoderConfig
    train: StreamConfig
    validation_tokens: int

    def __post_init__(self) -> None:
        at_least(self, 1, "validation_tokens")
        if self.train.bptt:
            raise ValueError("train.bptt must be 0: the segments of a decoder without memory stand alone")

    @property
    def key(self) -> str:
        """The hash of the settings: the weights are a function of them alone."""
        return sha256(json.dumps(to_params(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def home(self) -> Path:
        """The folder of the cache that the weights are kept in."""
        return cache_folder() / "pretrained" / self.key

    @property
    def is_kept(self) -> bool:
        """Whether they are there."""
        return (self.home / ABOUT).exists()
