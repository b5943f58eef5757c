"""Accuracy of answers that end a sample: token by token and whole, with or without the true tokens before each.

A sample whose every token is right with teacher forcing is generated so too, by induction over its tokens. So only the
other samples are generated.

Shapes: B batch, T tokens of a sample, S segment length, A positions of the answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rmtlib.evaluation.counted import Decoding
from rmtlib.models.interface import RecurrentModel
from rmtlib.models.reading import read
from rmtlib.segments import IGNORE, cut, segment_count


@torch.no_grad()
def forced_answers(model: RecurrentModel, samples: Sequence[Any], segment_size: int, device: Any = "cpu") -> Tensor:
    """Which tokens of each answer are predicted with the true ones before them: bool (B, A)."""
    segments = cut([s.tokens for s in samples], [s.labels for s in samples], segment_size)
    count = segment_count(len(samples[0].tokens), segment_size)
    correct = []
    here = (segment.to(device) for segment in segments)
    for segment, hidden_BND in read(model, here, model.initial_state(len(samples)), count):
        labelled = segment.labelled()
        if len(labelled.targets_K):
            right_K = model.logits(labelled.select(hidden_BND)).argmax(-1) == labelled.targets_K
            correct.append(right_K.unflatten(0, (len(samples), -1)).cpu())
    return torch.cat(correct, dim=1)


@torch.no_grad()
def generated_answers(
    model: Any, samples: Sequence[Any], segment_size: int, device: Any = "cpu", *, true_starts: bool = False
) -> Tensor:
    """Which tokens of each answer greedy generation gives: bool (B, A).

    Args:
        model: one that reads a segment piece by piece (`models.generation.SegmentReader`).
        samples: of one length, with answers of one length at their ends.
        true_starts: the first token of every segment is the sample's own, as in the released code.
    """
    tokens_BT = torch.stack([torch.as_tensor(s.tokens) for s in samples]).to(device)
    labels_BT = torch.stack([torch.as_tensor(s.labels) for s in samples]).to(device)
    T = tokens_BT.shape[1]
    first = T - int((labels_BT[0] != IGNORE).sum())
    state, right = model.initial_state(len(samples)), []
    for start in range(0, T, segment_size):
        stop = min(start + segment_size, T)
        segment, position = model.open_segment(state), start
        while position < stop:
            end = max(position, min(first, stop - 1)) + 1
            hidden_BnD, segment = model.extend(segment, tokens_BT[:, position:end])
            if end > first:
                predicted_B = model.logits(hidden_BnD[:, -1]).argmax(-1)
                right.append((predicted_B == labels_BT[:, end - 1]).cpu())
                if end < stop or (end < T and not true_starts):
                    tokens_BT[:, end] = predicted_B
            position = end
        if stop < T:
            state = model.close_segment(segment)
    return torch.stack(right, dim=1)


def answers(model: Any, samples: Sequence[Any], segment_size: int, decoding: Decoding, device: Any = "cpu") -> Tensor:
    """Which tokens of each answer are right: bool (B, A)."""
    right_BA = forced_answers(model, samples, segment_size, device)
    wrong = (~right_BA.all(1)).nonzero()[:, 0].tolist()
    if decoding != "forced" and wrong:
        again = [samples[b] for b in wrong]
        right_BA[wrong] = generated_answers(model, again, segment_size, device, true_starts=decoding == "released")
    return right_BA


def all_answers(
    model: Any,
    sample: Callable[[int], Any],
    count: int,
    segment_size: int,
    decoding: Decoding,
    *,
    batch_size: int,
    device: Any = "cpu",
    before_batch: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """`answers` of the samples 0 ... count-1 in batches; `before_batch` hears how many are done."""
    right = []
    for first in range(0, count, batch_size):
        before_batch(first)
        batch = [sample(i) for i in range(first, min(first + batch_size, count))]
        right.append(answers(model, batch, segment_size, decoding, device))
    return torch.cat(right)


def counts(right_BA: Tensor) -> dict[str, Any]:
    """What a record keeps of the answers, see `evaluation.counted`."""
    size = right_BA.shape[1]
    return {
        "n": len(right_BA),
        "samples_by_correct": torch.bincount(right_BA.sum(1), minlength=size + 1).tolist(),
        "correct_by_position": right_BA.sum(0).tolist(),
    }
