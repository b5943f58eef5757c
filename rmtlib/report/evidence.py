"""What stands behind a verdict, in words: our effects, the paper's, and what to know before believing it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rmtlib.report.claims import FORMER, OLDER, Claim, Effect, Verdict
from rmtlib.report.words import effect_in_words
from rmtlib.runs.spec import SCALES

if TYPE_CHECKING:
    from rmtlib.report.view import View

NO_EVIDENCE = ("not run", "not enough runs")
FEW = 4  # rows that are named
TINY = 0.25  # of the effect that a rule was planned for: less is worth a word


def most_telling(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict at the largest scale with an outcome, else with an effect, else with runs; by the newest rule."""
    telling = [verdict for verdict in verdicts if verdict.outcome not in NO_EVIDENCE]
    measured = [verdict for verdict in verdicts if verdict.effects]
    some = [verdict for verdict in verdicts if verdict.outcome != "not run"]
    return max(telling or measured or some or verdicts, key=lambda verdict: SCALES.index(verdict.scale))


def ours(view: View, verdict: Verdict) -> list[str]:
    """Every effect of a verdict in words."""
    report = view.report

    def said(effect: Effect) -> str:
        text = effect_in_words(
            effect.weights,
            effect.limit,
            effect.effect,
            effect.half,
            partial(_label, view, verdict.scale),
            report.verbs,
        )
        return f"{text}, {effect.runs}"

    return [said(effect) for effect in verdict.effects]


def theirs(view: View, claim: Claim, verdict: Verdict) -> list[str]:
    """What the paper prints of the contrasts that were measured here, in the same words; if none was, of the first."""
    report, printed = view.report, view.report.paper_arms
    measured = [(effect.weights, effect.limit) for effect in verdict.effects]
    wanted = measured or [(contrast.weights, contrast.limit) for contrast in claim.test.contrasts[:1]]
    said = []
    for weights, limit in wanted:
        if set(weights) <= set(printed):
            effect = sum(weight * printed[arm] for arm, weight in weights.items()) - limit
            said.append(effect_in_words(weights, limit, effect, None, partial(_label, view, "paper"), report.verbs))
    return said


def _label(view: View, scale: str, arm: str) -> str:
    return view.report.label(arm, view.results, scale)


def lacking(view: View, verdict: Verdict) -> str:
    """Why there is no verdict, with arms in words; rows that lack equally many runs are named together, once each."""
    if not (records := view.results.at(verdict.scale)):
        return verdict.why
    arms = view.report.arms(records)
    rows: set[str] = set()
    named: dict[tuple[int, int], list[str]] = {}
    for arm, needed in verdict.claim.test.runs.items():
        row, have = arm.partition(":")[0], len(arms.get(arm, ()))
        if have < needed and row not in rows:
            rows.add(row)
            named.setdefault((have, needed), []).append(_label(view, verdict.scale, arm))
    lines = []
    for (have, needed), names in named.items():
        first, last = names[:-1], names[-1]
        if len(names) > FEW + 1:
            first, last = names[:FEW], f"{len(names) - FEW} more"
        lines.append(f"{have} of {needed} runs of {', of '.join(first)}{' and of ' * bool(first)}{last}")
    return "; ".join(lines)


def warnings(view: View, verdict: Verdict) -> list[str]:
    """What a verdict alone does not say: the claim's note, a tiny effect, a younger rule, counting that wins."""
    notes = [verdict.claim.note] if verdict.claim.note and verdict.effects else []
    if verdict.outcome == "holds" and (part := _part_of_plan(verdict)) is not None and part < TINY:
        notes.append(f"Tiny: {100 * part:.0f} % of the effect that the rule was planned for.")
    if verdict.former and verdict.effects:
        notes.append(f"By {FORMER}.")
    if verdict.older and verdict.effects:
        notes.append(f"{OLDER[:1].upper()}{OLDER[1:]}.")
    if verdict.effects or verdict.outcome == "undecided":
        notes += [f"Gate shut: {why}." for why in shut_gates(view, verdict.scale)]
    return notes


def shut_gates(view: View, scale: str) -> list[str]:
    """The gates of the artifact's rules that compare with counting and are shut at a scale, each once."""
    arms = view.report.arms(view.results.at(scale))
    found = []
    for claim in view.report.claims:
        for gate in claim.test.gates if claim.primary else ():
            if gate.than and arms.get(gate.arm) and arms.get(gate.than) and gate.shut(arms):
                found.append(gate.why)
    return list(dict.fromkeys(found))


def _part_of_plan(verdict: Verdict) -> float | None:
    """The smallest effect over what it is in the world that the rule was simulated in."""
    world, parts = verdict.claim.test.paper, []
    for effect in verdict.effects:
        if set(effect.weights) <= set(world):
            planned = sum(weight * world[arm] for arm, weight in effect.weights.items()) - effect.limit
            parts += [abs(effect.effect / planned)] if planned else []
    return min(parts, default=None)
