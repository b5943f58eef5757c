"""BABILong samples (Kuratov et al. 2024, section 2): the facts of a bAbI question hidden in book text.

    context = background sentences with the facts in their order at random sentence gaps,
              exactly `context_tokens` long
    sample  = context + question + GEN + answer + EOS

Samples are assembled by slicing token arrays, segment by segment where they are read, so length costs nothing.
Every sample is a function of (seed, stream, index) alone: workers and batches do not change it.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np

from rmtlib.data.babi import Question
from rmtlib.data.text import Background, Tokenizer
from rmtlib.data.tracking import tracked_questions
from rmtlib.errors import RmtlibError
from rmtlib.seeds import generator
from rmtlib.segments import IGNORE

TEST_SEED = 42  # the papers fix the background of the test set, whatever the training seed
JOINS = {"space": " ", "released": ""}
"""How texts are joined: what stands before each.

"space": a space. "released": nothing, and the rest as the released training code has it too: a question keeps the space
that follows it in bAbI's files (a token before GEN), the background its line breaks.
"""


class Joined:
    """Arrays read as one, without copying them together: slices are assembled on demand."""

    def __init__(self, pieces: Sequence[np.ndarray]):
        self.pieces = [piece for piece in pieces if len(piece)]
        self._ends = list(accumulate(len(piece) for piece in self.pieces))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def views(self, start: int, stop: int) -> list[np.ndarray]:
        """The parts of the arrays that make up [start, stop), uncopied."""
        parts = []
        piece = bisect_right(self._ends, start)
        while start < stop:
            before = self._ends[piece - 1] if piece else 0
            parts.append(self.pieces[piece][start - before : stop - before])
            start, piece = self._ends[piece], piece + 1
        return parts

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        parts = self.views(start, stop)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16)


class _AnswerLabels:
    """Next-token labels of a sample, made where they are read: targets inside the answers only."""

    def __init__(self, sample: "Sample"):
        self.sample = sample

    def __len__(self) -> int:
        return len(self.sample.tokens)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        labels = np.full(max(stop - start, 0), IGNORE, dtype=np.int64)
        for first, last in self.sample.answers:  # the token at p is predicted from position p - 1
            low, high = max(first - 1, start), min(last - 1, stop)
            if low < high:
                labels[low - start : high - start] = self.sample.tokens[low + 1 : high + 1]
        return labels


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        tokens: all ids, sliced on demand.
        answers: spans [first, last) of `tokens` that are to be predicted: each answer with its EOS.
        facts_at: offset of each fact's first token.
        asked_at: offset of the final question's first token: the length of the context.
        question: the bAbI question at the end.
    """

    tokens: Joined
    answers: tuple[tuple[int, int], ...]
    facts_at: tuple[int, ...]
    asked_at: int
    question: Question

    @cached_property
    def labels(self) -> _AnswerLabels:
        """Targets for `segments.cut`."""
        return _AnswerLabels(self)

    @property
    def prompt_length(self) -> int:
        """Tokens up to and including GEN before the last answer."""
        return self.answers[-1][0]


@dataclass(frozen=True)
class SampleBuilder:
    """Builds samples of one task.

    Attributes:
        questions: the bAbI questions.
        background: the books; None for the facts alone (BABILong's 0k).
        tokenizer: makes the ids.
        stream: name of the random stream, e.g. "train" or "test".
        seed: its root. The papers fix the test stream's seed and leave the training one open.
        join: "space" or "released", see `JOINS`; `background` is built for the same.
        every_question: ask the earlier questions of the story too, each at a random gap after its last fact and
            with its answer in place. More to learn from than the papers' one question at the end. (If facts and
            earlier questions together exceed the context, the sample is longer.)
        tracked_questions: ask so many more along the story, where a person or object is (`data.tracking`), with their
            answers in place. Not in the papers.
        new_questions: the questions of each later pass, by its number, 1 and up; None: those of the first again. A
            pass has as many samples as the first has questions.
        task_start_pct, task_end_pct: put all facts between these shares of the context (BABILong's option).
    """

    questions: Sequence[Question]
    background: Background | None
    tokenizer: Tokenizer
    stream: str
    seed: int
    join: str = "space"
    every_question: bool = False
    tracked_questions: int = 0
    new_questions: Callable[[int], Sequence[Question]] | None = None
    task_start_pct: float | None = None
    task_end_pct: float | None = None

    def __post_init__(self) -> None:
        if not self.questions:
            raise RmtlibError("there are no questions to build samples from; check the task's data")
        if self.join not in JOINS:
            raise RmtlibError(f"join is {self.join!r}; it must be one of {', '.join(JOINS)}")
        low, high = self.task_start_pct or 0.0, 1.0 if self.task_end_pct is None else self.task_end_pct
        if not 0.0 <= low < high <= 1.0:
            raise RmtlibError(f"task_start_pct {low} and task_end_pct {high} must hold 0 <= start < end <= 1")

    def fitting(self, context_tokens: int) -> list[Question]:
        """The questions whose facts fit into a context; the others are left out at this length, as in BABILong.

        Raises:
            RmtlibError: there is none.
        """
        if context_tokens not in self._fitting:
            fitting = [q for q, n in zip(self.questions, self._facts_lengths, strict=True) if n <= context_tokens]
            if not fitting:
                raise RmtlibError(
                    f"no {self.questions[0].task} question's facts fit into {context_tokens} tokens (the shortest have "
                    f"{min(self._facts_lengths)}); use longer contexts or segments"
                )
            self._fitting[context_tokens] = fitting
        return self._fitting[context_tokens]

    @cached_property
    def _fitting(self) -> dict[int, list[Question]]:
        return {}

    @cached_property
    def _facts_lengths(self) -> list[int]:
        return [sum(len(self._encode(fact)) for fact in q.facts) for q in self.questions]

    def question_of(self, index: int, context_tokens: int) -> Question:
        """Each pass over the fitting questions is a new shuffle in a "train" stream; others keep the file's order."""
        if (later := self._pass_of(index)) is not self:
            return later.question_of(index, context_tokens)
        questions = self.fitting(context_tokens)
        epoch, position = divmod(index, len(questions))
        if self.stream == "train":
            position = int(self._order(epoch, len(questions))[position])
        return questions[position]

    def _pass_of(self, index: int) -> "SampleBuilder":
        """The builder with the questions of this sample's pass; the last one is kept."""
        number = index // len(self.questions)
        if self.new_questions is None or number == 0:
            return self
        if number not in self._passes:
            self._passes.clear()
            self._passes[number] = replace(self, questions=self.new_questions(number), new_questions=None)
        return self._passes[number]

    @cached_property
    def _passes(self) -> dict[int, "SampleBuilder"]:
        return {}

    def _order(self, epoch: int, size: int) -> np.ndarray:
        if (epoch, size) not in self._orders:
            self._orders[epoch, size] = generator(self.seed, self.stream, "order", size, epoch).permutation(size)
        return self._orders[epoch, size]

    @cached_property
    def _orders(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def build(self, index: int, context_tokens: int) -> Sample:
        """Sample `index` with a context of exactly `context_tokens` tokens; without background, of at most as many.

        Questions along the story (`tracked_questions`, `every_question`) can make it longer.

        Raises:
            RmtlibError: no question's facts fit.
        """
        if (later := self._pass_of(index)) is not self:
            return later.build(index, context_tokens)
        question = self.question_of(index, context_tokens)
        rng = generator(self.seed, self.stream, "sample", index)
        items = [self._encode(fact) for fact in question.facts]
        asked = self._asked(question, len(items)) + self._tracked(question, index)
        facts_length = sum(map(len, items)) + sum(len(ids) for _, ids, _ in asked)
        noise = context_tokens - facts_length if self.background is not None else 0
        chunks, gaps = self._noise(max(noise, 0), rng)
        fact_gaps = self._fact_gaps(gaps, len(items), context_tokens, facts_length, rng)
        return self._assemble(question, items, asked, chunks, gaps, fact_gaps, rng)

    def _encode(self, text: str) -> np.ndarray:
        """The ids of a fact or question; a task has a few hundred different ones."""
        if text not in self._ids:
            self._ids[text] = self.tokenizer.encode(JOINS[self.join] + text)
        return self._ids[text]

    @cached_property
    def _ids(self) -> dict[str, np.ndarray]:
        return {}

    def _ask(self, question: Question) -> tuple[np.ndarray, int]:
        """Question, GEN, answer, EOS, and the number of tokens before the answer."""
        return self._ask_in_words(
            question.question + (question.end if self.join == "released" else ""), question.answer
        )

    def _ask_in_words(self, question: str, answer: str) -> tuple[np.ndarray, int]:
        asked = self._encode(question)
        ids = [*asked, self.tokenizer.gen_id, *self.tokenizer.encode(answer), self.tokenizer.eos_id]
        return np.array(ids, dtype=np.uint16), len(asked) + 1

    def _asked(self, question: Question, facts: int) -> list[tuple[int, np.ndarray, int]]:
        """Earlier questions of the story as (number of facts before it, ids, tokens before its answer)."""
        if not self.every_question:
            return []
        return [
            (len(other.facts), *self._ask(other)) for other in self._stories[question.story] if len(other.facts) < facts
        ]

    def _tracked(self, question: Question, index: int) -> list[tuple[int, np.ndarray, int]]:
        """Tracked questions along the story, in the form of `_asked`."""
        if not self.tracked_questions:
            return []
        rng, before = generator(self.seed, self.stream, "tracked", index), question.task == "qa3"
        found = tracked_questions(question.facts, self.tracked_questions, rng, before=before)
        return [(facts, *self._ask_in_words(asked, answer)) for facts, asked, answer in found]

    @cached_property
    def _stories(self) -> dict[int, list[Question]]:
        stories: dict[int, list[Question]] = {}
        for question in self.questions:
            stories.setdefault(question.story, []).append(question)
        return stories

    def _noise(self, tokens: int, rng: np.random.Generator) -> tuple[Joined, np.ndarray]:
        """Background of exactly `tokens` tokens, and the offsets of its sentence gaps, both ends included."""
        if not tokens or self.background is None:
            return Joined([]), np.zeros(1, dtype=np.int64)
        pieces, gaps, done = [], [], 0
        for first, size in self.background.draw(tokens, rng):
            begin = int(self.background.sentences[first])
            last = int(np.searchsorted(self.background.sentences, begin + size))
            gaps.append(self.background.sentences[first:last] - begin + done)
            pieces.append(self.background.ids[begin : begin + size])
            done += size
        return Joined(pieces), np.concatenate([*gaps, [tokens]])

    def _fact_gaps(
        self, gaps: np.ndarray, facts: int, context: int, facts_length: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Index of a sentence gap for every fact: uniform with replacement, then sorted, so that the order is kept."""
        if self.task_start_pct is None and self.task_end_pct is None:
            return np.sort(rng.integers(len(gaps), size=facts))
        start = int((self.task_start_pct or 0.0) * context)
        end = int((1.0 if self.task_end_pct is None else self.task_end_pct) * context) - facts_length
        allowed = np.flatnonzero((gaps >= start) & (gaps <= max(end, start)))
        if not len(allowed):
            raise RmtlibError(
                f"no sentence gap lies between {start} and {end} of {context} tokens; widen task_start_pct/task_end_pct"
            )
        return np.sort(rng.choice(allowed, size=facts))

    def _assemble(
        self,
        question: Question,
        items: list[np.ndarray],
        asked: list[tuple[int, np.ndarray, int]],
        chunks: Joined,
        gaps: np.ndarray,
        fact_gaps: np.ndarray,
        rng: np.random.Generator,
    ) -> Sample:
        # (gap, fact, tokens before the answer or 0 for a fact): a question stays between its last fact and the next.
        inserts = [(int(gap), i, 0, ids) for i, (gap, ids) in enumerate(zip(fact_gaps, items, strict=True))]
        for facts_before, ids, prompt in asked:
            low = fact_gaps[facts_before - 1]
            high = fact_gaps[facts_before] if facts_before < len(items) else len(gaps) - 1
            inserts.append((int(rng.integers(low, high + 1)), facts_before - 1, prompt, ids))
        inserts.sort(key=lambda item: item[:3])
        pieces: list[np.ndarray] = []
        facts_at, answers, length, read = [], [], 0, 0
        for gap, _, prompt, ids in inserts:
            stop = int(gaps[gap])
            pieces += chunks.views(read, stop)
            length, read = length + stop - read, stop
            if prompt:
                answers.append((length + prompt, length + len(ids)))
            else:
                facts_at.append(length)
            pieces.append(ids)
            length += len(ids)
        pieces += chunks.views(read, len(chunks))
        length += len(chunks) - read
        final, prompt = self._ask(question)
        answers.append((length + prompt, length + len(final)))
        return Sample(Joined([*pieces, final]), tuple(answers), tuple(facts_at), length, question)
