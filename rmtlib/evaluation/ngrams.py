"""An n-gram model with modified Kneser-Ney smoothing: what counting alone makes of a text.

No neural row of a language table means much unless it beats this one on the same training text. The smoothing is the
interpolated, modified form of Chen & Goodman (1998, "An empirical study of smoothing techniques for language
modeling", section 3), of Kneser & Ney (1995). With c(hw) the count of word w after the context h of n - 1 words, and h'
the context without its first word,

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + rest(h) p(w | h')        c(h) = sum over w of c(hw)

The discount D is 0, D1, D2 or D3 for a count of 0, 1, 2, or 3 and more, and rest(h), what the discounts of h have left
over, makes the sum over w one. Below the full order, c(hw) is not how often hw occurs but after how many *different*
words it does. Below the single words stands the uniform distribution, so that no symbol is impossible.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from rmtlib.data.streams import Stream
from rmtlib.evaluation.language import Likelihood

CHUNK = 2**20  # tokens scored at a time
FALLBACK = (0.5, 1.0, 1.5)  # D1, D2, D3 if the counts give none: KenLM's (Heafield et al. 2013)


@dataclass(frozen=True)
class Order:
    """All n-grams of one n, U of them, over the C different (n-1)-grams, their contexts.

    An n-gram's id is its index in `keys`. -1 is the id of every n-gram that was not seen; it reads the last entry of
    `share` and `rest`, which is made for it.

    Attributes:
        keys: (U,) context's id x vocabulary size + last token, ascending.
        share: (U + 1,) (c(hw) - D) / c(h) of each n-gram, then 0.
        rest: (C + 1,) what each context leaves to the order below, then 1; also 1 if nothing was seen after it.
    """

    keys: np.ndarray
    share: np.ndarray
    rest: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The ids of n-grams by their keys."""
        ids = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[ids] == keys, ids, -1)


@dataclass(frozen=True)
class NGram:
    """A fitted model; `orders` from single tokens up."""

    vocab_size: int
    orders: tuple[Order, ...]

    @classmethod
    def fit(cls, ids: np.ndarray, order: int, vocab_size: int) -> "NGram":
        """Count the n-grams, n = 1 .. `order`, in a text: (N,) token ids below `vocab_size`.

        Raises:
            ValueError: an order below 1, fewer tokens than `order`, or an id that the vocabulary does not have.
        """
        if not 1 <= order <= len(ids):
            raise ValueError(f"needs order >= 1 and at least as many tokens, not order {order} and {len(ids)} tokens")
        if ids.max() >= vocab_size:
            raise ValueError(f"a vocabulary of {vocab_size} does not have the token id {ids.max()}")
        keys: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        grams = np.zeros(len(ids) + 1, dtype=np.uint32)  # the ids of the empty context
        for n in range(1, order + 1):
            # grams (N - n + 2,): the ids of all (n-1)-grams by the token that they end at
            suffixes = grams[1:]
            of_text = grams[:-1] * np.int64(vocab_size) + ids[n - 1 :]
            distinct, occurrences = np.unique(of_text, return_counts=True)
            grams = np.searchsorted(distinct, of_text).astype(np.uint32)  # faster and leaner than unique's inverse
            if n > 1:  # every different n-gram is one more token that its last n - 1 tokens follow
                suffix_of = np.zeros(len(distinct), dtype=np.uint32)
                suffix_of[grams] = suffixes
                counts.append(np.bincount(suffix_of, minlength=len(keys[-1])))
            keys.append(distinct)
        counts.append(occurrences)
        contexts = [1, *map(len, keys[:-1])]
        return cls(vocab_size, tuple(map(partial(_smoothed, vocab_size), keys, counts, contexts)))

    def nll(self, ids: np.ndarray, before: int) -> np.ndarray:
        """The negative log-likelihood in nats of every token of a text that follows the token `before`: (T,) float64.

        Each is predicted from the order - 1 tokens before it, or from as many as there are from `before` on.
        """
        text = np.concatenate([[before], ids])
        parts = []
        for start in range(1, len(text), CHUNK):
            context = min(start, len(self.orders) - 1)
            parts.append(self.probabilities(text[start - context : start + CHUNK])[context:])
        return -np.log(np.concatenate(parts))

    def probabilities(self, text: np.ndarray) -> np.ndarray:
        """The probability of every token of a text after those before it, of the first one after none: (T,) float64."""
        p = np.full(len(text), 1 / self.vocab_size)
        grams = np.zeros(len(text) + 1, dtype=np.int64)
        for n, order in enumerate(self.orders, start=1):  # as in `fit`
            contexts = grams[:-1]
            grams = order.find(contexts * self.vocab_size + text[n - 1 :])
            p[n - 1 :] = order.share[grams] + order.rest[contexts] * p[n - 1 :]
        return p


def discounts(counts: np.ndarray) -> np.ndarray:
    """(D(0), D1, D2, D3) from how many n-grams have a count of 1, 2, 3 and 4 (Chen & Goodman).

    They exist only if all four counts occur, and serve only if none is negative; else `FALLBACK`.
    """
    have = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    if not have.all():
        return np.array([0.0, *FALLBACK])
    y = have[0] / (have[0] + 2 * have[1])
    discounts = np.arange(1, 4) - np.arange(2, 5) * y * have[1:] / have[:-1]
    return np.array([0.0, *(discounts if (discounts >= 0).all() else FALLBACK)])


def _smoothed(vocab_size: int, keys: np.ndarray, counts: np.ndarray, contexts: int) -> Order:
    context_of = keys // vocab_size
    discount = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context_of, counts, minlength=contexts)
    discounted = np.bincount(context_of, discount, minlength=contexts)
    rest = np.where(total > 0, discounted / np.maximum(total, 1), 1.0)
    share = (counts - discount) / np.maximum(total, 1)[context_of]
    return Order(keys, np.append(share, 0.0), np.append(rest, 1.0))


def ngram_likelihood(train: Stream, vocab_size: int, order: int, *streams: Stream) -> list[Likelihood]:
    """The likelihoods of whole streams under a model of the training stream."""
    model = NGram.fit(train.ids, order, vocab_size)
    return [Likelihood(float(model.nll(stream.ids, stream.before).sum()), len(stream)) for stream in streams]
