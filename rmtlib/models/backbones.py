"""Pretrained backbones by name, and their tokenisers."""

import os
from typing import Any

import torch

from rmtlib.data import sources
from rmtlib.data.subwords import load_bpe
from rmtlib.data.text import ByteTokenizer, GPT2Tokenizer, HFTokenizer
from rmtlib.errors import RmtlibError
from rmtlib.models.decoder import Decoder
from rmtlib.models.hf_weights import decoder_from_hf

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct from a 4-bit file, dequantised: instruction-tuned, and not the papers' GPT-2."""


def load_hf(name: str) -> tuple[Any, dict[str, Any]]:
    """A pretrained Hugging Face model, and where its weights come from.

    Args:
        name: "smollm2", or a GPT-2, GPT-NeoX or Llama model: its name on the hub, or a local folder.

    Raises:
        RmtlibError: it cannot be had.
    """
    from transformers import AutoModelForCausalLM

    where, options, note = _source(name)
    model = _from_pretrained(f"backbone {name!r}", AutoModelForCausalLM, where, dtype=torch.float32, **options)
    return model, note | {"revision": getattr(model.config, "_commit_hash", None)}


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
    from transformers import AutoTokenizer

    where, options, note = _source(name)
    return HFTokenizer(name, _from_pretrained(f"tokeniser {name!r}", AutoTokenizer, where, **options)), [note]


def _from_pretrained(what: str, loader: Any, where: str, **options: Any) -> Any:
    offline = os.environ.get("RMTLIB_OFFLINE", "") not in ("", "0")
    try:
        return loader.from_pretrained(where, local_files_only=offline, **options)
    except (OSError, ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RmtlibError(f"{what} cannot be loaded ({reason}); give a local folder or connect to the hub") from error


def _source(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Where to load from, with which options, and what a record says about it."""
    if name != SMOLLM2:
        return name, {}, {"name": name, "source": "Hugging Face hub or a local folder"}
    path = sources.fetch("smollm2-135m-instruct")
    return str(path.parent), {"gguf_file": path.name}, sources.provenance("smollm2-135m-instruct")
