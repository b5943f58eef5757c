"""One artifact's results in one object: what its notebook shows, and what its pages of the book are made of."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rmtlib.report import figures
from rmtlib.report.claims import Verdict, judge
from rmtlib.report.escape import escape
from rmtlib.report.measurements import Record, Results, latest, to_csv
from rmtlib.report.report import Report
from rmtlib.report.tables import Html, Table, fold
from rmtlib.report.verdicts import claims_list
from rmtlib.runs.artifact import Artifact

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class View:
    """Live and published records of an artifact; every method makes one part of its page.

    Args:
        live: records of the runs on this machine; they stand before published ones of the same run.
        published: records of results/.
    """

    def __init__(self, artifact: Artifact, live: Iterable[Record] = (), published: Iterable[Record] = ()) -> None:
        self.artifact = artifact
        self.report: Report = self.artifact.report()
        self.results = Results(self.artifact.rows, self.report.measure, live, published, self.report.printed)

    def draw(self) -> Figure:
        """The figure as matplotlib has it."""
        return self.report.figure(self.results)

    def alt(self) -> str:
        """What the figure shows, in words and numbers."""
        return self.report.alt(self.results)

    def figure(self) -> Html:
        """The figure with its description, for a notebook."""
        return image(self.draw(), self.alt())

    def tables_of_scales(self) -> list[Table | None]:
        """Ours at each scale that was run, largest first, then the paper's own values and those of others."""
        ours = [table(self.results, scale) for scale in self.results.scales for table in self.report.by_scale]
        return [*ours, *(table(self.results) for table in (self.report.paper, *self.report.others))]

    def tables(self, records: str | None = None) -> Html:
        """The paper beside ours, then ours and the paper's own values, folded; links lead into the folder `records`."""
        beside = self.report.compare(self.results).to_html(records) if self.results.scales else ""
        more = [fold(table.title, table.to_html(records)) for table in self.tables_of_scales() if table is not None]
        return Html("\n".join([beside, *more]))

    def csv(self) -> str:
        """Every measured and every printed number, a line for each."""
        return to_csv(self.results.long_form())

    def verdicts(self) -> list[Verdict]:
        """The paper's claims at each scale that was run."""
        return judge(self.report.claims, self.results.records, self.report.arms)

    def claims(self) -> Html:
        """Each claim with its verdict, ours and the paper's effect in words, its rule and its numbers."""
        return claims_list(self)

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


def image(figure: Figure, alt: str) -> Html:
    """A figure with its description, as a notebook shows it (a plain image output would carry none).

    The drawing for dark grounds is shown by the book alone, whose style sheet knows its theme.
    """
    light = figures.to_svg(figure)
    shown = (("only-light", light, "max-width: 100%"), ("only-dark", figures.darkened(light), "display: none"))
    images = []
    for name, svg, style in shown:
        data = base64.b64encode(svg.encode()).decode()
        images.append(
            f'<img class="{name}" src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}" style="{style}">'
        )
    return Html("".join(images))
