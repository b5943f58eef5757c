"""Autocast is off in arithmetic that rounding would spoil."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """No bf16 in here, also under autocast."""
    device = x.device.type
    return torch.autocast("cpu" if device == "meta" else device, enabled=False)  # the meta device has no autocast
