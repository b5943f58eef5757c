"""One artifact's results in one object: what its notebook shows, and what its pages of the book are made of."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from rmtlib.experiments.capacity import report as capacity
from rmtlib.experiments.language_modelling import figure as language_figure
from rmtlib.experiments.language_modelling.report import LanguageParts
from rmtlib.experiments.registry import get_artifact
from rmtlib.report import figures, tables
from rmtlib.report.claims import Verdict, judge
from rmtlib.report.measurements import Record, latest
from rmtlib.report.tables import Table
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.spec import SCALES, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Parts:
    """How an artifact's records are shown. Each takes (live records, published records, rows)."""

    figure: Callable[[Iterable[Record], Iterable[Record], Sequence[Row]], Figure]
    describe: Callable[[Iterable[Record], Iterable[Record], Sequence[Row]], str]
    csv: Callable[[Iterable[Record], Iterable[Record], Sequence[Row]], str]
    by_scale: tuple[Callable[[Iterable[Record], str], Table | None], ...]  # the tables of a scale
    compare: Callable[[Iterable[Record], Sequence[Row]], Table]
    paper: Callable[[Sequence[Row]], Table]


def _language(artifact: str) -> Parts:
    p = LanguageParts(artifact)
    figure, describe = partial(language_figure.figure, artifact), partial(language_figure.describe, artifact)
    return Parts(figure, describe, p.csv, (p.by_scale, p.ways_to_train), p.compare, p.paper)


PARTS = {
    "figure-5": Parts(
        figures.figure_5,
        figures.figure_5_alt,
        tables.to_csv,
        (tables.accuracy_table,),
        tables.comparison_table,
        tables.paper_table,
    ),
    "enwik8": _language("enwik8"),
    "wikitext-103": _language("wikitext-103"),
    "memory-capacity": Parts(
        capacity.figure,
        capacity.describe,
        capacity.to_csv,
        (capacity.remembered, capacity.rewritten),
        capacity.compare,
        capacity.paper,
    ),
}


def enter_project() -> Path:
    """Make the project's folder the working directory, from a notebook opened in `notebooks/`; returns it.

    `runs/`, `results/` and `out/` are relative to it. Outside a checkout the working directory stays.
    """
    here = Path.cwd()
    root = next((p for p in (here, *here.parents) if (p / "rmtlib").is_dir() and (p / "notebooks").is_dir()), here)
    os.chdir(root)
    return root


class Html(str):
    """Markup that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)


class View:
    """Live and published records of an artifact; every method makes one part of its page.

    Args:
        artifact: its name, e.g. "figure-5", or the artifact itself.
        live: records of the runs on this machine; they stand before published ones of the same run.
        published: records of results/.
    """

    def __init__(self, artifact: str | Artifact, live: Iterable[Record] = (), published: Iterable[Record] = ()) -> None:
        self.artifact = get_artifact(artifact) if isinstance(artifact, str) else artifact
        self.parts = PARTS[self.artifact.name]
        self.live = list(live)
        ids = {record["run_id"] for record in self.live}
        self.published = [record for record in published if record["run_id"] not in ids]

    @property
    def records(self) -> list[Record]:
        """All records, each run once."""
        return [*self.live, *self.published]

    @property
    def scales(self) -> list[str]:
        """The scales that have records, smallest first."""
        found = {record["scale"] for record in self.records}
        return [scale for scale in SCALES if scale in found]

    def draw(self) -> Figure:
        """The figure as matplotlib has it."""
        return self.parts.figure(self.live, self.published, self.artifact.rows)

    def alt(self) -> str:
        """What the figure shows, in words and numbers."""
        return self.parts.describe(self.live, self.published, self.artifact.rows)

    def figure(self) -> Html:
        """The figure with its description, for a notebook (a plain image output would carry none)."""
        png = io.BytesIO()
        self.draw().savefig(png, dpi=150, format="png")
        data = base64.b64encode(png.getvalue()).decode()
        return Html(f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt())}" style="max-width: 100%">')

    def tables(self, records_page: str | None = None) -> Html:
        """Ours at each scale that was run, then beside the paper, then the paper's own values."""
        ours = [table(self.records, scale) for scale in self.scales for table in self.parts.by_scale]
        all_tables = [*ours, self.parts.compare(self.records, self.artifact.rows) if self.scales else None]
        shown = [table for table in (*all_tables, self.parts.paper(self.artifact.rows)) if table is not None]
        return Html("\n\n".join(table.to_html(records_page) for table in shown))

    def verdicts(self) -> list[Verdict]:
        """The paper's claims at each scale that was run."""
        return judge(self.artifact.name, self.records)

    def claims(self) -> Html:
        """The verdicts as a table."""
        return Html(claims_table(self.verdicts()).to_html())

    def summary(self) -> list[str]:
        """A few lines: what the runs of this machine show (the published ones where there are none)."""
        records = latest(self.live or self.published)
        return self.artifact.summary([dict(record) for record in records]) if records else ["No runs yet."]

    def save(self, out: str | Path) -> Html:
        """Write figure (PNG, SVG), table (CSV) and summary into the folder `out`; returns the summary."""
        name, out = self.artifact.name, Path(out)
        png, svg = figures.save(self.draw(), out / name)
        table = out / f"{name}.csv"
        table.write_text(self.parts.csv(self.live, self.published, self.artifact.rows), encoding="utf-8")
        lines = [
            f"figure    {png} and {svg.name}",
            f"table     {table}",
            f"notebook  {out / name}.ipynb",
            f"records   {len(self.live)} here (runs/{name}/), {len(self.published)} published (results/{name}/)",
            *self.summary(),
        ]
        (out / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Html("<pre>" + escape("\n".join(lines)) + "</pre>")


def claims_table(verdicts: Iterable[Verdict]) -> Table:
    """Claim, scale, verdict, statistic: a row for each verdict."""
    rows = tuple((v.claim.text, v.scale, v.outcome, v.statistic) for v in verdicts)
    return tables.Table(
        "The paper's claims as checks over these records.",
        ("claim", "scale", "verdict", "statistic"),
        rows or (("none checked yet", "", "not enough runs", "no runs at small scale or above"),),
        prose=("claim", "statistic"),
    )
