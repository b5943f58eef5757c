"""Forward and backward pass of a step as one CUDA graph.

A small model's step is thousands of kernels, each shorter than the call that starts it. A graph starts all of them with
one call. It repeats what it recorded, on the memory that it recorded it with, so that inputs are copied into place.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmtlib.training.peers import ALONE, Peers

WARM_UPS = 2
"""Calls of a shape before it is recorded: what the first ones set up must not be part of a graph."""
MOST = 64
"""Shapes that are recorded; from then on, new ones run as they are."""


@dataclass(frozen=True)
class _Graph:
    places: list[Tensor]  # of the inputs on the GPU
    flat: dict[torch.dtype, Tensor]  # that hold those of the host, one after the other
    replay: Callable[[], None]
    outputs: Any
    trained: list[nn.Parameter]


class GraphsDropped(torch.cuda.OutOfMemoryError):
    """Memory ran out while graphs held some or one was being recorded: they are gone; the step may fit without."""


class Captured:
    """A function that adds to a model's gradients; on a GPU one CUDA graph for each shape that its inputs have.

    The gradients of a recorded shape are added where they were when it was recorded, so a parameter's `.grad` is the
    same tensor in every step, and each part of a step has a graph. The parameters must stay where they are, too: load
    weights into them, not in their place.

    Args:
        model: may have modules that say `waits_for_device`, because they look at values of the GPU; nothing is
            recorded then.
        function: takes the inputs on the model's device, and reads nothing besides but the parameters. Inputs and
            outputs are tensors and single values, in tuples and lists. Each single value has graphs of its own.
        peers: with others nothing is recorded, as their messages would be in the way.
    """

    def __init__(self, model: nn.Module, function: Callable[..., Any], peers: Peers = ALONE):
        self.model, self.function = model, function
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        waits = any(getattr(module, "waits_for_device", False) for module in model.modules())
        self.possible = self.device.type == "cuda" and peers.size == 1 and not waits
        self.calls: Counter[Hashable] = Counter()
        self.trained: dict[Hashable, list[nn.Parameter]] = {}
        self.gradients: dict[nn.Parameter, Tensor] = {}
        self.graphs: dict[Hashable, _Graph] = {}
        self.pool: Any = None

    def __call__(self, *inputs: Any) -> Any:
        """What `function` returns, detached."""
        try:
            return self._call(inputs)
        except GraphsDropped:
            raise
        except torch.cuda.OutOfMemoryError as error:
            if not self.graphs:
                raise
            self._drop()
            raise GraphsDropped(str(error)) from None

    def _call(self, inputs: Any) -> Any:
        elsewhere = any(p.grad is not None and p.grad is not self.gradients.get(p) for p in self.parameters)
        if not self.possible or elsewhere:
            return self._plainly(inputs)
        shape = _shape(inputs)
        graph = self.graphs.get(shape)
        if graph is None and self.calls[shape] >= WARM_UPS and len(self.graphs) < MOST:
            graph = self._record(shape, inputs)
        if graph is None:
            self.calls[shape] += 1
            before = [None if p.grad is None else p.grad._version for p in self.parameters]
            outputs = self._plainly(inputs)
            after = [None if p.grad is None else p.grad._version for p in self.parameters]
            self.trained[shape] = [p for p, b, a in zip(self.parameters, before, after, strict=True) if a != b]
            return outputs
        _fill(graph, inputs)
        self._start(graph.trained)
        graph.replay()
        return _map(torch.clone, graph.outputs)

    def _drop(self) -> None:
        """Give back the graphs' memory, which nothing else can use; from now on none is recorded."""
        self.graphs, self.gradients, self.pool, self.possible = {}, {}, None, False

    def _start(self, trained: list[nn.Parameter]) -> None:
        """Gradients that this step has none of yet begin with zeros, where graphs add to them."""
        new = [p for p in trained if p.grad is None]
        for p in new:
            if p not in self.gradients:
                self.gradients[p] = torch.zeros_like(p)
            p.grad = self.gradients[p]
        if new:
            torch._foreach_zero_([self.gradients[p] for p in new])

    def _plainly(self, inputs: Any) -> Any:
        there = _map(lambda x: x.to(self.device, non_blocking=True), inputs)
        return _map(torch.detach, self.function(*there))

    def _record(self, shape: Hashable, inputs: Any) -> _Graph | None:
        """The graph of this shape, not run yet; None if it cannot be recorded."""
        trained = self.trained[shape]
        new = [p for p in trained if p.grad is None]
        try:
            self._start(trained)
            places, flat = _places(inputs, self.device)
            static = _filled(inputs, iter(places))
            replay, outputs, self.pool = record(lambda: _map(torch.detach, self.function(*static)), self.pool)
        except torch.cuda.OutOfMemoryError as error:  # the step itself has fitted before
            self._drop()
            raise GraphsDropped(str(error)) from None
        except RuntimeError as error:
            print(f"note: no CUDA graph: {str(error).splitlines()[0]}", flush=True)
            for p in new:
                p.grad = None
            self._drop()
            return None
        self.graphs[shape] = _Graph(places, flat, replay, outputs, trained)
        return self.graphs[shape]


def record(run: Callable[[], Any], pool: Any) -> tuple[Callable[[], None], Any, Any]:
    """A CUDA graph of `run`: what starts it, what it writes its outputs to, and the memory that graphs share."""
    graph, pool = torch.cuda.CUDAGraph(), pool or torch.cuda.graph_pool_handle()
    torch.clear_autocast_cache()  # of weights: their casts must be part of the graph
    try:
        with torch.cuda.graph(graph, pool=pool):
            outputs = run()
    except RuntimeError:
        _end_recording(pool)
        raise
    finally:
        torch.clear_autocast_cache()
    return graph.replay, outputs, pool


def _end_recording(pool: Any) -> None:
    """Tell torch that a recording which failed is over.

    Else dropout goes on as in a recording (seeds are set anew at every step), and torch up to 2.12 never again gives
    back memory that it keeps for later, not even when memory runs out (PyTorch #180395).
    """
    device = torch.cuda.current_device()
    random = torch.cuda.default_generators[device]
    random.graphsafe_set_state(torch.Generator(random.device))
    with contextlib.suppress(RuntimeError, AttributeError):  # it was over already; torch before 2.8 has no such call
        torch._C._cuda_endAllocateToPool(device, pool)


def _places(inputs: Any, device: torch.device) -> tuple[list[Tensor], dict[torch.dtype, Tensor]]:
    """Memory for the inputs' tensors. Those of the host lie in one block for each type, to be copied at once."""
    leaves = _leaves(inputs)
    host = [x for x in leaves if x.device != device]
    flat = {
        kind: torch.empty(sum(x.numel() for x in host if x.dtype == kind), dtype=kind, device=device)
        for kind in {x.dtype for x in host}
    }
    used: Counter[torch.dtype] = Counter()
    places = []
    for x in leaves:
        if x.device == device:
            places.append(torch.empty_like(x))
            continue
        first = used[x.dtype]
        used[x.dtype] += x.numel()
        places.append(flat[x.dtype][first : first + x.numel()].view(x.shape))
    _copy(leaves, places, flat, device)
    return places, flat


def _fill(graph: _Graph, inputs: Any) -> None:
    _copy(_leaves(inputs), graph.places, graph.flat, graph.places[0].device)


def _copy(leaves: list[Tensor], places: list[Tensor], flat: dict[torch.dtype, Tensor], device: torch.device) -> None:
    for kind, block in flat.items():
        parts = [x.reshape(-1) for x in leaves if x.device != device and x.dtype == kind]
        block.copy_(torch.cat(parts), non_blocking=True)
    there = [(place, x) for place, x in zip(places, leaves, strict=True) if x.device == device]
    if there:
        torch._foreach_copy_([place for place, _ in there], [x for _, x in there])


# Nested tuples and lists, named ones too.


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(change, item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_map(change, item) for item in value)
    return value


def _filled(value: Any, tensors: Any) -> Any:
    """The same with other tensors, in order."""
    return _map(lambda _: next(tensors), value)


def _leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        found.append(x)
        return x

    _map(note, value)
    return found


def _shape(value: Any) -> Hashable:
    """Equal for inputs that one graph fits."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, tuple | list):
        return type(value), *(_shape(item) for item in value)
    return value
