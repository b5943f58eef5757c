"""The scan of a selective state space: h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = C_t . h_t.

Tokens are scanned chunk by chunk, and in a chunk pairs of steps are joined into one, recursively. Only the states
between chunks are kept; the backward pass computes those inside a chunk again. A chunk is as long as its numbers fit
into fast memory: on a CPU a single token if the batch is large, since a step is then long enough by itself.

Shapes: B batch, S tokens, T tokens of a chunk, I channels, N state size of a channel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmtlib.models.precision import full_precision

CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24, "meta": 2**24}
"""Numbers (B * T * I * N) a chunk has at most, and 256 tokens: what a CPU's cache holds, what fills a GPU."""


def selective_scan(
    x_BSI: Tensor, dt_BSI: Tensor, decay_IN: Tensor, B_BSN: Tensor, C_BSN: Tensor, state_BIN: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs y (B, S, I) and the state after the last token (B, I, N).

    Args:
        dt_BSI: step sizes, 0 if no time passes.
        decay_IN: A, negative.
        state_BIN: h before the first token.
    """
    return _SelectiveScan.apply(x_BSI, dt_BSI, decay_IN, B_BSN, C_BSN, state_BIN)


def selective_scan_by_token(
    x_BSI: Tensor, dt_BSI: Tensor, decay_IN: Tensor, B_BSN: Tensor, C_BSN: Tensor, state_BIN: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, token after token; what tests compare `selective_scan` with."""
    outputs = []
    for t in range(x_BSI.shape[1]):
        dt_BI, x_BI = dt_BSI[:, t], x_BSI[:, t]
        state_BIN = (dt_BI[..., None] * decay_IN).exp() * state_BIN + (dt_BI * x_BI)[..., None] * B_BSN[:, None, t]
        outputs.append((state_BIN * C_BSN[:, None, t]).sum(-1))
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x_BSI), state_BIN


def scan(a: Tensor, b: Tensor) -> Tensor:
    """All h_t = a_t h_{t-1} + b_t from h = 0, along dimension 1: twice the work of a loop in 2 log2(T) steps."""
    steps = a.shape[1]
    if steps == 1:
        return b
    pairs = steps // 2
    first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    joined = scan(a[:, second] * a[:, first], torch.addcmul(b[:, second], a[:, second], b[:, first]))
    h = torch.empty_like(b)
    h[:, 0], h[:, second] = b[:, 0], joined
    later = slice(2, None, 2)
    h[:, later] = torch.addcmul(b[:, later], a[:, later], joined[:, : (steps - 1) // 2])
    return h


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, dt, decay, B, C, state):
        size = max(1, min(256, CHUNK_ELEMENTS[x.device.type] // max(state.numel(), 1)))
        starts, outputs = [], []
        with full_precision(x):
            for x_c, dt_c, B_c, C_c in zip(*(y.split(size, dim=1) for y in (x, dt, B, C)), strict=True):
                starts.append(state)
                _, h = _states(x_c, dt_c, decay, B_c, state)
                outputs.append((h @ C_c[..., None])[..., 0])
                state = h[:, -1].clone() if h.shape[1] else state
        ctx.size = size
        ctx.save_for_backward(x, dt, decay, B, C, *starts)
        return torch.cat(outputs, dim=1), state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy, dstate):
        x, dt, decay, B, C, *starts = ctx.saved_tensors
        parts, ddecay = [], torch.zeros_like(decay)
        chunks = list(zip(*(y.split(ctx.size, dim=1) for y in (x, dt, B, C, dy)), starts, strict=True))
        with full_precision(x):
            for x_c, dt_c, B_c, C_c, dy_c, start in reversed(chunks):
                if not x_c.shape[1]:
                    parts.append((x_c, dt_c, B_c, C_c))
                    continue
                a, h = _states(x_c, dt_c, decay, B_c, start)
                dh = dy_c[..., None] * C_c[:, :, None]
                dh[:, -1] += dstate
                # dh_t = dy_t C_t + a_{t+1} dh_{t+1}: the same scan, from the end
                back = a.roll(-1, 1).flip(1)
                dh = scan(back, dh.flip(1)).flip(1)
                dstate = a[:, 0] * dh[:, 0]
                previous = torch.cat([start[:, None], h[:, :-1]], dim=1)
                dexponent = dh * previous * a
                dinput = (dh @ B_c[..., None])[..., 0]
                ddecay += torch.einsum("btin,bti->in", dexponent, dt_c)
                ddt = (dexponent * decay).sum(-1) + dinput * x_c
                dB = ((dt_c * x_c)[:, :, None] @ dh)[:, :, 0]
                dC = (dy_c[:, :, None] @ h)[:, :, 0]
                parts.append((dinput * dt_c, ddt, dB, dC))
        dx, ddt, dB, dC = (torch.cat(pieces, dim=1) for pieces in zip(*reversed(parts), strict=True))
        return dx, ddt, ddecay, dB, dC, dstate


def _states(x_BTI: Tensor, dt_BTI: Tensor, decay_IN: Tensor, B_BTN: Tensor, state_BIN: Tensor) -> tuple[Tensor, Tensor]:
    """Decay factors and states (B, T, I, N) of a chunk."""
    a_BTIN = (dt_BTI[..., None] * decay_IN).exp_()
    b_BTIN = (dt_BTI * x_BTI)[..., None] * B_BTN[:, :, None]
    if b_BTIN.shape[1]:
        b_BTIN[:, 0].addcmul_(a_BTIN[:, 0], state_BIN)
        return a_BTIN, scan(a_BTIN, b_BTIN)
    return a_BTIN, b_BTIN
