"""What a claim is: a sentence of a paper with a check over records, and what the check says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["holds", "fails", "not enough runs"]

RUNS_NEEDED = 3  # of every task that a claim compares; what the paper has


@dataclass(frozen=True)
class Finding:
    """What a check says of one scale's records."""

    outcome: Outcome
    statistic: str


@dataclass(frozen=True)
class Claim:
    """A sentence, where it stands, how it is checked (in words), and the check over row -> its runs at one scale.

    The runs are as the artifact groups its records: curves over context length, or values of a table.
    """

    name: str
    text: str
    source: str
    rule: str
    check: Callable[[Mapping[str, Any]], Finding]


@dataclass(frozen=True)
class Verdict:
    """A claim at one scale."""

    claim: Claim
    scale: str
    outcome: Outcome
    statistic: str


def too_few(tasks: Mapping[str, Any], needed: Sequence[str]) -> Finding | None:
    """The finding "not enough runs" if a task has fewer than are needed."""
    short = {task: tasks[task].runs if task in tasks else 0 for task in needed}
    short = {task: runs for task, runs in short.items() if runs < RUNS_NEEDED}
    if not short:
        return None
    have = ", ".join(f"{task} has {runs}" for task, runs in short.items())
    return Finding("not enough runs", f"{RUNS_NEEDED} runs of each task are needed; {have}")
