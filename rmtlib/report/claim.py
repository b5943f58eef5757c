"""What a claim is: a sentence of a paper with a check over records, and what the check says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rmtlib.evaluation.statistics import above_p, any_p, mean_difference

Outcome = Literal["holds", "fails", "not enough runs"]

RUNS_NEEDED = 3  # of every task that a claim compares; what the paper has
LEVEL = 0.05
BY_TEST = " Decided by tests."
ABOUT_TESTS = (
    "Decided by tests: a claim fails where the seeds contradict it at 5 % in any pair that it compares (Welch's "
    "t-test, Simes's over the pairs), and holds where they confirm it at 5 % in every pair; else there are not enough "
    "runs."
)
"""What `compare` does, in a claim's rule and under a table of claims."""


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


class Pair(NamedTuple):
    """Two samples over seeds, named; a claim has it that the first mean is below the second times 1 + `limit`."""

    low: str
    low_values: Sequence[float]
    high: str
    high_values: Sequence[float]
    limit: float = 0.0


def compare(pairs: Sequence[Pair]) -> Finding:
    """Whether seeds bear out all pairs (see `ABOUT_TESTS`), with every difference and its standard error."""
    above = [above_p(p.low_values, [value * (1 + p.limit) for value in p.high_values]) for p in pairs]
    parts = []
    for pair, p in zip(pairs, above, strict=True):
        gap, error = mean_difference(pair.low_values, pair.high_values)
        m, n = len(pair.low_values), len(pair.high_values)
        side = "above" if p < 0.5 else "below"
        if pair.limit:  # in words: 10 % above, or below
            more = (p < 0.5) == (pair.limit > 0)
            limit = f"{100 * abs(pair.limit):g} % {'above' if pair.limit > 0 else 'below'}"
            side = f"{'more' if more else 'less'} than {limit}"
        tested = f"{m} and {n} runs; {side}, p = {min(p, 1 - p):.2g}"
        parts.append(f"{pair.low} - {pair.high} = {gap:+.3f} ± {error:.3f} ({tested})")
    text = "; ".join(parts)
    if any_p(above) < LEVEL:
        return Finding("fails", text)
    return Finding("holds" if all(1 - p < LEVEL for p in above) else "not enough runs", text)
