"""What a claim is: a sentence of a paper with a check over records, and what the check says at each scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rmtlib.evaluation.statistics import above_p, any_p, mean_difference
from rmtlib.report.measurements import Results, Series

Outcome = Literal["holds", "fails", "undecided", "not enough runs", "not run"]
"""undecided: there are enough runs, but they do not tell."""

RUNS_NEEDED = 3  # of every row that a claim compares; what the papers have
LEVEL = 0.05
BY_TEST = " Decided by tests."
ABOUT_TESTS = (
    "Decided by tests: a claim fails if the seeds contradict it at 5 % in any pair that it compares (Welch's t-test, "
    "Simes's over the pairs), and holds if they confirm it at 5 % in every pair; else it is undecided."
)
"""What `compare` does, in a claim's rule and under a table of claims."""


@dataclass(frozen=True)
class Finding:
    """What a check says of one scale's records.

    Attributes:
        statistic: all numbers in words.
        effect: the difference that decides, in the metric's unit; of several the one that speaks least for the claim.
        error: the effect's standard error over seeds.
        n: runs in each of the samples compared.
        p: p-value that the claim's direction is a matter of chance.
        parts: the findings of a claim that says several things, by name.
    """

    outcome: Outcome
    statistic: str
    effect: float | None = None
    error: float | None = None
    n: tuple[int, ...] = ()
    p: float | None = None
    parts: Mapping[str, Finding] | None = None

    @property
    def numbers(self) -> str:
        """Effect ± error and n, as a verdict's tag has them; empty if there is no effect."""
        if self.effect is None:
            return ""
        error = "" if self.error is None else f" ± {self.error:.3f}"
        return f"{self.effect:+.3f}{error}, n = {' and '.join(map(str, self.n))}"


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and how it is checked.

    Attributes:
        source: the paper, and where it says so.
        rule: the check in words.
        check: what the series of one scale (row -> series of its main metric) say.
        rows: the rows that it compares, for what it costs to run it.
        primary: whether it is decided by a test that is corrected for there being several claims.
        margin: how far from the claim's sentence still counts as true, in the rule's unit (see there).
        power: simulated probability that the rule says "holds", world -> probability; None until it is simulated.
    """

    name: str
    text: str
    source: str
    rule: str
    check: Callable[[Mapping[str, Series]], Finding]
    rows: tuple[str, ...] = ()
    primary: bool = False
    margin: float | None = None
    power: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim at one scale."""

    claim: Claim
    scale: str
    finding: Finding


def judge(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """Every claim at every scale that has records, except `smoke`, which only shows that everything runs."""
    by_scale = {scale: rows for scale, rows in results.series().items() if scale != "smoke"}
    return [Verdict(claim, scale, _check(claim, rows)) for scale, rows in by_scale.items() for claim in claims]


def _check(claim: Claim, rows: Mapping[str, Series]) -> Finding:
    if claim.rows and not any(row in rows for row in claim.rows):
        return Finding("not run", f"{RUNS_NEEDED} runs of each row are needed; none was run")
    return claim.check(rows)


def too_few(rows: Mapping[str, Series], needed: Sequence[str]) -> Finding | None:
    """The finding "not enough runs" if a row has fewer than are needed."""
    short = {row: rows[row].n_runs if row in rows else 0 for row in needed}
    short = {row: count for row, count in short.items() if count < RUNS_NEEDED}
    if not short:
        return None
    have = ", ".join(f"{row} has {count}" for row, count in short.items())
    return Finding("not enough runs", f"{RUNS_NEEDED} runs of each row are needed; {have}")


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
    singles = {f"{pair.low} - {pair.high}": _single(pair, p) for pair, p in zip(pairs, above, strict=True)}
    least = singles[min(zip(above, singles, strict=True))[1]]
    return Finding(
        _outcome(above),
        "; ".join(single.statistic for single in singles.values()),
        least.effect,
        least.error,
        least.n,
        least.p,
        singles if len(singles) > 1 else None,
    )


def _outcome(above: Sequence[float]) -> Outcome:
    if any_p(above) < LEVEL:
        return "fails"
    return "holds" if all(1 - p < LEVEL for p in above) else "undecided"


def _single(pair: Pair, above: float) -> Finding:
    gap, error = mean_difference(pair.low_values, pair.high_values)
    n = (len(pair.low_values), len(pair.high_values))
    side = "above" if above < 0.5 else "below"
    if pair.limit:  # in words: 10 % above, or below
        more = (above < 0.5) == (pair.limit > 0)
        limit = f"{100 * abs(pair.limit):g} % {'above' if pair.limit > 0 else 'below'}"
        side = f"{'more' if more else 'less'} than {limit}"
    tested = f"{n[0]} and {n[1]} runs; {side}, p = {min(above, 1 - above):.2g}"
    text = f"{pair.low} - {pair.high} = {gap:+.3f} ± {error:.3f} ({tested})"
    return Finding(_outcome([above]), text, gap, error, n, 1 - above)
