"""bAbI questions (tasks qa1-qa5): the reader of the published files, and one door to files or simulator.

A file is a sequence of stories. Each line begins with its number in the story; a question's line goes on with a tab,
the answer, a tab, and the numbers of the lines that support it. As in BABILong, every question becomes one sample
with all statements before it; earlier questions and their answers are removed.

Reference: Weston et al., "Towards AI-Complete Question Answering" (2015); BABILong section 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmtlib.data import sources
from rmtlib.data.babi_world import TASKS, simulated_lines
from rmtlib.errors import RmtlibError

SPLITS = ("train", "validation", "test")
NEW = "endless"  # the simulator's stream of stories that are new in every pass
VALIDATION_PART = 0.1  # of the training stories, the last ones
TRAIN_QUESTIONS, TEST_QUESTIONS = 10_000, 1_000  # as in the published en-10k files


@dataclass(frozen=True)
class Question:
    """One sample: the statements before a question, and the question with its answer.

    `supporting` are 0-based indices into `facts`, in the file's order; `story` counts the stories of its file from 0.
    `end` is what follows the question mark in the file: a space in all of these tasks but qa4.
    """

    task: str
    facts: tuple[str, ...]
    question: str
    answer: str
    supporting: tuple[int, ...]
    story: int
    end: str = ""


def read_questions(path: str | Path, task: str) -> list[Question]:
    """All questions of a bAbI file, in order.

    Raises:
        RmtlibError: an unknown task, an unreadable file, or a line that is not bAbI (with its number).
    """
    check_task(task)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RmtlibError(f"{path}: cannot be read as a bAbI file ({error}): delete it and fetch it again") from error
    questions = parse_questions(text.splitlines(), task, str(path))
    if not questions:
        raise RmtlibError(f"{path}: no question in this file: delete it and fetch it again")
    return questions


def parse_questions(lines: Iterable[str], task: str, where: str = "text") -> list[Question]:
    """The questions in numbered lines of the published format; `where` names them in errors."""
    questions: list[Question] = []
    facts: list[str] = []
    index: dict[int, int] = {}  # line number in the story -> index into facts
    story, expected = -1, 1
    for count, line in enumerate(lines, 1):
        number, _, rest = line.partition(" ")
        if not rest.strip() or number not in ("1", str(expected)):
            raise RmtlibError(f"{where}, line {count}: expected '{expected} <text>', found {line[:60]!r}")
        if number == "1":
            story, facts, index = story + 1, [], {}
        expected = int(number) + 1
        if "\t" not in rest:
            index[int(number)] = len(facts)
            facts.append(rest.strip())
            continue
        asked, *fields = rest.split("\t")
        question, fields = asked.strip(), [field.strip() for field in fields]
        try:
            answer, support = fields
            supporting = tuple(index[int(item)] for item in support.split())
        except (ValueError, KeyError):
            answer = ""
        if not (question and answer and supporting):
            raise RmtlibError(
                f"{where}, line {count}: expected '<question>\\t<answer>\\t<lines of earlier statements>', "
                f"found {line[:80]!r}"
            )
        end = asked[len(asked.rstrip()) :]
        questions.append(Question(task, tuple(facts), question, answer, supporting, story, end))
    return questions


def simulate(task: str, n_questions: int, seed: int, split: str) -> list[Question]:
    """Questions of simulated stories: whole stories, as many as give at least `n_questions`, cut to that number.

    The splits of one seed are independent streams; see `babi_world` for what the stories look like.
    """
    check_task(task)
    check_split(split)
    return parse_questions(simulated_lines(task, n_questions, seed, split), task, "simulator")[:n_questions]


def load_questions(
    task: str, split: str, seed: int = 0, *, prefer: str = "auto", progress: bool = True
) -> tuple[list[Question], dict[str, Any]]:
    """The questions of a task and split, and where they come from.

    Args:
        task: "qa1" ... "qa5".
        split: "train", "validation" (the last 10 % of the training stories, which "train" then lacks) or "test".
        seed: of the simulator; the published files do not depend on it.
        prefer: "files" (the published ones, or an error), "simulator", or "auto": files if they are or can be
            fetched, else the simulator.

    Returns:
        The questions, and a dict with name, sha256, bytes, licence, source ("simulator", or the origin of the file),
        task, split, stories and questions.
    """
    check_task(task)
    check_split(split)
    if prefer == "auto":
        prefer = available_questions(task, progress=progress)
    part = "test" if split == "test" else "train"
    if prefer == "files":
        name = f"babi-{task}-{part}"
        questions = read_questions(sources.fetch(name, progress=progress), task)
        note = sources.provenance(name)
    elif prefer == "simulator":
        lines = simulated_lines(task, TEST_QUESTIONS if part == "test" else TRAIN_QUESTIONS, seed, part)
        questions = parse_questions(lines, task, "simulator")
        note = _simulated(f"simulated-{task}-{part}", lines, seed)
    else:
        raise RmtlibError(f"unknown source of questions {prefer!r}; known: auto, files, simulator")
    if split != "test":
        first = round((questions[-1].story + 1) * (1 - VALIDATION_PART))
        questions = [q for q in questions if (q.story >= first) == (split == "validation")]
    stories = len({q.story for q in questions})
    return questions, note | {"task": task, "split": split, "stories": stories, "questions": len(questions)}


def new_questions(task: str, number: int) -> list[Question]:
    """As many simulated training questions as a file has, others for every number."""
    return parse_questions(_new_lines(task, number), task, "simulator")


def endless_questions(task: str) -> tuple[list[Question], dict[str, Any]]:
    """`new_questions` of number 0, and as `load_questions` what they are; `passes` says that others follow."""
    lines = _new_lines(task, 0)
    questions = parse_questions(lines, task, "simulator")
    counts = {"stories": questions[-1].story + 1, "questions": len(questions)}
    note = _simulated(f"simulated-{task}-{NEW}", lines, 0) | {"task": task, "split": "train", **counts}
    return questions, note | {"passes": "each has new stories"}


def _new_lines(task: str, number: int) -> list[str]:
    return simulated_lines(task, TRAIN_QUESTIONS, number, NEW)


def _simulated(name: str, lines: list[str], seed: int) -> dict[str, Any]:
    raw = ("\n".join(lines) + "\n").encode()
    return {
        "name": name,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "bytes": len(raw),
        "licence": "generated",
        "source": "simulator",
        "seed": seed,
    }


def available_questions(task: str, *, fetch: bool = True, progress: bool = True) -> str:
    """ "files" if the published train and test files of a task are here or can be fetched, else "simulator".

    Args:
        fetch: fetch what is not here; without it no network is asked.

    Raises:
        RmtlibError: a file of your own is not the published one, nor could that be fetched: only where files are
            absent is the simulator used.
    """
    check_task(task)
    names = [f"babi-{task}-{part}" for part in ("train", "test")]
    try:
        for name in names if fetch else ():
            sources.fetch(name, progress=progress)
    except RmtlibError:
        pass
    missing = [name for name in names if sources.state(name) == "absent"]
    for name in missing if fetch else ():
        if complaint := sources.complaint(name):
            raise RmtlibError(
                f"{complaint}; this is not the published file of {name}: replace it, or delete it to use the simulator"
            )
    return "simulator" if missing else "files"


def check_task(task: str) -> None:
    if task not in TASKS:
        raise RmtlibError(f"unknown bAbI task {task!r}; known: {', '.join(TASKS)}")


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise RmtlibError(f"unknown split {split!r} of the questions; known: {', '.join(SPLITS)}")
