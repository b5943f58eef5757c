"""Backward passes, and graphs that end at a state: the gradient that gathers there goes on to the graph before."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rmtlib.models.interface import State
from rmtlib.models.precision import full_precision


def backpropagate(
    outputs: Sequence[Tensor], gradients: Sequence[Tensor | None] | None = None, *, retain_graph: bool = False
) -> None:
    """`torch.autograd.backward` without autocast, so that every operation has the types of its forward pass.

    Under autocast products of the backward pass are rounded also where the forward pass is in full precision.
    """
    with full_precision(outputs[0]):
        torch.autograd.backward(outputs, gradients, retain_graph=retain_graph)


def leaves(state: State) -> State:
    """The same state as the start of a graph of its own: gradients gather at what had one before."""
    return type(state)(*(x.detach().requires_grad_(x.requires_grad) for x in state))


def take_gradients(state: State) -> list[Tensor]:
    """The gradients that gathered at `leaves`, which are cleared."""
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in state]
    for x in state:
        x.grad = None
    return gradients


def hand_back(state: State, gradients: Sequence[Tensor]) -> None:
    """Go on backward from the gradients at a state, through all of it that has a graph."""
    pairs = [(x, gradient) for x, gradient in zip(state, gradients, strict=True) if x.requires_grad]
    if pairs:
        outputs, gradients = zip(*pairs, strict=True)
        backpropagate(outputs, gradients, retain_graph=True)
