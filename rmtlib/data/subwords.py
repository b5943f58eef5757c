"""Texts as subword tokens, with the exact bytes and words behind them.

Perplexities of different tokenisers, or of the same text in two forms, cannot be compared; nats a byte and nats a word
can. So every split is kept with the number of its UTF-8 bytes and of its words, and every token with its bytes.

====================  ================================================================================================
text                  what it is
====================  ================================================================================================
``wikitext-2-raw``    the raw files of WikiText-2 as they are
``wikitext-2-words``  the word-level files: rare words are ``<unk>``, as the LoRA study trained on
``wikitext-2-...-joined``  either, as the study's notebook evaluates it: lines with two newlines between them, blank
                      lines empty (GPT-2's pieces of the raw test split are then the published 287,644)
``wikitext-103-words``  the word-level files of WikiText-103
``books``             public-domain novels (`data.books`, collection "baseten"), split by book
``synthetic``         sentences of made-up words, for tests without files
====================  ================================================================================================
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmtlib.data.arrays import kept_arrays
from rmtlib.data.books import load_books, synthetic_text
from rmtlib.data.sources import cache_folder, fetch, file_hash, provenance
from rmtlib.data.streams import SPLITS, Stream, words_of
from rmtlib.data.text import ByteTokenizer, letters_of
from rmtlib.errors import RmtlibError
from rmtlib.files import write_atomically

FILES = {"train": "train", "validation": "valid", "test": "test"}
SYNTHETIC_SENTENCES = {"train": 1200, "validation": 160, "test": 160}


class TextSize(NamedTuple):
    """How long a text is. Words are what WikiText counts: what stands between spaces, and every line's end."""

    tokens: int
    words: int
    bytes: int


@dataclass(frozen=True)
class Subwords:
    """A text in a tokeniser's pieces.

    Attributes:
        splits: token ids (uint16, memory-mapped) of train, validation and test. The first one of each is predicted from
            the tokeniser's end-of-text token, so that every byte is predicted.
        sizes: tokens, words and UTF-8 bytes of each split.
        token_bytes: (V,) UTF-8 bytes of each piece; those of a slice of a split add up to the bytes of its text.
        provenance: of the text's files and of the tokeniser.
    """

    text: str
    tokenizer: str
    vocab_size: int
    splits: dict[str, Stream]
    sizes: dict[str, TextSize]
    token_bytes: np.ndarray
    provenance: list[dict[str, Any]]
    decode: Callable[[Iterable[int]], str]

    def size(self, split: str, count: int | None = None) -> TextSize:
        """Tokens, words and bytes of the first `count` tokens of a split; a word that is cut counts, None: of all."""
        whole = self.sizes[split]
        if count is None or count >= whole.tokens:
            return whole
        ids = self.splits[split].ids[:count]
        return TextSize(count, count_words(self.decode(ids.tolist())), int(self.token_bytes[ids].sum()))


class LearnedBPE:
    """A byte-level BPE learned from a text (Sennrich et al. 2016; bytes as GPT-2 has them), id 0 ends a text.

    Args:
        name: "bpe-<entries>-<text>".
        path: the file that `tokenizers` wrote.
    """

    def __init__(self, name: str, path: Path):
        from tokenizers import Tokenizer as Fast

        self.name, self._fast = name, Fast.from_file(str(path))
        self.vocab_size, self.eos_id = self._fast.get_vocab_size(), 0
        self.gen_id = int(self.encode("GEN")[0])

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._fast.encode(text).ids, dtype=np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._fast.decode([int(i) for i in ids if i != self.eos_id]))

    def byte_lengths(self) -> np.ndarray:
        """(V,) UTF-8 bytes of each piece; the end of a text has none."""
        return letters_of([str(self._fast.id_to_token(i)) for i in range(self.vocab_size)], self.eos_id)


def load_bpe(name: str) -> tuple[LearnedBPE, list[dict[str, Any]]]:
    """The tokeniser "bpe-<entries>-<text>", learned from that text's training split by the first call, and its origin.

    Raises:
        RmtlibError: the name is not of that form, or the text is too small for so many entries.
    """
    size, _, text = name.removeprefix("bpe-").partition("-")
    if not name.startswith("bpe-") or not size.isdigit() or text not in TEXTS:
        raise RmtlibError(
            f"unknown tokeniser {name!r}: one that is learned is bpe-<entries>-<one of {', '.join(TEXTS)}>"
        )
    content, notes = read_text(text, "train")
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    path = cache_folder() / "tokenizers" / f"{name}-{key}.json"
    if not _whole(path):
        write_atomically(path, learn_bpe(content, int(size)).encode())
        write_atomically(path.with_suffix(".sha256"), file_hash(path).encode())
    about = {"name": name, "sha256": file_hash(path), "bytes": path.stat().st_size, "licence": notes[0]["licence"],
             "source": f"learned from {text}"}  # fmt: skip
    return LearnedBPE(name, path), [about]


def _whole(path: Path) -> bool:
    """Whether the file is there and is what was written; a damaged one is made anew, as it follows from the text."""
    seal = path.with_suffix(".sha256")
    return path.exists() and seal.exists() and seal.read_text() == file_hash(path)


def learn_bpe(text: str, entries: int) -> str:
    """A byte-level BPE of so many entries as the JSON of `tokenizers`. The same text gives the same one."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = Fast(models.BPE())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast.train_from_iterator(
        io.StringIO(text),
        trainers.BpeTrainer(
            vocab_size=entries, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    if fast.get_vocab_size() != entries:
        raise RmtlibError(f"the text has pieces for {fast.get_vocab_size()} entries, not {entries}; ask for fewer")
    return str(fast.to_str())


def load_subwords(
    text: str, tokenizer: ByteTokenizer, notes: list[dict[str, Any]], splits: Iterable[str] = SPLITS
) -> Subwords:
    """A text in the tokeniser's pieces; tokenised once on this machine.

    Args:
        text: see the table above.
        notes: the tokeniser's provenance.

    Raises:
        RmtlibError: an unknown text, a file that cannot be had, a tokeniser that does not give the text back, or a
            damaged cache.
    """
    wanted = tuple(splits)
    key = hashlib.sha256(json.dumps([tokenizer.name, [note.get("sha256") for note in notes]]).encode())
    texts = {split: read_text(text, split) for split in wanted}
    streams, sizes = {}, {}
    found: dict[str, dict[str, Any]] = {}
    lengths = tokenizer.byte_lengths()
    for split, (content, origins) in texts.items():
        mine = key.copy()
        mine.update(content.encode())
        home = cache_folder() / "tokens" / f"{text}-{split}-{tokenizer.name.replace('/', '-')}-{mine.hexdigest()[:12]}"
        arrays = kept_arrays(home, lambda content=content: _tokenise(content, tokenizer, lengths))  # type: ignore[misc]
        streams[split] = Stream(arrays["ids"], tokenizer.eos_id)
        sizes[split] = TextSize(*(int(n) for n in arrays["size"]))
        found |= {origin["name"]: origin for origin in origins}
    return Subwords(
        text, tokenizer.name, tokenizer.vocab_size, streams, sizes, lengths, [*found.values(), *notes], tokenizer.decode
    )  # fmt: skip


def _tokenise(content: str, tokenizer: ByteTokenizer, lengths: np.ndarray) -> dict[str, np.ndarray]:
    ids = tokenizer.encode(content)
    size = len(content.encode())
    if int(lengths[ids].sum()) != size or tokenizer.decode(ids.tolist()) != content:
        raise RmtlibError(
            f"tokeniser {tokenizer.name!r} does not give the text back: its pieces have {int(lengths[ids].sum()):,} "
            f"bytes, the text {size:,}; use a byte-level one"
        )
    return {"ids": ids, "size": np.array([len(ids), count_words(content), size])}


def count_words(text: str) -> int:
    """Words as WikiText counts them: what stands between spaces, and one for the end of every line."""
    return sum(1 for _ in words_of(text))


def read_text(text: str, split: str) -> tuple[str, list[dict[str, Any]]]:
    """A split of a text, and the provenance of its files. Raises RmtlibError if there is no such text or split."""
    if text not in TEXTS:
        raise RmtlibError(f"unknown text {text!r}: use one of {', '.join(TEXTS)}")
    if split not in SPLITS:
        raise RmtlibError(f"unknown split {split!r} of {text}: use one of {', '.join(SPLITS)}")
    return TEXTS[text](split)


def _wikitext(name: str, *, joined: bool = False) -> Callable[[str], tuple[str, list[dict[str, Any]]]]:
    def read(split: str) -> tuple[str, list[dict[str, Any]]]:
        file = f"{name}-{FILES[split]}"
        content = fetch(file).read_text(encoding="utf-8")
        return join_lines(content) if joined else content, [provenance(file)]

    return read


def _wikitext_103(split: str) -> tuple[str, list[dict[str, Any]]]:
    with zipfile.ZipFile(fetch("wikitext-103")) as archive:
        content = archive.read(f"wikitext-103/wiki.{FILES[split]}.tokens").decode("utf-8")
    return content, [provenance("wikitext-103")]


def join_lines(text: str) -> str:
    """The lines as the `datasets` library has them (blank ones empty), with two newlines between them."""
    return "\n\n".join(line if line.strip() else "" for line in io.StringIO(text))


def _books(split: str) -> tuple[str, list[dict[str, Any]]]:
    books, notes = load_books(split, "baseten", progress=False)
    return "\n\n\n".join(book.text.strip() for book in books) + "\n", notes


def _synthetic(split: str) -> tuple[str, list[dict[str, Any]]]:
    seed = SPLITS.index(split)
    about = {"name": "synthetic text", "sha256": None, "bytes": 0, "licence": "generated", "source": "generator"}
    return "\n".join(synthetic_text(seed, SYNTHETIC_SENTENCES[split])) + "\n", [about]


TEXTS: dict[str, Callable[[str], tuple[str, list[dict[str, Any]]]]] = {
    "wikitext-2-raw": _wikitext("wikitext-2-raw"),
    "wikitext-2-words": _wikitext("wikitext-2"),
    "wikitext-2-raw-joined": _wikitext("wikitext-2-raw", joined=True),
    "wikitext-2-words-joined": _wikitext("wikitext-2", joined=True),
    "wikitext-103-words": _wikitext_103,
    "books": _books,
    "synthetic": _synthetic,
}
