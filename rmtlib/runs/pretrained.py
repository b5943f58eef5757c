"""A small decoder, trained for a few minutes on books and kept: what stands for a pretrained model on a CPU.

The weights are a function of the settings alone (on a CPU with as many threads), so they are trained by the first run
that needs them and lie in the cache under the hash of their settings. Records name their sha256.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from rmtlib.data.subwords import load_subwords
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.language import likelihood
from rmtlib.files import unwritable, write_atomically
from rmtlib.models.backbones import load_tokenizer
from rmtlib.models.decoder import Decoder
from rmtlib.models.rmt import RMT
from rmtlib.runs.training import default_device
from rmtlib.seeds import torch_seed
from rmtlib.training.pretrain_config import ABOUT, PretrainConfig
from rmtlib.training.sources import StreamSource
from rmtlib.training.trainer import Trainer

WEIGHTS = "decoder.safetensors"
VALIDATION_COLUMNS = 8  # parts of the validation text that are read side by side


@dataclass(frozen=True)
class Pretrained:
    """The decoder, what a record says about it, and how it was trained.

    Attributes:
        provenance: name, sha256 of the weights, bytes, licence, source.
        curves: {"loss": [[step, nats], ...], "validation": [[step, nats a token], ...]}.
        tokens: read in training.
    """

    decoder: Decoder
    provenance: dict[str, Any]
    curves: dict[str, list[list[float]]]
    tokens: int


def pretrained_decoder(
    config: PretrainConfig,
    progress: Callable[..., None] = lambda label, step, steps, **numbers: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Pretrained:
    """The decoder of these settings: from the cache, else trained now, else waited for if another process trains it.

    Args:
        progress: ``progress(label, step, steps, **numbers)`` is called at every step.
        should_stop: asked at every step; the checkpoint stays in the cache, and the next call continues.

    Raises:
        Stopped: asked to stop.
        RmtlibError: the cache is damaged or cannot be written, or the text cannot be had.
    """
    home = config.home
    with _locked(home, progress, should_stop):
        if not config.is_kept:
            _train(config, home, progress, should_stop)
        return _read(config, home)


def _train(config: PretrainConfig, home: Path, progress: Callable[..., None], should_stop: Callable[[], bool]) -> None:
    """Train and write the weights, then what is said of them: with that file the folder is whole."""
    tokenizer, notes = load_tokenizer(config.tokenizer)
    if tokenizer.vocab_size != config.decoder.vocab_size:
        raise RmtlibError(
            f"tokeniser {config.tokenizer!r} has {tokenizer.vocab_size} entries, the decoder's settings say "
            f"{config.decoder.vocab_size}: make them equal"
        )
    text = load_subwords(config.text, tokenizer, notes, ("train", "validation"))
    held_out = text.splits["validation"].head(config.validation_tokens)
    torch.manual_seed(torch_seed(config.train.seed, "pretrained", "init"))
    device, size = default_device(), config.train.segment_size
    model = RMT(Decoder(config.decoder), 0).to(device)

    def validate(model: Any, _: int) -> float:
        found = likelihood(model, held_out, size, columns=VALIDATION_COLUMNS, device=device)
        return -found.nats / found.tokens

    source = StreamSource(config.train, text.splits["train"])

    def say(label: str, step: int, steps: int, stage: int, part: float, **numbers: float) -> None:
        progress("pretraining the small decoder", step, steps, **numbers)

    trainer = Trainer(model, source, home, validate, say, should_stop)
    trainer.fit()
    content = save({name: x.detach().cpu().contiguous() for name, x in model.decoder.state_dict().items()})
    write_atomically(home / WEIGHTS, content)
    about = {
        "sha256": sha256(content).hexdigest(),
        "tokens": trainer.state.tokens,
        "curves": {
            "loss": [[step, loss] for _, step, loss in trainer.curve("loss")],
            "validation": [[step, -score] for _, step, score in trainer.curve("validation")],
        },
    }
    write_atomically(home / ABOUT, json.dumps(about, indent=1).encode())
    for old in (home / "checkpoint.json", *home.glob("checkpoint-*.safetensors")):
        old.unlink()


def _read(config: PretrainConfig, home: Path) -> Pretrained:
    try:
        about, content = json.loads((home / ABOUT).read_bytes()), (home / WEIGHTS).read_bytes()
        if sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{WEIGHTS} does not have the sha256 that it was written with")
        with torch.device("meta"):
            decoder = Decoder(config.decoder)
        decoder.load_state_dict(load(content), assign=True)
        provenance = {
            "name": "small decoder",
            "sha256": about["sha256"],
            "bytes": len(content),
            "licence": "none: trained here",
            "source": f"trained on {config.text}, {about['tokens']:,} tokens",
        }
        return Pretrained(decoder.requires_grad_(True), provenance, about["curves"], about["tokens"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise RmtlibError(f"{home} is damaged ({first}): delete this folder, and it is trained anew") from error


@contextmanager
def _locked(home: Path, progress: Callable[..., None], should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the folder alone; another process that trains in it is waited for."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(home, error, "set RMTLIB_CACHE to a folder that you can write to") from error
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for the small decoder, which another run trains", 0, 1)
                if should_stop():
                    raise Stopped("stopped while another run trained the small decoder") from None
                time.sleep(0.5)
        yield
    finally:
        os.close(file)
