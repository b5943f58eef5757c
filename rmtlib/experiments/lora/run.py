"""Tune one backbone with or without memory, and read the test texts: the work of a run of the LoRA study."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rmtlib.data.subwords import Subwords, TextSize, load_subwords
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.windows import WindowLikelihood, window_likelihood
from rmtlib.experiments.lora.averages import derived
from rmtlib.experiments.lora.settings import Params, Reading, work
from rmtlib.experiments.lora.source import TuningSource
from rmtlib.models.armt import ARMT
from rmtlib.models.backbones import load_backbone, load_tokenizer
from rmtlib.models.decoder import Decoder
from rmtlib.models.lora import add_lora, keep_frozen_maps_in_bf16, trained_parameters
from rmtlib.models.rmt import RMT
from rmtlib.runs.folder import KEPT
from rmtlib.runs.pretrained import pretrained_decoder
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.runs.storage import read_sealed, write_sealed
from rmtlib.runs.training import default_device, train
from rmtlib.seeds import torch_seed
from rmtlib.settings import to_params
from rmtlib.training.pretrain_config import PretrainConfig
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


def execute(params: Params, folder: "RunFolder") -> Result:
    """Tune, then read the test texts with the best weights; both continue from what the folder holds."""
    device, parts = default_device(), work(params)
    decoder, origin, curves, tokens = open_backbone(params, folder)
    folder.progress("preparing data", 0, 1)
    texts = open_texts(params)
    model = build_model(params, decoder).to(device)
    parameters, notes, micro_batch = sum(p.numel() for p in model.parameters()), [], None
    trained = trained_parameters(model) if params.tuning else 0
    if params.tuning is not None and params.tuning.train.precision == "bf16":
        keep_frozen_maps_in_bf16(model)
    validation = min((value for _, value in curves["validation"]), default=None)
    if params.tuning is not None:
        tuned = tune(model, params, texts[params.tuning.text], origin["sha256"], folder, parts, device)
        curves = {
            "loss": [[step, loss] for _, step, loss in tuned.curve("loss")],
            "validation": [[step, -score] for _, step, score in tuned.curve("validation")],
        }
        validation, tokens, notes = min(x for _, x in curves["validation"]), tuned.state.tokens, tuned.state.notes
        micro_batch = tuned.state.micro_batch
    readings, read = read_texts(model.eval(), params, texts, folder, parts, device)
    return Result(
        metrics={
            "readings": readings,
            "validation": validation,
            "parameters": parameters,
            "trained_parameters": trained,
            "state_size": model.state_size(),
            "train_tokens": tokens,
        },
        curves=curves,
        data=[origin, *_unique(part for text in texts.values() for part in text.provenance)],
        tokens=tokens + read,
        precision=params.precision,
        notes=notes,
        micro_batch=micro_batch,
    )


def open_backbone(params: Params, folder: "RunFolder") -> tuple[Decoder, dict[str, Any], dict[str, Any], int]:
    """The decoder, where it comes from, its curves, and the tokens that this run trained it on, if it had to be."""
    if isinstance(params.backbone, PretrainConfig):
        made = pretrained_decoder(params.backbone, folder.progress, folder.should_stop)
        whole = params.tuning is None
        curves = made.curves if whole else {"loss": [], "validation": []}
        return made.decoder, made.provenance, curves, made.tokens if whole else 0
    folder.progress("loading the backbone", 0, 1)
    decoder, note = load_backbone(params.backbone)
    if not note.get("sha256"):
        note = note | {"sha256": _weights_sha256(decoder)}
    return decoder, note, {"loss": [], "validation": []}, 0


def _weights_sha256(decoder: nn.Module) -> str:
    digest = sha256()
    for name, x in sorted(decoder.state_dict().items()):
        digest.update(name.encode() + x.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def open_texts(params: Params) -> dict[str, Subwords]:
    """Every text that the run reads, by name, in the backbone's pieces.

    Raises:
        RmtlibError: a text cannot be had, or the tokeniser is not the backbone's.
    """
    tokenizer, notes = load_tokenizer(params.tokenizer)
    if tokenizer.vocab_size != params.decoder.vocab_size:
        raise RmtlibError(
            f"tokeniser {params.tokenizer!r} has {tokenizer.vocab_size:,} entries, the backbone's vocabulary "
            f"{params.decoder.vocab_size:,}: use the backbone's own"
        )
    wanted: dict[str, set[str]] = {}
    for reading in params.readings:
        wanted.setdefault(reading.text, set()).add(reading.split)
        if reading.memory == "other":
            wanted.setdefault(params.other_text, set()).add("validation")
    if params.tuning is not None:
        wanted.setdefault(params.tuning.text, set()).update(("train", "validation"))
    return {name: load_subwords(name, tokenizer, notes, sorted(splits)) for name, splits in wanted.items()}


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory."""
    with torch.device("meta"):
        model = build_model(params, Decoder(params.decoder))
    return {"parameters": sum(p.numel() for p in model.parameters()), "state_size": model.state_size()}


def build_model(params: Params, decoder: Decoder) -> Any:
    """The model as it starts: memory and adapters are drawn from the seed."""
    torch.manual_seed(torch_seed(params.seed, "init"))
    model: RMT | ARMT
    if params.memory == "armt":
        model = ARMT(decoder, params.memory_tokens, params.d_memory)
    else:
        model = RMT(decoder, params.memory_tokens)
    if params.tuning is not None and params.tuning.lora is not None:
        add_lora(model, params.tuning.lora)
    return model


def tune(
    model: Any,
    params: Params,
    text: Subwords,
    backbone_sha256: str,
    folder: "RunFolder",
    parts: list[float],
    device: torch.device,
) -> Any:
    """Train; the model then has the weights of the lowest validation loss. Returns the trainer."""
    tuning = params.tuning
    assert tuning is not None
    held_out = text.splits["validation"].head(tuning.validation_tokens)

    def validate(model: Any, _: int) -> float:
        found = window_likelihood(
            model,
            held_out,
            window=tuning.window,
            segment=tuning.train.segment_size,
            score=tuning.labels,
            batch=params.batch,
            device=device,
        )
        return -found.nats / found.tokens

    source = TuningSource(tuning, text.splits["train"], backbone_sha256)
    return train(model, source, validate, folder, parts[1:])


def read_texts(
    model: Any,
    params: Params,
    texts: Mapping[str, Subwords],
    folder: "RunFolder",
    parts: list[float],
    device: torch.device,
) -> tuple[dict[str, dict[str, Any]], int]:
    """What a record says of every reading, and the tokens read. Finished ones are kept in readings.json."""
    path, weights = folder.path / "readings.json", _fingerprint(model, params)
    kept = read_sealed(path, KEPT[path.name])
    done: dict[str, dict[str, Any]] = kept["readings"] if kept.get("weights") == weights else {}
    first, read = len(parts) - len(params.readings), 0
    for i, reading in enumerate(params.readings):
        stream = texts[reading.text].splits[reading.split].head(reading.tokens)
        read += len(stream)
        if reading.name in done:
            continue

        def progress(windows: int, count: int, i: int = i, name: str = reading.name) -> None:
            folder.progress(f"reading: {name}", windows, count, done=share(parts, first + i, windows / count))

        other = texts[params.other_text].splits["validation"] if reading.memory == "other" else None
        with autocast(device, params.precision):
            found = window_likelihood(
                model,
                stream,
                window=reading.window,
                segment=reading.segment,
                score=reading.score,
                memory=reading.memory,
                other=other,
                batch=params.batch,
                device=device,
                should_stop=folder.should_stop,
                progress=progress,
            )
        done[reading.name] = summarise(found, reading, texts[reading.text].size(reading.split, reading.tokens))
        write_sealed(path, {"weights": weights, "readings": done})
    return {reading.name: done[reading.name] for reading in params.readings}, read


def _fingerprint(model: nn.Module, params: Params) -> str:
    """Tells whether kept results belong to these weights and settings."""
    digest = sha256(json.dumps(to_params(params), sort_keys=True).encode())
    for name, x in model.state_dict().items():
        if x.dtype != torch.bfloat16:
            digest.update(name.encode() + _bytes(x))
    return digest.hexdigest()


def _bytes(x: Tensor) -> bytes:
    return x.detach().contiguous().cpu().numpy().tobytes()


def summarise(found: WindowLikelihood, reading: Reading, size: TextSize) -> dict[str, Any]:
    """A reading as the record keeps it: sums, and what follows from them."""
    sums: dict[str, Any] = {"nats": found.nats, "tokens": found.tokens, "words": size.words, "bytes": size.bytes}
    sums["by_segment"] = found.by_segment
    if reading.score != "all":
        sums["windows"] = [list(pair) for pair in zip(found.window_nats, found.window_tokens, strict=True)]
    return sums | derived(sums, reading.score)


def _unique(parts: Any) -> list[dict[str, Any]]:
    return list({(part["name"], part.get("split")): part for part in parts}.values())
