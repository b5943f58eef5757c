"""The scan of a selective state space (Gu & Dao 2023, section 3.2, with Euler's step for B, as in the published code):

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = C_t . h_t

Two ways to it, which agree up to rounding. By pairs: tokens are scanned chunk by chunk, and in a chunk pairs of steps
are joined into one, recursively; a chunk is as long as its numbers fit into fast memory. One by one: on a CPU a step
of a large state is long enough by itself, and the state stays in the cache. Both keep the states between chunks alone;
the backward pass computes those inside a chunk again.

Shapes: B batch, S tokens, T tokens of a chunk, I channels, N state size of a channel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmtlib.models.precision import full_precision

CHUNK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24, "meta": 2**24}
"""Numbers (B * T * I * N) a chunk has at most, and 256 tokens: what a CPU's cache holds, what fills a GPU."""
ONE_BY_ONE = 2**13
"""Numbers (B * I * N) of the states from which a CPU takes token after token."""
CHUNK_TOKENS = 8
"""Tokens of a chunk of these: the backward pass holds as many states twice."""


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
    one_by_one = x_BSI.device.type == "cpu" and state_BIN.numel() >= ONE_BY_ONE
    return (_OneByOne if one_by_one else _ByPairs).apply(x_BSI, dt_BSI, decay_IN, B_BSN, C_BSN, state_BIN)


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


class _OneByOne(torch.autograd.Function):
    """Channels come last, not the states of a channel, so that calls run along long rows; buffers are used again."""

    @staticmethod
    def forward(ctx: Any, x, dt, decay, B, C, state):
        dt_SBI = dt.transpose(0, 1).contiguous()
        input_SBI = dt_SBI * x.transpose(0, 1)
        B_SNB1, C_SNB1 = (y.permute(1, 2, 0).contiguous()[..., None] for y in (B, C))
        decay_N1I = decay.t().contiguous()[:, None]
        h_NBI = state.permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
        y_SBI, a_NBI, starts = torch.empty_like(input_SBI), torch.empty_like(h_NBI), []
        for t in range(len(dt_SBI)):
            if t % CHUNK_TOKENS == 0:
                starts.append(h_NBI.clone())
            torch.mul(dt_SBI[t], decay_N1I, out=a_NBI).exp_()
            h_NBI.mul_(a_NBI).addcmul_(B_SNB1[t], input_SBI[t])
            torch.sum(torch.mul(h_NBI, C_SNB1[t], out=a_NBI), 0, out=y_SBI[t])
        ctx.save_for_backward(x, dt_SBI, decay_N1I, B_SNB1, C_SNB1, input_SBI, *starts)
        return y_SBI.transpose(0, 1), h_NBI.permute(1, 2, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy, dstate):
        x, dt_SBI, decay_N1I, B_SNB1, C_SNB1, input_SBI, *starts = ctx.saved_tensors
        S, batch, size = len(dt_SBI), dt_SBI.shape[1], len(decay_N1I)
        dy_SBI = dy.transpose(0, 1).contiguous()
        dh_NBI = dstate.permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
        a_TNBI, h_TNBI = (
            dh_NBI.new_empty(CHUNK_TOKENS, *dh_NBI.shape),
            dh_NBI.new_empty(CHUNK_TOKENS + 1, *dh_NBI.shape),
        )
        work_NBI, ddecay_NBI = torch.empty_like(dh_NBI), torch.zeros_like(dh_NBI)
        dinput_SBI, ddt_SBI = torch.empty_like(dt_SBI), torch.empty_like(dt_SBI)
        dB_SNB, dC_SNB = (dh_NBI.new_empty(S, size, batch) for _ in range(2))
        for chunk in reversed(range(len(starts))):
            first, last = chunk * CHUNK_TOKENS, min((chunk + 1) * CHUNK_TOKENS, S)
            h_TNBI[0] = starts[chunk]
            for i, t in enumerate(range(first, last)):
                torch.mul(dt_SBI[t], decay_N1I, out=a_TNBI[i]).exp_()
                torch.mul(h_TNBI[i], a_TNBI[i], out=h_TNBI[i + 1]).addcmul_(B_SNB1[t], input_SBI[t])
            for t in reversed(range(first, last)):  # dh_t = dy_t C_t + a_{t+1} dh_{t+1}
                before, after, a_NBI = h_TNBI[t - first], h_TNBI[t - first + 1], a_TNBI[t - first]
                dh_NBI.addcmul_(dy_SBI[t], C_SNB1[t])
                torch.sum(torch.mul(after, dy_SBI[t], out=work_NBI), -1, out=dC_SNB[t])
                torch.sum(torch.mul(dh_NBI, input_SBI[t], out=work_NBI), -1, out=dB_SNB[t])
                torch.sum(torch.mul(dh_NBI, B_SNB1[t], out=work_NBI), 0, out=dinput_SBI[t])
                torch.mul(dh_NBI.mul_(a_NBI), before, out=work_NBI)  # the gradient of dt A
                ddecay_NBI.addcmul_(work_NBI, dt_SBI[t])
                torch.sum(work_NBI.mul_(decay_N1I), 0, out=ddt_SBI[t])
        dx, ddt = dinput_SBI * dt_SBI, ddt_SBI + dinput_SBI * x.transpose(0, 1)
        dB, dC = dB_SNB.permute(2, 0, 1), dC_SNB.permute(2, 0, 1)
        return dx.transpose(0, 1), ddt.transpose(0, 1), ddecay_NBI.sum(1).t(), dB, dC, dh_NBI.permute(1, 2, 0)
