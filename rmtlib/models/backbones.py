"""Pretrained backbones by name, and their tokenisers."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rmtlib.data import sources
from rmtlib.data.mirrors import LARGEST, first_line, hub_complaint
from rmtlib.data.subwords import load_bpe
from rmtlib.data.text import ByteTokenizer, GPT2Tokenizer, HFTokenizer
from rmtlib.errors import NotHere, RmtlibError
from rmtlib.files import is_too_large, largest_file
from rmtlib.models.decoder import Decoder
from rmtlib.models.hf_weights import decoder_from_hf

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct from a 4-bit file, dequantised: instruction-tuned, and not the papers' GPT-2."""


def load_hf(name: str) -> tuple[Any, dict[str, Any]]:
    """A pretrained Hugging Face model, and where its weights come from.

    Args:
        name: "smollm2" (93 MB, fetched once and checked), or a GPT-2, GPT-NeoX or Llama model: its name on the hub, or
            a local folder. Only safetensors and GGUF files are read, and no code that comes with a model is run.

    Raises:
        RmtlibError: it cannot be had, or a tensor is missing or of another shape.
    """
    from transformers import AutoModelForCausalLM

    where, options, note = _source(name)
    what = f"backbone {name!r}"
    if not options:
        refuse_pickles(what, where)
        options = {"use_safetensors": True}
        if not (Path(where).is_dir() or _offline()):
            options["most"] = from_pretrained(what, _weight_bytes, where)
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # else a missing tensor is drawn anew
    model, info = from_pretrained(what, AutoModelForCausalLM.from_pretrained, where, dtype=torch.float32, **options)
    check_tensors(what, info, ("missing", "mismatched"))  # published files have unexpected ones, e.g. stored masks
    return model, note | {"revision": _revision(where)}


def check_tensors(
    what: str, info: dict[str, Any], troubles: Sequence[str] = ("missing", "unexpected", "mismatched")
) -> None:
    """Raises RmtlibError if the file did not give each tensor of the model once, in its shape."""
    for trouble in troubles:
        found = sorted(info[f"{trouble}_keys"])
        if not found:
            continue
        name, others = found[0], f" and {len(found) - 1} more" * (len(found) > 1)
        if trouble == "mismatched":
            name, saved, wanted = name
            raise RmtlibError(f"{what}: {name} has shape {tuple(saved)}, not {tuple(wanted)}{others}: is it damaged?")
        raise RmtlibError(f"{what}: {trouble} tensor {name}{others}: the file is of another model, or damaged")
    if info["error_msgs"]:
        raise RmtlibError(f"{what}: {str(info['error_msgs'][0]).splitlines()[0]}")


def load_backbone(name: str) -> tuple[Decoder, dict[str, Any]]:
    """The decoder of `load_hf`'s model, and where its weights come from."""
    model, note = load_hf(name)
    return decoder_from_hf(model), note


def load_tokenizer(name: str) -> tuple[ByteTokenizer, list[dict[str, Any]]]:
    """A tokeniser, and where its files come from.

    Args:
        name: "gpt2" (from checked files), "bpe-<entries>-<text>" (learned, see `data.subwords`), or a backbone's.
    """
    if name.startswith("bpe-"):
        return load_bpe(name)
    if name == "gpt2":
        return GPT2Tokenizer.load(), [sources.provenance(file) for file in ("gpt2-encoder", "gpt2-bpe")]
    tokenizer, note = load_hf_tokenizer(name)
    return HFTokenizer(name, tokenizer), [note]


def load_hf_tokenizer(name: str) -> tuple[Any, dict[str, Any]]:
    """The Hugging Face tokeniser that belongs to `load_hf`'s model of this name, and where it comes from."""
    from transformers import AutoTokenizer

    where, options, note = _source(name)
    return from_pretrained(f"tokeniser {name!r}", AutoTokenizer.from_pretrained, where, **options), note


def from_pretrained(what: str, load: Callable[..., Any], where: str, most: int = LARGEST, **options: Any) -> Any:
    """`load(where, ...)`, with every failure in one line, and at once if the hub cannot be reached.

    `most` bytes of a file are taken from the hub, and no file that would fill the disk of its cache.
    """
    offline = None if Path(where).is_dir() else _offline()
    options = {"local_files_only": offline is not None, "trust_remote_code": False} | options
    most = min(most, _room())
    try:
        with largest_file(most), _asking_no_hub() if offline else contextlib.nullcontext():
            return load(where, **options)
    except (OSError, ImportError, ValueError, SafetensorError) as error:
        if is_too_large(error):
            _forget_partial(where)
            why = f"the hub sends more than the {most:,} bytes that a file of it may have"
            raise RmtlibError(
                f"{what} cannot be loaded ({why}); give a local folder, or set HF_ENDPOINT to another hub"
            ) from error
        reason = f"it is not in the cache, and the hub cannot be asked: {offline}" if offline else first_line(error)
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own, which is not run"
        kind = NotHere if offline else RmtlibError
        raise kind(f"{what} cannot be loaded ({reason}); give a local folder or connect to the hub") from error


@contextlib.contextmanager
def _asking_no_hub() -> Iterator[None]:
    """The hub's client asks nothing: `local_files_only` does not reach what it and transformers ask for besides."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _weight_bytes(where: str, **options: Any) -> int:
    """Bytes that a file of a model's weights may have, by its config: as float32, and a quarter for stored masks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(where, **options)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return 5 * sum(x.numel() for x in model.state_dict().values()) + (1 << 26)


def _revision(where: str) -> str | None:
    """The commit of a model on the hub whose files were loaded; None of a local folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(where).is_dir():
        return None
    path = try_to_load_from_cache(where, "config.json")
    return Path(path).parent.name if isinstance(path, str) else None


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _room() -> int:
    """Bytes that one file may take of the disk of the hub's cache: nine tenths of what is free."""
    cache = _hub_cache()
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    return shutil.disk_usage(there).free * 9 // 10


def _forget_partial(where: str) -> None:
    for partial in (_hub_cache() / f"models--{where.replace('/', '--')}").glob("blobs/*.incomplete"):
        partial.unlink(missing_ok=True)


def refuse_pickles(what: str, folder: str) -> None:
    """Raises RmtlibError if a local folder has weights only as .bin: loading those can run code."""
    files = {path.name for path in Path(folder).glob("*")} if Path(folder).is_dir() else set()
    pickles = sorted(name for name in files if name.startswith("pytorch_model") and name.endswith(".bin"))
    if pickles and not any(name.endswith(".safetensors") for name in files):
        raise RmtlibError(f"{what}: {pickles[0]} is a pickle, which can run code; save the model as safetensors")


def _offline() -> str | None:
    if os.environ.get("RMTLIB_OFFLINE", "") not in ("", "0"):
        return "RMTLIB_OFFLINE is set"
    return hub_complaint()


def _source(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Where to load from, with which options, and what a record says about it."""
    if name != SMOLLM2:
        return name, {}, {"name": name, "source": "Hugging Face hub or a local folder"}
    path = sources.fetch("smollm2-135m-instruct")
    return str(path.parent), {"gguf_file": path.name}, sources.provenance("smollm2-135m-instruct")
