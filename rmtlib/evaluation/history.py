"""What history is worth to a text: the same segments, read after 0, 1, 2 ... of the segments before them.

    history 0:                      [target]
    history 1:            [before] -> [target]          -> state
    history 2: [before] -> [before] -> [target]

Every point of the curve is about the same targets, so that what differs is the history alone. (Cutting a text into
windows of 15 segments instead gives every point another fifteenth of the text.)

Shapes: B batch, S segment length, D width, N segments of the text, H histories, n segments of a window.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.models.interface import RecurrentModel, State, select


@dataclass(frozen=True)
class Histories:
    """Nats of the targets by how many segments were read before them.

    Attributes:
        nats: (H), summed over the targets.
        swapped: (H), the same if the memory is that of another place of the text; None for a model without memory.
        off: the same with the memory emptied before every target.
        targets: their first token in the stream, and the one after their last.
        read: tokens that were read for all of this.
    """

    nats: list[float]
    swapped: list[float] | None
    off: float
    targets: tuple[int, int]
    read: int

    @property
    def tokens(self) -> int:
        return self.targets[1] - self.targets[0]


def bits_per_byte(nats: float, size: int) -> float:
    """Of a text of `size` UTF-8 bytes: the same measure for every tokeniser."""
    return nats / size / math.log(2)


def window_nats(model: RecurrentModel, ids_BnS: Tensor, labels_BnS: Tensor, context: int = 1) -> Tensor:
    """Nats of every segment of B windows (B, n), float64, read from the initial state, `context` segments at once."""
    B, n, _ = ids_BnS.shape
    state, parts = model.initial_state(B), []
    for first in range(0, n, context):
        here = slice(first, first + context)
        nats_Bc, state = _step(model, ids_BnS[:, here], labels_BnS[:, here], state, write=first + context < n)
        parts.append(nats_Bc)
    return torch.cat(parts, dim=1)


def _step(
    model: RecurrentModel, ids_BcS: Tensor, labels_BcS: Tensor, state: State, write: bool
) -> tuple[Tensor, State]:
    """Nats (B, c) of c segments that are read at once, and the next state."""
    hidden_BSD, state = model.step(ids_BcS.flatten(1), state, write=write)
    nats = model.nll(hidden_BSD.flatten(0, 1), labels_BcS.flatten())
    return nats.view(labels_BcS.shape).double().sum(-1), state


def text_segments(stream: Stream, segment_size: int, needed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The stream's whole segments as inputs and targets, each (N, S).

    Raises:
        RmtlibError: there are fewer than `needed`.
    """
    N = len(stream) // segment_size
    if N < needed:
        raise RmtlibError(
            f"the {what} text of {len(stream):,} tokens has {N} segments of {segment_size}, fewer than {needed}: use "
            "more of it, or shorter segments"
        )
    length = N * segment_size
    return stream.inputs(0, length).reshape(N, -1), stream.ids[:length].astype(np.int64).reshape(N, -1)


@torch.no_grad()
def by_history(
    model: RecurrentModel,
    stream: Stream,
    segment_size: int,
    histories: int,
    *,
    context: int = 1,
    batch: int = 32,
    device: torch.device | str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> Histories:
    """Nats of all segments that have `histories` - 1 segments before them, after each number of those.

    Args:
        model: in eval mode.
        segment_size: S, in tokens.
        histories: how many numbers of earlier segments: 0 to `histories` - 1.
        context: segments that a model without memory reads at once. More history than that does not reach it.
        batch: windows read at once. Each one's memory is swapped with that of the window half the text away.
        should_stop: asked at every batch.

    Raises:
        Stopped: `should_stop` said so; nothing is kept.
        RmtlibError: the text has fewer segments than `histories`.
    """
    inputs_NS, labels_NS = (torch.from_numpy(x) for x in text_segments(stream, segment_size, histories, "test"))
    N, remembers = len(inputs_NS), model.state_size() > 0
    reach = histories if remembers else min(context, histories)
    own_H, swapped_H = (torch.zeros(reach, dtype=torch.float64) for _ in range(2))
    for done, (starts_B, others_B) in enumerate(batches := _batches(N, histories - reach, batch)):
        if should_stop():
            raise Stopped("stopped during an evaluation, which starts over")
        which_Bh = starts_B[:, None] + torch.arange(reach)
        target_Bh = (which_Bh >= histories - 1) & (which_Bh < N)
        # Windows that reach beyond the text go on at its beginning: as a history of others they are text as any.
        ids_BhS, labels_BhS = (x[which_Bh % N].to(device) for x in (inputs_NS, labels_NS))
        if remembers:
            own_Bh, swapped_Bh = _own_and_swapped(model, ids_BhS, labels_BhS, others_B.to(device))
            swapped_H += (swapped_Bh.cpu() * target_Bh).sum(0)
        else:
            own_Bh = window_nats(model, ids_BhS, labels_BhS, context)
        own_H += (own_Bh.cpu() * target_Bh).sum(0)
        progress(done + 1, len(batches))
    beyond = [own_H[-1].item()] * (histories - reach)
    targets = range(histories - 1, N)
    passes = (N - histories + reach) * reach * (2 if remembers else 1) + len(targets)
    return Histories(
        nats=own_H.tolist() + beyond,
        swapped=swapped_H.tolist() if remembers else None,
        off=_memory_off(model, inputs_NS[targets], labels_NS[targets], batch, device),
        targets=(targets[0] * segment_size, N * segment_size),
        read=passes * segment_size,
    )


def _memory_off(
    model: RecurrentModel, inputs_NS: Tensor, labels_NS: Tensor, batch: int, device: torch.device | str
) -> float:
    """Nats of these segments, each read from the initial state."""
    total = 0.0
    for ids_BS, targets_BS in zip(inputs_NS.split(batch), labels_NS.split(batch), strict=True):
        total += window_nats(model, ids_BS[:, None].to(device), targets_BS[:, None].to(device)).sum().item()
    return total


def _batches(count: int, first: int, batch: int) -> list[tuple[Tensor, Tensor]]:
    """The starts first .. count-1 in batches, and for each the place in its batch of the window half of them away.

    A batch has pairs of such windows, and one window more if their number is odd.
    """
    half, odd = divmod(count - first, 2)
    parts = [] if half else [(torch.tensor([first]), torch.tensor([0]))]
    for i, here_b in enumerate(chunks := torch.arange(half).split(max(batch // 2, 1)), start=1):
        b = len(here_b)
        starts_B, others_B = torch.cat([here_b, here_b + half]), torch.arange(2 * b).roll(b)
        if odd and i == len(chunks):
            starts_B, others_B = torch.cat([starts_B, here_b[-1:] + half + 1]), torch.cat([others_B, others_B[-1:]])
        parts.append((first + starts_B, others_B))
    return parts


def _own_and_swapped(
    model: RecurrentModel, ids_BnS: Tensor, labels_BnS: Tensor, others_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Nats (B, n) of windows with their own memory, and with that of another one in the batch.

    A window that overlaps would have read the target itself, or what comes just before it: `_batches` takes one far
    away.
    """
    (B, n, _), own, swapped = ids_BnS.shape, [], []
    state = model.initial_state(B)
    for s in range(n):
        here = ids_BnS[:, s : s + 1], labels_BnS[:, s : s + 1]
        others = select(state, others_B)
        nats_B1, state = _step(model, *here, state, write=s + 1 < n)
        own.append(nats_B1)
        swapped.append(_step(model, *here, others, write=False)[0] if s else nats_B1)  # no memory was written yet
    return torch.cat(own, dim=1), torch.cat(swapped, dim=1)
