"""Texts as subword tokens: nothing of the text is lost, bytes and words are exact, caches are whole or made anew."""

import json
import os
import zipfile

import numpy as np
import pytest

from rmtlib.data import sources
from rmtlib.data.sources import cache_folder
from rmtlib.data.subwords import join_lines, learn_bpe, load_bpe, load_subwords, read_text
from rmtlib.errors import RmtlibError
from rmtlib.models.backbones import load_tokenizer

NAME = "bpe-300-synthetic"
TEXTS = ("wikitext-2-raw", "wikitext-2-words")
USERS = os.environ.get("RMTLIB_CACHE")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))


def test_tokens_give_the_text_back_and_their_bytes_and_words_are_the_texts():
    tokenizer, notes = load_tokenizer(NAME)
    text = load_subwords("synthetic", tokenizer, notes)
    for split, stream in text.splits.items():
        content, _ = read_text("synthetic", split)
        assert tokenizer.decode(stream.ids.tolist()) == content
        size = text.sizes[split]
        assert size == text.size(split) == (len(stream), len(content.split()) + content.count("\n"), len(content))
        assert text.token_bytes[stream.ids].sum() == size.bytes
    part = text.size("test", 100)
    head = tokenizer.decode(text.splits["test"].ids[:100].tolist())
    assert part.tokens == 100 and part.bytes == len(head) and len(head.split()) <= part.words <= len(head.split()) + 2


def test_bytes_of_letters_beyond_ascii_are_counted_piece_by_piece():
    tokenizer, _ = load_tokenizer(NAME)
    text = "naïve – “Ωmega” 日本\n"
    assert tokenizer.byte_lengths()[tokenizer.encode(text)].sum() == len(text.encode()) > len(text)
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_the_same_text_gives_the_same_tokeniser_and_its_hash_is_recorded():
    content, _ = read_text("synthetic", "train")
    assert learn_bpe(content, 300) == learn_bpe(content, 300) != learn_bpe(content[:20_000], 300)
    _, (first,) = load_bpe(NAME)
    (path,) = (cache_folder() / "tokenizers").glob("*.json")
    assert first["sha256"] == sources.file_hash(path)
    path.write_text(path.read_text()[:-100])  # damaged: it is learned anew
    tokenizer, (again,) = load_bpe(NAME)
    assert again == first and tokenizer.vocab_size == 300


@pytest.mark.parametrize("name", ["bpe-300", "bpe-x-synthetic", "bpe-300-nothing"])
def test_unknown_tokenisers_and_texts_are_one_line(name):
    with pytest.raises(RmtlibError, match="unknown tokeniser"):
        load_bpe(name)
    with pytest.raises(RmtlibError, match="unknown text 'nothing': use one of wikitext-2-raw"):
        read_text("nothing", "train")
    with pytest.raises(RmtlibError, match="unknown split 'valid'"):
        read_text("synthetic", "valid")
    with pytest.raises(RmtlibError, match="not 90000; ask for fewer"):
        learn_bpe("a few words", 90_000)


def test_a_tokeniser_that_loses_text_is_refused_and_leaves_nothing():
    class Lossy:
        name, vocab_size, eos_id, gen_id = "lossy", 2, 0, 1

        def encode(self, text):
            return np.ones(len(text) // 2, dtype=np.uint16)

        def decode(self, ids):
            return "a" * len(list(ids))

        def byte_lengths(self):
            return np.array([0, 1])

    with pytest.raises(RmtlibError, match="'lossy' does not give the text back"):
        load_subwords("synthetic", Lossy(), [])
    assert not list(cache_folder().rglob("*.npy"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("ids.npy", lambda found: found[:-2] + b"xx"),
        ("ids.npy", lambda found: found[: len(found) // 2]),
        ("sha256.json", lambda _: b"{}"),
        ("sha256.json", lambda _: b"{"),
        ("sha256.json", lambda content: json.dumps({"ids": json.loads(content)["ids"]}).encode()),
        ("ids.npy", lambda _: b""),
    ],
)
def test_a_damaged_cache_is_one_line(file, content):
    tokenizer, notes = load_tokenizer(NAME)
    load_subwords("synthetic", tokenizer, notes)
    path = sorted((cache_folder() / "tokens").glob(f"synthetic-test-*/{file}"))[0]
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(RmtlibError, match="is damaged .* delete this folder, and it is made anew"):
        load_subwords("synthetic", tokenizer, notes)


def test_lines_are_joined_as_the_studys_notebook_does():
    assert join_lines(" = A = \n \n b c\u2028d \n") == " = A = \n\n\n\n\n b c\u2028d \n"


def test_gpt2s_pieces_of_the_test_text_are_as_many_as_published(monkeypatch):
    """287,644 of the raw, 297,300 of the word-level text, as the study counts them."""
    monkeypatch.delenv("RMTLIB_CACHE") if USERS is None else monkeypatch.setenv("RMTLIB_CACHE", USERS)
    files = ("wikitext-2-raw-test", "wikitext-2-test", "gpt2-encoder", "gpt2-bpe")
    if any(sources.state(name) == "absent" for name in files):
        pytest.skip("WikiText-2 or GPT-2's tokeniser is not on this machine")
    tokenizer, _ = load_tokenizer("gpt2")
    counts = [len(tokenizer.encode(read_text(f"{text}-joined", "test")[0])) for text in TEXTS]
    assert counts == [287_644, 297_300]


def test_wikitext_103_is_read_from_its_archive(monkeypatch, tmp_path):
    path = tmp_path / "wikitext-103-v1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "valid", "test"):
            archive.writestr(f"wikitext-103/wiki.{part}.tokens", f" = {part} = \n \n Naïve @-@ words\n")
    monkeypatch.setattr("rmtlib.data.subwords.fetch", lambda name: path)
    monkeypatch.setattr("rmtlib.data.subwords.provenance", lambda name: {"name": name})
    text, (origin,) = read_text("wikitext-103-words", "validation")
    assert text == " = valid = \n \n Naïve @-@ words\n" and origin["name"] == "wikitext-103"
