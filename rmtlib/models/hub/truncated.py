"""Truncated BPTT behind one `backward` call, as Hugging Face's trainer makes it.

The loss of segment s reaches the parameters through segments s-k .. s, from the detached state before s-k; if s-k <= 0,
also through the initial state: the definition of `rmtlib.training.bptt`. Its gradients are taken while the segments are
read, so that only k+1 graphs are held at once, and handed to the parameters when `backward` comes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rmtlib.models.interface import State
from rmtlib.segments import Segment

SegmentLoss = Callable[[Segment, State], tuple[Tensor, State]]
"""Summed loss of a segment, and the next state."""


def truncated_loss(
    model: nn.Module, segment_loss: SegmentLoss, segments: Sequence[Segment], start: State, k: int
) -> tuple[Tensor, State]:
    """The summed loss of the segments, with the gradient of BPTT-k, and the state after the last, detached."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients: list[Tensor | None] = [None] * len(parameters)
    total = torch.zeros((), device=start[0].device)
    outputs, inputs = {-1: start}, {}

    def back(ends: Sequence[Tensor], seeds: Sequence[Tensor | None], before: State | None) -> list[Tensor | None]:
        """Add the parameters' gradients of `ends`; return those at the state before."""
        pairs = [(x, seed) for x, seed in zip(ends, seeds, strict=True) if x.requires_grad and seed is not None]
        leaves = [] if before is None else list(before)
        if not pairs:
            return [None] * len(leaves)
        with torch.autocast(total.device.type, enabled=False):  # the backward pass keeps the forward pass's types
            found = torch.autograd.grad(
                [x for x, _ in pairs],
                parameters + leaves,
                [seed for _, seed in pairs],
                retain_graph=True,
                allow_unused=True,
            )
        for i, (old, new) in enumerate(zip(gradients, found, strict=False)):
            gradients[i] = old if new is None else new if old is None else old + new
        return list(found[len(parameters) :])

    for s, segment in enumerate(segments):
        inputs[s] = type(start)(*(x.detach().requires_grad_() for x in outputs[s - 1]))
        loss, outputs[s] = segment_loss(segment, inputs[s])
        total = total + loss.detach()
        if len(segment.labelled().targets_K):
            at_state = back([loss], [torch.ones_like(loss)], inputs[s])
            for earlier in range(s - 1, max(s - k, 0) - 1, -1):
                at_state = back(outputs[earlier], at_state, inputs[earlier])
            if s <= k:
                back(start, at_state, None)
        if s >= k:  # no later loss reaches these
            inputs.pop(s - k)
            outputs.pop(s - max(k, 1))
    last = outputs[len(segments) - 1]
    return _Handed.apply(total, gradients, *parameters), type(last)(*(x.detach() for x in last))


class _Handed(torch.autograd.Function):
    """A loss whose gradients are already there."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> Any:
        return None, None, *(None if gradient is None else factor * gradient for gradient in ctx.gradients)
