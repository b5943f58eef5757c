"""How verdicts are shown: as tags, as an artifact's table of claims, as the scoreboard, as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtlib.report.claims import ABOUT_TESTS, BY_TEST, RUNS_NEEDED, Claim, Finding, Verdict
from rmtlib.report.costs import cost_of
from rmtlib.report.tables import Html, Table

if TYPE_CHECKING:
    from rmtlib.report.view import View

NOT_RUN = Finding("not run", "not run")


def by_claim(view: View) -> Iterator[tuple[Claim, list[Verdict]]]:
    """Each claim with its verdict at every scale that was run; at the smallest one if nothing was."""
    verdicts = view.verdicts()
    smallest = next(scale for scale in view.artifact.scales if scale != "smoke")
    for claim in view.report.claims:
        yield claim, [v for v in verdicts if v.claim is claim] or [Verdict(claim, smallest, NOT_RUN)]


def badge(outcome: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="verdict {outcome.replace(" ", "-")}">{outcome}</span>'


def tag(verdict: Verdict) -> Html:
    """A verdict with its scale, effect ± error and n."""
    numbers = verdict.finding.numbers
    about = escape(verdict.scale + (f": {numbers}" if numbers else ""))
    return Html(f'{badge(verdict.finding.outcome)} <span class="numbers">{about}</span>')


def claims_table(view: View) -> Table:
    """Each claim of an artifact with its tags, its rule and its numbers."""
    rows = tuple(
        (
            (*map(tag, verdicts), claim.text, Html(f"<small>{escape(claim.source)}</small>")),
            claim.rule,
            tuple(line for verdict in verdicts for line in _numbers(verdict)),
        )
        for claim, verdicts in by_claim(view)
    )
    caption = "Which of the paper's claims these records bear out. Differences are with their standard errors."
    if any(BY_TEST in claim.rule for claim in view.report.claims):
        caption += f" {ABOUT_TESTS}"
    header = ("claim", "checked as", "numbers")
    return Table(caption, header, rows, prose=header)


def _numbers(verdict: Verdict) -> Iterator[str]:
    """The statistic in words; of a claim that says several things also what becomes of each."""
    whole = verdict.finding
    yield f"{verdict.scale}: {whole.statistic}"
    for name, part in (whole.parts or {}).items():
        numbers = "" if part.statistic in whole.statistic else part.numbers or part.statistic
        yield Html(f"{escape(name)}: {badge(part.outcome)} {escape(numbers)}")


def scoreboard(views: Iterable[View]) -> Table:
    """All claims of all artifacts, with the verdict at each scale that was run, and how many there are of each."""
    rows, tally = [], dict.fromkeys(("holds", "fails", "undecided", "not enough runs", "not run"), 0)
    for view in views:
        artifact = view.artifact
        note = f"<br><small>{escape(artifact.note)}</small>" if artifact.note else ""
        name = Html(f'<a href="artifacts/{artifact.name}.html">{escape(artifact.title)}</a>{note}')
        for claim, verdicts in by_claim(view):
            for verdict in verdicts:
                tally[verdict.finding.outcome] += 1
            rows.append((name, (*map(tag, verdicts), claim.text)))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in tally.items() if count)
    caption = f"Which results reproduce: {counts}. Each artifact's page has the rules, and the runs behind the numbers."
    return Table(caption, ("artifact", "claim"), tuple(rows), prose=("artifact", "claim"), merged=True)


def as_data(view: View, results: Path = Path("results")) -> list[dict[str, Any]]:
    """Each claim at every scale that was run; what lacks runs has what they would take as its `cost`."""
    return [_entry(view, verdict, results) for _, verdicts in by_claim(view) for verdict in verdicts]


def _entry(view: View, verdict: Verdict, results: Path) -> dict[str, Any]:
    claim, finding, cost = verdict.claim, verdict.finding, None
    if finding.outcome in ("not run", "not enough runs"):
        rows: Sequence[str] = claim.rows or view.artifact.default_rows(verdict.scale)
        cost = cost_of(view.artifact, view.results.records, verdict.scale, rows, RUNS_NEEDED, results)
    return {
        "artifact": view.artifact.name,
        "claim": claim.name,
        "text": claim.text,
        "source": claim.source,
        "rule": claim.rule,
        "primary": claim.primary,
        "margin": claim.margin,
        "power": claim.power,
        "scale": verdict.scale,
        "verdict": finding.outcome,
        "effect": finding.effect,
        "error": finding.error,
        "n": list(finding.n),
        "p": finding.p,
        "statistic": finding.statistic,
        "parts": {name: part.outcome for name, part in (finding.parts or {}).items()},
        "cost": cost,
    }
