"""BABILong samples: exact lengths, facts in order at uniform gaps, seeds, slicing at any length."""

import errno
import json
import os
import tracemalloc

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtlib.data.babi import parse_questions, simulate
from rmtlib.data.babilong import JOINS, SampleBuilder
from rmtlib.data.books import synthetic_text
from rmtlib.data.sources import fetch, state
from rmtlib.data.text import MIN_SENTENCE_TOKENS, Background, GPT2Tokenizer, WordTokenizer, split_sentences
from rmtlib.errors import RmtlibError
from rmtlib.segments import IGNORE, cut

QUESTIONS = simulate("qa1", 200, seed=0, split="train")
TEXTS = [" ".join(synthetic_text(seed, 200)) for seed in range(3)]
WORDS = [text for q in QUESTIONS for text in (*q.facts, q.question, q.answer)]
TOKENIZER = WordTokenizer.build(WORDS, TEXTS, 500)


@pytest.fixture(scope="session")
def background(tmp_path_factory) -> Background:
    return Background.build(TEXTS, TOKENIZER, tmp_path_factory.mktemp("tokens"))


def builder(background, **kwargs) -> SampleBuilder:
    options = dict(stream="train", seed=0) | kwargs
    return SampleBuilder(QUESTIONS, background, TOKENIZER, **options)


def parts(sample):
    """(context, question with GEN, answer with EOS) of a sample with one question."""
    ids = sample.tokens[:]
    asked = TOKENIZER.encode(sample.question.question)
    return (
        ids[: sample.prompt_length - len(asked) - 1],
        ids[len(ids) - len(asked) - 3 : sample.prompt_length],
        ids[sample.prompt_length :],
    )


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 5000), size=st.integers(150, 3000))
def test_a_sample_is_context_question_gen_answer_eos(background, index, size):
    sample = builder(background).build(index, size)
    context, asked, answer = parts(sample)
    assert len(context) == size  # to the token
    assert asked.tolist() == [*TOKENIZER.encode(sample.question.question), TOKENIZER.gen_id]
    assert answer.tolist() == [*TOKENIZER.encode(sample.question.answer), TOKENIZER.eos_id]
    facts = [TOKENIZER.encode(fact) for fact in sample.question.facts]
    assert list(sample.facts_at) == sorted(sample.facts_at)  # the order is kept
    for at, fact in zip(sample.facts_at, facts, strict=True):
        assert context[at : at + len(fact)].tolist() == fact.tolist()


@settings(max_examples=30, deadline=None)
@given(index=st.integers(0, 5000), size=st.integers(150, 1500))
def test_what_is_left_without_the_facts_is_whole_sentences_of_books(background, index, size):
    """Facts stand between sentences, never in one; only the last sentence is cut."""
    sample = builder(background).build(index, size)
    context, *_ = parts(sample)
    keep = np.ones(size, dtype=bool)
    for at, fact in zip(sample.facts_at, sample.question.facts, strict=True):
        keep[at : at + len(TOKENIZER.encode(fact))] = False
    noise, starts = context[keep], {0}
    sentences = {tuple(TOKENIZER.encode(s)) for text in TEXTS for s in split_sentences(text)}
    position = 0
    while position < len(noise):
        match = next((s for s in sentences if tuple(noise[position : position + len(s)]) == s), None)
        if match is None:
            assert any(tuple(noise[position:]) == s[: len(noise) - position] for s in sentences)
            break
        position += len(match)
        starts.add(position)
    before = np.cumsum(keep) - keep  # noise tokens before each place
    assert all(int(before[at]) in starts or int(before[at]) == len(noise) for at in sample.facts_at)


def test_facts_fall_uniformly_over_the_context(background):
    make = builder(background)
    places = np.concatenate([np.array(make.build(i, 2000).facts_at) / 2000 for i in range(400)])
    tenths = np.histogram(places, bins=10, range=(0, 1))[0] / len(places)
    assert len(places) > 1500 and (abs(tenths - 0.1) < 0.03).all()


def test_facts_share_gaps_with_replacement(background):
    make = builder(background)
    lengths = [len(TOKENIZER.encode(f)) for f in QUESTIONS[0].facts]
    assert lengths
    neighbours = [
        int(b - a) in (6, 7)
        for i in range(300)
        for a, b in zip(make.build(i, 200).facts_at, make.build(i, 200).facts_at[1:], strict=False)
    ]
    assert any(neighbours)


def test_start_and_end_percentages(background):
    make = builder(background, task_start_pct=0.5, task_end_pct=0.9)
    for i in range(100):
        sample = make.build(i, 1000)
        assert sample.facts_at[0] >= 500 and sample.facts_at[-1] < 900
    with pytest.raises(RmtlibError, match="0 <= start < end <= 1"):
        builder(background, task_start_pct=0.9, task_end_pct=0.5)


def test_samples_depend_on_seed_stream_and_index_alone(background):
    def ids(i, size=400, **kwargs):
        return builder(background, **kwargs).build(i, size).tokens[:].tolist()

    shuffled = {i: ids(i) for i in (7, 3, 5)}
    assert all(shuffled[i] == ids(i) for i in (3, 5, 7))  # order of asking, batch, worker: no influence
    assert ids(3) != ids(3, seed=1) and ids(3) != ids(3, stream="validation")
    epoch = [builder(background).question_of(i, 400) for i in range(len(QUESTIONS))]
    assert set(epoch) == set(QUESTIONS) and epoch != QUESTIONS
    assert [builder(background).question_of(i + len(QUESTIONS), 400) for i in range(len(QUESTIONS))] != epoch
    assert [builder(background, stream="test").question_of(i, 400) for i in range(len(QUESTIONS))] == list(QUESTIONS)
    assert ids(3) != ids(3 + len(QUESTIONS))  # each pass draws new noise


def test_later_passes_have_new_questions_if_there_are_any(background):
    """Samples stay functions of seed, stream and index: whatever was built before."""
    make = builder(background, new_questions=lambda number: simulate("qa1", 30, number, "train"))
    size = len(QUESTIONS)
    later = make.build(2 * size + 3, 400)
    assert later.question in simulate("qa1", 30, 2, "train")
    assert make.build(3, 400).tokens[:].tolist() == builder(background).build(3, 400).tokens[:].tolist()
    assert make.build(size + 3, 400).question in simulate("qa1", 30, 1, "train")
    assert make.build(2 * size + 3, 400).tokens[:].tolist() == later.tokens[:].tolist()


def test_every_question_of_the_story_is_asked_after_its_facts(background):
    stories = {}
    for q in QUESTIONS:
        stories.setdefault(q.story, []).append(q)
    make = builder(background, every_question=True)
    seen = 0
    for i in range(100):
        sample = make.build(i, 900)
        ids = sample.tokens[:]
        earlier = [q for q in stories[sample.question.story] if len(q.facts) < len(sample.question.facts)]
        assert len(sample.answers) == len(earlier) + 1
        labels = sample.labels[:]
        for (first, last), q in zip(sample.answers, [*earlier, sample.question], strict=True):
            assert ids[first:last].tolist() == [*TOKENIZER.encode(q.answer), TOKENIZER.eos_id]
            assert labels[first - 1 : last - 1].tolist() == ids[first:last].tolist()
            assert ids[first - 1] == TOKENIZER.gen_id
            assert sum(at < first for at in sample.facts_at) == len(q.facts)  # neither fewer facts nor later ones
        assert (labels != IGNORE).sum() == 2 * len(sample.answers)
        seen += len(earlier)
    assert seen > 100


def test_without_background_the_facts_stand_alone():
    sample = builder(None).build(0, 100)
    context, *_ = parts(sample)
    assert context.tolist() == [x for fact in sample.question.facts for x in TOKENIZER.encode(fact)]


@given(start=st.integers(0, 700), size=st.integers(0, 700))
def test_labels_and_tokens_can_be_sliced_anywhere(background, start, size):
    sample = builder(background, every_question=True).build(11, 500)
    assert sample.tokens[start : start + size].tolist() == sample.tokens[:][start : start + size].tolist()
    assert sample.labels[start : start + size].tolist() == sample.labels[:][start : start + size].tolist()


def test_ten_million_tokens_are_streamed_not_held(background):
    sample = builder(background).build(0, 10_000_000)
    assert len(sample.tokens) > 10_000_000
    tracemalloc.start()
    for count, _ in enumerate(cut([sample.tokens], [sample.labels], 512)):
        if count == 500:
            break
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_background_sentences_have_at_least_ten_tokens_and_are_kept(tmp_path):
    first = Background.build(["Too short. " + TEXTS[0], TEXTS[1]], TOKENIZER, tmp_path)
    assert np.diff(first.sentences).min() >= MIN_SENTENCE_TOKENS
    assert len(first.books) == 3 and isinstance(first.ids, np.memmap) and first.ids.dtype == np.uint16
    again = Background.build(["Too short. " + TEXTS[0], TEXTS[1]], TOKENIZER, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1 and np.array_equal(again.ids, first.ids)
    kept = next(tmp_path.iterdir()) / "ids.npy"
    whole = kept.read_bytes()
    for wrong in (b"cut off", whole[:-1] + bytes([whole[-1] ^ 1])):  # one bit of one token
        kept.write_bytes(wrong)
        with pytest.raises(RmtlibError, match="is damaged .*ids.npy .*: delete this folder, and it is made anew"):
            Background.build(["Too short. " + TEXTS[0], TEXTS[1]], TOKENIZER, tmp_path)


@pytest.mark.parametrize(
    "number, said", [(errno.EROFS, "set RMTLIB_CACHE to a folder that you can write to"), (errno.ENOSPC, "free some")]
)
def test_a_cache_that_cannot_be_written_says_why_and_what_to_do(number, said, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    with pytest.raises(RmtlibError, match=said) as error:
        Background.build(TEXTS, TOKENIZER, tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    assert ("free some space" in str(error.value)) == (number == errno.ENOSPC)


def test_word_tokenizer():
    assert TOKENIZER.decode(TOKENIZER.encode("Mary moved to the garden.")) == "mary moved to the garden ."
    assert TOKENIZER.encode("zzyzx")[0] == 0
    assert WordTokenizer.build(WORDS, reversed(TEXTS), 500).words == TOKENIZER.words
    with pytest.raises(RmtlibError, match="a vocabulary of 10 cannot hold"):
        WordTokenizer.build(WORDS, TEXTS, 10)


def gpt2_files(tmp_path):
    """A small byte-level BPE in GPT-2's two files: the bytes, two merges, end of text."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = [("G", "E"), ("GE", "N"), ("Ġ", "t"), ("Ġt", "h")]
    entries = [*letters, *("".join(m) for m in merges), "<|endoftext|>"]
    encoder, bpe = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
    encoder.write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    bpe.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return encoder, bpe, entries


TEXTS_TO_ENCODE = ["Mary went to the garden.", "GEN", " the  end\n\n", "naïve café - 1,234 it's", ""]


def test_gpt2_tokenizer_on_a_small_vocabulary(tmp_path):
    encoder, bpe, entries = gpt2_files(tmp_path)
    tokenizer = GPT2Tokenizer(encoder, bpe)
    assert tokenizer.vocab_size == len(entries) and tokenizer.eos_id == len(entries) - 1
    assert entries[tokenizer.gen_id] == "GEN" and entries[tokenizer.encode(" the")[0]] == "Ġth"
    for text in TEXTS_TO_ENCODE:
        assert tokenizer.decode([*tokenizer.encode(text), tokenizer.eos_id]) == text


def test_gpt2_tokenizer_is_gpt2s():
    if "absent" in (state("gpt2-encoder"), state("gpt2-bpe")):
        pytest.skip("GPT-2's tokeniser files are not on this machine (rmtlib data gpt2-encoder gpt2-bpe)")
    ours = GPT2Tokenizer.load()
    theirs = transformers.GPT2TokenizerFast(str(fetch("gpt2-encoder")), str(fetch("gpt2-bpe")))
    assert ours.vocab_size == 50_257 and ours.eos_id == 50_256
    for text in [*TEXTS_TO_ENCODE, *(" " + f for f in WORDS[:50]), TEXTS[0][:2000]]:
        assert ours.encode(text).tolist() == theirs.encode(text)
    assert ours.gen_id == theirs.encode("GEN")[0]


def test_questions_that_do_not_fit_are_left_out(background):
    make = builder(background)
    sizes = {q: sum(len(TOKENIZER.encode(f)) for f in q.facts) for q in QUESTIONS}
    short = [q for q in QUESTIONS if sizes[q] <= 40]
    assert 0 < len(short) < len(QUESTIONS) and make.fitting(40) == short
    assert {make.question_of(i, 40) for i in range(len(short))} == set(short)
    assert len(parts(make.build(5, 40))[0]) == 40
    with pytest.raises(RmtlibError, match="no qa1 question's facts fit into 5 tokens"):
        make.build(0, 5)


def test_wrong_options_are_one_line_errors(background):
    with pytest.raises(RmtlibError, match="join is 'tab'"):
        builder(background, join="tab")
    with pytest.raises(RmtlibError, match="no questions"):
        SampleBuilder([], background, TOKENIZER, stream="train", seed=0)


class Characters:
    """Every character is a token, so that no space or line break can hide."""

    name, vocab_size, gen_id, eos_id = "characters", 300, 256, 257

    def encode(self, text):
        return np.array([ord(character) for character in text], dtype=np.uint16)

    def decode(self, ids):
        return "".join({256: "<GEN>", 257: "<EOS>"}.get(int(i), chr(int(i))) for i in ids)


@pytest.mark.parametrize("join", ["space", "released"])
def test_samples_are_joined_as_released_if_asked_for(tmp_path, join):
    """The stream of the released training code: nothing between texts, questions and books as in their files."""
    lines = ["1 Mary went to the hall.", "2 Where is Mary? \thall\t1", "3 John is here.", "4 Is he?\tyes\t3"]
    questions = parse_questions(lines, "qa1")
    book = "It was\nlong ago. He\nslept until noon.\n\nAnd that is\nall of it."
    tokenizer, released = Characters(), join == "released"
    background = Background.build([book], tokenizer, tmp_path, lead=JOINS[join], line_breaks=released)
    facts = SampleBuilder(questions, None, tokenizer, stream="test", seed=0, join=join)
    texts = [tokenizer.decode(facts.build(i, 100).tokens[:]) for i in range(2)]
    if released:
        assert texts == [
            "Mary went to the hall.Where is Mary? <GEN>hall<EOS>",
            "Mary went to the hall.John is here.Is he?<GEN>yes<EOS>",
        ]
        assert tokenizer.decode(background.ids) == "It was\nlong ago.He\nslept until noon.And that is\nall of it."
    else:
        assert texts == [
            " Mary went to the hall. Where is Mary?<GEN>hall<EOS>",
            " Mary went to the hall. John is here. Is he?<GEN>yes<EOS>",
        ]
        assert tokenizer.decode(background.ids) == " It was long ago. He slept until noon. And that is all of it."


def test_released_ids_of_a_question_end_with_a_space_before_gen():
    if "absent" in (state("gpt2-encoder"), state("gpt2-bpe")):
        pytest.skip("GPT-2's tokeniser files are not on this machine (rmtlib data gpt2-encoder gpt2-bpe)")
    theirs = transformers.GPT2TokenizerFast(str(fetch("gpt2-encoder")), str(fetch("gpt2-bpe")))
    questions = parse_questions(["1 Mary went to the hall.", "2 Where is Mary? \thall\t1"], "qa1")
    made = SampleBuilder(questions, None, GPT2Tokenizer.load(), stream="test", seed=0, join="released").build(0, 100)
    texts = ["Mary went to the hall.", "Where is Mary? "]
    ids = [i for text in texts for i in theirs.encode(text)]
    ids += [theirs.encode("GEN")[0], *theirs.encode("hall"), theirs.eos_token_id]
    assert made.tokens[:].tolist() == ids and theirs.decode(ids[made.prompt_length - 2]) == " "
