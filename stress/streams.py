"""Streams of many tokens: the state of every model stays finite and of one size, the process's memory flat."""

import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from rmtlib.errors import RmtlibError
from rmtlib.models.interface import batch_size, check_finite, detach
from rmtlib.models.registry import build
from stress.trials import Trial

from test_interface import CONFIGS, S, V  # isort: skip

TRIAL_SECONDS = 12.0
MOST_GROWTH = 8 << 20
"""Bytes by which the process may grow after the first fifth of a stream."""
BATCH = 64


def long_streams(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """A model whose weights have drawn sizes reads 64 streams for twelve seconds; its state stays finite and of one
    size, and the process takes no more memory."""
    torch.set_num_threads(1)
    kinds = [name for name, config in CONFIGS.items() if getattr(getattr(config, "rule", None), "bounded", True)]
    for number in count():
        name = kinds[number % len(kinds)]
        yield _read(name, draw.randrange(2**31), draw.choice((0.0, 0.1, 0.3, 1.0)))


@torch.no_grad()
def _read(name: str, seed: int, noise: float) -> Trial:
    model = build(CONFIGS[name], seed=seed).eval()
    random_numbers = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.add_(noise * torch.randn(p.shape, generator=random_numbers))
    state, segments, sizes = model.initial_state(BATCH), 0, set()
    began, early = time.monotonic(), 0
    while (seconds := time.monotonic() - began) < TRIAL_SECONDS:
        ids_BS = torch.randint(0, V, (BATCH, S), generator=random_numbers)
        _, state = model.step(ids_BS, detach(state))
        segments += 1
        if seconds > TRIAL_SECONDS / 5:
            early = early or resident_bytes()
            sizes.add(sum(x.numel() for x in state if isinstance(x, torch.Tensor)))
    what = f"{name}, noise {noise}, {segments * BATCH * S:,} tokens"
    try:
        check_finite(state, segments * S)
    except RmtlibError as error:
        return Trial(what, str(error))
    if (growth := resident_bytes() - early) > MOST_GROWTH:
        return Trial(what, f"the process grew by {growth:,} bytes")
    same = len(sizes) <= 1 and batch_size(state) == BATCH
    return Trial(what, None if same else f"the state's size changed: {sorted(sizes)}")


def resident_bytes() -> int:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
