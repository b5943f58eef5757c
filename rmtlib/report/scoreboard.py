"""The front page: how many claims of each paper stand how, and every claim beside the paper with what to know of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rmtlib.report.claims import Claim, Verdict
from rmtlib.report.escape import escape
from rmtlib.report.evidence import NO_EVIDENCE, lacking, most_telling, ours, theirs, warnings
from rmtlib.report.tables import Html, plural
from rmtlib.report.verdicts import badge, by_claim
from rmtlib.runs.spec import SCALES

if TYPE_CHECKING:
    from rmtlib.report.view import View

OWN = "Questions of this project"
KINDS = ("holds", "fails", "undecided", "described", "lacks runs")
ORDER = ("fails", "holds", "undecided", "lacks runs", "described")  # of the scoreboard
HEADINGS = ("Verdict", "Claim", "Paper", "Here")


class Entry(NamedTuple):
    """A claim where it stands best: at the largest scale that tells something of it."""

    view: View
    claim: Claim
    verdict: Verdict
    paper: str

    @property
    def kind(self) -> str:
        """The verdict as it is counted: too few runs are no runs."""
        return "lacks runs" if self.verdict.outcome in NO_EVIDENCE else self.verdict.outcome


def paper_of(claim: Claim) -> str:
    """The paper that a claim is from: what its source begins with, if that is a name."""
    return claim.source.partition(",")[0] if claim.source[:1].isupper() else OWN


def entries(views: Iterable[View]) -> list[Entry]:
    """Every claim once, by its newest rule; decided ones first."""
    found = [
        Entry(view, claim, most_telling(verdicts), paper_of(claim))
        for view in views
        for claim, verdicts in by_claim(view)
    ]
    return sorted(found, key=lambda entry: (not entry.claim.primary, ORDER.index(entry.kind)))


def tally(views: Iterable[View]) -> Html:
    """A row for each paper: how many of its claims hold, fail, are undecided, described or not run, with the scales."""
    found = entries(views)
    papers = sorted({entry.paper for entry in found}, key=lambda paper: (paper == OWN, paper))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("Paper", *KINDS))
    body = [_tally_row(paper, [entry for entry in found if entry.paper == paper]) for paper in papers]
    body.append(_tally_row("All", found))
    rows = "\n".join(body)
    return Html(
        '<div class="table-wrap" tabindex="0" role="region" aria-label="Tally"><table class="table results tally">\n'
        "<caption>Claims by their state, each at the largest scale that tells something of it.</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _tally_row(paper: str, found: Sequence[Entry]) -> str:
    cells = []
    for kind in KINDS:
        of_kind = [entry.verdict.scale for entry in found if entry.kind == kind]
        scales = [f"{scale} {of_kind.count(scale)}" for scale in SCALES if scale in of_kind]
        about = f" <small>{escape(', '.join(scales))}</small>" if kind != "lacks runs" and of_kind else ""
        cells.append(f'<td class="count {kind.replace(" ", "-")}"><b>{len(of_kind)}</b>{about}</td>')
    return f'<tr><th scope="row">{escape(paper)}</th>{"".join(cells)}</tr>'


def scoreboard(views: Iterable[View]) -> Html:
    """All claims, a row each. book.js makes the table sortable and its rows filterable; a narrow screen shows cards."""
    found = entries(views)
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADINGS)
    rows = "\n".join(_row(entry) for entry in found)
    filters = "".join(
        f'<label>{name} <select data-filter="{key}"><option value="">all</option>{options}</select></label>'
        for name, key, options in (
            ("Paper", "paper", _options(entry.paper for entry in found)),
            ("Verdict", "verdict", _options(entry.kind for entry in found)),
            ("Scale", "scale", _options(_scale(entry) for entry in found)),
        )
    )
    return Html(
        f'<form class="filters" data-for="table-claims" hidden>{filters}'
        '<label>Contains <input type="search" data-filter="text"></label>'
        '<label><input type="checkbox" data-filter="kind" value="primary" checked> only claims with a rule</label>'
        "<output></output></form>\n"
        '<div class="table-wrap" tabindex="0" role="region" aria-label="Scoreboard">'
        '<table id="table-claims" class="table results scoreboard sortable">\n'
        "<caption>Every claim beside the paper. ± is half of a 95 % interval over seeds; of several comparisons the "
        "one that is worst for the claim is shown.</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _options(values: Iterable[str]) -> str:
    return "".join(f"<option>{escape(value)}</option>" for value in dict.fromkeys(values))


def _scale(entry: Entry) -> str:
    return "none" if entry.kind == "lacks runs" else entry.verdict.scale


def _row(entry: Entry) -> str:
    view, claim, verdict, _ = entry
    said, printed = ours(view, verdict), theirs(view, claim, verdict)
    here = escape(verdict.outcome if not verdict.effects else "")
    if said:
        worst = max(range(len(said)), key=lambda i: verdict.effects[i].effect)
        here = escape(said[worst]) + _of_how_many(len(said), len(claim.test.contrasts))
        printed = printed[worst : worst + 1] if len(printed) == len(said) else printed
    elif verdict.why:
        here = escape(lacking(view, verdict).partition(";")[0])
    notes = "".join(f'<span class="caution">{escape(note)}</span>' for note in warnings(view, verdict))
    paper = escape(printed[0]) if printed else "<small>no number of this kind</small>" if entry.paper != OWN else ""
    name = view.artifact.name
    page = f'<a href="artifacts/{name}.html#claim-{claim.name}">{escape(name)}</a>'
    source = " · ".join(filter(None, (escape(claim.source), page, escape(view.artifact.note))))
    scale = "" if entry.kind == "lacks runs" and not said else f"<br><small>{verdict.scale} scale</small>"
    cells = (
        (badge(verdict.outcome) + scale, f' data-sort="{ORDER.index(entry.kind)}"'),
        (f"{escape(claim.text)}<br><small>{source}</small>", ""),
        (paper, ""),
        (f"{here}{notes}", ""),
    )
    body = "".join(
        f'<td data-label="{name}"{more}>{cell}</td>' for name, (cell, more) in zip(HEADINGS, cells, strict=True)
    )
    traits = {
        "paper": entry.paper,
        "verdict": entry.kind,
        "scale": _scale(entry),
        "kind": "primary" if claim.primary else "described",
    }
    data = "".join(f' data-{key}="{escape(value)}"' for key, value in traits.items())
    return f"<tr{data}>{body}</tr>"


def _of_how_many(run: int, wanted: int) -> str:
    """How the shown comparison was chosen, if there are several."""
    which = (
        f"worst of {run} comparisons"
        if run == wanted
        else f"{'worst of ' * (run > 1)}{run} of {wanted} comparisons run"
    )
    return f" <small>({which})</small>" if wanted > 1 else ""


def in_a_sentence(views: Iterable[View]) -> str:
    """The tally of the decided claims, for the first lines of the front page."""
    found = [entry for entry in entries(views) if entry.claim.primary]
    shown = {id(entry.view): entry.view for entry in found}.values()
    said = []
    for kind, one, more in (
        ("fails", "fails", "fail"),
        ("holds", "holds", "hold"),
        ("undecided", "is undecided", "are undecided"),
        ("lacks runs", "lacks runs", "lack runs"),
    ):
        of_kind = [entry for entry in found if entry.kind == kind]
        if of_kind:
            cautious = sum(bool(warnings(entry.view, entry.verdict)) for entry in of_kind if kind == "holds")
            said.append(
                f"{len(of_kind)} {one if len(of_kind) == 1 else more}"
                + (f" ({cautious} with a caution)" if cautious else "")
            )
    runs = sum(len(view.results.records) for view in shown)
    claims = plural(len(found), "claim")
    return f"Of {claims} with a rule that decides them, {', '.join(said)}; {plural(runs, 'run')} stand behind this."
