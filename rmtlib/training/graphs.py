"""Graphs that end at a state: the gradient that gathers there is handed over to the graph before."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rmtlib.models.interface import State


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
        torch.autograd.backward(outputs, gradients, retain_graph=True)
