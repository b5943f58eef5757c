"""A model's weights and state, counted without making any of them."""

from collections.abc import Callable
from typing import Any

import torch


def size_of(build: Callable[[], Any]) -> dict[str, int]:
    """{"parameters", "state_size"} of the model that `build` makes, here on the meta device: no memory, no numbers."""
    with torch.device("meta"):
        model = build()
    return {"parameters": sum(p.numel() for p in model.parameters()), "state_size": model.state_size()}
