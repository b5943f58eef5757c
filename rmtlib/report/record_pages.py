"""A page for each record, and the index of them: plain HTML in the book's dress, written without Sphinx."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from rmtlib.report.escape import escape
from rmtlib.report.measurements import Measurement, Record, Series, latest, slug
from rmtlib.report.tables import Html, Table, mean_text, settings_table
from rmtlib.report.view import View
from rmtlib.runs.progress import amount, duration, size

MOST_POINTS = 300  # of a drawn curve
PAGE = Template("""<!DOCTYPE html>
<html lang="en" data-content_root="../">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title — rmtlib</title>
<link rel="stylesheet" href="../_static/styles/theme.css">
<link rel="stylesheet" href="../_static/styles/pydata-sphinx-theme.css">
<link rel="stylesheet" href="../_static/styles/sphinx-book-theme.css">
<link rel="stylesheet" href="../_static/book.css">
<link rel="icon" href="../_static/favicon.svg">
<script src="../_static/book.js"></script>
</head>
<body class="plain">
<nav aria-label="Breadcrumb"><a href="../index.html">rmtlib</a> › <a href="../records.html">Records</a> ›
<a href="../artifacts/$artifact.html">$artifact</a> <button type="button" data-switch-theme>light or dark</button></nav>
<main class="bd-content"><article class="bd-article">
<h1>$title</h1>
$body
</article></main>
</body>
</html>
""")


def write_records(views: Iterable[View], folder: Path) -> Html:
    """Write page and JSON of every record into `folder`; the index of them all, for the page that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for view in views:
        live = {record["run_id"] for record in view.results.live}
        for record in latest(view.results.records):
            name = slug(record)
            (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            status = "a run of this machine, not published" if record["run_id"] in live else "published"
            (folder / f"{name}.html").write_text(record_page(view, record, status), encoding="utf-8")
        lines += [
            _line(view, series, folder.name) for rows in view.results.series().values() for series in rows.values()
        ]
    return index(lines, [view.artifact.name for view in views])


def index(lines: Sequence[str], artifacts: Sequence[str]) -> Html:
    """A line for each row at each scale, with its runs; book.js filters and sorts it."""
    if not lines:
        return Html("<p>Not run: there is no record yet.</p>")
    names = "".join(f"<option>{escape(name)}</option>" for name in artifacts)
    header = ("Artifact", "Row", "Scale", "Value", "Runs", "Finished")
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "\n".join(lines)
    return Html(
        '<form class="filters" data-for="table-records" hidden>'
        f'<label>Artifact <select data-filter="artifact"><option value="">all</option>{names}</select></label>'
        '<label>Contains <input type="search" data-filter="text"></label><output></output></form>\n'
        '<div class="table-wrap" tabindex="0" role="region" aria-label="Records">'
        '<table id="table-records" class="table results sortable">\n'
        "<caption>Every row that was run at a scale: its main number over seeds, and a link to each run.</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _line(view: View, series: Series, folder: str) -> str:
    point = series.at_trained_x
    at = f" at {point.x:g}" if len(series.points) > 1 else ""
    links = " ".join(
        f'<a href="{folder}/{escape(slug(record))}.html">s{record["seed"]}</a>' for record in series.records
    )
    name = view.report.label(series.row, view.results, series.scale)
    also = "" if name == series.row else f" <small>{escape(series.row)}</small>"
    finished = max(str(record["finished"])[:10] for record in series.records)
    artifact = view.artifact.name
    cells = (
        f'<a href="artifacts/{artifact}.html">{artifact}</a>',
        f"{escape(name)}{also}",
        series.scale,
        f"{escape(mean_text(point, 3))} <small>{escape(series.metric)}{at}</small>",
        links,
        escape(finished),
    )
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr data-artifact="{artifact}">{body}</tr>'


def record_page(view: View, record: Record, status: str) -> str:
    """One record: its number, how to make it again, what it measured, its curves, where it comes from, its settings."""
    name = view.report.label(record["row"], view.results, record["scale"])
    title = f"{name}: {record['artifact']}, {record['scale']} scale, seed {record['seed']}"
    measured = list(view.report.measure(record))
    config = settings_table("Settings of the run.", {"value": record["config"]["params"]})
    parts = [
        f"<p>{escape(_in_a_line(measured, record))}</p>",
        f"<h2>Make it again</h2>\n<pre>{escape(again(record))}</pre>",
        f'<p><a href="{slug(record)}.json" download>The whole record as JSON</a>, with checksum and config.</p>',
        f"<h2>Measured</h2>\n{measured_table(measured).to_html()}",
        curves(record["curves"]),
        f"<h2>Where it comes from</h2>\n{origin_table(record, status).to_html()}",
        f"<h2>Settings</h2>\n{config.to_html()}",
        _folded("Other metrics", _other_metrics(record)),
    ]
    return PAGE.substitute(
        title=escape(title), artifact=escape(record["artifact"]), body="\n".join(filter(None, parts))
    )


def _in_a_line(measured: Sequence[Measurement], record: Record) -> str:
    main = [m for m in measured if m.metric == measured[0].metric]
    first = max((m for m in main if (m.x or 0) <= (m.x_trained or 0)), key=lambda m: m.x or 0, default=main[0])
    at = "" if first.x is None else f" at {first.x:g}"
    return (
        f"{first.metric}{at}: {first.value:.4g}. Run {record['run_id']}, finished {record['finished'][:10]} after "
        f"{duration(record['wall_s'])} and {amount(record['tokens'])} tokens."
    )


def again(record: Record) -> str:
    """The commands that train this run again. `rmtlib run` trains seeds from 0 on; those that are there are kept."""
    seeds = f"--seeds {record['seed'] + 1}"
    command = f"rmtlib run {record['artifact']} --scale {record['scale']} --rows '{record['row']}' {seeds}"
    return f"git checkout {record['git']['commit']}\n{command}\n"


def measured_table(measurements: Iterable[Measurement]) -> Table:
    """All that one record measured."""
    rows = []
    for m in measurements:
        interval = "" if m.low is None else f"{m.low:.4f} to {m.high:.4f}"
        x = "" if m.x is None else f"{m.x:g}"
        rows.append((m.metric, x, str(m.segments or ""), f"{m.value:.4f}", interval, str(m.n or "")))
    caption = "Every number of this run that the book shows, with its test samples or tokens n."
    return Table(caption, ("metric", "at", "segments", "value", "95 % interval", "n"), tuple(rows))


def origin_table(record: Record, status: str) -> Table:
    """Status, machine, code, packages and data of a record."""
    data = tuple(f"{d['name']} ({d.get('source', 'unknown')}, {str(d.get('sha256'))[:12]})" for d in record["data"])
    git = record["git"]
    changed = ", with uncommitted changes" if git["dirty"] else ""
    facts = {
        "status": status,
        "finished": f"{record['finished']}, after {duration(record['wall_s'])} and {amount(record['tokens'])} tokens",
        "machine": _machine(record["hardware"]),
        "precision": record["precision"],
        "peak memory": size(record["peak_memory_bytes"] or 0),
        "code": f"commit {git['commit']}{changed}; modules {record['modules_sha256'][:12]}",
        "packages": _inline(record["packages"]),
        "data": tuple(dict.fromkeys(data)),
        "notes": "; ".join(record["notes"]) or "none",
    }
    return Table("What the run was made with.", ("what", "value"), tuple(facts.items()), prose=("value",))


def curves(found: Mapping[str, Any]) -> str:
    """A small drawing of every curve of a record, over its steps."""
    drawings = [drawing for name, points in found.items() if (drawing := _curve(name, points))]
    return "<h2>Curves</h2>\n<div class='curves'>" + "\n".join(drawings) + "</div>" if drawings else ""


def _curve(name: str, points: Any) -> str:
    xy = list(_steps(points))
    if len(xy) < 2:
        return ""
    xy = xy[:: -(-len(xy) // MOST_POINTS)]
    (left, right), values = (xy[0][0], xy[-1][0]), [y for _, y in xy]
    low, high = min(values), max(values)
    line = " ".join(
        f"{52 + 250 * (x - left) / ((right - left) or 1):.1f},{130 - 110 * (y - low) / ((high - low) or 1):.1f}"
        for x, y in xy
    )
    said = f"{name} from {values[0]:.4g} to {values[-1]:.4g} over {right:g} steps"
    return (
        f'<svg viewBox="0 0 310 160" role="img"><title>{escape(said)}</title>'
        f'<g class="axes"><path d="M52 15V130H302"/><text x="48" y="24">{high:.2g}</text>'
        f'<text x="48" y="130">{low:.2g}</text><text x="300" y="146">{right:g} steps</text></g>'
        f'<text class="name" x="56" y="12">{escape(name)}</text><polyline points="{line}"/></svg>'
    )


def _steps(points: Any) -> Iterator[tuple[float, float]]:
    """(step, value), the steps of a curriculum's stages, which start anew, counted on; without what is no number."""
    if not isinstance(points, Sequence):
        return
    before, previous = 0.0, 0.0
    for point in points:
        if not isinstance(point, Sequence) or len(point) < 2 or not isinstance(point[-1], int | float):
            continue
        step = float(point[-2])
        if step < previous:
            before += previous
        previous = step
        yield before + step, float(point[-1])


def _other_metrics(record: Record) -> str:
    other = {key: value for key, value in record["metrics"].items() if key not in ("exact_match", "unit", "value")}
    return json.dumps(other, indent=1) if other else ""


def _folded(title: str, text: str) -> str:
    if not text:
        return ""
    return f'<details class="raw"><summary>{title}</summary>\n<pre>{escape(text)}</pre></details>'


def _machine(hardware: Mapping[str, Any]) -> str:
    parts = dict(hardware)
    memory = parts.pop("memory_bytes", None)
    parts |= {"memory": size(memory)} if memory else {}
    return _inline({name: value for name, value in parts.items() if value is not None})


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
