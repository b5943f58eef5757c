"""Named random streams: every random choice names what it is for, so that no choice disturbs another."""

from zlib import crc32

import numpy as np


def _sequence(root: int, names: tuple[str | int, ...]) -> np.random.SeedSequence:
    keys = [crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.SeedSequence([root, *keys])


def generator(root: int, *names: str | int) -> np.random.Generator:
    """The stream `names` of the root seed, e.g. ``generator(0, "data", "train", sample_index)``.

    Equal arguments give equal streams on every machine; streams of different names are independent. One exception: of
    fewer than three names a 0 at the end changes nothing (``generator(r, "a")`` is ``generator(r, "a", 0)``), so no
    name is used both with and without an index.
    """
    return np.random.Generator(np.random.PCG64(_sequence(root, names)))


def torch_seed(root: int, *names: str | int) -> int:
    """A 63-bit seed for ``torch.manual_seed`` from the same named streams."""
    return int(_sequence(root, names).generate_state(1, np.uint64)[0] >> 1)
