"""All models by name. A new model is a file with its class, a config class in `models.config` and one line here.

A config with a `backbone` stands for a model around a decoder; its other fields are the arguments of the model's class.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from rmtlib.errors import RmtlibError
from rmtlib.models.armt import ARMT
from rmtlib.models.config import (
    ARMTConfig,
    MambaConfig,
    PRMTConfig,
    RMTConfig,
    RMTRConfig,
    RWKVConfig,
    TransformerXLConfig,
)
from rmtlib.models.decoder import Decoder
from rmtlib.models.mamba import Mamba
from rmtlib.models.prmt import PRMT
from rmtlib.models.rmt import RMT
from rmtlib.models.rmt_r import RMTR
from rmtlib.models.rwkv import RWKV
from rmtlib.models.transformer_xl import TransformerXL
from rmtlib.seeds import torch_seed


class Entry(NamedTuple):
    """A model's config class and its own."""

    config: type
    model: type


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "transformer-xl": Entry(TransformerXLConfig, TransformerXL),
        "rmt": Entry(RMTConfig, RMT),
        "rmt-r": Entry(RMTRConfig, RMTR),
        "armt": Entry(ARMTConfig, ARMT),
        "prmt": Entry(PRMTConfig, PRMT),
        "mamba": Entry(MambaConfig, Mamba),
        "rwkv": Entry(RWKVConfig, RWKV),
    }
)


def build(config: Any, *, seed: int | None = None, decoder: Decoder | None = None) -> Any:
    """The untrained model that `config` describes.

    Args:
        config: of a class in `MODELS`.
        seed: new weights depend on it alone; None: they are drawn from PyTorch's generator as it is.
        decoder: used instead of a new one, e.g. a pretrained decoder.

    Raises:
        RmtlibError: no model has such a config.
    """
    model = next((entry.model for entry in MODELS.values() if entry.config is type(config)), None)
    if model is None:
        raise RmtlibError(f"no model has a {type(config).__name__}; add it to rmtlib.models.registry")
    if seed is not None:
        torch.manual_seed(torch_seed(seed, "init"))
    if not hasattr(config, "backbone"):
        return model(config)
    arguments = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "backbone"}
    return model(decoder or Decoder(config.backbone), **arguments)


def size_of(config: Any) -> dict[str, int]:
    """{"parameters", "state_size"} of the model, which is built without memory, once for equal configs."""
    parameters, state_size = _sizes(config)
    return {"parameters": parameters, "state_size": state_size}


@cache
def _sizes(config: Any) -> tuple[int, int]:
    with torch.device("meta"):
        model = build(config)
    return sum(p.numel() for p in model.parameters()), model.state_size()
