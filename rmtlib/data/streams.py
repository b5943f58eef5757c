"""Text as one endless stream of token ids: enwik8 by character, WikiText by word.

A batch is B contiguous parts of the stream, its columns, side by side: segment t of every column follows its segment
t-1, so that memory and cache can be carried on. Where each column starts can be chosen (`StreamConfig.order`).
"""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from rmtlib.data.arrays import kept_arrays
from rmtlib.data.books import synthetic_text
from rmtlib.data.sources import cache_folder, fetch, provenance
from rmtlib.errors import RmtlibError
from rmtlib.segments import IGNORE, Segment

EOS = "<eos>"
NEWLINE = 10
SPLITS = ("train", "validation", "test")
ENWIK8_SPLITS = (90_000_000, 5_000_000, 5_000_000)  # bytes


@dataclass(frozen=True)
class Stream:
    """Token ids of a split. `before` is the token that the first one is predicted from."""

    ids: np.ndarray
    before: int

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, count: int | None) -> "Stream":
        """The first `count` tokens; all with None."""
        return Stream(self.ids[:count], self.before)

    def inputs(self, start: int, stop: int) -> np.ndarray:
        """The tokens before the tokens start .. stop-1: what those are predicted from."""
        if start > 0:
            return self.ids[start - 1 : stop - 1].astype(np.int64)
        return np.concatenate([[self.before], self.ids[: max(stop - 1, 0)]]).astype(np.int64)[: stop - start]


@dataclass(frozen=True)
class Corpus:
    """A language modelling corpus. `provenance` says where its files came from."""

    name: str
    vocab_size: int
    train: Stream
    validation: Stream
    test: Stream
    provenance: list[dict[str, Any]]


def train_segments(stream: Stream, columns: int, segment_size: int) -> int:
    """Segments of an epoch: whole ones alone, the rest of each column is left out."""
    count = len(stream) // columns // segment_size
    if count < 1:
        raise RmtlibError(
            f"{len(stream)} tokens do not fill one segment of {segment_size} in {columns} columns; use fewer columns"
        )
    return count


def train_segment(
    stream: Stream, columns: int, segment_size: int, index: int, first: Sequence[int] | None = None
) -> Segment:
    """Segment `index` of an epoch: `columns` x `segment_size` tokens, each column following its segment before.

    Args:
        first: for each column, which of its segments it starts at; from there it goes round. None: at its beginning.
    """
    length, count = len(stream) // columns, train_segments(stream, columns, segment_size)
    indices = [index] * columns if first is None else [(index + start) % count for start in first]
    starts = [column * length + i * segment_size for column, i in enumerate(indices)]
    ids = np.stack([stream.inputs(start, start + segment_size) for start in starts])
    labels = np.stack([stream.ids[start : start + segment_size] for start in starts]).astype(np.int64)
    return Segment(torch.from_numpy(ids), torch.from_numpy(labels), None)


def evaluation_segments(stream: Stream, columns: int, segment_size: int) -> Iterator[Segment]:
    """The whole stream in `columns` contiguous parts, every token a target exactly once.

    Some columns are one token longer if the stream does not divide evenly, and the last segment is short.
    What stands there for a column that has ended has no label, and nothing follows it.
    """
    columns = min(columns, len(stream))
    bounds = [len(stream) * column // columns for column in range(columns + 1)]
    parts = list(pairwise(bounds))
    longest = max(stop - start for start, stop in parts)
    for first in range(0, longest, segment_size):
        size = min(segment_size, longest - first)
        ids = np.zeros((len(parts), size), dtype=np.int64)
        labels = np.full((len(parts), size), IGNORE, dtype=np.int64)
        for row, (start, stop) in enumerate(parts):
            here, end = start + first, min(start + first + size, stop)
            ids[row, : end - here] = stream.inputs(here, end)
            labels[row, : end - here] = stream.ids[here:end]
        yield Segment(torch.from_numpy(ids), torch.from_numpy(labels), None)


def load_enwik8() -> Corpus:
    """enwik8 (Hutter 2006) as the published results have it: 204 symbols, 90 / 5 / 5 million bytes.

    The bytes have 205 values. The data of Transformer-XL and all that follows it was cut into lines by its loader, so
    newlines are in no split and the test split predicts 4,943,417 symbols; the published bits per character are per
    such symbol. The same is done here, or neither vocabulary, parameter count nor results could be compared.
    """
    source = provenance("enwik8")

    encode = lambda: enwik8_symbols(np.fromfile(fetch("enwik8"), dtype=np.uint8))  # noqa: E731
    ids = _kept("enwik8", source["sha256"], encode)
    last = {name: int(ids[name][-1]) for name in SPLITS}
    return Corpus(
        "enwik8",
        vocab_size=204,
        train=Stream(ids["train"], 0),
        validation=Stream(ids["validation"], last["train"]),
        test=Stream(ids["test"], last["validation"]),
        provenance=[source],
    )


def enwik8_symbols(data: np.ndarray, splits: tuple[int, ...] = ENWIK8_SPLITS) -> dict[str, np.ndarray]:
    """The splits of the bytes `data`, newlines left out, values numbered from 0 in their order."""
    values = np.unique(data)
    table = np.zeros(256, dtype=np.uint8)
    table[values[values != NEWLINE]] = np.arange((values != NEWLINE).sum())
    parts = np.split(data, np.cumsum(splits)[:-1])
    return {name: table[part[part != NEWLINE]] for name, part in zip(SPLITS, parts, strict=True)}


def load_wikitext_2() -> Corpus:
    """WikiText-2 by word with an ``<eos>`` a line: 33,278 words (Merity et al. 2017)."""
    names = [f"wikitext-2-{part}" for part in ("train", "valid", "test")]
    return _words("wikitext-2", names, lambda: [fetch(name).read_text(encoding="utf-8") for name in names])


def load_wikitext_103() -> Corpus:
    """WikiText-103 by word with an ``<eos>`` a line: 267,735 words, from the training split alone."""

    def texts() -> list[str]:
        with zipfile.ZipFile(fetch("wikitext-103")) as archive:
            members = [f"wikitext-103/wiki.{part}.tokens" for part in ("train", "valid", "test")]
            return [archive.read(member).decode("utf-8") for member in members]

    return _words("wikitext-103", ["wikitext-103"], texts)


def words_of(text: str) -> Iterator[str]:
    """The words of every line, then ``<eos>``; an empty line is an ``<eos>`` alone."""
    for line in io.StringIO(text):
        yield from line.split()
        yield EOS


def vocabulary(words: Iterable[str]) -> list[str]:
    """The words, most frequent first, as an adaptive softmax needs them; ties by spelling, the same everywhere."""
    counts = Counter(words)
    return sorted(counts, key=lambda word: (-counts[word], word))


def load_synthetic(by: str) -> Corpus:
    """Sentences of made-up words, by character or by word: for runs without files and network."""
    lines = [synthetic_text(seed, count) for seed, count in enumerate((600, 120, 120))]
    texts = [list("".join(split)) if by == "characters" else list(words_of("\n".join(split))) for split in lines]
    table = {symbol: i for i, symbol in enumerate(vocabulary(symbol for text in texts for symbol in text))}
    train, validation, test = (Stream(np.array([table[x] for x in text], dtype=np.uint16), 0) for text in texts)
    about = {"name": "synthetic text", "sha256": None, "bytes": 0, "licence": "generated", "source": "generator"}
    return Corpus(f"synthetic-{by}", len(table), train, validation, test, [about])


def _words(name: str, files: list[str], texts: Callable[[], list[str]]) -> Corpus:
    """Ids by frequency in the training text; a word that it lacks becomes ``<unk>``."""
    sources = [provenance(file) for file in files]

    def encode() -> dict[str, np.ndarray]:
        splits = texts()
        table = {word: i for i, word in enumerate(vocabulary(words_of(splits[0])))}
        unknown = table.get("<unk>", 0)
        kind = np.uint16 if len(table) <= 2**16 else np.uint32
        arrays = [np.fromiter((table.get(w, unknown) for w in words_of(text)), dtype=kind) for text in splits]
        return dict(zip(SPLITS, arrays, strict=True)) | {"vocabulary": np.array([len(table), table[EOS]])}

    key = hashlib.sha256("".join(source["sha256"] for source in sources).encode()).hexdigest()
    ids = _kept(name, key, encode)
    vocab_size, eos = (int(x) for x in ids["vocabulary"])
    train, validation, test = (Stream(ids[split], eos) for split in SPLITS)
    return Corpus(name, vocab_size, train, validation, test, sources)


def _kept(name: str, key: str, encode: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The encoded corpus, memory-mapped from the cache; encoded once, at the first call on this machine."""
    return kept_arrays(cache_folder() / "tokens" / f"{name}-{key[:12]}-2", encode)


CORPORA: dict[str, Callable[[], Corpus]] = {
    "enwik8": load_enwik8,
    "wikitext-2": load_wikitext_2,
    "wikitext-103": load_wikitext_103,
    "synthetic-characters": lambda: load_synthetic("characters"),
    "synthetic-words": lambda: load_synthetic("words"),
}
