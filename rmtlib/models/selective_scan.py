"""The scan of a selective state space (Gu & Dao 2023, section 3.2, with Euler's step for B, as in the published code):

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = C_t . h_t

Two ways to it, which agree up to rounding. By pairs: tokens are scanned chunk by chunk, and in a chunk pairs of steps
are joined into one, recursively; a chunk is as long as its numbers fit into fast memory. Compiled: on a CPU with a C
compiler, in float32, token after token. Both keep the states between chunks alone; the backward pass computes those
inside a chunk again.

Shapes: B batch, S tokens, T tokens of a chunk, I channels, N state size of a channel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmtlib.models.compiled import is_compiled_for, on_samples
from rmtlib.models.precision import full_precision

CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24, "meta": 2**24}
"""Numbers (B * T * I * N) a chunk has at most, and 256 tokens: what a CPU's cache holds, what fills a GPU."""
CHUNK_TOKENS = 16
"""Tokens of a chunk of the compiled scan: the backward pass holds the states of as many in a CPU's cache."""
MOST_STATES = 256
"""Of a channel in the compiled scan, which keeps a chunk of them on the stack."""


def selective_scan(
    x_BSI: Tensor, dt_BSI: Tensor, decay_IN: Tensor, B_BSN: Tensor, C_BSN: Tensor, state_BIN: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs y (B, S, I) and the state after the last token (B, I, N), in the type of the inputs.

    Args:
        x_BSI: inputs.
        dt_BSI: step sizes, 0 if no time passes.
        decay_IN: A, negative.
        B_BSN, C_BSN: each token's maps into the state and out of it.
        state_BIN: h before the first token.
    """
    given = x_BSI, dt_BSI, decay_IN, B_BSN, C_BSN, state_BIN
    compiled = state_BIN.shape[2] <= MOST_STATES and is_compiled_for(*given)
    return (_Compiled if compiled else _ByPairs).apply(*given)


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


class _ByPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, dt, decay, B, C, state):
        size = max(1, min(256, CHUNK_ELEMENTS.get(x.device.type, CHUNK_ELEMENTS["cuda"]) // max(state.numel(), 1)))
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


class _Compiled(torch.autograd.Function):
    """A block of channels at a time stays in a CPU's registers from token to token."""

    @staticmethod
    def forward(ctx: Any, x, dt, decay, B, C, state):
        x, dt, B, C = (y.contiguous() for y in (x, dt, B, C))
        decay_NI, h_BNI = decay.t().contiguous(), state.mT.clone(memory_format=torch.contiguous_format)
        batch, S, inner = x.shape
        kept_BKNI, y = None, torch.empty_like(x)
        if any(ctx.needs_input_grad):
            kept_BKNI = x.new_empty(batch, -(-S // CHUNK_TOKENS), *decay_NI.shape)
            ctx.save_for_backward(x, dt, decay_NI, B, C, kept_BKNI)
        sizes, arrays = (S, inner, len(decay_NI), CHUNK_TOKENS), (x, dt, decay_NI, B, C, h_BNI, kept_BKNI, y)
        on_samples("scan_forward", batch, sizes, arrays)
        return y, h_BNI.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy, dstate):
        x, dt, decay_NI, B, C, kept_BKNI = ctx.saved_tensors
        dh_BNI = dstate.mT.clone(memory_format=torch.contiguous_format)
        dx, ddt, dB, dC = (torch.empty_like(like) for like in (x, dt, B, C))
        ddecay_BNI = torch.zeros_like(dh_BNI)
        (batch, S, inner), given = x.shape, (x, dt, decay_NI, B, C, kept_BKNI, dy.contiguous(), dh_BNI)
        sizes, arrays = (S, inner, len(decay_NI), CHUNK_TOKENS), (*given, dx, ddt, ddecay_BNI, dB, dC)
        on_samples("scan_backward", batch, sizes, arrays)
        return dx, ddt, ddecay_BNI.sum(0).t(), dB, dC, dh_BNI.mT
