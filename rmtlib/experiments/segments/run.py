"""Train one model on windows of a text, then read the test text after every length of history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.streams import SPLITS, Stream
from rmtlib.data.subwords import load_subwords
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.history import Histories, bits_per_byte, by_history, text_segments, window_nats
from rmtlib.evaluation.ngrams import NGram
from rmtlib.experiments.segments.settings import NGramParams, Params, work
from rmtlib.models.backbones import load_backbone, load_tokenizer
from rmtlib.models.registry import build, size_of
from rmtlib.runs.pretrained import pretrained_decoder
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.runs.training import default_device, train
from rmtlib.seeds import generator
from rmtlib.training.curriculum import TrainConfig
from rmtlib.training.pretrain_config import PretrainConfig
from rmtlib.training.sources import CurriculumSource
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


@dataclass(frozen=True)
class Text:
    """The splits that a run uses, the bytes of each of the V tokens, and where all of it comes from."""

    splits: Mapping[str, Stream]
    token_bytes_V: np.ndarray
    provenance: list[dict[str, Any]]

    def bytes_of(self, stream: Stream, part: tuple[int, int]) -> int:
        """UTF-8 bytes of the tokens first .. last-1 of a stream."""
        return int(self.token_bytes_V[stream.ids[slice(*part)]].sum())


class Window(NamedTuple):
    """A training sample: tokens of the text, and at each the token that follows it."""

    tokens: np.ndarray
    labels: np.ndarray


def open_text(params: Params | NGramParams) -> Text:
    """The text in the tokeniser's pieces, each split cut to the tokens that the run uses."""
    tokenizer, notes = load_tokenizer(params.tokenizer)
    if isinstance(params, Params) and tokenizer.vocab_size > (most := params.model.shape[2]):
        raise RmtlibError(
            f"tokeniser {params.tokenizer!r} has {tokenizer.vocab_size} entries, the model {most}: use one that fits"
        )
    text = load_subwords(params.text, tokenizer, notes)
    splits = {split: stream.head(params.tokens[split]) for split, stream in text.splits.items()}
    return Text(splits, text.token_bytes, text.provenance)


def build_model(params: Params, folder: "RunFolder") -> tuple[Any, list[dict[str, Any]]]:
    """The model before training, and where its decoder's weights come from; what is new depends on the seed alone.

    A decoder that has to be trained first is, if no run has done so on this machine.
    """
    model, decoder, notes = params.model, None, []
    if isinstance(model.backbone, PretrainConfig):
        pretrained = pretrained_decoder(model.backbone, folder.progress, folder.should_stop)
        decoder, notes = pretrained.decoder, [pretrained.provenance]
    elif isinstance(model.backbone, str):
        decoder, note = load_backbone(model.backbone)
        notes = [note]
    shape = model.decoder or decoder.config  # type: ignore[union-attr]
    return build(model.of(shape), seed=params.train.seed, decoder=decoder), notes


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory.

    Of a pretrained backbone, whose weights would have to be here, only the state's size is known.
    """
    decoder = params.model.decoder
    return size_of(params.model.of(decoder)) if decoder else {"state_size": params.model.state_size}


def window(stream: Stream, config: TrainConfig, stage: int, index: int) -> Window:
    """Training sample `index`: as many segments as the stage has, from a place drawn from the seed."""
    length = config.stages[stage].segments * config.segment_size
    if len(stream) < length:
        raise RmtlibError(
            f"the training text of {len(stream):,} tokens is shorter than a window of {length:,}: use more"
        )
    start = int(generator(config.seed, "train", "window", index).integers(len(stream) - length + 1))
    return Window(stream.inputs(start, start + length), stream.ids[start : start + length].astype(np.int64))


def execute(params: Params, folder: "RunFolder") -> Result:
    """Train, from what the folder holds; then test the best weights."""
    device, config, parts = default_device(), params.train, work(params)
    S = config.segment_size
    folder.progress("preparing data", 0, 1)
    text = open_text(params)
    test = text.splits["test"]
    text_segments(test, S, params.histories, "test")  # said before training if it is too short
    held_out = _validation_windows(params, text.splits["validation"])
    model, weights = build_model(params, folder)
    model.to(device)

    def validate(trained: Any, stage: int) -> float:
        """Minus the nats a token."""
        n, total, count = config.stages[stage].segments, 0.0, 0
        for ids_BnS, labels_BnS in zip(*(x.split(params.evaluation_batch) for x in held_out), strict=True):
            here = ids_BnS[:, :n].to(device), labels_BnS[:, :n].to(device)
            total += window_nats(trained, *here, params.context).sum().item()
            count += labels_BnS[:, :n].numel()
        return -total / count

    sizes = [min(stage.segments, params.context) * S for stage in config.stages]
    source = CurriculumSource(config, partial(window, text.splits["train"], config), sizes)
    trainer = train(model, source, validate, folder, parts)

    def progress(done: int, whole: int) -> None:
        folder.progress(
            "testing", done, whole, done=share(parts, len(parts) - 1, done / whole), tokens=trainer.state.tokens
        )

    with autocast(device, config.precision):
        found = by_history(
            model,
            test,
            S,
            params.histories,
            context=params.context,
            batch=params.evaluation_batch,
            device=device,
            should_stop=folder.should_stop,
            progress=progress,
        )
    return Result(
        metrics={
            **_metrics(found, text.bytes_of(test, found.targets)),
            "train_segments": params.train_segments,
            "segment_size": S,
            "validation": -max(score for stage, _, score in trainer.curve("validation") if stage == len(config.stages)),
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
            "train_tokens": trainer.state.tokens,
        },
        curves={
            "loss": trainer.curve("loss"),
            "validation": [[stage, step, -score] for stage, step, score in trainer.curve("validation")],
        },
        data=text.provenance + weights,
        tokens=trainer.state.tokens + found.read,
        precision=config.precision,
        notes=trainer.state.notes,
        micro_batch=trainer.state.micro_batch,
    )


def count(params: NGramParams, folder: "RunFolder") -> Result:
    """Count the n-grams of the training text; score what the others are tested on. History makes no difference."""
    folder.progress("counting", 0, 1)
    text = open_text(params)
    vocabulary, (training, validation, test) = len(text.token_bytes_V), (text.splits[s] for s in SPLITS)
    segments, _ = text_segments(test, params.segment_size, params.histories, "test")
    targets = ((params.histories - 1) * params.segment_size, len(segments) * params.segment_size)
    model = NGram.fit(training.ids, params.order, vocabulary)
    nats = float(model.nll(test.ids[: targets[1]], test.before)[targets[0] :].sum())
    found = Histories([nats] * params.histories, None, nats, targets, read=len(test))
    return Result(
        metrics={
            **_metrics(found, text.bytes_of(test, targets)),
            "train_segments": params.train_segments,
            "segment_size": params.segment_size,
            "validation": float(model.nll(validation.ids, validation.before).mean()),
            "state_size": 0,
        },
        curves={"loss": [], "validation": []},
        data=text.provenance,
        tokens=len(training) + found.read,
        precision="float64",
        notes=[],
    )


def _metrics(found: Histories, size: int) -> dict[str, Any]:
    """What is measured of the test text, which has `size` bytes; segment h+1 is read after h others."""
    swapped: Sequence[float | None] = found.swapped or [None] * len(found.nats)
    points = [
        {"segment": h, "nats": nats, "bits_per_byte": bits_per_byte(nats, size)}
        | ({} if other is None else {"swapped_nats": other, "swapped_bits_per_byte": bits_per_byte(other, size)})
        for h, (nats, other) in enumerate(zip(found.nats, swapped, strict=True), start=1)
    ]
    off = {"nats": found.off, "bits_per_byte": bits_per_byte(found.off, size)}
    return {"segments": points, "memory_off": off, "tokens": found.tokens, "bytes": size}


def _validation_windows(params: Params, stream: Stream) -> list[Tensor]:
    """Windows of the longest stage that follow each other: inputs and targets, each (W, n, S)."""
    n, S = params.train_segments, params.train.segment_size
    inputs_NS, labels_NS = text_segments(stream, S, n, "validation")
    windows = min(params.validation_windows, len(inputs_NS) // n)
    return [torch.from_numpy(x[: windows * n].reshape(windows, n, S)) for x in (inputs_NS, labels_NS)]
