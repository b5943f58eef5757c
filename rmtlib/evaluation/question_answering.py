"""Exact match on question answering, streamed segment by segment: memory does not grow with the context.

An answer counts if greedy generation would give exactly it, EOS included. That is decided in one pass without
generating: greedy generation gives the answer if and only if, with the answer in place, every answer token and the
EOS is the arg-max of its position (by induction over the tokens). A test compares the two.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.babi import Question
from rmtlib.data.text import Tokenizer
from rmtlib.evaluation.halves import in_halves
from rmtlib.models.generation import SegmentReader, generate
from rmtlib.models.interface import RecurrentModel
from rmtlib.models.reading import read
from rmtlib.segments import IGNORE, Segment, cut, segment_count


@torch.no_grad()
def exact_match(
    model: RecurrentModel,
    samples: Sequence[Any],
    segment_size: int,
    *,
    device: torch.device | str = "cpu",
    before_segment: Callable[[], None] = lambda: None,
) -> Tensor:
    """Which samples have every labelled token predicted.

    Args:
        model: in eval mode.
        samples: one batch, each with `tokens` and `labels` (see `segments.cut`).
        segment_size: S.
        before_segment: called before each segment; an error that it raises ends the reading.

    Returns:
        Bool (B).
    """
    wrong_B = torch.zeros(len(samples), dtype=torch.long, device=device)
    segments = cut([s.tokens for s in samples], [s.labels for s in samples], segment_size)
    count = max(segment_count(len(s.tokens), segment_size) for s in samples)

    def on_device() -> Iterator[Segment]:
        for segment in segments:
            before_segment()
            yield segment.to(device)

    for segment, hidden_BND in read(model, on_device(), model.initial_state(len(samples)), count):
        labelled = segment.labelled()
        if len(labelled.targets_K):
            wrong_K = model.logits(labelled.select(hidden_BND)).argmax(-1) != labelled.targets_K
            wrong_B.index_add_(0, labelled.which_K // hidden_BND.shape[1], wrong_K.long())
    return wrong_B.cpu() == 0


@torch.no_grad()
def exact_match_by_generation(
    model: SegmentReader,
    samples: Sequence[Any],
    segment_size: int,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Which samples' answers, EOS included, greedy generation gives to the letter: bool (B).

    What the released code measures; `exact_match` decides the same in one pass with the answer in place, and is what
    the records use.

    Args:
        samples: of one length, with `tokens` and `labels`; the labelled tokens are the answer, and end the sample.
    """
    labels = samples[0].labels
    answer = int((labels[0 : len(labels)] != IGNORE).sum())
    tokens_BT = torch.stack([torch.as_tensor(s.tokens[0 : len(s.tokens)].astype(np.int64)) for s in samples]).to(device)
    prompt_BT, wanted_BT = tokens_BT[:, :-answer], tokens_BT[:, -answer:]
    made_BT = generate(model, prompt_BT, model.initial_state(len(samples)), segment_size, answer)  # type: ignore[attr-defined]
    return (made_BT == wanted_BT).all(1).cpu()


@torch.no_grad()
def answers_in_text(
    model: SegmentReader,
    samples: Sequence[Any],
    segment_size: int,
    tokenizer: Tokenizer,
    new_tokens: int,
    *,
    device: torch.device | str = "cpu",
) -> list[str]:
    """What the model writes after each question, greedily and up to EOS: for scorers that read text.

    Args:
        samples: each with `tokens` and `prompt_length`.
        new_tokens: at most so many.
    """
    prompts = [torch.as_tensor(s.tokens[0 : s.prompt_length].astype(np.int64)) for s in samples]
    texts = [""] * len(samples)
    for length in {len(prompt) for prompt in prompts}:  # `generate` takes prompts of one length
        which = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        prompt_BT = torch.stack([prompts[i] for i in which]).to(device)
        state = model.initial_state(len(which))  # type: ignore[attr-defined]
        made_Bn = generate(model, prompt_BT, state, segment_size, new_tokens, eos_id=tokenizer.eos_id)
        for i, ids in zip(which, made_Bn.tolist(), strict=True):
            answer = takewhile(lambda token: token != tokenizer.eos_id, ids)
            known = [token for token in answer if token < tokenizer.vocab_size]  # a model may have more rows than that
            texts[i] = tokenizer.decode(known).strip()
    return texts


def answers_correct(
    model: RecurrentModel,
    sample: Callable[[int], Any],
    indices: range,
    segment_size: int,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> list[bool]:
    """`exact_match` of the samples `sample(i)`, i in `indices`, in their order."""
    outcomes: list[bool] = []
    for first in range(0, len(indices), batch_size):
        batch = [sample(i) for i in indices[first : first + batch_size]]
        outcomes += in_halves(lambda some: exact_match(model, some, segment_size, device=device).tolist(), batch)
    return outcomes


def recency_accuracy(task: str, questions: Sequence[Question]) -> float:
    """Exact match of a reader that answers the label mentioned last, leaving out those in the question.

    The plateau on which a model stays that reads the answer's kind and the order of facts, but not who is asked for.
    """
    correct = 0
    for q in questions:
        words = [w.strip(".?") for fact in q.facts for w in fact.split()]
        mentioned = [w for w in words if w in LABELS[task] and w not in q.question]
        correct += bool(mentioned) and mentioned[-1] == q.answer
    return correct / len(questions)


def strict_match(output: str, answer: str) -> bool:
    """The fine-tuning papers' metric: the generated text up to EOS, stripped of blanks, is the answer to the letter.

    `exact_match` compares tokens: with a tokenizer that has blanks in its tokens, " garden" is no "garden" there.
    """
    return output.strip() == answer


ROOMS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
LABELS: dict[str, tuple[str, ...]] = {
    "qa1": ROOMS,
    "qa2": ROOMS,
    "qa3": ROOMS,
    "qa4": ROOMS,
    "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
}
"""The answers that BABILong's scorer looks for in a model's output, by task."""


def babilong_match(task: str, output: str, answer: str, question: str) -> bool:
    """BABILong's published scorer for language models that answer in sentences.

    Lower case, up to the first full stop; correct if the answer is the only label of the task in the output, labels
    named in the question left aside. It differs from `strict_match` both ways: "It is in the garden." counts here
    and not there; an exact answer that the question names itself counts there and not here.
    """
    text = output.lower()
    for end in (".", "<context>", "<example>"):
        text = text.split(end)[0]
    labels = [label.lower() for label in LABELS[task]]
    named = {label for label in labels if label in text and label not in question.lower()}
    wanted = {part.strip() for part in answer.lower().split(",")}
    return named == wanted
