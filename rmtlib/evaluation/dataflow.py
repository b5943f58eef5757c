"""What a model carries from segment to segment, measured: which part of its state depends on what, and reaches what.

Nothing here knows a model's kind. A part of the state is perturbed, or a layer's output at one position, and what
changes is seen. So a drawing of the result (`report.memories`) cannot differ from what the code does.

Level k is the output of layer k, counted from 1; level 0 are the embedded tokens. Shapes: L layers, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmtlib.models.interface import State, detach
from rmtlib.seeds import torch_seed

SEGMENT = 4  # tokens
NOISE = 0.1


@dataclass(frozen=True)
class Carried:
    """A part of the state, all of one layer or all that no layer owns.

    Attributes:
        level: the highest level that it is written from, at these positions of the segment.
        layer: the lowest layer of the next segment that it reaches.
        into: the positions of that layer's input that it changes; none if it enters inside the layer.
        kept: whether it changes the same part of the state after the next segment though every layer's inputs and
            outputs are held: something is added to it, instead of a new value in its place.
        gradient: whether backpropagation passes through it.
    """

    level: int
    positions: tuple[int, ...]
    layer: int
    into: tuple[int, ...]
    kept: bool
    gradient: bool


@dataclass(frozen=True)
class Flow:
    """A model's layout: its layers, the positions of a segment, those of them that hold text, and what is carried."""

    layers: int
    positions: int
    text: tuple[int, ...]
    carried: tuple[Carried, ...]


def layers_of(model: Any) -> Sequence[nn.Module]:
    """The model's layers, in order."""
    return list(model.layers if hasattr(model, "layers") else model.decoder.blocks)


def embedding_of(model: Any) -> nn.Module:
    """The table of token embeddings."""
    table: nn.Module = model.tokens if hasattr(model, "tokens") else model.decoder.tokens
    return table


def measure_flow(model: Any, seed: int = 0) -> Flow:
    """The flow of a small model, whose weights are changed: noise makes every path count that starts as zero."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(torch_seed(seed, "dataflow"))
    for parameter in model.parameters():
        parameter.data += NOISE * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return _Measured(model, generator).flow()


class _Measured:
    """One model between two segments."""

    def __init__(self, model: Any, generator: torch.Generator) -> None:
        self.model, self.layers, self.generator = model, layers_of(model), generator
        vocabulary = model.logits(model.step(torch.zeros(1, 1, dtype=torch.long), model.initial_state(1))[0]).shape[-1]
        self.ids_1S = torch.randint(vocabulary, (1, SEGMENT), generator=generator)
        self.other_1S = (self.ids_1S + 1) % vocabulary
        state = model.initial_state(1)
        for _ in range(2):  # a cache grows to its full length
            state = detach(model.step(self.ids_1S, state)[1])
        self.state = state
        self.text: tuple[int, ...] = ()

    def flow(self) -> Flow:
        plain = self._run(self.state)
        other = self._run(self.state, ids_1S=self.other_1S)
        self.text = _changed(plain.inputs[0], other.inputs[0])
        parts: dict[tuple[int, int], Carried] = {}
        for field, layer in self._parts():
            carried = self._carried(field, layer, plain)
            way = carried.level, carried.layer
            parts[way] = _joined(parts[way], carried) if way in parts else carried
        return Flow(len(self.layers), plain.inputs[0].shape[1], self.text, tuple(parts.values()))

    def _parts(self) -> Iterator[tuple[int, int | None]]:
        """(field, layer) of every part of the state that holds anything."""
        for index, (name, x) in enumerate(zip(self.state._fields, self.state, strict=True)):
            if x.numel():
                layered = name.rpartition("_")[2].startswith("L")
                yield from ((index, layer if layered else None) for layer in range(len(x) if layered else 1))

    def _carried(self, field: int, layer: int | None, plain: _Pass) -> Carried:
        level, positions = self._written(field, layer, plain)
        values = list(self.state)
        values[field] = values[field].clone()
        part = values[field] if layer is None else values[field][layer]
        part += torch.rand(part.shape, generator=self.generator, dtype=part.dtype)  # a norm stays positive
        perturbed = type(self.state)(*values)
        after = self._run(perturbed)
        reached = [k for k in range(len(self.layers)) if _changed(plain.outputs[k], after.outputs[k])]
        assert reached, f"{self.state._fields[field]} reaches no layer"
        first = reached[0]
        held = self._run(perturbed, held=plain)
        return Carried(
            level=level,
            positions=positions,
            layer=first + 1,
            into=_changed(plain.inputs[first], after.inputs[first]),
            kept=not torch.equal(_part(held.state, field, layer), _part(plain.state, field, layer)),
            gradient=plain.state[field].requires_grad,
        )

    def _written(self, field: int, layer: int | None, plain: _Pass) -> tuple[int, tuple[int, ...]]:
        """The highest level that a part of the next state depends on, and the positions there."""

        def depends(level: int, position: int) -> bool:
            after = self._run(self.state, noise=(level, position))
            return not torch.equal(_part(after.state, field, layer), _part(plain.state, field, layer))

        every = range(plain.inputs[0].shape[1])
        for level in range(len(self.layers), -1, -1):
            if positions := tuple(t for t in (every if level else self.text) if depends(level, t)):
                return level, positions
        raise AssertionError(f"{self.state._fields[field]} depends on nothing that a segment computes")

    def _run(
        self,
        state: State,
        ids_1S: Tensor | None = None,
        noise: tuple[int, int] | None = None,
        held: _Pass | None = None,
    ) -> _Pass:
        """One segment, with noise at a (level, position), or with all layers' inputs and outputs held."""
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []

        def changed(level: int, x_1TD: Tensor) -> Tensor:
            if noise is None or noise[0] != level:
                return x_1TD
            x_1TD = x_1TD.clone()
            x_1TD[:, noise[1] if level else noise[1] - self.text[0]] += NOISE * torch.arange(
                1.0, x_1TD.shape[2] + 1, dtype=x_1TD.dtype
            )
            return x_1TD

        def before(layer: int, x_1TD: Tensor) -> Tensor:
            x_1TD = held.inputs[layer] if held else x_1TD
            inputs.append(x_1TD.detach())
            return x_1TD

        def after(layer: int, x_1TD: Tensor) -> Tensor:
            x_1TD = held.outputs[layer] if held else changed(layer + 1, x_1TD)
            outputs.append(x_1TD.detach())
            return x_1TD

        embedded = embedding_of(self.model).register_forward_hook(lambda module, ids, x_1SD: changed(0, x_1SD))
        with _hooked(self.layers, before, after), embedded:
            _, state = self.model.step(self.ids_1S if ids_1S is None else ids_1S, state)
        return _Pass(inputs, outputs, state)


@dataclass(frozen=True)
class _Pass:
    """Every layer's input and output (1, T, D), and the state after the segment."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    state: State


@contextmanager
def _hooked(
    layers: Sequence[nn.Module], before: Callable[[int, Tensor], Tensor], after: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Pass each layer's first argument and first result through these while the block runs."""

    def enter(layer: int) -> Any:
        return lambda module, arguments: (before(layer, arguments[0]), *arguments[1:])

    def leave(layer: int) -> Any:
        def hook(module: nn.Module, arguments: Any, result: Any) -> Any:
            if isinstance(result, tuple):
                return (after(layer, result[0]), *result[1:])
            return after(layer, result)

        return hook

    hooks = [module.register_forward_pre_hook(enter(i)) for i, module in enumerate(layers)]
    hooks += [module.register_forward_hook(leave(i)) for i, module in enumerate(layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _joined(one: Carried, other: Carried) -> Carried:
    """Two parts of the state that go the same way: what either does."""
    return Carried(
        level=one.level,
        positions=tuple(sorted({*one.positions, *other.positions})),
        layer=one.layer,
        into=tuple(sorted({*one.into, *other.into})),
        kept=one.kept or other.kept,
        gradient=one.gradient or other.gradient,
    )


def _part(state: State, field: int, layer: int | None) -> Tensor:
    return state[field] if layer is None else state[field][layer]


def _changed(one_1TD: Tensor, other_1TD: Tensor) -> tuple[int, ...]:
    """The positions at which they differ."""
    return tuple((one_1TD != other_1TD).any(-1)[0].nonzero()[:, 0].tolist())
