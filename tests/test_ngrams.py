"""The n-gram model: a toy by hand, the equations in plain dictionaries, and distributions that sum to one."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from rmtlib.data.streams import Stream
from rmtlib.evaluation import ngrams
from rmtlib.evaluation.ngrams import NGram, discounts, ngram_likelihood

A, B, C = range(3)


def test_a_toy_by_hand():
    """The text a b a b b, vocabulary a b c, n = 2.

    Too few counts for discounts: D1 = 0.5, D2 = 1, D3 = 1.5.
    Pairs: ab 2, ba 1, bb 1; after a: 2, after b: 2.
    Single words by what stands before them: a after b (1), b after a, b (2), c never; 3 in all.
        rest = (0.5 + 1) / 3 = 1/2;  p(a) = 0.5/3 + 1/2 1/3 = 1/3;  p(b) = 1/3 + 1/6 = 1/2;  p(c) = 1/6
    After a: rest = 1/2;  p(b|a) = 1/2 + 1/2 1/2 = 3/4;  p(a|a) = 1/2 1/3 = 1/6;  p(c|a) = 1/12
    After b: rest = (0.5 + 0.5) / 2 = 1/2;  p(a|b) = 1/4 + 1/6 = 5/12;  p(b|b) = 1/4 + 1/4 = 1/2;  p(c|b) = 1/12
    After c, which was never seen: the single words'.
    """
    model = NGram.fit(np.array([A, B, A, B, B]), 2, vocab_size=3)
    table = {A: [1 / 6, 3 / 4, 1 / 12], B: [5 / 12, 1 / 2, 1 / 12], C: [1 / 3, 1 / 2, 1 / 6]}
    for before, expected in table.items():
        found = [math.exp(-model.nll(np.array([token]), before)[0]) for token in (A, B, C)]
        assert found == pytest.approx(expected, abs=1e-15)
    text = model.nll(np.array([B, B, C]), before=A)
    assert text == pytest.approx([-math.log(p) for p in (3 / 4, 1 / 2, 1 / 12)], abs=1e-15)


def test_discounts_by_hand():
    """8 n-grams seen once, 4 twice, 2 three times, 1 four times: Y = 8 / (8 + 2 4) = 1/2.

    D1 = 1 - 2 Y 4/8 = 1/2;  D2 = 2 - 3 Y 2/4 = 5/4;  D3 = 3 - 4 Y 1/2 = 2
    """
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] + [9] * 5 + [0])
    assert discounts(counts) == pytest.approx([0, 0.5, 1.25, 2])
    assert discounts(np.array([1, 1, 2, 3])) == pytest.approx([0, 0.5, 1, 1.5])  # no count of 4
    assert discounts(np.array([1, 2, 3, 3, 3, 4])) == pytest.approx([0, 0.5, 1, 1.5])  # D2 would be -1


class Naive:
    """The equations of the module's head, in dictionaries of tuples."""

    def __init__(self, text: list[int], order: int, vocab_size: int):
        self.order, self.vocab_size = order, vocab_size
        self.counts: dict[int, Counter] = {order: Counter(zip(*(text[i:] for i in range(order)), strict=False))}
        for n in range(1, order):
            longer = {tuple(text[i : i + n + 1]) for i in range(len(text) - n)}
            self.counts[n] = Counter(gram[1:] for gram in longer)
        self.after: dict[tuple, dict[int, int]] = defaultdict(dict)
        for counts in self.counts.values():
            for gram, count in counts.items():
                self.after[gram[:-1]][gram[-1]] = count
        self.discount = {n: self._discounts(counts) for n, counts in self.counts.items()}

    @staticmethod
    def _discounts(counts: Counter) -> tuple:
        n1, n2, n3, n4 = (sum(count == k for count in counts.values()) for k in (1, 2, 3, 4))
        if n1 and n2 and n3 and n4:
            y = n1 / (n1 + 2 * n2)
            found = (0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            if min(found) >= 0:
                return found
        return (0, 0.5, 1, 1.5)

    def p(self, word: int, context: tuple) -> float:
        lower = self.p(word, context[1:]) if context else 1 / self.vocab_size
        seen = self.after.get(context)
        if not seen:
            return lower
        discount = self.discount[len(context) + 1]
        total, rest = sum(seen.values()), sum(discount[min(c, 3)] for c in seen.values())
        count = seen.get(word, 0)
        return (count - discount[min(count, 3)] + rest * lower) / total

    def nll(self, text: list[int], before: int) -> list[float]:
        text = [before, *text]
        return [-math.log(self.p(text[i], tuple(text[max(i - self.order + 1, 0) : i]))) for i in range(1, len(text))]


def markov(seed: int, length: int, vocab_size: int) -> np.ndarray:
    """A text in which the last two tokens say much about the next; the last symbol of the vocabulary never occurs."""
    rng = np.random.default_rng(seed)
    text = [0, 0]
    while len(text) < length:
        likely = (3 * text[-1] + text[-2]) % (vocab_size - 1)
        text.append(likely if rng.random() < 0.7 else int(rng.integers(vocab_size - 1)))
    return np.array(text, dtype=np.uint16)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("vocab_size", "length"), [(3, 7), (6, 400), (40, 3000)])
def test_it_is_the_equations(order, vocab_size, length, monkeypatch):
    monkeypatch.setattr(ngrams, "CHUNK", 97)  # pieces must not show
    train, test = markov(0, length, vocab_size), markov(1, 500, vocab_size)
    test[::50] = vocab_size - 1  # a symbol that was never seen, in contexts too
    found = NGram.fit(train, order, vocab_size).nll(test, before=1)
    naive = Naive(train.tolist(), order, vocab_size)
    assert found == pytest.approx(naive.nll(test.tolist(), before=1), rel=1e-12)
    if length == 3000 and order > 1:
        assert naive.discount[order] != (0, 0.5, 1, 1.5)  # the discounts of the counts were compared


@pytest.mark.parametrize("context", [[0, 0], [2, 1], [1, 5], [5, 5], [5]], ids=str)
def test_probabilities_sum_to_one_after_seen_and_unseen_contexts(context):
    model = NGram.fit(markov(0, 2000, 6), 3, vocab_size=6)
    p = [model.probabilities(np.array([*context, token]))[-1] for token in range(6)]
    assert sum(p) == pytest.approx(1, abs=1e-12)
    assert min(p) > 0


def test_longer_contexts_help_and_the_likelihood_sums_whole_streams():
    train, test = Stream(markov(0, 5000, 10), 0), Stream(markov(1, 2000, 10), 3)
    second, third = (ngram_likelihood(train, 10, order, test, test.head(500)) for order in (2, 3))
    assert third[0].perplexity < second[0].perplexity / 1.5
    assert [x.tokens for x in third] == [2000, 500]
    model = NGram.fit(train.ids, 3, 10)
    assert third[0].nats == pytest.approx(model.nll(test.ids, 3).sum())


def test_impossible_texts_are_refused():
    with pytest.raises(ValueError, match="at least as many tokens, not order 4 and 3 tokens"):
        NGram.fit(np.array([0, 1, 0]), 4, vocab_size=2)
    with pytest.raises(ValueError, match="order >= 1"):
        NGram.fit(np.array([0, 1, 0]), 0, vocab_size=2)
    with pytest.raises(ValueError, match="vocabulary of 2 does not have the token id 2"):
        NGram.fit(np.array([0, 2, 0]), 2, vocab_size=2)
