"""Mamba's convolution (Gu & Dao 2023, section 3.4): each channel by itself, over few tokens, then silu.

Shapes: B batch, S tokens, I channels, W taps, T = S + W - 1: the W - 1 tokens before the first stand in front.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rmtlib.models.compiled import is_compiled_for, on_samples


def convolve_silu(seen_BTI: Tensor, weight_I1W: Tensor, bias_I: Tensor | None) -> Tensor:
    """silu(bias + sum over k of weight_k seen_{t+k}), (B, S, I); on a CPU in float32 a loop in C, if it compiles."""
    if is_compiled_for(seen_BTI, weight_I1W, *([] if bias_I is None else [bias_I])):
        return _Compiled.apply(
            seen_BTI, weight_I1W, weight_I1W.new_zeros(len(weight_I1W)) if bias_I is None else bias_I
        )
    return F.silu(F.conv1d(seen_BTI.mT, weight_I1W, bias_I, groups=len(weight_I1W))).mT


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, seen, weight, bias):
        seen, taps_WI, bias = seen.contiguous(), weight[:, 0].t().contiguous(), bias.contiguous()
        (batch, T, inner), W = seen.shape, len(taps_WI)
        y = seen.new_empty(batch, T - W + 1, inner)
        ctx.save_for_backward(seen, taps_WI, bias)
        on_samples("convolve_forward", batch, (T - W + 1, inner, W), (seen, taps_WI, bias, y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy):
        seen, taps_WI, bias = ctx.saved_tensors
        (batch, T, inner), W = seen.shape, len(taps_WI)
        dseen, dtaps_BWI, dbias_BI = (
            torch.empty_like(seen),
            seen.new_empty(batch, W, inner),
            seen.new_empty(batch, inner),
        )
        arrays = seen, taps_WI, bias, dy.contiguous(), dseen, dtaps_BWI, dbias_BI
        on_samples("convolve_backward", batch, (T - W + 1, inner, W), arrays)
        return dseen, dtaps_BWI.sum(0).t()[:, None], dbias_BI.sum(0)
