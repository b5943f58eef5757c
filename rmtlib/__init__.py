"""rmtlib: recurrent-memory transformers, their data and their evaluation, as replications to run and build on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmtlib.models.armt import ARMT
    from rmtlib.models.config import (
        ARMTConfig,
        DecoderConfig,
        DeltaRule,
        MambaConfig,
        PRMTConfig,
        RMTConfig,
        RMTRConfig,
        RWKVConfig,
        TransformerXLConfig,
    )
    from rmtlib.models.decoder import Decoder
    from rmtlib.models.hf_decoder import backbone_from_hf
    from rmtlib.models.hf_weights import decoder_from_hf
    from rmtlib.models.hub import ARMTForCausalLM, ARMTHubConfig, RMTForCausalLM, RMTHubConfig
    from rmtlib.models.mamba import Mamba, mamba_from_hf
    from rmtlib.models.prmt import PRMT
    from rmtlib.models.registry import build
    from rmtlib.models.rmt import RMT, RMTState
    from rmtlib.models.rmt_r import RMTR
    from rmtlib.models.rwkv import RWKV
    from rmtlib.models.transformer_xl import TransformerXL

__version__ = "0.1.0"

_HOMES = {
    "ARMT": "rmtlib.models.armt",
    "ARMTConfig": "rmtlib.models.config",
    "ARMTForCausalLM": "rmtlib.models.hub",
    "ARMTHubConfig": "rmtlib.models.hub",
    "PRMT": "rmtlib.models.prmt",
    "PRMTConfig": "rmtlib.models.config",
    "DeltaRule": "rmtlib.models.config",
    "Decoder": "rmtlib.models.decoder",
    "DecoderConfig": "rmtlib.models.config",
    "backbone_from_hf": "rmtlib.models.hf_decoder",
    "decoder_from_hf": "rmtlib.models.hf_weights",
    "Mamba": "rmtlib.models.mamba",
    "MambaConfig": "rmtlib.models.config",
    "mamba_from_hf": "rmtlib.models.mamba",
    "RMT": "rmtlib.models.rmt",
    "RMTState": "rmtlib.models.rmt",
    "RMTConfig": "rmtlib.models.config",
    "RMTR": "rmtlib.models.rmt_r",
    "RMTRConfig": "rmtlib.models.config",
    "RWKV": "rmtlib.models.rwkv",
    "RWKVConfig": "rmtlib.models.config",
    "RMTHubConfig": "rmtlib.models.hub",
    "build": "rmtlib.models.registry",
    "RMTForCausalLM": "rmtlib.models.hub",
    "TransformerXL": "rmtlib.models.transformer_xl",
    "TransformerXLConfig": "rmtlib.models.config",
}

__all__ = [
    "ARMT",
    "ARMTConfig",
    "ARMTForCausalLM",
    "ARMTHubConfig",
    "PRMT",
    "PRMTConfig",
    "RMT",
    "RMTR",
    "RWKV",
    "Decoder",
    "DecoderConfig",
    "DeltaRule",
    "Mamba",
    "MambaConfig",
    "RMTConfig",
    "RMTForCausalLM",
    "RMTHubConfig",
    "RMTRConfig",
    "RMTState",
    "RWKVConfig",
    "TransformerXL",
    "TransformerXLConfig",
    "backbone_from_hf",
    "build",
    "decoder_from_hf",
    "mamba_from_hf",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import on first use: `import rmtlib` alone loads neither torch nor transformers."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rmtlib' has no attribute {name!r}")
