"""Algorithmic tasks of the RMT paper (Bulatov et al. 2022, section 4 and appendix A): copy, reverse, retrieval.

A model reads a source and predicts at each position the token after it. Loss and accuracy are of the last
`answer_size` positions; a drill may ask before them, too. n = 4 symbols, `>` is START (1):

    copy        4 9 2 7 > 4 9 2 7 4 9 2        answer 4 9 2 7 4 9 2 7   (2n)
    reverse     4 9 2 7 > 7 2 9                answer 7 2 9 4           (n)
    retrieval   c 3 a 9 f 0 k 5 a >            answer 9                 (1), START is 10

Numbers as in the released data: symbols are 2 ... alphabet + 1, digits 0-9, letters 11-36; 0 is nobody's. Letters and
digits of a retrieval sample are drawn without replacement.

A sample is a function of (split, index, seed) alone: identical for all models. The splits share no sample: a hash of
what is drawn says which split it belongs to, and others are drawn again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeVar
from zlib import crc32

import numpy as np

from rmtlib.errors import RmtlibError
from rmtlib.seeds import generator

Split = Literal["train", "validation", "test"]
Drawn = TypeVar("Drawn")

START = 1  # of the answer of copy and reverse
FIRST_SYMBOL = 2
DIGITS, LETTERS = 10, 26
ASK = DIGITS  # "start to generate" of retrieval
MOST_DRAWS = 10_000  # for a sample; a task of few contents may have none in a split
HASHED = 16  # one of so many possible contents is validation's, one is test's


@dataclass(frozen=True)
class AnswerSample:
    """Token ids (T) of one sample and the target of each position, IGNORE before the answer's."""

    tokens: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Task(ABC):
    """A task at one size: what its samples are, and how long.

    Attributes:
        size: how large a sample is: symbols of copy and reverse, pairs of retrieval.
        alphabet: how many symbols there are.
    """

    size: int
    alphabet: int = 10
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.size < 1 or self.alphabet < 2:
            raise RmtlibError(f"{self.name}: size {self.size} must be 1 or more, alphabet {self.alphabet} 2 or more")

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens of a sample."""

    @property
    @abstractmethod
    def answer_size(self) -> int:
        """Positions that have a target: of a task the last ones, of a drill not all of these."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Token ids are below it."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Per-token accuracy of a guess that knows which tokens an answer can have."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The content of a sample, which decides its split: token ids of its input."""

    @abstractmethod
    def lay_out(self, content: np.ndarray) -> AnswerSample:
        """The sample that has this content."""

    def sample(self, split: Split, index: int, seed: int) -> AnswerSample:
        """Sample `index` of a split.

        Raises:
            RmtlibError: the task has too few contents for this split.
        """
        rng = generator(seed, "algorithmic", self.name, split, self.size, self.alphabet, index)
        content = draw_of_split(lambda: self.draw(rng), split_of, split)
        if content is None:
            raise RmtlibError(f"no {self.name} of size {self.size} is in the {split} split; raise size or alphabet")
        return self.lay_out(content)

    def segment_size(self, segments: int) -> int:
        """Tokens of a segment if a sample is cut into so many; the last one may be shorter."""
        return -(-self.length // segments)


class _Generated(Task):
    """A task whose answer is generated, token by token, after a token that starts it."""

    @abstractmethod
    def answer(self, content: np.ndarray) -> tuple[int, np.ndarray]:
        """The token that starts the answer, and the answer (`answer_size`)."""

    def lay_out(self, content: np.ndarray) -> AnswerSample:
        """Content, start token and answer, as source and targets that are one position ahead."""
        start, answer = self.answer(content)
        whole = np.concatenate([content, [start], answer])
        return _labelled(whole[:-1], answer)


def _labelled(tokens: np.ndarray, last: np.ndarray) -> AnswerSample:
    """Tokens, of which the last ones have these targets."""
    from rmtlib.segments import IGNORE  # which needs torch; sizes of tasks are known without

    labels = np.full(len(tokens), IGNORE, dtype=np.int64)
    labels[-len(last) :] = last
    return AnswerSample(tokens.astype(np.int64), labels)


class _Symbols(_Generated):
    """Copy and reverse: uniform symbols, with replacement."""

    @property
    def length(self) -> int:
        return self.size + self.answer_size

    @property
    def vocabulary(self) -> int:
        return FIRST_SYMBOL + self.alphabet

    @property
    def chance(self) -> float:
        return 1 / self.alphabet

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(FIRST_SYMBOL, FIRST_SYMBOL + self.alphabet, self.size)


class Copy(_Symbols):
    """The symbols twice."""

    name = "copy"

    @property
    def answer_size(self) -> int:
        return 2 * self.size

    def answer(self, content: np.ndarray) -> tuple[int, np.ndarray]:
        return START, np.concatenate([content, content])


class Reverse(_Symbols):
    """The symbols in reverse order."""

    name = "reverse"

    @property
    def answer_size(self) -> int:
        return self.size

    def answer(self, content: np.ndarray) -> tuple[int, np.ndarray]:
        return START, content[::-1]


class _Pairs(Task):
    """Pairs of a letter and a digit; no letter and no digit is in two of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size > DIGITS:
            raise RmtlibError(f"{self.name}: {self.size} pairs need as many different digits, there are {DIGITS}")

    @property
    def vocabulary(self) -> int:
        return DIGITS + 1 + LETTERS

    def pairs(self, rng: np.random.Generator) -> np.ndarray:
        """A pair a row (size, 2)."""
        letters = rng.choice(LETTERS, self.size, replace=False) + ASK + 1
        digits = rng.choice(DIGITS, self.size, replace=False)
        return np.stack([letters, digits], axis=1)


class Retrieval(_Pairs, _Generated):
    """Pairs of a letter and a digit, then one of the letters, whose digit is the answer (after Ba et al. 2016)."""

    name = "retrieval"

    @property
    def length(self) -> int:
        return 2 * self.size + 2

    @property
    def answer_size(self) -> int:
        return 1

    @property
    def chance(self) -> float:
        return 1 / DIGITS

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        pairs = self.pairs(rng)
        return np.append(pairs.flatten(), pairs[rng.integers(self.size), 0])

    def answer(self, content: np.ndarray) -> tuple[int, np.ndarray]:
        asked = int(np.flatnonzero(content[:-1:2] == content[-1])[0])
        return ASK, content[2 * asked + 1 : 2 * asked + 2]


class _Drill(_Pairs):
    """An exercise for `Retrieval`, no task of the paper: all its pairs are asked about, and the letter of each digit.

    A model that holds in each digit's state the letter before it can tell later whose digit it is.
    """

    @property
    def answer_size(self) -> int:
        return 2 * self.size

    @property
    def chance(self) -> float:
        return (1 / DIGITS + 1 / LETTERS) / 2


class PairsDrill(_Drill):
    """All pairs once more, in another order.

        c 3 a 9 k 5 a 9 k 5 c 3        answer 9 a 5 k 3 c   (2n)

    Of the second ones each letter asks for its digit, and each digit for the letter before it. The answers are read
    again, so the last digit can be found without its letter: it is the one that is left.
    """

    name = "retrieval drill"

    @property
    def length(self) -> int:
        return 4 * self.size

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        pairs = self.pairs(rng)
        return np.concatenate([pairs, rng.permutation(pairs)]).flatten()

    def lay_out(self, content: np.ndarray) -> AnswerSample:
        """The pairs twice; of the second ones digit and letter are asked."""
        return _labelled(content, content[2 * self.size :].reshape(-1, 2)[:, ::-1].flatten())


class LettersDrill(_Drill):
    """All letters once more, in another order.

        c 3 a 9 k 5 a k c              answer   c   a   k 9 5 3   (2n)

    Each digit asks for the letter before it, and each letter that comes again for its digit. No digit comes again, so
    that none can be found as the one that is left.
    """

    name = "retrieval drill with letters"

    @property
    def length(self) -> int:
        return 3 * self.size

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        pairs = self.pairs(rng)
        return np.concatenate([pairs.flatten(), rng.permutation(pairs[:, 0])])

    def lay_out(self, content: np.ndarray) -> AnswerSample:
        """The pairs and the letters; asked are the pairs' letters at their digits, and the letters' digits."""
        pairs, letters = content[: 2 * self.size].reshape(-1, 2), content[2 * self.size :]
        digits = pairs[(pairs[:, 0] == letters[:, None]).argmax(1), 1]
        sample = _labelled(content, digits)
        sample.labels[1 : 2 * self.size : 2] = pairs[:, 0]
        return sample


DRILLS: Mapping[str, type[_Drill]] = MappingProxyType({"pairs": PairsDrill, "letters": LettersDrill})
"""What comes once more -> class."""

TASKS: Mapping[str, type[Task]] = MappingProxyType({task.name: task for task in (Copy, Reverse, Retrieval)})
"""Name -> class. A task is made with its size and alphabet."""


def split_of(content: np.ndarray) -> Split:
    """The split that a content belongs to: a sixteenth of all contents is validation's, another one test's."""
    part = crc32(content.astype(np.uint8).tobytes()) % HASHED
    return ("validation", "test")[part] if part < 2 else "train"


def draw_of_split(draw: Callable[[], Drawn], belongs_to: Callable[[Drawn], Split], split: Split) -> Drawn | None:
    """The first draw that belongs to the split; None if `MOST_DRAWS` do not."""
    draws = (draw() for _ in range(MOST_DRAWS))
    return next((drawn for drawn in draws if belongs_to(drawn) == split), None)


def chunks(length: int, target_length: int) -> tuple[int, int]:
    """(segments, segment size) that the released code makes with its option tgt_len.

    It cuts by ``torch.chunk(data, length // tgt_len)``, which gives pieces of equal, rounded up size: of 10 tokens and
    tgt_len 4 two segments of 5, where its table of results counts 3.
    """
    size = -(-length // (length // target_length))
    return -(-length // size), size
