"""rmtlib: recurrent-memory transformers, their data and their evaluation, as replications to run and build on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmtlib.models.decoder import Decoder, DecoderConfig
    from rmtlib.models.hub import RMTConfig, RMTForCausalLM
    from rmtlib.models.rmt import RMT, RMTState
    from rmtlib.models.transformer_xl import TransformerXL, TransformerXLConfig

__version__ = "0.1.0"

_HOMES = {
    "Decoder": "rmtlib.models.decoder",
    "DecoderConfig": "rmtlib.models.decoder",
    "RMT": "rmtlib.models.rmt",
    "RMTState": "rmtlib.models.rmt",
    "RMTConfig": "rmtlib.models.hub",
    "RMTForCausalLM": "rmtlib.models.hub",
    "TransformerXL": "rmtlib.models.transformer_xl",
    "TransformerXLConfig": "rmtlib.models.transformer_xl",
}

__all__ = [
    "RMT",
    "Decoder",
    "DecoderConfig",
    "RMTConfig",
    "RMTForCausalLM",
    "RMTState",
    "TransformerXL",
    "TransformerXLConfig",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `import rmtlib` alone loads neither torch nor transformers."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rmtlib' has no attribute {name!r}")
