"""Likelihood of a text that is read in windows of some segments, each from the initial memory.

Which tokens of the windows are targets, and which memory they are read with, can be chosen; what a model makes of its
own memory is compared with what it makes of none, or of another text's.

    "all"     consecutive windows; every token of the text is a target once
    "last"    a window for each segment, which it ends with: every token is a target once, read with as much history as
              fits; the first windows are shorter
    "inside"  consecutive windows that stand alone: the first token of each has nothing to be predicted from

Shapes: B windows, S segment length, K labels.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.models.interface import State
from rmtlib.segments import IGNORE, Segment, cut

Score = Literal["all", "last", "inside"]
MemoryOf = Literal["own", "off", "shuffled", "other"]


class Window(NamedTuple):
    """Tokens start .. stop-1 of a stream, of which those from `scored` on are targets."""

    start: int
    scored: int
    stop: int


@dataclass(frozen=True)
class WindowSample:
    """Inputs and targets of a window, as `segments.cut` and the trainer take them."""

    tokens: np.ndarray
    labels: np.ndarray


def windows_of(length: int, window: int, segment: int, score: Score) -> list[Window]:
    """The windows of a text of so many tokens.

    Raises:
        RmtlibError: the text is shorter than a window.
    """
    if score not in get_args(Score):
        raise RmtlibError(f"score is {score!r}; it must be one of {', '.join(get_args(Score))}")
    if length < window:
        raise RmtlibError(f"the text has {length:,} tokens, fewer than a window of {window:,}: use a longer one")
    if score == "last":
        history = window - segment
        starts = range(0, length, segment)
        return [Window(max(start - history, 0), start, min(start + segment, length)) for start in starts]
    return [Window(start, start, min(start + window, length)) for start in range(0, length, window)]


def window_sample(stream: Stream, window: Window, score: Score) -> WindowSample:
    """Inputs and labels of a window."""
    start, scored, stop = window
    ids = stream.ids[start:stop].astype(np.int64)
    if score == "inside":
        return WindowSample(ids, np.append(ids[1:], IGNORE))
    labels = ids.copy()
    labels[: scored - start] = IGNORE
    return WindowSample(stream.inputs(start, stop), labels)


@dataclass(frozen=True)
class WindowLikelihood:
    """Negative log-likelihood in nats, and targets, of every window in the text's order.

    `by_segment`: the same summed over windows, for each segment of a window: [nats, tokens].
    """

    window_nats: list[float]
    window_tokens: list[int]
    by_segment: list[list[float]]

    @property
    def nats(self) -> float:
        return math.fsum(self.window_nats)

    @property
    def tokens(self) -> int:
        return sum(self.window_tokens)


@torch.no_grad()
def window_likelihood(
    model: Any,
    stream: Stream,
    *,
    window: int,
    segment: int,
    score: Score = "all",
    memory: MemoryOf = "own",
    other: Stream | None = None,
    batch: int = 8,
    device: torch.device | str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> WindowLikelihood:
    """Read the stream in windows of `window` tokens, in segments of `segment`, with a model in eval mode.

    Args:
        memory: what a segment after a window's first is read with. "own": the memory that the segments before it wrote.
            "off": the initial one. "shuffled": the memory that the window half the text away wrote by then.
            "other": that of a window of the stream `other`.
        batch: windows in one forward pass; the result is the same for every number, up to rounding.

    Raises:
        Stopped: `should_stop` said so; nothing is kept.
        RmtlibError: a text is shorter than a window.
    """
    whole = windows_of(len(stream), window, segment, score)
    donors = _donors(stream, other, whole, window, segment, score, memory)
    groups = defaultdict(list)  # windows of equal shape go together
    for index, each in enumerate(whole):
        groups[each.stop - each.start, each.scored - each.start].append(index)
    nats, tokens = [0.0] * len(whole), [0] * len(whole)
    by_segment = [[0.0, 0] for _ in range(-(-window // segment))]
    done = 0
    for indices in groups.values():
        for first in range(0, len(indices), batch):
            if should_stop():
                raise Stopped("stopped during an evaluation, which starts over")
            chosen = indices[first : first + batch]
            samples = [window_sample(stream, whole[i], score) for i in chosen]
            given = [donors[i] for i in chosen] if donors else None
            parts = list(_read(model, samples, given, segment, memory, device))
            nats_SB = torch.stack([nats_B for nats_B, _ in parts]).tolist()  # a GPU is waited for once a batch
            for values_B, (_, count), of_segment in zip(
                nats_SB, parts, by_segment, strict=False
            ):  # few in the last one
                for i, value in zip(chosen, values_B, strict=True):
                    nats[i] += value
                    tokens[i] += count
                of_segment[0] += math.fsum(values_B)
                of_segment[1] += count * len(chosen)
            done += len(chosen)
            progress(done, len(whole))
    return WindowLikelihood(nats, tokens, by_segment)


def _donors(
    stream: Stream,
    other: Stream | None,
    whole: Sequence[Window],
    window: int,
    segment: int,
    score: Score,
    memory: MemoryOf,
) -> list[WindowSample]:
    """For each window the one whose memory it is read with; empty if it is its own or none."""
    if memory not in get_args(MemoryOf):
        raise RmtlibError(f"memory is {memory!r}; it must be one of {', '.join(get_args(MemoryOf))}")
    if memory in ("own", "off"):
        return []
    source = stream if memory == "shuffled" else other
    if source is None:
        raise RmtlibError("memory 'other' needs the other text's stream")
    full = [each for each in windows_of(len(source), window, segment, score) if each.stop - each.start == window]
    if memory == "shuffled" and len(full) < 2:
        raise RmtlibError(f"memory cannot be shuffled among {len(full)} windows of {window:,}: use a longer text")
    away = len(full) // 2 if memory == "shuffled" else 0
    return [window_sample(source, full[(i + away) % len(full)], score) for i in range(len(whole))]


def _read(
    model: Any,
    samples: list[WindowSample],
    donors: list[WindowSample] | None,
    segment: int,
    memory: MemoryOf,
    device: torch.device | str,
) -> Iterator[tuple[Tensor, int]]:
    """Of every segment the nats of each window (B), in float64, and the targets that each has."""
    start = state = model.initial_state(len(samples))
    lent = _states(model, donors, segment, device) if donors is not None else None
    segments = list(_segments(samples, segment))
    for s, part in enumerate(segments):
        part = part.to(device)
        labelled, last = part.labelled(), s == len(segments) - 1
        if lent is not None:
            before = next(lent)
        else:
            before = start if memory == "off" else state
        hidden_BND, state = model.step(
            part.input_ids_BS, before, part.lengths_B, write=memory == "own" and not last, rows_BN=labelled.rows_BN
        )
        count = len(labelled.targets_K) // len(samples)
        nll_K = model.nll(labelled.select(hidden_BND), labelled.targets_K).double()
        yield (nll_K.view(len(samples), count).sum(1) if count else nll_K.new_zeros(len(samples))), count


def _states(model: Any, donors: list[WindowSample], segment: int, device: torch.device | str) -> Iterator[State]:
    """The memory before each segment of these windows; a window that ends early is read with what it has."""
    state = model.initial_state(len(donors))
    yield state
    for part in _segments(donors, segment):
        part = part.to(device)
        _, state = model.step(part.input_ids_BS, state, part.lengths_B, rows_BN=part.input_ids_BS[:, :0])
        yield state


def _segments(samples: list[WindowSample], segment: int) -> Iterator[Segment]:
    return cut([sample.tokens for sample in samples], [sample.labels for sample in samples], segment)


def plain_likelihood(model: Any, stream: Stream, window: int, segment: int, score: Score = "all") -> float:
    """What `window_likelihood` sums up, window by window and segment by segment, for tests: nats."""
    total = 0.0
    for each in windows_of(len(stream), window, segment, score):
        sample = window_sample(stream, each, score)
        state = model.initial_state(1)
        for first in range(0, len(sample.tokens), segment):
            part = slice(first, first + segment)
            hidden_1SD, state = model.step(torch.from_numpy(sample.tokens[part])[None], state)
            labels_S = torch.from_numpy(sample.labels[part])
            nll_S = -model.logits(hidden_1SD[0]).log_softmax(-1)[torch.arange(len(labels_S)), labels_S.clamp(min=0)]
            total += nll_S[labels_S != IGNORE].double().sum().item()
    return total
