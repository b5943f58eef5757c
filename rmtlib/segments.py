"""Cut token sequences into aligned, right-padded segments, one batch of segments at a time.

A sequence is anything with a length whose slices are arrays of token ids: an array, or a sample that is
assembled only when it is read. So a batch of 10-million-token samples is never held as a whole.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rmtlib.errors import RmtlibError

IGNORE = -100  # label of a position without loss

Alignment = Literal["left", "right"]


class Tokens(Protocol):
    """Token ids that can be sliced: ``len(x)``, ``x[start:stop] -> array``."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class Labelled(NamedTuple):
    """Where the labels of a segment stand, as indices: selecting by them never makes the host wait for the device.

    `rows_BN`: the text positions of each sample's labels, in order; a sample with fewer than N is filled up with other
    positions. None if more than half of the positions are needed: then all rows are read.
    `which_K`: which of the rows that are read, all samples' in one row, have a label. `targets_K`: those labels.
    """

    rows_BN: Tensor | None
    which_K: Tensor
    targets_K: Tensor

    def select(self, hidden_BND: Tensor) -> Tensor:
        """The labelled rows (K, D) of what `step(..., rows_BN=rows_BN)` gave."""
        return hidden_BND.flatten(0, 1).index_select(0, self.which_K)


class Segment(NamedTuple):
    """One segment of every sample of a batch.

    `labels_BS` holds at each position the token that follows it (also across the segment's border), or IGNORE.
    `lengths_B` counts each sample's real tokens; None if all are full.
    `labelled_at`: see `labelled`.
    """

    input_ids_BS: Tensor
    labels_BS: Tensor
    lengths_B: Tensor | None
    labelled_at: Labelled | None = None

    def to(self, device: torch.device | str) -> "Segment":
        """The same segment on another device. Where its labels stand is looked up before, on the host."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        ids_BS, labels_BS = (x.to(device, non_blocking=True) for x in self[:2])
        rows_BN, which_K, targets_K = self.labelled()
        labelled_at = Labelled(move(rows_BN), *(x.to(device, non_blocking=True) for x in (which_K, targets_K)))
        return Segment(ids_BS, labels_BS, move(self.lengths_B), labelled_at)

    def labelled(self) -> Labelled:
        """Where its labels stand."""
        if self.labelled_at is not None:
            return self.labelled_at
        labelled_BS = self.labels_BS != IGNORE
        count_B, S = labelled_BS.sum(1), labelled_BS.shape[1]
        N = int(count_B.max())
        if 2 * N > S:
            rows_BN, chosen_BN = None, labelled_BS
        else:
            rows_BN = labelled_BS.int().argsort(dim=1, descending=True, stable=True)[:, :N]
            chosen_BN = torch.arange(N, device=count_B.device) < count_B[:, None]
        return Labelled(rows_BN, chosen_BN.flatten().nonzero()[:, 0], self.labels_BS[labelled_BS])


def without_finished(segment: Segment) -> Segment:
    """Of a batch whose longest samples come first, the samples that still have tokens in this segment."""
    if segment.lengths_B is None:
        return segment
    running = int((segment.lengths_B > 0).sum())
    lengths_B = segment.lengths_B[:running]
    full = bool((lengths_B == segment.input_ids_BS.shape[1]).all())
    return Segment(segment.input_ids_BS[:running], segment.labels_BS[:running], None if full else lengths_B)


ROWS_STEP = 8
"""Labelled rows of an even batch are a multiple of it."""


def even(segments: Sequence[Segment]) -> list[Segment]:
    """The same batch in as few shapes as can be, for what is made once for each shape.

    All labelled segments have as many labelled rows, a multiple of `ROWS_STEP`; rows that fill up have the label
    IGNORE, which adds no loss. All segments have lengths, or none has.
    """
    segments = [segment.to("cpu") for segment in segments]
    if any(segment.lengths_B is not None for segment in segments):
        segments = [s._replace(lengths_B=_lengths(s)) for s in segments]
    counts = [_rows(segment) for segment in segments]
    B, S = segments[0].input_ids_BS.shape
    if all(len(segment.labelled().which_K) == B * N for segment, N in zip(segments, counts, strict=True)):
        return segments
    N = -(-max(counts) // ROWS_STEP) * ROWS_STEP
    return [_with_rows(s, N if 2 * N <= S else None) if count else s for s, count in zip(segments, counts, strict=True)]


def _lengths(segment: Segment) -> Tensor:
    B, S = segment.input_ids_BS.shape
    return torch.full((B,), S) if segment.lengths_B is None else segment.lengths_B


def _rows(segment: Segment) -> int:
    """Rows of a sample that are read."""
    rows_BN, which_K, _ = segment.labelled()
    if not len(which_K):
        return 0
    return segment.input_ids_BS.shape[1] if rows_BN is None else rows_BN.shape[1]


def _with_rows(segment: Segment, N: int | None) -> Segment:
    """The same segment with N rows of every sample read, None: all, and each of them labelled, if by IGNORE."""
    labels_BS, rows_BN = segment.labels_BS, None
    targets_BN = labels_BS
    if N is not None:
        rows_BN = (labels_BS != IGNORE).int().argsort(dim=1, descending=True, stable=True)[:, :N]
        targets_BN = labels_BS.gather(1, rows_BN)
    at = Labelled(rows_BN, torch.arange(targets_BN.numel()), targets_BN.flatten())
    return segment._replace(labelled_at=at)


def segment_count(length: int, segment_size: int) -> int:
    """Segments that `length` tokens fill."""
    return -(-length // segment_size)


def cut(
    inputs: Sequence[Tokens],
    labels: Sequence[Tokens] | None,
    segment_size: int,
    alignment: Alignment = "left",
) -> Iterator[Segment]:
    """Yield the segments of a batch in order.

    Args:
        inputs: B sequences of token ids, of any lengths.
        labels: for each sequence the target of every position (see `next_token_labels`), or None for no loss.
        segment_size: S.
        alignment: "left": a sample's last segment is the short one, and shorter samples end early;
            "right": its first segment is the short one, and shorter samples start late.
            (The released code calls them left and right too; its default is left.)
    """
    if segment_size < 1:
        raise RmtlibError(f"segment_size is {segment_size}; it must be at least 1")
    if alignment not in ("left", "right"):
        raise RmtlibError(f"alignment is {alignment!r}; it must be 'left' or 'right'")
    lengths = [len(x) for x in inputs]
    count = max(segment_count(n, segment_size) for n in lengths)
    if set(lengths) == {count * segment_size} and all(isinstance(x, np.ndarray) for x in inputs):
        yield from _cut_evenly(inputs, labels, segment_size)
        return
    for s in range(count):
        ids = np.zeros((len(inputs), segment_size), dtype=np.int64)
        targets = np.full((len(inputs), segment_size), IGNORE, dtype=np.int64)
        real = np.zeros(len(inputs), dtype=np.int64)
        for b, n in enumerate(lengths):
            first = s * segment_size if alignment == "left" else n - (count - s) * segment_size
            start, stop = max(first, 0), min(max(first + segment_size, 0), n)
            if stop <= start:
                continue
            real[b] = stop - start
            ids[b, : stop - start] = inputs[b][start:stop]
            if labels is not None:
                targets[b, : stop - start] = labels[b][start:stop]
        yield Segment(
            torch.from_numpy(ids),
            torch.from_numpy(targets),
            None if (real == segment_size).all() else torch.from_numpy(real),
        )


def _cut_evenly(inputs: Sequence[Tokens], labels: Sequence[Tokens] | None, segment_size: int) -> Iterator[Segment]:
    """`cut` of arrays that fill the same number of segments: many short segments need no loop over samples."""
    ids_BT = torch.from_numpy(np.stack(inputs).astype(np.int64, copy=False))  # type: ignore[arg-type]
    targets_BT = torch.full_like(ids_BT, IGNORE)
    if labels is not None:
        targets_BT = torch.from_numpy(np.stack([x[0 : len(x)] for x in labels]).astype(np.int64, copy=False))
    for ids_BS, targets_BS in zip(ids_BT.split(segment_size, 1), targets_BT.split(segment_size, 1), strict=True):
        yield Segment(ids_BS, targets_BS, None)


def next_token_labels(tokens: np.ndarray, loss_mask: np.ndarray | None = None) -> np.ndarray:
    """Targets for `cut`: at each position the token after it, IGNORE at the end.

    `loss_mask` is True at the *tokens to be predicted*; all others are ignored.
    """
    labels = np.full(len(tokens), IGNORE, dtype=np.int64)
    labels[:-1] = tokens[1:]
    if loss_mask is not None:
        labels[:-1][~loss_mask[1:]] = IGNORE
    return labels
