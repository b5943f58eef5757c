"""Effects in words: "RMT 3, BPTT-2 lowers perplexity by 10.3 ± 8.1 against RMT 3, BPTT-0"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor, isfinite, log10
from typing import NamedTuple

MOST_DIGITS = 4
COUNTED = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Verb(NamedTuple):
    """How a number of an arm compares with another arm's, and how it is said alone; `{}` stands for the amount.

    An empty `alone` says the same as `less` and `more`, which then are of a difference that the number already is.
    """

    less: str = "is {} below"
    more: str = "is {} above"
    alone: str = "is {}"


Label = Callable[[str], str]
"""Names an arm as it is at one scale."""


def amount(value: float, half: float | None = None) -> str:
    """10.3 ± 8.1: with the digits that its error leaves; without an error three significant ones."""
    if half is None or not isfinite(half):
        return f"{value:.3g}"
    digits = min(MOST_DIGITS, max(0, 1 - floor(log10(half)))) if half > 0 else 3
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def counted(count: int, what: str) -> str:
    """one segment, three segments, 13 segments."""
    return f"{COUNTED[count] if count < len(COUNTED) else count} {what}{'s' * (count != 1)}"


def effect_in_words(
    weights: Mapping[str, float],
    limit: float,
    effect: float,
    half: float | None,
    label: Label,
    verbs: Mapping[str, Verb],
) -> str:
    """A contrast as a sentence.

    Args:
        effect: the weighted sum of the arms less `limit`.
        half: half of its 95 % interval; None if there is none, as of a printed number.
        verbs: by what an arm is a number of: the part after the colon in "<row>: <number>", "" of a row's own value.
    """
    names, shared = _without_shared_end({arm: label(arm) for arm in weights})
    (first, weight), *others = weights.items()
    verb = verbs.get(first.partition(": ")[2], Verb())
    value, bound = (effect + limit) / weight, limit / weight
    if not others and verb.alone:
        needed = f"; the claim needs {'less' if weight > 0 else 'more'} than {bound:.3g}" * bool(limit)
        return f"{names[first]} {verb.alone.format(amount(value, half))}{needed}"
    about = " (within the error)" if half is not None and abs(value) <= half else ""
    about += f"; the claim needs a difference {'below' if weight > 0 else 'above'} {bound:+.3g}" * bool(limit)
    said = f"{names[first]} {(verb.less if value < 0 else verb.more).format(amount(abs(value), half))}"
    if not others:
        return said + about
    if [share / weight for _, share in others] == [-1, -1, 1]:
        return f"{_gap_in_words([label(arm) for arm in weights], value, half)}{about}"
    if [share for _, share in others] == [-weight]:
        return f"{said} {names[others[0][0]]}{shared}{about}"
    return f"{said} {_mixture({names[arm]: -share / weight for arm, share in others})}{shared}{about}"


def _gap_in_words(names: Sequence[str], effect: float, half: float | None) -> str:
    """One difference against another: "A less B (nine segments) is 0.7 below C less D (three segments)"."""
    pairs = []
    for pair in (names[:2], names[2:]):
        said, shared = _without_shared_end({name: name for name in pair})
        pairs.append(f"{said[pair[0]]} less {said[pair[1]]}{shared}")
    return f"{pairs[0]} is {amount(abs(effect), half)} {'below' if effect < 0 else 'above'} {pairs[1]}"


def _without_shared_end(names: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """What all names end with after their last comma is said once: " (segment 20)"."""
    ends = {name.rpartition(", ")[2] for name in names.values()}
    if len(names) < 2 or len(ends) > 1 or not all(", " in name for name in names.values()):
        return names, ""
    return {arm: name.rpartition(", ")[0] for arm, name in names.items()}, f" ({ends.pop()})"


def _mixture(shares: Mapping[str, float]) -> str:
    """4 % of A and 96 % of B; A, plus 0.2 of B, less 0.2 of C."""
    if all(share > 0 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6:
        return " and ".join(f"{100 * share:.0f} % of {name}" for name, share in shares.items())
    parts = []
    for name, share in shares.items():
        size = "" if abs(share) == 1 else f"{abs(share):.2g} of "
        parts.append(f"{'less' if share < 0 else 'plus'} {size}{name}")
    return ", ".join(parts).removeprefix("plus ")
