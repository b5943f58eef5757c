"""Tables of records: one structure, written as Markdown for the book, HTML for a notebook, CSV for other tools."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rmtlib.report.measurements import (
    PAPER_TRAIN_TOKENS,
    Point,
    Record,
    curves,
    latest,
    paper_points,
    short_count,
    slug,
)
from rmtlib.runs.spec import Row


@dataclass(frozen=True)
class Link:
    """A number and the record that it comes from; `hint` says more on hovering."""

    text: str
    slug: str
    hint: str = ""


Cell = str | tuple[str | Link, ...]


@dataclass(frozen=True)
class Table:
    """Header, rows of cells, and a caption. A cell's parts stand below each other only where links are among them."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    prose: tuple[str, ...] = ()  # columns of running text, whose lines may break

    def to_html(self, records_page: str | None = None) -> str:
        """An HTML table; links lead to anchors of `records_page`, or are plain text without one."""

        def part(item: str | Link) -> str:
            if isinstance(item, str):
                return escape(item)
            hint = f' title="{escape(item.hint)}"' if item.hint else ""
            if records_page is None:
                return f"<span{hint}>{escape(item.text)}</span>"
            return f'<a href="{records_page}#{item.slug.lower()}"{hint}>{escape(item.text)}</a>'

        def cell(content: Cell) -> str:
            if isinstance(content, str):
                return escape(content)
            plain = "<br>".join(part(item) for item in content if isinstance(item, str))
            links = " ".join(part(item) for item in content if isinstance(item, Link))
            return f'{plain}<br><span class="runs">{links}</span>' if plain and links else plain or links

        kinds = [' class="prose"' * (name in self.prose) for name in self.header]
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = "\n".join(
            f'<tr><th scope="row"{kinds[0]}>{cell(first)}</th>'
            + "".join(f"<td{kind}>{cell(c)}</td>" for kind, c in zip(kinds[1:], rest, strict=True))
            + "</tr>"
            for first, *rest in self.rows
        )
        return (
            f'<div class="table-wrap" tabindex="0"><table class="table results">\n'
            f"<caption>{escape(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def to_markdown(self) -> str:
        """A pipe table without links."""

        def cell(content: Cell) -> str:
            parts = (content,) if isinstance(content, str) else content
            return " ".join(p if isinstance(p, str) else p.text for p in parts).replace("|", "\\|")

        lines = [
            f"*{self.caption}*",
            "",
            "| " + " | ".join(self.header) + " |",
            "|" + " --- |" * len(self.header),
            *("| " + " | ".join(cell(c) for c in row) + " |" for row in self.rows),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.to_html()


def _text(point: Point) -> str:
    """mean ± std over seeds, or one run's accuracy with its binomial interval."""
    if point.std is not None:
        return f"{point.mean:.2f} ± {point.std:.2f}"
    low, high = point.interval
    return f"{point.mean:.2f} [{low:.2f}, {high:.2f}]"


def _value(point: Point | None) -> Cell:
    """The number, then a link to each run behind it."""
    if point is None:
        return "not measured"
    links = (
        Link(
            f"s{run.seed}",
            run.slug,
            f"seed {run.seed}: {run.correct} of {run.n} right, {run.accuracy:.3f}, "
            f"95 % interval {run.interval[0]:.3f} to {run.interval[1]:.3f}",
        )
        for run in point.runs
    )
    return (_text(point), *links)


def accuracy_table(records: Iterable[Record], scale: str) -> Table | None:
    """Exact match at one scale: a row for each context length, a column for each task. None without records."""
    tasks = curves(records).get(scale)
    if not tasks:
        return None
    by_segments = {task: {point.segments: point for point in curve.points} for task, curve in tasks.items()}
    counts = sorted({segments for points in by_segments.values() for segments in points})
    trained = {curve.at_training_length.segments for curve in tasks.values()}
    sizes = {task: curve.points[0].tokens // curve.points[0].segments for task, curve in tasks.items()}
    rows = tuple(
        (
            f"{count} (longest trained)" if {count} == trained else str(count),
            *(_value(points.get(count)) for points in by_segments.values()),
        )
        for count in counts
    )
    header = (
        "segments",
        *(f"{task}, {c.runs} run{'s' * (c.runs != 1)}, {sizes[task]} tokens a segment" for task, c in tasks.items()),
    )
    return Table(
        f"Exact match at {scale} scale by context length in segments: mean ± standard deviation over seeds; for one "
        "run its 95 % binomial interval in brackets.",
        header,
        rows,
        prose=("segments",),
    )


def paper_table(rows: Sequence[Row]) -> Table:
    """The paper's accuracies as printed: a row for each context length, a column for each task."""
    columns = {row.name: dict(paper_points(row)) for row in rows if row.paper}
    lengths = sorted({length for column in columns.values() for length in column})
    body = tuple(
        (
            short_count(length) + (" (longest trained)" if length == PAPER_TRAIN_TOKENS else ""),
            *(f"{column[length]:.2f}" if length in column else "" for column in columns.values()),
        )
        for length in lengths
    )
    return Table("The paper's values (Table 4, RMT with GPT-2).", ("context", *columns), body)


def comparison_table(records: Iterable[Record], rows: Sequence[Row]) -> Table:
    """Paper above ours, task by task, aligned by how far beyond its own training length each model reads.

    The models, the lengths in tokens and the vocabularies differ, so this compares the shape of the decline.
    """
    scales = curves(record for record in records if record["scale"] != "smoke")
    published = {row.name: {n // PAPER_TRAIN_TOKENS: v for n, v in paper_points(row)} for row in rows}
    multiples = sorted({m for column in published.values() for m in column if 1 <= m <= 64})
    body: list[tuple[Cell, ...]] = []
    for row in rows:
        paper = published[row.name]
        body.append((row.name, "paper", *(f"{paper[m]:.2f}" if m in paper else "" for m in multiples)))
        ours = [tasks[row.name] for tasks in scales.values() if row.name in tasks]
        for curve in ours:
            points = [curve.at(m) for m in multiples]
            body.append((row.name, f"ours, {curve.scale}", *("" if p is None else _text(p) for p in points)))
        if not ours:
            body.append((row.name, "ours", "not run", *("" for _ in multiples[1:])))
    return Table(
        "Exact match at multiples of the training length: the paper's model and ours, each against its own. "
        "Read the shape of the decline, not the level: model, length in tokens and vocabulary differ.",
        ("task", "whose", *(f"{m}×" for m in multiples)),
        tuple(body),
    )


CSV_FIELDS = (
    *("source", "scale", "task", "context_tokens", "segments", "train_tokens", "runs", "mean", "std"),
    *("interval_low", "interval_high", "seed", "correct", "n", "accuracy", "run_low", "run_high", "record"),
    "stories",
)


def to_csv(live: Iterable[Record], published: Iterable[Record], rows: Sequence[Row]) -> str:
    """All that the figure shows, a line for each run and length, and one for each of the paper's values.

    mean, std and interval are over all runs of that task, scale and length; run_low and run_high are the run's own;
    stories says whether its data came from bAbI's files or from the simulator.
    """
    live = list(live)
    ids = {record["run_id"] for record in live}
    groups = (("here", live), ("published", [r for r in published if r["run_id"] not in ids]))
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for source, records in groups:
        for scale, tasks in curves(records).items():
            for task, curve in tasks.items():
                for point in curve.points:
                    low, high = point.interval
                    for run in point.runs:
                        writer.writerow(
                            {
                                "source": source,
                                "scale": scale,
                                "task": task,
                                "context_tokens": point.tokens,
                                "segments": point.segments,
                                "train_tokens": curve.train_tokens,
                                "runs": len(point.runs),
                                "mean": f"{point.mean:.4f}",
                                "std": "" if point.std is None else f"{point.std:.4f}",
                                "interval_low": f"{low:.4f}",
                                "interval_high": f"{high:.4f}",
                                "seed": run.seed,
                                "correct": run.correct,
                                "n": run.n,
                                "accuracy": f"{run.accuracy:.4f}",
                                "run_low": f"{run.interval[0]:.4f}",
                                "run_high": f"{run.interval[1]:.4f}",
                                "record": run.slug,
                                "stories": "simulator" if run.simulated else "bAbI files",
                            }
                        )
    for row in rows:
        for tokens, accuracy in paper_points(row):
            writer.writerow(
                {
                    "source": f"paper ({row.source})",
                    "task": row.name,
                    "context_tokens": tokens,
                    "train_tokens": PAPER_TRAIN_TOKENS,
                    "mean": f"{accuracy:.4f}",
                }
            )
    return text.getvalue()


def records_table(records: Iterable[Record]) -> Table:
    """Which runs there are: time, tokens and machine."""
    rows = tuple(
        (
            (Link(slug(record), slug(record)),),
            f"{record['wall_s'] / 60:.1f} min",
            f"{record['tokens'] / 1e6:.1f} M",
            record["precision"],
            record["finished"][:10],
        )
        for record in latest(records)
    )
    return Table("Runs", ("record", "time", "tokens", "precision", "finished"), rows)


def settings_table(caption: str, columns: Mapping[str, Mapping[str, Any]], *, differing: bool = False) -> Table:
    """Settings side by side: a row for each (dotted) name, a column for each named mapping.

    Args:
        differing: leave out what is the same in all columns.
    """
    flat = {name: _flat(settings) for name, settings in columns.items()}
    keys = list(dict.fromkeys(key for column in flat.values() for key in column))
    if differing:
        keys = [key for key in keys if len({column.get(key, "") for column in flat.values()}) > 1]
    body = tuple((key, *(column.get(key, "") for column in flat.values())) for key in keys)
    return Table(caption, ("setting", *columns), body, prose=tuple(columns))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Cell]:
    result: dict[str, Cell] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and not all(name.isdigit() for name in value):
            result |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple)):
            result[prefix + key] = tuple(_plain(item) for item in value)  # one line each
        else:
            result[prefix + key] = _plain(value)
    return result


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " / ".join(map(_plain, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)
