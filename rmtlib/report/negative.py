"""What did not work, from records: claims that fail, models that learned too little, effects against the papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rmtlib.report.claims import Claim, Verdict
from rmtlib.report.escape import escape
from rmtlib.report.evidence import lacking, most_telling, ours, theirs, warnings
from rmtlib.report.measurements import Record
from rmtlib.report.scoreboard import Entry, entries
from rmtlib.report.tables import Table
from rmtlib.report.verdicts import by_claim, tag
from rmtlib.report.view import View

GIVEN_UP = "stopped"  # in the note of a trial that was ended before its record


def fragments(views: Sequence[View], trials: Mapping[str, Sequence[Record]], page: str) -> dict[str, str]:
    """The generated parts of the page on negative results.

    Args:
        trials: artifact -> records of its trials.
        page: the hand-written text. It includes "<artifact>-<claim>" where it explains a claim; failing claims that it
            does not explain are in "rest".
    """
    parts = {
        f"{view.artifact.name}-{claim.name}": _card(view, claim, most_telling(verdicts))
        for view in views
        for claim, verdicts in by_claim(view)
        if claim.primary
    }
    failing = [entry for entry in entries(views) if entry.claim.primary and entry.kind == "fails"]
    rest = [entry for entry in failing if f"{_key(entry)}.md" not in page]
    parts["rest"] = "\n".join(["## Other claims that fail\n", *(parts[_key(entry)] for entry in rest)]) if rest else ""
    parts["gates"] = gates_table(views).to_html()
    parts["against"] = _against(views)
    parts["trials"] = given_up_table(views, trials).to_html()
    return parts


def _key(entry: Entry) -> str:
    return f"{entry.view.artifact.name}-{entry.claim.name}"


def _link(view: View, claim: Claim) -> str:
    """To the claim on its artifact's page."""
    name = escape(view.artifact.name)
    return f'<a href="artifacts/{name}.html#claim-{escape(claim.name)}">{name}</a>'


def _card(view: View, claim: Claim, verdict: Verdict) -> str:
    """A claim's verdict, ours, the paper's, and what to know of it."""
    said, printed = ours(view, verdict), theirs(view, claim, verdict)
    lines = [f"{tag(verdict)} {escape(claim.text)} <small>{escape(claim.source)} · {_link(view, claim)}</small>"]
    lines.append(f"<b>Here:</b> {escape('; '.join(said) or lacking(view, verdict) or 'nothing was run')}.")
    if printed:
        lines.append(f"<b>Paper:</b> {escape('; '.join(printed))}.")
    lines += [f'<span class="caution">{escape(note)}</span>' for note in warnings(view, verdict)]
    body = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="claims"><div class="claim">{body}</div></div>\n'


def gates_table(views: Iterable[View]) -> Table:
    """Every gate that is shut at a scale: the model, what it reached, and what it had to reach."""
    rows = []
    for view in views:
        arms_of = {scale: view.report.arms(view.results.at(scale)) for scale in view.results.scales if scale != "smoke"}
        for scale, arms in arms_of.items():
            gates = dict.fromkeys(gate for claim in view.report.claims if claim.primary for gate in claim.test.gates)
            for gate in gates:
                there = arms.get(gate.arm) and (gate.than is None or arms.get(gate.than))
                if there and (why := gate.shut(arms)):
                    reason, _, numbers = why.partition(": ")
                    for arm in sorted(filter(None, (gate.arm, gate.than)), key=len, reverse=True):
                        numbers = numbers.replace(arm, view.report.label(arm, view.results, scale))
                    rows.append((view.artifact.name, scale, reason, numbers))
    return Table(
        "Models that have learned too little for the paper's question, by the gates of the rules.",
        ("artifact", "scale", "why", "reached"),
        tuple(rows),
        prose=("why", "reached"),
    )


def _against(views: Iterable[View]) -> str:
    """Effects of described claims whose whole interval is on the other side of what the paper says."""
    items = []
    for view in views:
        for claim, verdicts in by_claim(view):
            verdict = most_telling(verdicts)
            for effect, said in zip(verdict.effects, ours(view, verdict), strict=True):
                if claim.primary or effect.low <= 0:
                    continue
                notes = "".join(f' <span class="caution">{escape(note)}</span>' for note in warnings(view, verdict))
                items.append(
                    f"<li>{escape(claim.text)} <small>{escape(claim.source)} · {_link(view, claim)}, "
                    f"{escape(verdict.scale)} scale</small><br><b>Here:</b> {escape(said)}.{notes}</li>"
                )
    return f"<ul>{''.join(items)}</ul>" if items else "<p>There is none.</p>"


def given_up_table(views: Iterable[View], trials: Mapping[str, Sequence[Record]]) -> Table:
    """Trials that were stopped and left no record."""
    rows = []
    for view in views:
        done = {record["run_id"] for record in trials.get(view.artifact.name, ())}
        for trial in view.artifact.trials:
            if GIVEN_UP in trial.note and trial.config.id not in done:
                label = view.report.label(trial.config.row, view.results, "paper")
                rows.append((view.artifact.name, trial.name, label, trial.note))
    return Table(
        "Trials that were given up before their end. They left no record, so they are hints and no results. A row is "
        "named by its sizes in the paper.",
        ("artifact", "trial", "of", "what it tried"),
        tuple(rows),
        prose=("of", "what it tried"),
    )
