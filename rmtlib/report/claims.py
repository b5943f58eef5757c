"""What a claim is: a sentence of a paper with a rule over records, and what the rule says at each scale.

Primary claims are decided by their rule (`rmtlib.evaluation.decisions`); all others are described: the effect of every
contrast that has its runs, with a 95 % interval, and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from rmtlib.evaluation.decisions import RUNS_NEEDED, Arms, Contrast, Decision, Gate, Rule, decide, estimate
from rmtlib.report.measurements import Record, latest

Outcome = Literal["holds", "fails", "undecided", "described", "not enough runs", "not run"]
OUTCOMES: tuple[Outcome, ...] = ("holds", "fails", "undecided", "described", "not enough runs", "not run")

OLDER = "rule declared after these records"
FORMER = "an earlier form of the rule"


class Declaration(NamedTuple):
    """A rule as it was declared: when (UTC, ISO 8601) and in which commit."""

    declared: str
    commit: str
    rule: Rule


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and what it is read from.

    Attributes:
        source: the paper, and where it says so.
        rule: the contrasts in words.
        test: contrasts of arms, each below its limit if the sentence is true; gates, which of a described claim only
            say what its numbers are worth; of a primary claim also worlds.
        primary: whether the rule decides it. Without this it is described.
        note: what a reader has to know who sees the verdict alone.
        declared: the rule's declarations, oldest first.
    """

    name: str
    text: str
    source: str
    rule: str
    test: Rule
    primary: bool = False
    declared: tuple[Declaration, ...] = ()
    note: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that have to be run for it; "<row>: <number>" is an arm of that row."""
        return tuple(dict.fromkeys(arm.partition(":")[0] for arm in self.test.runs))

    @property
    def decisive_rows(self) -> tuple[str, ...]:
        """`rows` without those that a gate only compares with: a count of n-grams is the same whenever it is made."""
        compared = {gate.than for gate in self.test.gates}
        return tuple(row for row in self.rows if row not in compared)


class Effect(NamedTuple):
    """One contrast as measured: less its limit, with its 95 % interval and the runs of each arm.

    `share` is the size of a difference of two arms relative to the second one's mean, None of other contrasts.
    """

    contrast: str
    effect: float
    low: float
    high: float
    n: tuple[int, ...]
    weights: Mapping[str, float] = {}
    limit: float = 0.0
    share: float | None = None

    @property
    def half(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    @property
    def runs(self) -> str:
        """n = 3, or n = 3 and 6."""
        return f"n = {' and '.join(map(str, self.n[:1] if len(set(self.n)) == 1 else self.n))}"

    @property
    def numbers(self) -> str:
        """As a verdict's tag has it."""
        return f"{self.effect:+.3f} [{self.low:+.3f}, {self.high:+.3f}], n = {' and '.join(map(str, self.n))}"


@dataclass(frozen=True)
class Verdict:
    """A claim at one scale, by one declaration of its rule; the newest comes first.

    Attributes:
        effects: of every contrast that has its runs.
        p: of a primary claim after Holm's correction; None if nothing was tested.
        why: what is missing or which gate is shut; empty if there is nothing to say.
        commit: where the rule was declared; None: not yet, or the claim is not primary.
        older: whether a record is older than the rule.
        spread: of a primary claim that was tested, each arm's mean and standard deviation over the seeds.
    """

    claim: Claim
    scale: str
    outcome: Outcome
    effects: tuple[Effect, ...] = ()
    p: float | None = None
    why: str = ""
    commit: str | None = None
    older: bool = False
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def former(self) -> bool:
        """Whether a later declaration has replaced its form of the rule; words and power are the newest's."""
        return self.commit is not None and self.commit != self.claim.declared[-1].commit


def in_words(contrast: Contrast) -> str:
    """a - b; a - 0.09 b - 0.91 c; a - 0.12 (of a limit)."""
    text = ""
    for arm, weight in contrast.weights.items():
        sign = "-" if weight < 0 else "+"
        size = "" if abs(weight) == 1 else f"{abs(weight):.2g} "
        text += f" {sign} {size}{arm}" if text else f"{'-' if weight < 0 else ''}{size}{arm}"
    return text + (f" {'-' if contrast.limit > 0 else '+'} {abs(contrast.limit):.3g}" if contrast.limit else "")


def judge(
    claims: Sequence[Claim], records: Iterable[Record], arms: Callable[[Iterable[Record]], Arms]
) -> list[Verdict]:
    """Every claim at every scale that has records, except `smoke`, which only shows that everything runs."""
    by_scale: dict[str, list[Record]] = {}
    for record in latest(records):
        by_scale.setdefault(record["scale"], []).append(record)
    return [
        verdict
        for scale, runs in by_scale.items()
        if scale != "smoke"
        for claim in claims
        for verdict in _verdicts(claim, scale, claims, runs, arms(runs))
    ]


def _verdicts(
    claim: Claim, scale: str, claims: Sequence[Claim], records: Sequence[Record], arms: Arms
) -> list[Verdict]:
    if not claim.primary:
        return [_described(claim, scale, arms)]
    rules = dict(primaries(claims))
    if not claim.declared:
        return [_decided(claim, scale, decide(rules, arms)[claim.name], claim.test, arms)]
    return [
        _decided(
            claim,
            scale,
            decide(rules | {claim.name: entry.rule}, arms)[claim.name],
            entry.rule,
            arms,
            entry.commit,
            any(record["finished"] < entry.declared for record in records if record["row"] in claim.decisive_rows),
        )
        for entry in reversed(claim.declared)
    ]


def _decided(
    claim: Claim,
    scale: str,
    decision: Decision,
    rule: Rule,
    arms: Arms,
    commit: str | None = None,
    older: bool = False,
) -> Verdict:
    why = "" if decision.p is not None else decision.why
    compared = {arm for contrast in rule.contrasts for arm in contrast.weights}
    spread = {arm: (fmean(arms[arm]), stdev(arms[arm])) for arm in compared if decision.p is not None}
    return Verdict(claim, scale, decision.outcome, effects(rule, arms), decision.p, why, commit, older, spread)


def _described(claim: Claim, scale: str, arms: Arms) -> Verdict:
    measured = effects(claim.test, arms)
    lacking = [arm for arm in claim.test.runs if len(arms.get(arm, ())) < RUNS_NEEDED]
    more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
    why = f"fewer than {RUNS_NEEDED} runs of {', '.join(lacking[:4])}{more}" if lacking else ""
    shut = [said for gate in claim.test.gates if arms.get(gate.arm) and (said := gate.shut(arms))]
    why = "; ".join([*shut, why] if why else shut)
    some = any(arms.get(arm) for arm in claim.test.runs)
    outcome: Outcome = "described" if measured else "not enough runs" if some else "not run"
    return Verdict(claim, scale, outcome, measured, why=why)


def effects(rule: Rule, arms: Arms) -> tuple[Effect, ...]:
    """The rule's contrasts as measured, as far as there are the runs."""
    measured = []
    for contrast in rule.contrasts:
        n = tuple(len(arms.get(arm, ())) for arm in contrast.weights)
        if min(n) >= RUNS_NEEDED:
            effect = estimate(contrast, arms)
            weights, share = dict(contrast.weights), None
            if sorted(weights.values()) == [-1, 1] and (level := fmean(arms[list(weights)[1]])):
                share = abs(effect.effect / level)
            measured.append(
                Effect(in_words(contrast), effect.effect, *effect.interval(), n, weights, contrast.limit, share)
            )
    return tuple(measured)


def below(*pairs: tuple[str, str], gates: tuple[Gate, ...] = ()) -> Rule:
    """The rule of a described claim: in every pair the first arm's mean is the lower one."""
    return Rule(tuple(Contrast({low: 1, high: -1}) for low, high in pairs), gates)


def primaries(claims: Sequence[Claim]) -> dict[str, Rule]:
    """The rules that share Holm's correction."""
    return {claim.name: claim.test for claim in claims if claim.primary}
