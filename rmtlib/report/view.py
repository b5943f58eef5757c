"""One artifact's results in one object: what its notebook shows, and what its pages of the book are made of."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtlib.report import figures
from rmtlib.report.claims import ABOUT_TESTS, BY_TEST, RUNS_NEEDED, Finding, Verdict, judge
from rmtlib.report.costs import cost_of
from rmtlib.report.measurements import Record, Results, latest, to_csv
from rmtlib.report.report import Report
from rmtlib.report.tables import Html, Table
from rmtlib.runs.spec import Artifact, get_artifact

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def enter_project() -> Path:
    """Make the project's folder the working directory, from a notebook opened in `notebooks/`; returns it.

    `runs/`, `results/` and `out/` are relative to it. Outside a checkout the working directory stays.
    """
    here = Path.cwd()
    root = next((p for p in (here, *here.parents) if (p / "rmtlib").is_dir() and (p / "notebooks").is_dir()), here)
    os.chdir(root)
    return root


def open_view(
    artifact: str,
    scale: str | None = None,
    seeds: int | str | None = None,
    rows: str | None = None,
    tasks: str | None = None,
    *,
    train: bool = True,
    published_only: bool = False,
) -> View:
    """An artifact's runs and published records, for its notebook; see `rmtlib.runs.spec.select` for what None means.

    Args:
        train: train what runs/ does not hold yet. False: show the records that are there.
        published_only: train nothing and show the published records only.
    """
    from rmtlib.runs.records import find_records
    from rmtlib.runs.scheduler import run
    from rmtlib.runs.spec import select

    enter_project()
    train = train and not published_only
    configs = select(artifact, scale, seeds, rows, tasks, prepare=train)
    live: Sequence[Record] = []
    if train:
        live = run(configs)
    elif not published_only:
        live = find_records(artifact, scale=configs[0].scale, where=("runs",))
    return View(artifact, live, find_records(artifact, where=("results",)))


class View:
    """Live and published records of an artifact; every method makes one part of its page.

    Args:
        artifact: its name, e.g. "figure-5", or the artifact itself.
        live: records of the runs on this machine; they stand before published ones of the same run.
        published: records of results/.
    """

    def __init__(self, artifact: str | Artifact, live: Iterable[Record] = (), published: Iterable[Record] = ()) -> None:
        self.artifact = get_artifact(artifact) if isinstance(artifact, str) else artifact
        self.report: Report = self.artifact.report()
        self.results = Results(self.artifact.rows, self.report.measure, live, published, self.report.printed)

    def draw(self) -> Figure:
        """The figure as matplotlib has it."""
        return self.report.figure(self.results)

    def alt(self) -> str:
        """What the figure shows, in words and numbers."""
        return self.report.alt(self.results)

    def figure(self) -> Html:
        """The figure with its description, for a notebook (a plain image output would carry none)."""
        png = io.BytesIO()
        self.draw().savefig(png, dpi=150, format="png")
        data = base64.b64encode(png.getvalue()).decode()
        return Html(f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt())}" style="max-width: 100%">')

    def tables(self, records_page: str | None = None) -> Html:
        """Beside the paper, then ours at each scale that was run, then the paper's own values."""
        results, report = self.results, self.report
        compared = [report.compare(results)] if results.scales else []
        ours = [table(results, scale) for scale in results.scales for table in report.by_scale]
        shown = [table for table in (*ours, *compared, report.paper(results)) if table is not None]
        return Html("\n\n".join(table.to_html(records_page) for table in shown))

    def csv(self) -> str:
        """Every measured and every printed number, a line for each."""
        return to_csv(self.results.long_form())

    def verdicts(self) -> list[Verdict]:
        """The paper's claims at each scale that was run."""
        return judge(self.report.claims, self.results)

    def claims(self) -> Html:
        """Each claim with its verdict at every scale that was run, its rule and its numbers."""
        verdicts = self.verdicts()
        rows = []
        for claim in self.report.claims:
            own = [verdict for verdict in verdicts if verdict.claim is claim]
            source = Html(f"<small>{escape(claim.source)}</small>")
            numbers = [line for verdict in own for line in _numbers(verdict)]
            rows.append(((*_tags(own), claim.text, source), claim.rule, tuple(numbers) or "not run"))
        caption = "Which of the paper's claims these records bear out. Differences are with their standard errors."
        if any(BY_TEST in claim.rule for claim in self.report.claims):
            caption += f" {ABOUT_TESTS}"
        header = ("claim", "checked as", "numbers")
        return Html(Table(caption, header, tuple(rows), prose=header).to_html())

    def claim_list(self, results_dir: Path = Path("results")) -> list[dict[str, Any]]:
        """Each claim at every scale that was run, as data; what was not run enough has its `cost` there."""
        verdicts, rows = self.verdicts(), []
        scale = next(scale for scale in self.artifact.scales if scale != "smoke")
        for claim in self.report.claims:
            own = [v for v in verdicts if v.claim is claim]
            for verdict in own or [Verdict(claim, scale, Finding("not run", ""))]:
                finding, cost = verdict.finding, None
                if finding.outcome in ("not run", "not enough runs"):
                    names = claim.rows or self.artifact.default_rows(verdict.scale)
                    cost = cost_of(self.artifact, self.results.records, verdict.scale, names, RUNS_NEEDED, results_dir)
                about: dict[str, Any] = {"artifact": self.artifact.name, "claim": claim.name, "text": claim.text}
                about |= {"source": claim.source, "rule": claim.rule, "primary": claim.primary}
                rows.append(
                    about
                    | {"margin": claim.margin, "power": claim.power, "scale": verdict.scale, "verdict": finding.outcome}
                    | {"effect": finding.effect, "error": finding.error, "n": list(finding.n), "p": finding.p}
                    | {"parts": {name: part.outcome for name, part in (finding.parts or {}).items()}}
                    | {"statistic": finding.statistic, "cost": cost}
                )
        return rows

    def summary(self) -> list[str]:
        """A few lines: what the runs of this machine show (the published ones if there are none)."""
        records = latest(self.results.live or self.results.published)
        return self.artifact.summary([dict(record) for record in records]) if records else ["No runs yet."]

    def save(self, out: str | Path) -> Html:
        """Write figure (PNG, SVG), table (CSV) and summary into the folder `out`; returns the summary."""
        name, out = self.artifact.name, Path(out)
        png, svg = figures.save(self.draw(), out / name)
        table = out / f"{name}.csv"
        table.write_text(self.csv(), encoding="utf-8")
        here, published = len(self.results.live), len(self.results.published)
        lines = [
            f"figure    {png} and {svg.name}",
            f"table     {table}",
            f"notebook  {out / name}.ipynb",
            f"records   {here} here (runs/{name}/), {published} published (results/{name}/)",
            *self.summary(),
        ]
        (out / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Html("<pre>" + escape("\n".join(lines)) + "</pre>")


def badge(outcome: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="verdict {outcome.replace(" ", "-")}">{outcome}</span>'


def tag(verdict: Verdict) -> Html:
    """A verdict with its scale, effect ± error and n."""
    numbers = verdict.finding.numbers
    about = escape(verdict.scale + (f": {numbers}" if numbers else ""))
    return Html(f'{badge(verdict.finding.outcome)} <span class="numbers">{about}</span>')


def _tags(verdicts: Iterable[Verdict]) -> list[Html]:
    """The tags of a claim, or that it was not run."""
    return [tag(verdict) for verdict in verdicts] or [Html(badge("not run"))]


def _numbers(verdict: Verdict) -> Iterator[str]:
    """The statistic in words; of a claim that says several things also what becomes of each."""
    yield f"{verdict.scale}: {verdict.finding.statistic}"
    for name, part in (verdict.finding.parts or {}).items():
        numbers = "" if part.statistic in verdict.finding.statistic else part.numbers or part.statistic
        yield Html(f"{escape(name)}: {badge(part.outcome)} {escape(numbers)}")


def scoreboard(views: Iterable[View]) -> Table:
    """All claims of all artifacts, with the verdict at each scale that was run, and how many there are of each."""
    rows, tally = [], dict.fromkeys(("holds", "fails", "undecided", "not enough runs", "not run"), 0)
    for view in views:
        verdicts, artifact = view.verdicts(), view.artifact
        note = f"<br><small>{escape(artifact.note)}</small>" if artifact.note else ""
        name = Html(f'<a href="artifacts/{artifact.name}.html">{escape(artifact.title)}</a>{note}')
        for claim in view.report.claims:
            own = [v for v in verdicts if v.claim is claim]
            for outcome in [v.finding.outcome for v in own] or ["not run"]:
                tally[outcome] += 1
            rows.append((name, (*_tags(own), claim.text)))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in tally.items() if count)
    caption = f"Which results reproduce: {counts}. Each artifact's page has the rules, and the runs behind the numbers."
    return Table(caption, ("artifact", "claim"), tuple(rows), prose=("artifact", "claim"), merged=True)
