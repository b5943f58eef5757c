"""How verdicts are shown: as tags, as an artifact's table of claims, as the scoreboard, as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.decisions import ENOUGH_POWER, power, runs_needed
from rmtlib.report.claims import OLDER, OUTCOMES, Claim, Verdict, in_words, primaries
from rmtlib.report.costs import cost_of
from rmtlib.report.escape import escape
from rmtlib.report.tables import Html, Table

if TYPE_CHECKING:
    from rmtlib.report.view import View

NOT_DECLARED = "not declared yet"


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
    """A verdict with its scale; if there is a single effect, with its interval and n."""
    numbers = f": {verdict.effects[0].numbers}" if len(verdict.effects) == 1 else ""
    about = f"{verdict.scale}{numbers}" + (f"; {OLDER}" if verdict.older else "")
    return Html(f'{badge(verdict.outcome)} <span class="numbers">{escape(about)}</span>')


def claims_table(view: View) -> Table:
    """Each claim of an artifact with its verdicts, its rule and its numbers."""
    rows = tuple(
        (
            (*map(tag, verdicts), claim.text, Html(f"<small>{escape(claim.source)}</small>")),
            (f"{'Primary' if claim.primary else 'Described'}: {claim.rule}",),
            tuple(line for verdict in verdicts for line in numbers(verdict)),
        )
        for claim, verdicts in by_claim(view)
    )
    caption = (
        "Which of the paper's claims these records bear out. Primary claims are decided as the protocol says; all "
        "others are described. A claim has it that every effect is below zero; brackets are its 95 % interval."
    )
    header = ("claim", "read from", "numbers")
    return Table(caption, header, rows, prose=header)


def numbers(verdict: Verdict) -> Iterator[str]:
    """Every effect in words, then p, what is missing, and where the rule was declared."""
    for effect in verdict.effects:
        yield f"{verdict.scale}: {effect.contrast} = {effect.numbers}"
    if verdict.p is not None:
        yield f"{verdict.scale}: p = {verdict.p:.2g} after Holm's correction"
    if verdict.why:
        yield f"{verdict.scale}: {verdict.why}"
    if verdict.claim.primary:
        older = f"; {OLDER}" if verdict.older else ""
        yield (f"rule of commit {verdict.commit}" if verdict.commit else f"rule {NOT_DECLARED}") + older


def scoreboard(views: Iterable[View]) -> Html:
    """How many verdicts there are of each kind, then all claims of all artifacts with their verdicts."""
    rows, tally = [], dict.fromkeys(OUTCOMES, 0)
    for view in views:
        artifact = view.artifact
        note = f"<br><small>{escape(artifact.note)}</small>" if artifact.note else ""
        name = Html(f'<a href="artifacts/{artifact.name}.html">{escape(artifact.title)}</a>{note}')
        for claim, verdicts in by_claim(view):
            for verdict in verdicts:
                tally[verdict.outcome] += 1
            rows.append(((*map(tag, verdicts), claim.text), name))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in tally.items() if count)
    caption = "Which results reproduce. Each artifact's page has the rules, and the runs behind the numbers."
    table = Table(caption, ("claim", "artifact"), tuple(rows), prose=("claim", "artifact"))
    return Html(f'<p class="tally">{counts}.</p>\n\n{table.to_html()}')


def told(view: View, claim: Claim) -> dict[str, Any] | None:
    """What a primary rule can tell, by simulation: how often it holds in the two worlds, and the seeds needed."""
    if not claim.primary:
        return None
    rules = primaries(view.report.claims)
    paper = power(rules, claim.name, claim.test.seeds)["holds"]
    boundary = power(rules, claim.name, claim.test.seeds, boundary=True)["holds"]
    needed = claim.test.seeds if paper >= ENOUGH_POWER else runs_needed(rules, claim.name)
    return {"n": claim.test.seeds, "paper": paper, "boundary": boundary, "needed": needed}


def rules_table(views: Iterable[View]) -> Table:
    """The primary rules: margin, power in the two worlds, seeds needed, and the commit that declared each."""
    rows = []
    for view in views:
        for claim in view.report.claims:
            if not (can := told(view, claim)):
                continue
            enough = can["paper"] >= ENOUGH_POWER
            needed = (
                str(can["needed"]) if enough else f"cannot be decided with {can['n']}; {can['needed'] or 'over 30'}"
            )
            powers = f"{can['paper']:.2f} with {can['n']} seeds", f"{can['boundary']:.2f}"
            margin = tuple(f"{in_words(contrast)} < 0" for contrast in claim.test.contrasts)
            commits = ", ".join(entry.commit for entry in claim.declared) or NOT_DECLARED
            rows.append(((view.artifact.name, claim.name), margin, *powers, needed, commits))
    return Table(
        "What the primary rules can tell: how often each holds in simulations in which the paper is exactly true, and "
        "in which there is nothing beyond its margin.",
        ("rule", "what has to be below its margin", "paper true", "at the margin", "seeds needed", "commit"),
        tuple(rows),
        prose=("what has to be below its margin", "seeds needed"),
    )


def as_data(view: View, results: Path = Path("results")) -> list[dict[str, Any]]:
    """Each claim at every scale that was run; what lacks runs has what they would take as its `cost`."""
    return [
        _entry(view, verdict, told(view, claim), results) for claim, verdicts in by_claim(view) for verdict in verdicts
    ]


def _entry(view: View, verdict: Verdict, can: dict[str, Any] | None, results: Path) -> dict[str, Any]:
    claim, cost = verdict.claim, None
    rows = {row.name for row in view.artifact.rows}
    if verdict.outcome in ("not run", "not enough runs"):
        needed = [row for row in claim.rows if row in rows]
        cost = cost_of(view.artifact, view.results.records, verdict.scale, needed, verdict.claim.test.seeds, results)
    return {
        "artifact": view.artifact.name,
        "claim": claim.name,
        "text": claim.text,
        "source": claim.source,
        "rule": claim.rule,
        "primary": claim.primary,
        "power": can,
        "scale": verdict.scale,
        "verdict": verdict.outcome,
        "effects": [effect._asdict() for effect in verdict.effects],
        "p": verdict.p,
        "why": verdict.why,
        "commit": verdict.commit,
        "older": verdict.older,
        "cost": cost,
    }
