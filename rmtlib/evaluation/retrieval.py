"""Retrieval instead of memory: the sentences of a context that look most like the question, for a model with a window.

Two rankings of the sentences of one context, with the question as the query: BM25 (Robertson and Zaragoza 2009) by
bm25s, and the cosine between mean-pooled states of a backbone (not of an encoder that was trained for retrieval).
What is kept stays in its order. The papers' retrieval baseline is a large language model with its own retriever
(BABILong, section 3.2); this one shows what finding words alone can do for a small reader.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from rmtlib.data.text import Tokenizer
from rmtlib.models.interface import RecurrentModel
from rmtlib.segments import IGNORE, cut

ENDS = (".", "?", "!")  # of a sentence


@dataclass(frozen=True)
class Retrieved:
    """A sample whose context is cut down to a window: token ids and the target of each position."""

    tokens: np.ndarray
    labels: np.ndarray

    @property
    def prompt_length(self) -> int:
        """Tokens up to and including GEN."""
        return len(self.labels) - int((self.labels != IGNORE).sum())


Ranking = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
"""The scores of sentences for a question, all as token ids."""


def retrieve(sample: Any, tokenizer: Tokenizer, window: int, ranking: Ranking | None = None) -> Retrieved:
    """The sample with the sentences of its context that are ranked highest, as many as fit into `window` tokens.

    Args:
        sample: with `tokens`, `answers` (spans), `asked_at` and `question`, see `data.babilong.Sample`; its last answer
            is asked.
        window: tokens of context, question and answer together.
        ranking: None: by BM25.

    Of sentences with equal scores the later one is kept.
    """
    tokens = np.asarray(sample.tokens[0 : len(sample.tokens)])
    first, last = sample.answers[-1]
    context, asked = tokens[: sample.asked_at], tokens[sample.asked_at : last]
    pieces = sentences(context, tokenizer)
    if ranking is None:
        scores = bm25([tokenizer.decode(piece) for piece in pieces], sample.question.question)
    else:
        scores = ranking(pieces, tokens[sample.asked_at : first - 1])  # without GEN
    room, chosen = window - len(asked), []
    for i in sorted(range(len(pieces)), key=lambda i: (-scores[i], -i)):
        if len(pieces[i]) <= room:
            chosen.append(i)
            room -= len(pieces[i])
    kept = np.concatenate([*(pieces[i] for i in sorted(chosen)), asked]).astype(np.int64)
    labels = np.full(len(kept), IGNORE, dtype=np.int64)
    answer = last - first
    labels[-answer - 1 : -1] = kept[-answer:]
    return Retrieved(kept, labels)


def sentences(context: np.ndarray, tokenizer: Tokenizer) -> list[np.ndarray]:
    """A context cut after each full stop, question mark and exclamation mark."""
    ending = _ends(tokenizer)  # type: ignore[arg-type]  # tokenisers are compared by identity
    ends = np.flatnonzero(np.isin(context, ending)) + 1
    return [piece for piece in np.split(context, ends) if len(piece)]


def bm25(texts: Sequence[str], query: str) -> np.ndarray:
    """The score of every text for the query, without stop words."""
    bm25s = _bm25s()
    words, (asked,) = (
        bm25s.tokenize(list(given), stopwords="en", return_ids=False, show_progress=False) for given in (texts, [query])
    )
    if not any(words):
        return np.zeros(len(texts))
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return np.asarray(index.get_scores(asked))


def _bm25s() -> Any:
    """The package without JAX, which it would start for something else, and which takes three quarters of a GPU."""
    hide = "jax" not in sys.modules
    if hide:
        sys.modules["jax"] = None  # type: ignore[assignment]  # for `import`: there is none
    try:
        return importlib.import_module("bm25s")
    finally:
        if hide:
            del sys.modules["jax"]


@dataclass(frozen=True)
class MeanPooled:
    """Cosine between the means of a model's outputs over each sentence and over the question.

    Attributes:
        model: in eval mode; its weights must not change, as samples are functions of their index alone.
        batch: sentences read at once.
        longest: tokens of a sentence; a longer one is judged by its beginning.
    """

    model: RecurrentModel
    batch: int = 128
    longest: int = 256

    def __call__(self, pieces: Sequence[np.ndarray], question: np.ndarray) -> np.ndarray:
        """The score of every sentence, between -1 and 1."""
        states_PD = self.states([*pieces, question])
        return F.cosine_similarity(states_PD[:-1], states_PD[-1:]).numpy()

    @torch.no_grad()
    def states(self, texts: Sequence[np.ndarray]) -> torch.Tensor:
        """The mean output over each text: (texts, D), in float32."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        means = []
        device = next(self.model.parameters()).device  # type: ignore[attr-defined]
        for first in range(0, len(texts), self.batch):
            part = [texts[i][: self.longest] for i in order[first : first + self.batch]]
            (segment,) = (each.to(device) for each in cut(part, None, max(map(len, part))))
            hidden_BSD, _ = self.model.step(
                segment.input_ids_BS, self.model.initial_state(len(part)), segment.lengths_B, write=False
            )
            lengths_B = torch.tensor([len(text) for text in part], device=device)
            real_BS1 = (torch.arange(hidden_BSD.shape[1], device=device) < lengths_B[:, None])[..., None]
            means.append(((hidden_BSD * real_BS1).sum(1) / lengths_B[:, None]).float().cpu())
        return torch.cat(means)[torch.tensor(order).argsort()]


@lru_cache(maxsize=8)
def _ends(tokenizer: Any) -> np.ndarray:
    """The ids whose text ends a sentence."""
    return np.array([i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).strip().endswith(ENDS)])
