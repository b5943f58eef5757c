"""Tables of results as HTML, for the book and for notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rmtlib.report.escape import escape
from rmtlib.report.measurements import Aggregate, Record, slug


class Html(str):
    """Markup that is shown as such, by a notebook and in a table's cell."""

    def _repr_html_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Link:
    """A number and the record that it comes from; `hint` says more on hovering."""

    text: str
    slug: str
    hint: str = ""


Cell = str | tuple[str | Link, ...]


@dataclass(frozen=True)
class Table:
    """Header, rows of cells, and a caption that says what to see. The parts of a cell stand below each other.

    Attributes:
        prose: columns of running text, whose lines may break.
        merged: whether rows that follow each other with the same first cell share it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    prose: tuple[str, ...] = ()
    merged: bool = False

    @property
    def title(self) -> str:
        """The first clause of the caption; a colon in brackets does not end it."""
        return re.split(r":(?![^(]*\))|\. ", self.caption)[0].rstrip(".")

    def to_html(self, records: str | None = None) -> str:
        """An HTML table; links lead to the records' pages in the folder `records`, or are plain text without one."""
        kinds = [' class="prose"' * (name in self.prose) for name in self.header]
        groups = [list(group) for _, group in groupby(self.rows, key=lambda row: row[0])] if self.merged else []
        lines = []
        for group in groups or [[row] for row in self.rows]:
            scope = f'scope="rowgroup" rowspan="{len(group)}"' if self.merged else 'scope="row"'
            head = f"<th {scope}{kinds[0]}>{_cell(group[0][0], records)}</th>"
            for row in group:
                rest = zip(kinds[1:], row[1:], strict=True)
                cells = "".join(f"<td{kind}>{_cell(cell, records)}</td>" for kind, cell in rest)
                lines.append(f"<tr>{head}{cells}</tr>")
                head = ""
        names = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        head = f"<thead><tr>{names}</tr></thead>\n" if any(name.strip() for name in self.header) else ""
        body = "\n".join(lines)
        return (
            f'<div class="table-wrap" tabindex="0"><table class="table results">\n'
            f"<caption>{escape(self.caption)}</caption>\n{head}<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()


def fold(summary: str, content: str) -> str:
    """Markup that is folded away until it is asked for; "" of nothing."""
    return f'<details class="fold"><summary>{escape(summary)}</summary>\n{content}\n</details>\n' if content else ""


def _cell(content: Cell, records: str | None) -> str:
    parts = (content,) if isinstance(content, str) else content
    blocks = [part if isinstance(part, Html) else escape(part) for part in parts if isinstance(part, str)]
    links = " ".join(_link(part, records) for part in parts if isinstance(part, Link))
    if links and blocks:
        return f'{"<br>".join(blocks)} <span class="runs">{links}</span>'
    return "<br>".join(blocks) + links


def _link(link: Link, records: str | None) -> str:
    hint = f' title="{escape(link.hint)}"' if link.hint else ""
    if records is None:
        return f"<span{hint}>{escape(link.text)}</span>"
    return f'<a href="{records}/{escape(link.slug)}.html"{hint}>{escape(link.text)}</a>'


def mean_text(aggregate: Aggregate, digits: int = 2) -> str:
    """mean ± standard deviation over seeds; of one run its value with its interval, if it has one."""
    text = f"{aggregate.mean:.{digits}f}"
    if aggregate.std is not None:
        return f"{text} ± {aggregate.std:.{digits}f}"
    run = aggregate.runs[0]
    return text if run.low is None else f"{text} [{run.low:.{digits}f}, {run.high:.{digits}f}]"


def value_cell(aggregate: Aggregate | None, digits: int = 2, missing: str = "not run") -> Cell:
    """`mean_text`, then a link to the record of each run behind it."""
    if aggregate is None:
        return missing
    links = []
    for run in aggregate.runs:
        interval = "" if run.low is None else f" [{run.low:.3f}, {run.high:.3f}]"
        hint = f"seed {run.seed}: {run.metric} {run.value:.4f}{interval}, n = {run.n}"
        links.append(Link(f"s{run.seed}", run.record, hint))
    return (mean_text(aggregate, digits), *links)


def runs_cell(records: Sequence[Record]) -> Cell:
    """How many runs, with a link to each one's record."""
    return (str(len(records)), *(Link(f"s{record['seed']}", slug(record)) for record in records))


def plural(count: int, noun: str) -> str:
    """ "1 run", "3 runs"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def settings_table(caption: str, columns: Mapping[str, Mapping[str, Any]], *, differing: bool = False) -> Table:
    """Settings side by side: a row for each (dotted) name, a column for each named mapping.

    Args:
        differing: leave out what is the same in all columns.
    """
    flat = {name: _flat(settings) for name, settings in columns.items()}
    keys: Iterable[str] = dict.fromkeys(key for column in flat.values() for key in column)
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
