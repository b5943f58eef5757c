"""Retrieval instead of memory: the sentences of a context that look most like the question, for a model with a window.

BM25 (Robertson and Zaragoza 2009) by bm25s, over the sentences of one context, with the question as the query. What is
kept stays in its order. The papers' retrieval baseline is a large language model with its own retriever (BABILong,
section 3.2); this one shows what finding words alone can do for a small reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rmtlib.data.text import Tokenizer
from rmtlib.segments import IGNORE

ENDS = (".", "?", "!")  # of a sentence


@dataclass(frozen=True)
class Retrieved:
    """A sample whose context is cut down to a window: token ids and the target of each position."""

    tokens: np.ndarray
    labels: np.ndarray


def retrieve(sample: Any, tokenizer: Tokenizer, window: int) -> Retrieved:
    """The sample with the sentences of its context that BM25 ranks highest, as many as fit into `window` tokens.

    Args:
        sample: with `tokens`, `answers` (spans) and `question`, see `data.babilong.Sample`; its last answer is asked.
        window: tokens of context, question and answer together.

    Of sentences with equal scores the later one is kept.
    """
    tokens = np.asarray(sample.tokens[0 : len(sample.tokens)])
    question = len(tokenizer.encode(sample.question.question)) + 1  # and GEN
    first, last = sample.answers[-1]
    context, asked = tokens[: first - question], tokens[first - question : last]
    pieces = sentences(context, tokenizer)
    scores = bm25([tokenizer.decode(piece) for piece in pieces], sample.question.question)
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
    import bm25s

    words, (asked,) = (
        bm25s.tokenize(list(given), stopwords="en", return_ids=False, show_progress=False) for given in (texts, [query])
    )
    if not any(words):
        return np.zeros(len(texts))
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return np.asarray(index.get_scores(asked))


@lru_cache(maxsize=8)
def _ends(tokenizer: Any) -> np.ndarray:
    """The ids whose text ends a sentence."""
    return np.array([i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).strip().endswith(ENDS)])
