"""Questions along a story: the tracker agrees with bAbI's own answers, and what is asked has one answer."""

import re

import numpy as np
import pytest

from rmtlib.data.babi import simulate
from rmtlib.data.babilong import SampleBuilder
from rmtlib.data.text import WordTokenizer
from rmtlib.data.tracking import Tracker, tracked_questions
from rmtlib.errors import RmtlibError


def told(*facts: str) -> Tracker:
    tracker = Tracker()
    for fact in facts:
        tracker.read(fact)
    return tracker


def answer(tracker: Tracker, question: str) -> str | None:
    if found := re.fullmatch(r"Where was the (\w+) before the (\w+)\?", question):
        return tracker.before(*found.groups())
    found = re.fullmatch(r"Where is (?:the )?(\w+)\?", question)
    assert found, question
    return tracker.where(found[1])


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_it_gives_the_answer_of_every_babi_question(task, split):
    for question in simulate(task, 1500, 3, split):
        assert answer(told(*question.facts), question.question) == question.answer


def test_objects_go_where_their_holder_goes_and_stay_where_they_are_dropped():
    tracker = told("Mary went to the kitchen.", "Mary got the milk there.", "Mary moved to the office.")
    assert tracker.where("milk") == tracker.where("Mary") == "office"
    for fact in ("Mary put down the milk.", "Mary travelled to the garden.", "John went back to the hallway."):
        tracker.read(fact)
    assert (tracker.where("milk"), tracker.where("Mary")) == ("office", "garden")
    assert tracker.before("milk", "office") == "kitchen"
    assert tracker.before("milk", "kitchen") is None and tracker.before("milk", "garden") is None
    assert tracker.before("football", "kitchen") is None


def test_a_gift_goes_with_its_receiver():
    tracker = told("Bill went to the kitchen.", "Fred went to the kitchen.", "Bill took the apple there.")
    for fact in ("Bill handed the apple to Fred.", "Fred moved to the garden.", "Bill moved to the office."):
        tracker.read(fact)
    assert tracker.where("apple") == "garden"


def test_what_nobody_told_has_no_place():
    tracker = told("Daniel grabbed the apple.", "John moved to the office.")
    assert tracker.where("apple") is None and tracker.where("Daniel") is None
    tracker.read("Daniel went to the garden.")
    assert tracker.where("apple") == "garden" and tracker.before("apple", "garden") is None


def test_a_statement_of_another_world_is_refused():
    with pytest.raises(RmtlibError, match="cannot track 'The office is north of the kitchen.'"):
        told("The office is north of the kitchen.")


@pytest.mark.parametrize("before", [False, True])
def test_questions_have_the_answer_of_the_story_up_to_them(before):
    asked_before, people, things = 0, 0, 0
    for number, question in enumerate(simulate("qa3", 40, 0, "train")):
        asked = tracked_questions(question.facts, 12, np.random.default_rng(number), before=before)
        assert len(asked) <= 12 and [n for n, _, _ in asked] == sorted(n for n, _, _ in asked)
        for facts, text, expected in asked:
            assert answer(told(*question.facts[:facts]), text) == expected
            asked_before += "before" in text
            things += "Where is the" in text
            people += bool(re.match(r"Where is [A-Z]", text))
    assert people and things and (asked_before > 0) == before


def test_training_samples_ask_them_after_their_facts_and_tests_ask_none():
    questions = simulate("qa2", 60, 0, "train")
    words = [text for q in questions for text in (*q.facts, q.question, q.answer)]
    tokenizer = WordTokenizer.build(words, [], 200)
    plain = SampleBuilder(questions, None, tokenizer, stream="train", seed=1)
    tracked = SampleBuilder(questions, None, tokenizer, stream="train", seed=1, tracked_questions=8)
    more = 0
    for index in range(30):
        sample, without = tracked.build(index, 400), plain.build(index, 400)
        assert sample.question == without.question and len(without.answers) == 1
        for first, last in sample.answers[:-1]:
            text = tokenizer.decode(sample.tokens[0 : first - 1]).rpartition("where")[2].replace(" ?", "?")
            before = [fact for at, fact in zip(sample.facts_at, sample.question.facts, strict=True) if at < first]
            given = tokenizer.decode(sample.tokens[first : last - 1])
            assert answer(told(*(fact.lower() for fact in before)), f"Where{text}") == given
            more += 1
    assert more > 100
