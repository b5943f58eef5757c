"""Exact match on question answering, streamed segment by segment: memory does not grow with the context.

An answer counts if greedy generation would give exactly it, EOS included. That is decided in one pass without
generating: greedy generation gives the answer if and only if, with the answer in place, every answer token and the
EOS is the arg-max of its position (by induction over the tokens). A test compares the two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rmtlib.data.babi import Question
from rmtlib.segments import IGNORE, cut
from rmtlib.training.bptt import RecurrentModel


@torch.no_grad()
def exact_match(
    model: RecurrentModel,
    samples: Sequence[Any],
    segment_size: int,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Which samples have every labelled token right.

    Args:
        model: in eval mode.
        samples: one batch, each with `tokens` and `labels` (see `segments.cut`).
        segment_size: S.

    Returns:
        Bool (B).
    """
    right_B = torch.ones(len(samples), dtype=torch.bool, device=device)
    state = model.initial_state(len(samples))
    for segment in cut([s.tokens for s in samples], [s.labels for s in samples], segment_size):
        labelled = bool((segment.labels_BS != IGNORE).any())  # on the host, before anything waits for the device
        segment = segment.to(device)
        hidden_BSD, state = model.step(segment.input_ids_BS, state, segment.lengths_B)
        if labelled:
            rows_BS = segment.labels_BS != IGNORE
            wrong_N = model.logits(hidden_BSD[rows_BS]).argmax(-1) != segment.labels_BS[rows_BS]
            right_B[rows_BS.nonzero()[:, 0][wrong_N]] = False
    return right_B.cpu()


def count_right(
    model: RecurrentModel,
    sample: Callable[[int], Any],
    indices: range,
    segment_size: int,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> int:
    """How many of the samples `sample(i)`, i in `indices`, the model answers exactly."""
    right = 0
    for first in range(0, len(indices), batch_size):
        batch = [sample(i) for i in indices[first : first + batch_size]]
        right += int(exact_match(model, batch, segment_size, device=device).sum())
    return right


def recency_accuracy(task: str, questions: Sequence[Question]) -> float:
    """Exact match of a reader that answers the label mentioned last, leaving out those in the question.

    The plateau on which a model stays that reads the answer's kind and the order of facts, but not who is asked for.
    """
    right = 0
    for q in questions:
        words = [w.strip(".?") for fact in q.facts for w in fact.split()]
        mentioned = [w for w in words if w in LABELS[task] and w not in q.question]
        right += bool(mentioned) and mentioned[-1] == q.answer
    return right / len(questions)


def strict_match(output: str, answer: str) -> bool:
    """The fine-tuning papers' metric: the generated text up to EOS is the answer, to the letter."""
    return output == answer


PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
LABELS: dict[str, tuple[str, ...]] = {
    "qa1": PLACES,
    "qa2": PLACES,
    "qa3": PLACES,
    "qa4": PLACES,
    "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
}
"""The answers that BABILong's scorer looks for in a model's output, by task."""


def babilong_match(task: str, output: str, answer: str, question: str) -> bool:
    """BABILong's published scorer for language models that answer in sentences.

    Lower case, up to the first full stop; right if the answer is the only label of the task in the output, labels
    named in the question left aside. It differs from `strict_match` both ways: "It is in the garden." counts here
    and not there; an exact answer that the question names itself counts there and not here.
    """
    text = output.lower()
    for end in (".", "<context>", "<example>"):
        text = text.split(end)[0]
    labels = [label.lower() for label in LABELS[task]]
    found = {label for label in labels if label in text and label not in question.lower()}
    wanted = {part.strip() for part in answer.lower().split(",")}
    return found == wanted
