"""Published checkpoints (results/checkpoints) as models: loaded by name, given own samples, looked into, streamed.

published = load_checkpoint("reverse-2-rmt-24")
segments = own_symbols(published, [3, 1, 4, 1, 5, 9])
memory_table(published, segments)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.algorithmic import FIRST_SYMBOL
from rmtlib.data.associative import EOS, VOCABULARY, PairTask
from rmtlib.errors import RmtlibError
from rmtlib.experiments.algorithmic.settings import Params as AlgorithmicParams
from rmtlib.experiments.capacity.settings import Params as CapacityParams
from rmtlib.experiments.registry import get_artifact
from rmtlib.models.registry import build
from rmtlib.report.tables import Table
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.weights import load_published_weights, weights_names
from rmtlib.seeds import generator
from rmtlib.settings import from_dict
from rmtlib.training.trainer import load_trained

RESULTS = Path("results")
STEPS = (1, 10, 100, 300)  # segments after which a stream is looked at


@dataclass(frozen=True)
class Published:
    """A trained model from results/checkpoints, with its card and the settings of its run."""

    card: Mapping[str, Any]
    params: Any
    model: Any

    def __str__(self) -> str:
        """What it is, and what it can do: the run's own numbers, and those of the rounded weights."""
        config = RunConfig.from_json(dict(self.card["config"]))
        measure = get_artifact(config.artifact).report().measure
        about = {"artifact": config.artifact, "row": config.row, "scale": config.scale, "seed": config.seed}
        lines = [
            f"{self.card['name']}: {config.title}, {self.card['parameters']:,} weights in {self.card['dtype']}",
            f"record results/{config.artifact}/{config.slug}.json"
            + ("" if self.card["own_record"] else ", whose settings were trained again"),
        ]
        for whose, key in (("the run's own weights", "metrics_of_run"), ("as published", "metrics")):
            record = {**about, "config": config.to_json(), "metrics": self.card[key], "run_id": config.id}
            measured = list(measure(record))
            main = measured[0]
            trained = [m for m in measured if m.metric == main.metric and (m.x or 0) <= (m.x_trained or 0)]
            last = trained[-1] if trained else main
            at = "" if last.x is None else f" at {last.x:g}"
            lines.append(f"{whose}: {last.metric}{at} {last.value:.4g}")
        return "\n".join(lines)


UNTRAINED: Mapping[str, tuple[type, Callable[[Any], Any]]] = {
    "algorithmic": (AlgorithmicParams, lambda params: build(params.model)),
    "memory-capacity": (CapacityParams, lambda params: build(params.model.model())),
}
"""Artifact -> the class of its settings, and the model that they describe."""


def published_names(results: str | Path = RESULTS) -> list[str]:
    """What `load_checkpoint` knows."""
    return weights_names(results)


def load_checkpoint(name: str, results: str | Path = RESULTS) -> Published:
    """A published checkpoint by its name, in eval mode on the CPU.

    Raises:
        RmtlibError: there is none of that name, it was changed, or its artifact has no models to load.
    """
    card, tensors = load_published_weights(name, results)
    if card["artifact"] not in UNTRAINED:
        raise RmtlibError(f"checkpoints of {card['artifact']} cannot be loaded by name: add it to UNTRAINED")
    kind, model_of = UNTRAINED[card["artifact"]]
    params: Any = from_dict(kind, card["config"]["params"])
    model = model_of(params)
    load_trained(model, tensors)
    return Published(card, params, model.eval())


def own_symbols(trained: Any, symbols: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Own symbols 0, 1, ... as a sample of copy or reverse: token ids and targets of each segment, (1, S).

    More symbols than the model reads are left out.

    Args:
        trained: a `Published`, or anything else with `params` and `model`.

    Raises:
        RmtlibError: the model answers pairs, or needs more symbols.
    """
    params = trained.params
    if not isinstance(params, AlgorithmicParams) or params.task == "retrieval":
        raise RmtlibError("this model answers pairs, not rows of symbols: take a model of copy or reverse")
    task, size = params.tasks[-1], params.segment_sizes[-1]
    if len(symbols) < task.size or not all(0 <= symbol < task.alphabet for symbol in symbols):
        raise RmtlibError(f"this model reads {task.size} symbols from 0 to {task.alphabet - 1}, not {list(symbols)}")
    sample = task.lay_out(np.array(symbols[: task.size]) + FIRST_SYMBOL)
    return _cut(sample.tokens, size), _cut(sample.labels, size)


def own_pairs(trained: Any, pairs: Sequence[tuple[int, int]], asked: int) -> tuple[list[Tensor], list[Tensor]]:
    """Own pairs of a key and a value, 0 to 15 each, and the key that is asked for: as `own_symbols`, a segment a pair.

    Raises:
        RmtlibError: the model answers symbols, a key or value is too large, or the key is none of the pairs'.
    """
    params, values = trained.params, dict(pairs)
    if not isinstance(params, CapacityParams):
        raise RmtlibError("this model answers symbols, not pairs: take a model of memory-capacity")
    if asked not in values:
        raise RmtlibError(f"no pair has the key {asked}: ask for one of {', '.join(map(str, values))}")
    task = PairTask(params.task, params.key_sizes[-1], params.value_size)  # type: ignore[arg-type]
    keys, many = 16**task.key_size, 16**task.value_size
    if wrong := [pair for pair in pairs if not (0 <= pair[0] < keys and 0 <= pair[1] < many)]:
        raise RmtlibError(f"this model reads keys from 0 to {keys - 1} and values from 0 to {many - 1}, not {wrong[0]}")
    size, rng = task.segment_size, generator(0, "explore")

    def row(key: int, value: int) -> list[int]:
        return [*_digits(key, task.key_size), *_digits(value, task.value_size)]

    read = task.ask(np.array([row(*pair) for pair in pairs]), rng)
    query = task.ask(np.array([row(asked, values[asked])]), rng)
    tokens = np.concatenate([read.tokens[:-size], query.tokens[-size:]])
    labels = np.concatenate([read.labels[:-size], query.labels[-size:]])
    return _cut(tokens, size), _cut(labels, size)


def _digits(number: int, count: int) -> list[int]:
    return [number // 16**place % 16 for place in reversed(range(count))]


def _cut(row: np.ndarray, size: int) -> list[Tensor]:
    return list(torch.from_numpy(row)[None].split(size, dim=1))


@torch.no_grad()
def memory_table(trained: Any, segments: Sequence[Tensor]) -> Table:
    """The state after every segment: its norm, and how much of it is new.

    A change of 0 is a state that stayed; around 1 or more, one that was replaced. What grows has no change yet.
    """
    state, rows = trained.model.initial_state(1), []
    for number, input_ids_1S in enumerate(segments, start=1):
        _, after = trained.model.step(input_ids_1S, state)
        for field, old, new in zip(after._fields, state, after, strict=True):
            if new.numel():
                change = f"{(new - old).norm() / new.norm():.2f}" if old.shape == new.shape else "grows"
                what = f"{field.rpartition('_')[0]} {'×'.join(map(str, new.shape))}"
                rows.append((str(number), what, f"{new.norm():.2f}", change))
        state = after
    return Table(
        "What is carried after each segment.", ("segment", "state", "norm", "change"), tuple(rows), merged=True
    )


@torch.no_grad()
def stream_table(trained: Any, steps: Sequence[int] = STEPS) -> Table:
    """Random segments, one after the other without end: what the model holds, and how long a segment takes."""
    state, rows, since, begun = trained.model.initial_state(1), [], 0, time.perf_counter()
    for number, input_ids_1S in zip(range(1, max(steps) + 1), _noise(trained), strict=False):
        _, state = trained.model.step(input_ids_1S, state)
        if number in steps:
            took, floats = (time.perf_counter() - begun) / (number - since), sum(x.numel() for x in state)
            cells = (f"{number:,}", f"{number * input_ids_1S.shape[1]:,}", f"{floats:,}", f"{1000 * took:.1f} ms")
            rows.append(cells)
            since, begun = number, time.perf_counter()
    return Table(
        "A stream: the state stays as large as it is, and a segment takes as long, however much was read.",
        ("segments", "tokens", "floats in the state", "a segment takes"),
        tuple(rows),
    )


def _noise(trained: Any) -> Iterator[Tensor]:
    params, rng = trained.params, np.random.default_rng(0)
    if isinstance(params, CapacityParams):
        low, high, size = 0, min(EOS, VOCABULARY), params.segment_sizes[-1]
    else:
        task = params.tasks[-1]
        low, high, size = FIRST_SYMBOL, FIRST_SYMBOL + task.alphabet, params.segment_sizes[-1]
    while True:
        yield torch.from_numpy(rng.integers(low, high, (1, size)))
