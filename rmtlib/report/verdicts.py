"""How verdicts are shown: as tags, as an artifact's list of claims, as data; and what the rules can tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from rmtlib.evaluation.decisions import ENOUGH_POWER, Rule, power, runs_needed
from rmtlib.report.claims import FORMER, OLDER, Claim, Outcome, Verdict, in_words, primaries
from rmtlib.report.costs import cost_of
from rmtlib.report.escape import escape
from rmtlib.report.evidence import lacking, most_telling, ours, theirs, warnings
from rmtlib.report.tables import Cell, Html, Table, plural

if TYPE_CHECKING:
    from rmtlib.report.view import View

NOT_DECLARED = "not declared yet"
LEAST_P = 0.001  # smaller ones hang on the far tail of a distribution of few seeds


class Power(TypedDict):
    """What a primary rule can tell with `n` seeds; `needed` of them give enough power (None: more than were tried)."""

    n: int
    paper: float
    boundary: float
    needed: int | None


class Seen(TypedDict):
    """The same with the standard deviations that a scale's seeds turned out to have, as far as so few can tell."""

    paper: float
    needed: int | None


class ClaimData(TypedDict):
    """A claim at one scale, by one declaration of its rule; every effect is a `claims.Effect` by its names."""

    artifact: str
    claim: str
    text: str
    source: str
    rule: str
    primary: bool
    power: Power | None
    seen: Seen | None
    scale: str
    verdict: Outcome
    effects: list[dict[str, Any]]
    p: float | None
    why: str
    note: str
    commit: str | None
    older: bool
    former: bool
    cost: str | None


def by_claim(view: View) -> Iterator[tuple[Claim, list[Verdict]]]:
    """Each claim with its verdicts at every scale that was run; at the smallest one if nothing was."""
    verdicts = view.verdicts()
    smallest = next(scale for scale in view.artifact.scales if scale != "smoke")
    for claim in view.report.claims:
        commit = claim.declared[-1].commit if claim.declared else None
        nothing = Verdict(claim, smallest, "not run", why="nothing was run", commit=commit)
        yield claim, [verdict for verdict in verdicts if verdict.claim is claim] or [nothing]


def badge(outcome: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="verdict {outcome.replace(" ", "-")}">{outcome}</span>'


def tag(verdict: Verdict) -> Html:
    """A verdict with its scale."""
    return Html(f'{badge(verdict.outcome)} <span class="numbers">{escape(verdict.scale)}</span>')


def claims_list(view: View) -> Html:
    """Each claim of an artifact: verdict, ours and the paper's in words; rule, p and other scales fold away."""
    cards = [(claim.primary, _card(view, claim, verdicts)) for claim, verdicts in by_claim(view)]
    decided = "\n".join(card for primary, card in cards if primary)
    described = [card for primary, card in cards if not primary]
    folded = (
        f'<details class="fold"><summary>{plural(len(described), "described claim")}: the effect without a verdict'
        "</summary>\n" + "\n".join(described) + "\n</details>"
    )
    return Html(f'<div class="claims">\n{decided}\n{folded if described else ""}</div>')


def _card(view: View, claim: Claim, verdicts: Sequence[Verdict]) -> str:
    shown = most_telling(verdicts)
    earlier = [each for each in verdicts if each.scale == shown.scale and each is not shown]
    tags = " ".join([tag(shown), *(f"{tag(each)} <small>by the earlier rule</small>" for each in earlier)])
    said, printed = ours(view, shown), theirs(view, claim, shown)
    lines = [f"<b>Here:</b> {escape('; '.join(said[:2]) or lacking(view, shown) or 'nothing was run')}."]
    if len(said) > 2:
        lines[0] = f"<b>Here:</b> {escape('; '.join(said[:2]))}; and {len(said) - 2} more below."
    if printed:
        lines.append(f"<b>Paper:</b> {escape('; '.join(printed[:2]))}.")
    lines += [f'<span class="caution">{escape(note)}</span>' for note in warnings(view, shown)]
    details = [f"{'Rule' if claim.primary else 'Read from'}: {claim.rule}"]
    details += [line for verdict in verdicts for line in numbers(view, verdict)]
    items = "".join(f"<li>{escape(line)}</li>" for line in details)
    body = "".join(f"<p>{line}</p>" for line in lines)
    return (
        f'<div class="claim" id="claim-{escape(claim.name)}"><p class="sentence">{tags} {escape(claim.text)} '
        f"<small>{escape(claim.source)}</small></p>{body}"
        f'<details class="raw"><summary>Rule and numbers</summary><ul>{items}</ul></details></div>'
    )


def numbers(view: View, verdict: Verdict) -> Iterator[str]:
    """Every effect in words and as the rule has it, then p, what is missing, and where the rule was declared."""
    for said, effect in zip(ours(view, verdict), verdict.effects, strict=True):
        yield f"{verdict.scale}: {said}. As the rule has it: {effect.contrast} = {effect.numbers}"
    if verdict.p is not None:
        p = f"= {verdict.p:.2g}" if verdict.p >= LEAST_P else f"< {LEAST_P}"
        yield f"{verdict.scale}: p {p} after Holm's correction"
    if can := told_by_seeds(view, verdict):
        enough = f"{can['needed'] or 'more than 30'} would do" if can["paper"] < ENOUGH_POWER else "enough"
        yield (
            f"{verdict.scale}: if the paper is true and seeds differ as these do, the rule holds in "
            f"{can['paper']:.0%} of simulations with {verdict.claim.test.seeds} seeds ({enough})"
        )
    if verdict.why:
        yield f"{verdict.scale}: {verdict.why}"
    if verdict.claim.primary:
        about = f"; {FORMER}" * verdict.former + f"; {OLDER}" * verdict.older
        yield (
            f"{verdict.scale}: "
            + (f"rule of commit {verdict.commit}" if verdict.commit else f"rule {NOT_DECLARED}")
            + about
        )


def told(view: View, claim: Claim) -> Power | None:
    """What a primary rule can tell, by simulation: how often it holds in the two worlds, and the seeds needed."""
    if not claim.primary:
        return None
    rules = primaries(view.report.claims)
    paper = power(rules, claim.name, claim.test.seeds)["holds"]
    boundary = power(rules, claim.name, claim.test.seeds, boundary=True)["holds"]
    needed = claim.test.seeds if paper >= ENOUGH_POWER else runs_needed(rules, claim.name)
    return {"n": claim.test.seeds, "paper": paper, "boundary": boundary, "needed": needed}


def told_by_seeds(view: View, verdict: Verdict) -> Seen | None:
    """How often the newest rule holds in the paper's world with the spread of these seeds; None if nothing was tested.

    The artifact's other rules, which share the correction, have the spread of their seeds too, where there is one.
    """
    if not verdict.spread or verdict.former:
        return None
    name, rules = verdict.claim.name, primaries(view.report.claims)
    for tested in view.verdicts():
        if tested.scale == verdict.scale and tested.spread and not tested.former:
            rules[tested.claim.name] = _with_spread(tested, relative=view.report.relative)
    seeds = rules[name].seeds
    paper = power(rules, name, seeds)["holds"]
    return {"paper": paper, "needed": seeds if paper >= ENOUGH_POWER else runs_needed(rules, name)}


def _with_spread(verdict: Verdict, *, relative: bool) -> Rule:
    """The verdict's rule, but its worlds have the deviations of the seeds; `relative` to the arms' means."""
    rule, spread = verdict.claim.test, {}
    for arm, (mean, deviation) in verdict.spread.items():
        spread[arm] = deviation * abs(rule.paper[arm] / mean) if relative else deviation
    return replace(rule, spread=spread)


def rules_table(views: Iterable[View]) -> Table:
    """The primary rules: margin, power in the two worlds and with our seeds' spread, and the commits."""
    rows = []
    for view in views:
        for claim, verdicts in by_claim(view):
            if not (can := told(view, claim)):
                continue
            shown = most_telling(verdicts)
            seen = told_by_seeds(view, shown)
            paper: tuple[str, ...] = (f"{can['paper']:.2f} with {can['n']} seeds",)
            if can["paper"] < ENOUGH_POWER:
                paper += (f"cannot be decided with {can['n']}; {can['needed'] or 'over 30'} needed",)
            margin = tuple(f"{in_words(contrast)} < 0" for contrast in claim.test.contrasts)
            commits = ", ".join(entry.commit for entry in claim.declared) or NOT_DECLARED
            found: Cell = "not tested" if shown.effects else "not enough runs"
            if seen:
                found = (f"{seen['paper']:.2f}", f"{seen['needed'] or 'over 30'} seeds, {shown.scale}")
            rows.append(((view.artifact.name, claim.name), margin, paper, f"{can['boundary']:.2f}", found, commits))
    return Table(
        "What the primary rules can tell: how often each holds in simulations in which the paper is exactly true, and "
        "in which there is nothing beyond its margin, with the spread between seeds that was assumed; then how "
        "often with the paper true and the spread that our seeds have, how many would be needed, and at which scale.",
        ("rule", "what has to be below its margin", "paper true", "at the margin", "by our seeds", "commit"),
        tuple(rows),
        prose=("what has to be below its margin", "paper true"),
    )


def as_data(view: View, results: Path = Path("results")) -> list[ClaimData]:
    """Each claim at every scale that was run; what lacks runs has what they would take as its `cost`."""
    return [
        _entry(view, verdict, told(view, claim), results) for claim, verdicts in by_claim(view) for verdict in verdicts
    ]


def _entry(view: View, verdict: Verdict, can: Power | None, results: Path) -> ClaimData:
    claim, cost = verdict.claim, None
    rows = {row.name for row in view.artifact.rows}
    if verdict.outcome in ("not run", "not enough runs") or (verdict.outcome == "described" and verdict.why):
        there = {(run["row"], run["seed"]) for run in view.results.records if run["scale"] == verdict.scale}
        wanted = {(arm.partition(":")[0], seed) for arm, n in claim.test.runs.items() for seed in range(n)}
        runs = sorted(run for run in wanted - there if run[0] in rows)
        cost = cost_of(view.artifact, view.results.records, verdict.scale, runs, results) if runs else None
    return {
        "artifact": view.artifact.name,
        "claim": claim.name,
        "text": claim.text,
        "source": claim.source,
        "rule": claim.rule,
        "primary": claim.primary,
        "power": can,
        "seen": told_by_seeds(view, verdict),
        "scale": verdict.scale,
        "verdict": verdict.outcome,
        "effects": [effect._asdict() for effect in verdict.effects],
        "p": verdict.p,
        "why": verdict.why,
        "note": verdict.claim.note if verdict.effects else "",
        "commit": verdict.commit,
        "older": verdict.older,
        "former": verdict.former,
        "cost": cost,
    }
