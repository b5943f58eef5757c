"""What attention heads do with memory, by name, and their weights as a record keeps them. No torch."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

BLOCKS = ("cache", "read", "text", "write")
"""Parts of a row of keys, in order: cached positions, read memory, text, write memory. Queries lack the cache."""
OPERATIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "write": ("write", "text"),
        "carry": ("write", "read"),
        "read": ("text", "read"),
        "cache": ("text", "cache"),
    }
)
"""What heads do with memory: (the block whose queries look, the block that they look at)."""


def pack_weights(weights_TK: Any) -> str:
    """A head's weights (an array, or a tensor of the CPU): in steps of 1/255, a byte each, row by row, deflated."""
    octets = np.rint(np.asarray(weights_TK) * 255).astype(np.uint8).tobytes()
    return b64encode(zlib.compress(octets, 9)).decode()


def unpack_weights(packed: str, queries: int, keys: int) -> np.ndarray:
    """The inverse (queries, keys), up to rounding. Raises ValueError if the text is not of that many."""
    try:
        octets = zlib.decompress(b64decode(packed, validate=True))
    except zlib.error as error:
        raise ValueError(f"packed weights are damaged ({error})") from None
    if len(octets) != queries * keys:
        raise ValueError(f"{len(octets)} weights do not belong to {queries} queries and {keys} keys")
    return np.frombuffer(octets, dtype=np.uint8).reshape(queries, keys) / 255
