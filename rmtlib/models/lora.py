"""LoRA on the decoder of a model with memory: its linear maps get adapters, memory is trained as it is.

The adapters are PEFT's, which is imported here when they are asked for.
"""

from typing import Any

import torch
from torch import nn

from rmtlib.errors import RmtlibError
from rmtlib.models.config import LoRAConfig


def add_lora(model: Any, config: LoRAConfig) -> None:
    """Freeze the model's decoder but for new adapters in it; what the model has beside its decoder stays trained.

    New weights are drawn from PyTorch's generator as it is; untrained adapters change nothing.

    Args:
        model: with a `decoder`; RMT, ARMT, PRMT.

    Raises:
        RmtlibError: PEFT is not installed, or the decoder has no map of these names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RmtlibError("LoRA needs the package peft: pip install peft, or rmtlib's extra 'train'") from error
    targets = list(config.targets or qkv_names(model.decoder))
    maps = {name.rpartition(".")[2] for name, part in model.decoder.named_modules() if isinstance(part, nn.Linear)}
    if unknown := [name for name in targets if name not in maps]:
        known = ", ".join(sorted(maps))
        raise RmtlibError(f"the backbone has no linear map {unknown[0]!r} for LoRA: use some of {known}")
    settings = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets, bias="none"
    )
    inject_adapter_in_model(settings, model.decoder)


def qkv_names(decoder: Any) -> tuple[str, ...]:
    """What the decoder calls its maps to query, key and value: one name if they are one map.

    Raises:
        RmtlibError: the decoder is a Hugging Face module, whose maps have names of their own.
    """
    if not hasattr(decoder, "blocks"):
        raise RmtlibError("this backbone has its own names for its linear maps: give LoRA's targets")
    return tuple(decoder.blocks[0].attention.names.query_key_value)


def trained_parameters(model: nn.Module) -> int:
    """How many weights training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def keep_frozen_maps_in_bf16(model: nn.Module) -> None:
    """Store frozen linear maps as autocast would cast them at every call: the same results, faster."""
    for part in model.modules():
        if isinstance(part, nn.Linear) and not any(p.requires_grad for p in part.parameters()):
            part.to(torch.bfloat16)
