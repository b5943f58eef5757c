"""Pretrained backbones by name, and their tokenisers."""

from typing import Any

import torch

from rmtlib.data import sources
from rmtlib.data.text import GPT2Tokenizer, HFTokenizer, Tokenizer
from rmtlib.errors import RmtlibError
from rmtlib.models.decoder import Decoder
from rmtlib.models.hf_weights import decoder_from_hf

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct from a 4-bit file, dequantised: instruction-tuned, and not the papers' GPT-2."""


def load_backbone(name: str) -> Decoder:
    """The decoder of a pretrained model: "smollm2", or any GPT-2, GPT-NeoX or Llama model of the Hugging Face hub.

    Raises:
        RmtlibError: it cannot be had, or is of another architecture.
    """
    from transformers import AutoModelForCausalLM

    where, options = _source(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
    except (OSError, ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RmtlibError(
            f"backbone {name!r} cannot be loaded ({reason}); give a local folder or connect to the hub"
        ) from error
    return decoder_from_hf(model)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokeniser "gpt2" (from checked files) or that of a backbone."""
    if name == "gpt2":
        return GPT2Tokenizer.load()
    from transformers import AutoTokenizer

    where, options = _source(name)
    try:
        return HFTokenizer(name, AutoTokenizer.from_pretrained(where, **options))
    except (OSError, ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RmtlibError(
            f"tokeniser {name!r} cannot be loaded ({reason}); give a local folder or connect to the hub"
        ) from error


def _source(name: str) -> tuple[str, dict[str, Any]]:
    if name != SMOLLM2:
        return name, {}
    path = sources.fetch("smollm2-135m-instruct")
    return str(path.parent), {"gguf_file": path.name}
