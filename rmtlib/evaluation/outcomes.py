"""Which samples were answered correctly, as a record keeps it: one bit a sample, first sample first, in hex."""

from collections.abc import Sequence

import numpy as np


def pack_outcomes(outcomes: Sequence[bool]) -> str:
    """The text for a record."""
    return np.packbits(np.array(outcomes, dtype=bool)).tobytes().hex()


def unpack_outcomes(packed: str, n: int) -> list[bool]:
    """The inverse for `n` samples. Raises ValueError if the text is not of that many."""
    octets = np.frombuffer(bytes.fromhex(packed), dtype=np.uint8)
    if len(octets) != -(-n // 8):
        raise ValueError(f"{len(octets)} bytes of outcomes do not belong to {n} samples")
    return [bool(bit) for bit in np.unpackbits(octets, count=n)]
