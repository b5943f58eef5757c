"""Which steps of a solution are right, as counts that a record keeps. Light to import: no torch.

{"n": 1000, "tokens": ..., "steps": [c, d, x1, x2, answer], "with_roots": {"n": 800, "steps": [...]}}

"tokens" are right positions of all that have a target. "steps" are samples with every token of the step right, padding
included, whatever the others are; "with_roots" counts the same among equations that have roots. Steps without roots
are padding, which a model that never finds a root gives too.
"""

from collections.abc import Mapping
from typing import Any

from rmtlib.data.quadratic import STEPS
from rmtlib.runs.checks import is_number

SOLVED = STEPS[1:]  # the steps that a model writes


def positions(width: int, *, starts_given: bool) -> list[slice]:
    """Where the targets of each step are among those of the answer, which begin at the second token of the first step.

    A step's first token is the target of the position before it. The released evaluation, which gives the first token
    of every segment, counts a step at its own positions instead (`starts_given`), the last of which says how the next
    step begins.
    """
    ahead = 0 if starts_given else 1
    ends = [(step + 1) * width - ahead for step in range(len(SOLVED))]
    starts = [max(end - width, 0) for end in ends]
    return [slice(start, end) for start, end in zip(starts, [*ends[:-1], len(SOLVED) * width], strict=True)]


def answers(counted: Mapping[str, Any]) -> int:
    """Samples whose answer is right."""
    return int(counted["steps"][-1])


def check_counts(counted: Any, samples: int, width: int) -> str | None:
    """What is wrong with the counts of so many samples; None if nothing."""
    if not isinstance(counted, Mapping) or not {"n", "tokens", "steps", "with_roots"} <= set(counted):
        return f"the counts are {counted!r}"
    if counted["n"] != samples:
        return f"n is {counted['n']!r}, not {samples}"
    if not is_number(counted["tokens"], 0, samples * width * len(SOLVED), whole=True):
        return f"{counted['tokens']!r} tokens are right"
    rooted = counted["with_roots"]
    if not isinstance(rooted, Mapping) or not is_number(rooted.get("n"), 0, samples, whole=True):
        return f"with_roots is {rooted!r}"
    for part in (counted, rooted):
        steps = part.get("steps")
        if not isinstance(steps, list) or len(steps) != len(SOLVED):
            return f"steps are {steps!r}"
        if not all(is_number(right, 0, part["n"], whole=True) for right in steps):
            return f"steps are {steps!r} of {part['n']}"
    without = samples - rooted["n"]
    for name, right, of_these in zip(SOLVED, counted["steps"], rooted["steps"], strict=True):
        if not of_these <= right <= of_these + without:
            return f"{name} is right {right} times, {of_these} times among {rooted['n']} equations with roots"
    return None
