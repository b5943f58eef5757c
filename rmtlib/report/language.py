"""Tables, figure and claims of the language modelling artifacts: a value a row, over seeds, beside the paper's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from rmtlib.evaluation.statistics import mean_std
from rmtlib.experiments.language_tables import REFERENCES, TABLES, TableRow
from rmtlib.experiments.spec import SCALES, Row
from rmtlib.report.curves import Record, latest, slug
from rmtlib.report.tables import Cell, Link, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = {"enwik8": "bits per character", "wikitext-103": "perplexity"}
DIGITS = {"enwik8": 3, "wikitext-103": 2}
STYLE = {  # Okabe and Ito's palette, and markers that differ as well
    "Baseline": ("#444444", "o"),
    "MT": ("#CC79A7", "D"),
    "Tr-XL": ("#0072B2", "s"),
    "RMT": ("#D55E00", "^"),
    "Tr-XL + RMT": ("#009E73", "v"),
}


@dataclass(frozen=True)
class RowRuns:
    """All runs of a row at one scale."""

    row: TableRow
    records: tuple[Record, ...]

    @property
    def values(self) -> list[float]:
        return [record["metrics"]["value"] for record in self.records]

    @property
    def mean(self) -> float:
        return mean_std(self.values)[0]

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for one run."""
        return mean_std(self.values)[1]

    @property
    def slugs(self) -> tuple[str, ...]:
        return tuple(slug(record) for record in self.records)

    @property
    def sizes(self) -> str:
        """What the model carried and read here: cache + memory tokens, segment."""
        m = self.records[0]["metrics"]
        text = f"cache {m['cache']}, memory {m['memory_tokens']}, segment {m['segment']}"
        tested = self.records[0]["config"]["params"]["evaluation"]
        if (tested["segment"], tested["cache"]) != (m["segment"], m["cache"]):
            text += f"; tested with cache {tested['cache']}, segment {tested['segment']}"
        return text


def difference(a: RowRuns, b: RowRuns) -> tuple[float, float]:
    """Mean of a less mean of b, and its standard error from the spread between seeds (0 where there is one each)."""
    return a.mean - b.mean, sqrt(sum((x.std or 0.0) ** 2 / len(x.values) for x in (a, b)))


def rows_by_scale(artifact: str, records: Iterable[Record]) -> dict[str, dict[str, RowRuns]]:
    """Scale -> row name -> its runs, in the table's order."""
    found: dict[str, dict[str, RowRuns]] = {}
    kept = latest(records)
    for scale in SCALES:
        for row in TABLES[artifact]:
            runs = tuple(r for r in kept if r["scale"] == scale and r["row"] == row.name)
            if runs:
                found.setdefault(scale, {})[row.name] = RowRuns(row, runs)
    return found


def corpus_note(artifact: str, scale: str) -> str:
    """What a table's caption has to say about the text."""
    if artifact == "wikitext-103" and scale in ("small", "gpu"):
        return " Trained and tested on WikiText-2, not WikiText-103."
    return " The text is made up: nothing is claimed from it." if scale == "smoke" else ""


class LanguageParts:
    """The parts of one artifact's page, made from its records; see `report.view.Parts`."""

    def __init__(self, artifact: str):
        self.artifact, self.unit, self.digits = artifact, UNITS[artifact], DIGITS[artifact]

    def _text(self, runs: RowRuns) -> str:
        spread = "" if runs.std is None else f" ± {runs.std:.{self.digits}f}"
        return f"{runs.mean:.{self.digits}f}{spread}"

    def _value(self, runs: RowRuns | None) -> Cell:
        if runs is None:
            return "not run"
        links = []
        for record in runs.records:
            m = record["metrics"]
            hint = f"seed {record['seed']}: {m['value']:.4f} over {m['tokens']} tokens"
            links.append(Link(f"s{record['seed']}", slug(record), hint))
        return (self._text(runs), *links)

    def by_scale(self, records: Iterable[Record], scale: str) -> Table | None:
        """The rows that were run at one scale, with the sizes they had there."""
        found = rows_by_scale(self.artifact, records).get(scale)
        if not found:
            return None
        body = tuple(
            (runs.row.name, runs.sizes, str(runs.records[0]["metrics"]["state_size"]), self._value(runs))
            for runs in found.values()
        )
        return Table(
            f"Test {self.unit} at {scale} scale: mean ± standard deviation over seeds. State: floats carried from "
            f"segment to segment, per stream.{corpus_note(self.artifact, scale)}",
            ("row", "sizes in tokens", "state", self.unit),
            body,
        )

    def ways_to_train(self, records: Iterable[Record], scale: str) -> Table | None:
        """A row that was trained in several ways: what each costs and brings. None where there are not two."""
        found = rows_by_scale(self.artifact, records).get(scale, {})
        several = {runs.row.plain for runs in found.values() if runs.row.variant and runs.row.plain in found}
        body = []
        for runs in (runs for runs in found.values() if runs.row.plain in several):
            gap, error = difference(runs, found[runs.row.plain])
            shown = f"{gap:+.{self.digits}f} ± {error:.{self.digits}f}" if runs.row.variant else ""
            time = mean_std([record["wall_s"] / 60 for record in runs.records])[0]
            way = runs.row.variant or "stored (default)"
            body.append((runs.row.plain, way, self._value(runs), shown, f"{time:.1f} min"))
        if not body:
            return None
        return Table(
            f"Ways to train the same row at {scale} scale: test {self.unit}, its difference from replay of the stored "
            "memory with the standard error by the spread between seeds (0 for single runs), and time of a run.",
            ("row", "way", self.unit, "difference", "time"),
            tuple(body),
        )

    def compare(self, records: Iterable[Record], rows: Sequence[Row]) -> Table:
        """Every row of the paper's table beside what was run."""
        found = rows_by_scale(self.artifact, records)
        notes = "".join(f" Column {scale}:{note}" for scale in found if (note := corpus_note(self.artifact, scale)))
        body = tuple(
            (
                row.label,
                row.size,
                str(row.segment),
                row.printed or "not in the table",
                *(self._value(found[scale].get(row.name)) for scale in found),
            )
            for row in TABLES[self.artifact]
        )
        nothing = ("that paper's value",) * len(found)
        body = (*((*quoted, *nothing) for quoted in REFERENCES[self.artifact]), *body)
        return Table(
            f"Test {self.unit}, the paper and ours; memory and segment are the paper's. Models, text and number of "
            f"steps differ below paper scale: compare the order of the rows, not the level.{notes}",
            ("model", "memory", "segment", "paper", *(f"ours, {scale}" for scale in found)),
            body,
        )

    def paper(self, rows: Sequence[Row]) -> Table:
        """What the paper prints, and the authors' single runs."""
        body = tuple(
            (
                row.label,
                row.size,
                str(row.segment),
                row.printed or "not in the table",
                ", ".join(map(str, row.runs)) or "none published",
                row.note,
            )
            for row in TABLES[self.artifact]
        )
        body = (*((*quoted, "", "quoted there") for quoted in REFERENCES[self.artifact]), *body)
        return Table(
            f"The paper's {self.unit}, and each run of the authors in their published file of experiment results.",
            ("model", "memory", "segment", "paper", "the authors' runs", "note"),
            body,
            prose=True,
        )

    def csv(self, live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
        """A line for each run, one for each printed value, and one for each of the authors' runs."""
        live = list(live)
        ids = {record["run_id"] for record in live}
        text = io.StringIO()
        fields = (
            *("source", "scale", "corpus", "row", "model", "cache", "memory_tokens", "segment", "unit"),
            *("seed", "value", "std", "validation", "tokens", "record"),
        )
        writer = csv.DictWriter(text, fields, lineterminator="\n", restval="")
        writer.writeheader()
        for source, records in (("here", live), ("published", [r for r in published if r["run_id"] not in ids])):
            for scale, found in rows_by_scale(self.artifact, records).items():
                for runs in found.values():
                    for record in runs.records:
                        m = record["metrics"]
                        about = {
                            k: m[k] for k in ("cache", "memory_tokens", "segment", "validation", "tokens", "value")
                        }
                        line = {"source": source, "scale": scale, "row": record["row"], "seed": record["seed"]}
                        line["corpus"] = record["config"]["params"]["corpus"]
                        writer.writerow(
                            line | about | {"model": runs.row.label, "unit": self.unit, "record": slug(record)}
                        )
        for row in TABLES[self.artifact]:
            about = {
                "corpus": self.artifact,
                "row": row.name,
                "model": row.label,
                "cache": row.cache,
                "memory_tokens": row.memory,
            }
            about |= {"segment": row.segment, "unit": self.unit}
            if row.printed:
                writer.writerow(about | {"source": "paper", "value": row.paper["mean"], "std": row.paper["std"] or ""})
            for value in row.runs:
                writer.writerow(about | {"source": "authors", "value": value})
        return text.getvalue()

    def figure(self, live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> Figure:
        """For each scale: test value row by row, the paper's values of the same rows, and validation in training."""
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        from rmtlib.report.figures import RC

        panels = self._panels(live, published)
        shown = panels or [("", {}, {})]
        heights = [max(1.6, 0.22 * len(now | before or TABLES[self.artifact]) + 0.9) for _, now, before in shown]
        with matplotlib.rc_context(RC):
            figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
            grid = figure.subplots(len(shown), 3, squeeze=False, height_ratios=heights, width_ratios=(1, 1, 1.1))
            for (scale, now, before), (ours, paper, training) in zip(shown, grid, strict=True):
                names = [row.name for row in TABLES[self.artifact] if row.name in (now | before)]
                names = names or [row.name for row in TABLES[self.artifact]]
                self._values(ours, names, now, before)
                self._published(paper, names)
                self._training(training, now, before)
                ours.set_title(f"{scale} scale" if scale else "nothing run yet")
                paper.set_title("the paper, same rows")
                training.set_title("validation in training")
                for ax in (ours, paper):
                    ax.set_xlabel(f"test {self.unit}")
                training.set_ylabel(self.unit)
            kinds = {row.kind for row in TABLES[self.artifact]}
            handles = [
                Line2D([], [], color=c, marker=m, linestyle="", label=k) for k, (c, m) in STYLE.items() if k in kinds
            ]
            handles.append(Line2D([], [], color="#555555", marker="o", linestyle="", label="run here"))
            handles.append(
                Line2D([], [], color="#555555", marker="o", mfc="white", linestyle="", label="published run")
            )
            figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=8)
        return figure

    def _panels(self, live: Iterable[Record], published: Iterable[Record]) -> list[tuple[str, dict, dict]]:
        live = list(live)
        ids = {record["run_id"] for record in live}
        now = rows_by_scale(self.artifact, live)
        before = rows_by_scale(self.artifact, [r for r in published if r["run_id"] not in ids])
        return [(s, now.get(s, {}), before.get(s, {})) for s in SCALES if s in now or s in before]

    @staticmethod
    def _rows_axis(ax: Axes, names: Sequence[str], labels: bool) -> None:
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_yticks(range(len(names)), names if labels else [""] * len(names))

    def _values(
        self, ax: Axes, names: Sequence[str], now: Mapping[str, RowRuns], before: Mapping[str, RowRuns]
    ) -> None:
        for group, face in ((before, "white"), (now, None)):
            for y, name in enumerate(names):
                if name in group:
                    runs = group[name]
                    colour, marker = STYLE[runs.row.kind]
                    ax.errorbar(runs.mean, y, xerr=runs.std or 0.0, color=colour, capsize=3, linewidth=1.4, zorder=2)
                    style: dict[str, Any] = {"marker": marker, "facecolor": face or colour, "edgecolor": colour}
                    ax.scatter(runs.values, [y] * len(runs.values), s=22, zorder=3, **style)
        self._rows_axis(ax, names, labels=True)

    def _published(self, ax: Axes, names: Sequence[str]) -> None:
        table = {row.name: row for row in TABLES[self.artifact]}
        for y, name in enumerate(names):
            row = table[name]
            colour, marker = STYLE[row.kind]
            if row.paper["mean"] is None:
                continue
            ax.errorbar(
                row.paper["mean"], y, xerr=row.paper["std"] or 0.0, color=colour, capsize=3, marker=marker, ms=4
            )
            if row.runs:
                ax.scatter(row.runs, [y] * len(row.runs), s=10, facecolor="white", edgecolor=colour, zorder=3)
        ax.set_facecolor("#f6f6f6")
        self._rows_axis(ax, names, labels=False)

    def _training(self, ax: Axes, now: Mapping[str, RowRuns], before: Mapping[str, RowRuns]) -> None:
        for group, line in ((before, "--"), (now, "-")):
            for runs in group.values():
                colour, marker = STYLE[runs.row.kind]
                for record in runs.records:
                    points = record["curves"]["validation"]
                    ax.plot(
                        [step for step, _ in points], [value for _, value in points],
                        line, color=colour, marker=marker, ms=2.5, linewidth=1, alpha=0.8,
                    )  # fmt: skip
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.tick_params(axis="y", which="both", labelsize=7)
        ax.set_xlabel("segments read per stream")

    def describe(self, live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
        """What the figure shows, for those who do not see it; from the same data."""
        text = [f"Test {self.unit} row by row, the paper's values of the same rows, and validation during training."]
        for scale, now, before in self._panels(live, published):
            for group, name in ((now, "runs on this machine"), (before, "published runs")):
                if group:
                    each = "; ".join(
                        f"{runs.row.name} {self._text(runs)} ({(n := len(runs.values))} run{'s' * (n > 1)})"
                        for runs in group.values()
                    )
                    text.append(f"{scale} scale, {name}: {each}.")
        printed = "; ".join(f"{row.name} {row.printed}" for row in TABLES[self.artifact] if row.printed)
        return " ".join([*text, f"The paper: {printed}."])


def grouped(artifact: str) -> Any:
    """What `claims.judge` groups an artifact's records with."""
    return lambda records: rows_by_scale(artifact, records)
