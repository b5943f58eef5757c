"""Retrieval instead of memory: which sentences are kept, in which order, and that the answer never leaks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rmtlib.data.babi import simulate
from rmtlib.data.babilong import SampleBuilder
from rmtlib.data.text import Background, WordTokenizer
from rmtlib.evaluation.retrieval import MeanPooled, bm25, retrieve, sentences
from rmtlib.models.config import DecoderConfig, RMTConfig
from rmtlib.models.registry import build
from rmtlib.segments import IGNORE, next_token_labels

BOOK = (
    "It was a long day for the old man and his dog. They sat near the river until the sun had gone. Nobody came by "
    "that night, as far as they could tell. The water was cold and dark! Would it be warm again? They did not know."
)
QUESTIONS = simulate("qa1", 60, 0, "test")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    words = [text for q in QUESTIONS for text in (*q.facts, q.question, q.answer)]
    tokenizer = WordTokenizer.build(words, [BOOK], 150)
    background = Background.build([BOOK * 20], tokenizer, tmp_path_factory.mktemp("tokens"), lead=" ")
    return SampleBuilder(QUESTIONS, background, tokenizer, stream="test", seed=1)


def test_a_context_is_cut_at_the_ends_of_sentences_and_nothing_is_lost(builder):
    sample = builder.build(3, 300)
    context = sample.tokens[0:300]
    pieces = sentences(context, builder.tokenizer)
    assert np.array_equal(np.concatenate(pieces), context)
    assert all(builder.tokenizer.decode(piece[-1:]) in ".?!" for piece in pieces[:-1])


def test_jax_is_not_started_for_bm25(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("print('started')")
    (tmp_path / "jax" / "lax.py").write_text("top_k = max")
    code = "from rmtlib.evaluation.retrieval import bm25; print(*bm25(['a dog', 'a cat'], 'dog') > 0); import jax"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "started"]  # by the last import


def test_bm25_prefers_rare_words_of_the_query_and_ignores_stop_words():
    scores = bm25(
        ["the cat sat there", "a dog is in the garden", "the the the", "garden of the cat"], "Where is the dog?"
    )
    assert scores.argmax() == 1 and scores[2] == 0
    assert bm25(["", "the"], "dog").tolist() == [0, 0]


@pytest.mark.parametrize("window", [40, 64])
@pytest.mark.parametrize("index", range(0, 60, 7))
def test_what_is_kept_fits_is_in_order_and_ends_with_the_question_and_its_answer(builder, index, window):
    sample = builder.build(index, 400)
    found = retrieve(sample, builder.tokenizer, window)
    tokens = np.asarray(sample.tokens[0 : len(sample.tokens)])
    assert len(found.tokens) <= window
    first, last = sample.answers[-1]
    tail = tokens[400:last]
    assert np.array_equal(found.tokens[-len(tail) :], tail)
    labels = np.asarray(sample.labels[0 : len(tokens)])
    assert np.array_equal(found.labels[found.labels != IGNORE], labels[labels != IGNORE])
    loss = np.arange(len(found.tokens)) >= len(found.tokens) - (last - first)
    assert np.array_equal(found.labels, next_token_labels(found.tokens, loss))
    kept = [piece.tolist() for piece in sentences(found.tokens[: -len(tail)], builder.tokenizer)]
    rest = iter(piece.tolist() for piece in sentences(tokens[:400], builder.tokenizer))
    assert kept and all(piece in rest for piece in kept)  # a part of the context's sentences, in their order


def test_the_sentences_about_the_person_asked_for_are_found(builder):
    right = 0
    for index in range(40):
        sample = builder.build(index, 400)
        found = builder.tokenizer.decode(retrieve(sample, builder.tokenizer, 64).tokens)
        support = builder.tokenizer.decode(
            builder.tokenizer.encode(sample.question.facts[sample.question.supporting[0]])
        )
        right += support in found
    assert right >= 38


def test_of_equal_sentences_the_later_ones_are_kept(builder):
    question = QUESTIONS[0]
    person = question.question.removeprefix("Where is ").rstrip("?")
    text = "".join(f" {person} went to the {room}." for room in ("kitchen", "office", "garden"))
    context = builder.tokenizer.encode(text)
    asked, prompt = builder._ask(question)
    tokens = np.concatenate([context, asked])

    class One:
        pass

    one = One()
    one.tokens, one.question, one.asked_at = tokens, question, len(context)
    one.answers = ((len(context) + prompt, len(tokens)),)
    size = len(context) // 3
    kept = builder.tokenizer.decode(retrieve(one, builder.tokenizer, len(asked) + 2 * size).tokens)
    assert "office" in kept and "garden ." in kept and "kitchen ." not in kept


class MeanOfEmbeddings:
    """A model by hand: an output is the token's one-hot vector."""

    def initial_state(self, batch):
        return batch

    def step(self, input_ids_BS, state, lengths_B=None, *, write=True, rows_BN=None):
        return torch.nn.functional.one_hot(input_ids_BS, 150).double(), state

    def parameters(self):
        yield torch.zeros(1)


def test_mean_pooled_states_rank_by_cosine_whatever_the_batch_and_the_padding():
    pieces, question = [np.array([1, 2]), np.array([3, 3, 3, 4]), np.array([5])], np.array([3, 4])
    expected = [0.0, (3 * 1 + 1 * 1) / (10 * 2) ** 0.5, 0.0]
    for batch in (1, 2, 128):
        assert MeanPooled(MeanOfEmbeddings(), batch)(pieces, question) == pytest.approx(expected)


def test_a_models_states_do_not_depend_on_the_batch():
    model = build(RMTConfig(DecoderConfig(150, 12, 2, 3, positions="rotary"), 0), seed=0).double().eval()
    texts = [np.arange(n) for n in (3, 11, 7, 1)]
    whole, alone = MeanPooled(model).states(texts), torch.cat([MeanPooled(model).states([text]) for text in texts])
    torch.testing.assert_close(whole, alone)
    expected, _ = model.step(torch.arange(7)[None], model.initial_state(1))
    torch.testing.assert_close(whole[2], expected[0].mean(0).float())


def test_dense_retrieval_keeps_the_nearest_sentences_and_the_question(builder):
    sample = builder.build(5, 400)
    found = retrieve(sample, builder.tokenizer, 48, MeanPooled(MeanOfEmbeddings()))
    tokens = np.asarray(sample.tokens[0 : len(sample.tokens)])
    tail = tokens[sample.asked_at :]
    assert len(found.tokens) <= 48 and np.array_equal(found.tokens[-len(tail) :], tail)
    pieces = sentences(tokens[: sample.asked_at], builder.tokenizer)
    scores = MeanPooled(MeanOfEmbeddings())(pieces, tokens[sample.asked_at : sample.answers[-1][0] - 1])
    kept = [piece.tolist() for piece in sentences(found.tokens[: -len(tail)], builder.tokenizer)]
    best = max(range(len(pieces)), key=lambda i: (scores[i], i))
    assert pieces[best].tolist() in kept and scores.max() > 0
