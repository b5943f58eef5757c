"""Autocast is off in arithmetic that rounding would spoil."""

import torch
from torch import Tensor
from torch.nn import functional as F


def full_precision(x: Tensor) -> torch.autocast:
    """No bf16 in here, also under autocast."""
    device = x.device.type
    return torch.autocast("cpu" if device == "meta" else device, enabled=False)  # the meta device has no autocast


def vocabulary_scores(hidden: Tensor, table_VD: Tensor) -> Tensor:
    """Logits (..., V) of outputs (..., D). Under autocast, if no gradient is wanted, they are in float32 or higher.

    bf16 rounds scores of -100, as GPT-2 has them, to halves: perplexities rise, and near answers become equal.
    """
    if torch.is_grad_enabled() or hidden.is_meta or not torch.is_autocast_enabled(hidden.device.type):
        return F.linear(hidden, table_VD)
    with full_precision(hidden):
        exact = torch.promote_types(hidden.dtype, torch.float32)
        return F.linear(hidden.to(exact), table_VD.to(exact))
