"""Tokenisers, and background text as memory-mapped token ids with sentence and book boundaries."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rmtlib.data.arrays import kept_arrays
from rmtlib.errors import RmtlibError

MIN_SENTENCE_TOKENS = 10  # BABILong drops shorter background sentences

_WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]_]*\s+(?=[\"'“‘(\[_]*[A-Z])")


class Tokenizer(Protocol):
    """What samples and models need of a tokeniser. `gen_id` stands between question and answer, `eos_id` ends it."""

    name: str
    vocab_size: int
    gen_id: int
    eos_id: int

    def encode(self, text: str) -> np.ndarray:
        """Token ids (N), without special tokens."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        ...


class ByteTokenizer(Tokenizer, Protocol):
    """A tokeniser whose pieces are bytes: of any text it gives the same text back."""

    def byte_lengths(self) -> np.ndarray:
        """(V,) UTF-8 bytes of each piece; what stands for no text has none."""
        ...


class WordTokenizer:
    """Lower-case words and single punctuation marks; what is not in the vocabulary becomes ``<unk>``.

    Args:
        words: the vocabulary without the special tokens, in order of id.
    """

    SPECIAL = ("<unk>", "<gen>", "<eos>")

    def __init__(self, words: Sequence[str]):
        self.words = (*self.SPECIAL, *words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            raise RmtlibError("a word-level vocabulary names a word twice; give each word once")
        self.vocab_size = len(self.words)
        self.gen_id, self.eos_id = self._ids["<gen>"], self._ids["<eos>"]
        self.name = "word-" + hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:12]

    @classmethod
    def build(cls, required: Iterable[str], background: Iterable[str], size: int) -> "WordTokenizer":
        """All words of the `required` texts, then the most frequent words of `background`, `size` entries in all."""
        words = sorted({word for text in required for word in _WORD.findall(text.lower())})
        room = size - len(words) - len(cls.SPECIAL)
        if room < 0:
            raise RmtlibError(f"a vocabulary of {size} cannot hold the {len(words)} words of the task; make it larger")
        counts = Counter(word for text in background for word in _WORD.findall(text.lower()))
        for word in words:
            del counts[word]
        ranked = sorted(counts, key=lambda word: (-counts[word], word))  # ties by spelling: the same on every machine
        return cls([*words, *ranked[:room]])

    def encode(self, text: str) -> np.ndarray:
        return np.array([self._ids.get(word, 0) for word in _WORD.findall(text.lower())], dtype=np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self.words[i] for i in ids if self.words[i] not in self.SPECIAL)


class GPT2Tokenizer:
    """GPT-2's byte-level BPE through tiktoken, from the two checked files of the released model.

    `gen_id` is the first piece of the string "GEN", as in the released fine-tuning code.
    """

    name = "gpt2"

    def __init__(self, encoder_json: Path, vocab_bpe: Path):
        import tiktoken
        from tiktoken.load import data_gym_to_mergeable_bpe_ranks

        ranks = data_gym_to_mergeable_bpe_ranks(str(vocab_bpe), str(encoder_json))
        pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
        self._bpe = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self.eos_id = len(ranks)  # <|endoftext|> follows the 50,256 pieces
        self.vocab_size = self.eos_id + 1
        self.gen_id = int(self.encode("GEN")[0])

    @classmethod
    def load(cls) -> "GPT2Tokenizer":
        """Fetch the two files from wherever they can be had."""
        from rmtlib.data.sources import fetch

        return cls(fetch("gpt2-encoder"), fetch("gpt2-bpe"))

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._bpe.encode_ordinary(text), dtype=np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        return self._bpe.decode([i for i in ids if i != self.eos_id])

    def byte_lengths(self) -> np.ndarray:
        """(V,) UTF-8 bytes of each piece; the end of a text has none."""
        return np.array([len(self._bpe.decode_single_token_bytes(i)) for i in range(self.eos_id)] + [0])


class HFTokenizer:
    """A Hugging Face tokeniser without special tokens around texts; `gen_id` is its first piece of "GEN"."""

    def __init__(self, name: str, tokenizer: Any):
        if len(tokenizer) > 2**16:
            raise RmtlibError(f"tokeniser {name!r} has {len(tokenizer)} entries; token ids are kept in 16 bits")
        if tokenizer.eos_token_id is None:
            raise RmtlibError(f"tokeniser {name!r} has no end-of-text token; use another")
        self.name, self._tokenizer = name, tokenizer
        self.vocab_size, self.eos_id = len(tokenizer), int(tokenizer.eos_token_id)
        self.gen_id = int(self.encode("GEN")[0])

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False), dtype=np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode([i for i in ids if i != self.eos_id])

    def byte_lengths(self) -> np.ndarray:
        """(V,) UTF-8 bytes of each piece, if they are byte-level; what stands for no text has none."""
        return letters_of(self._tokenizer.convert_ids_to_tokens(range(self.vocab_size)), self.eos_id)


def letters_of(pieces: Sequence[str], eos_id: int) -> np.ndarray:
    """(V,) bytes of pieces that are written in GPT-2's alphabet, a letter a byte (Radford et al. 2019, encoder.py).

    A piece with other letters stands for no text and has none, like the end of a text.
    """
    plain = {chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))}
    letters = plain | {chr(256 + i) for i in range(256 - len(plain))}
    lengths = np.array([len(piece) if set(piece) <= letters else 0 for piece in pieces], dtype=np.int64)
    lengths[eos_id] = 0
    return lengths


def split_sentences(text: str, *, line_breaks: bool = False) -> list[str]:
    """Sentences of a plain text: a full stop, question or exclamation mark, then a space and a capital.

    `line_breaks` keeps those inside a sentence, which are spaces otherwise. Plainer than the Punkt model behind
    BABILong (it breaks after "Mr."); the pieces only serve as filler.
    """
    return [s for s in _SENTENCE_END.split(text.strip() if line_breaks else " ".join(text.split())) if s]


@dataclass(frozen=True)
class Background:
    """Books as one array of token ids (uint16, memory-mapped), sentence by sentence.

    Attributes:
        ids: all tokens.
        sentences: offset in `ids` of each sentence's first token, then the total.
        books: index in `sentences` of each book's first sentence, then the number of sentences.
    """

    ids: np.ndarray
    sentences: np.ndarray
    books: np.ndarray

    @classmethod
    def build(
        cls,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        folder: Path,
        *,
        lead: str = "",
        line_breaks: bool = False,
        report: Callable[[int, int], None] | None = None,
    ) -> "Background":
        """Tokenise the books once and keep the ids in `folder`; a later call with the same arguments maps the files.

        `lead` is put before every sentence: " " as in the published evaluation sets, "" as in the released
        training code (see `babilong.JOINS`), which also keeps `line_breaks`. `report(done, books)` is called after
        each book.
        """
        kind = f"2 {tokenizer.name} {lead!r} {MIN_SENTENCE_TOKENS}{' line breaks' if line_breaks else ''}"
        key = hashlib.sha256(kind.encode())
        for text in texts:
            key.update(hashlib.sha256(text.encode()).digest())
        home = folder / key.hexdigest()[:16]
        return cls(**kept_arrays(home, lambda: cls._tokenise(texts, tokenizer, lead, line_breaks, report)))

    @staticmethod
    def _tokenise(texts, tokenizer, lead: str, line_breaks: bool, report) -> dict[str, np.ndarray]:
        ids: list[np.ndarray] = []
        lengths: list[int] = []
        books = [0]
        for done, text in enumerate(texts, start=1):
            pieces = (tokenizer.encode(lead + sentence) for sentence in split_sentences(text, line_breaks=line_breaks))
            kept = [piece for piece in pieces if len(piece) >= MIN_SENTENCE_TOKENS]
            ids += kept
            lengths += [len(piece) for piece in kept]
            books.append(len(lengths))
            if report is not None:
                report(done, len(texts))
        if not lengths:
            raise RmtlibError(f"the background books hold no sentence of {MIN_SENTENCE_TOKENS} tokens; give other text")
        return {
            "ids": np.concatenate(ids),
            "sentences": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            "books": np.array(books, dtype=np.int64),
        }

    def draw(self, tokens: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Whole sentences from random points of the books, `tokens` tokens in all, the last sentence cut to fit.

        Starts at a random sentence of a random book and goes on to the book's end, then to another book. (BABILong's
        sampler starts at a random character, reads at most ten characters for each wanted token, and hands on to the
        next sample what it has not used; here samples do not depend on each other.)

        Returns:
            Pieces (first sentence, tokens): runs of consecutive sentences.
        """
        pieces = []
        while tokens > 0:
            book = rng.integers(len(self.books) - 1)
            if self.books[book] == self.books[book + 1]:
                continue
            first = int(rng.integers(self.books[book], self.books[book + 1]))
            size = min(tokens, int(self.sentences[self.books[book + 1]] - self.sentences[first]))
            pieces.append((first, size))
            tokens -= size
        return pieces
