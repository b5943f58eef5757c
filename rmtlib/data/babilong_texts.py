"""BABILong's test samples as texts, for models with a tokeniser of their own and for other people's harnesses.

The same samples whatever the model: built by `data.babilong` with GPT-2's tokens, as the published sets are, then
decoded. A nominal length, "4k", is that of the published generator (`babilong_prompts.nominal_tokens`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rmtlib.data import babi, books
from rmtlib.data.babilong import JOINS, TEST_SEED, SampleBuilder
from rmtlib.data.babilong_prompts import nominal_tokens
from rmtlib.data.sources import cache_folder
from rmtlib.data.text import Background, GPT2Tokenizer, Tokenizer

HUB_NAME = "RMT-team/babilong-1k-samples"
"""The published data set; the harness's task asks for it by this name, which a local folder answers too."""
_UNBOUNDED = 2**40  # "tokens" of a context whose facts stand alone


@dataclass(frozen=True)
class TextSample:
    """One sample in the fields of the published data sets: the context, the question, and its answer in one word."""

    input: str
    question: str
    target: str


@dataclass(frozen=True)
class TaskTexts:
    """The test samples of a task as texts, and where they come from."""

    builder: SampleBuilder
    provenance: list[dict[str, Any]]

    def count(self, length: str, most: int) -> int:
        """How many samples of a nominal length there are, at most so many: those whose facts fit into it."""
        return min(most, len(self._at(length)[0].fitting(self._at(length)[1])))

    def samples(self, length: str, count: int) -> Iterator[TextSample]:
        """The first `count` samples of a nominal length."""
        builder, tokens = self._at(length)
        for index in range(count):
            sample = builder.build(index, tokens)
            context = builder.tokenizer.decode(sample.tokens[: sample.asked_at].tolist()).strip()
            yield TextSample(context, sample.question.question, sample.question.answer)

    def _at(self, length: str) -> tuple[SampleBuilder, int]:
        tokens = nominal_tokens(length)
        return (self.builder, tokens) if tokens else (self._facts_alone, _UNBOUNDED)

    @cached_property
    def _facts_alone(self) -> SampleBuilder:
        return replace(self.builder, background=None)


def open_texts(
    task: str, *, questions: str = "auto", background: str = "baseten", tokenizer: Tokenizer | None = None
) -> TaskTexts:
    """The test samples of a task.

    Args:
        questions: "files", "simulator" or "auto", see `babi.load_questions`.
        background: a collection of `data.books`, or "synthetic" for made-up words.
        tokenizer: what lengths are measured in; None: GPT-2's.

    Raises:
        RmtlibError: an unknown task or collection, or files that cannot be had.
    """
    asked, note = babi.load_questions(task, "test", prefer=questions)
    notes = [note]
    if background == "synthetic":
        texts = [" ".join(books.synthetic_text(2, 1500))]
        notes.append({"name": "synthetic text", "source": "generated", "licence": "generated"})
    else:
        loaded, more = books.load_books("test", background)
        texts = [book.text for book in loaded]
        notes += more
    tokenizer = tokenizer or GPT2Tokenizer.load()
    made = Background.build(texts, tokenizer, cache_folder() / "tokens", lead=JOINS["space"])
    return TaskTexts(SampleBuilder(asked, made, tokenizer, stream="test", seed=TEST_SEED), notes)


def write_folder(
    folder: str | Path, texts: dict[str, TaskTexts], lengths: list[str], samples: int
) -> dict[str, dict[str, int]]:
    """Write the samples as a data set: ``load_dataset(folder, name=length, split=task)``, as of the published ones.

    Returns:
        Samples by length and task.

    Raises:
        ModuleNotFoundError: the library `datasets` is not installed.
    """
    from datasets import Dataset

    home, written = Path(folder), {}
    for length in lengths:
        counts = {}
        for task, source in texts.items():
            rows = [vars(sample) for sample in source.samples(length, source.count(length, samples))]
            (home / length).mkdir(parents=True, exist_ok=True)
            Dataset.from_list(rows).to_parquet(str(home / length / f"{task}.parquet"))
            counts[task] = len(rows)
        written[length] = counts
    (home / "README.md").write_text(_card(texts, lengths), encoding="utf-8")
    return written


def _card(texts: dict[str, TaskTexts], lengths: list[str]) -> str:
    """The folder's README: its header tells the library which files are which configuration and split."""
    lines = ["---", "configs:"]
    for length in lengths:
        lines += [f"- config_name: {length}", "  data_files:"]
        for task in texts:
            lines += [f"  - split: {task}", f"    path: {length}/{task}.parquet"]
    notes = [note for source in texts.values() for note in source.provenance]
    names = dict.fromkeys(f"- {note['name']} ({note['source']}; {note['licence']})" for note in notes)
    return "\n".join(
        [
            *lines,
            "---",
            "# BABILong samples, built by rmtlib",
            "",
            "Not the published data set: the same construction with the background named below, seed "
            f"{TEST_SEED}. Fields: input, question, target.",
            "",
            *names,
            "",
        ]
    )
