"""The generated parts of the book, from records; `rmtlib.book` writes them into files.

Everything goes to book/_generated/: fragments that hand-written pages include, the executed notebooks, and in
`extra/` what is copied into the book as it is (figures, tables as CSV, records as JSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rmtlib.report import figures
from rmtlib.report.costs import config_of, cost_of
from rmtlib.report.escape import escape, in_markdown
from rmtlib.report.measurements import Measurement, Record, latest, slug
from rmtlib.report.tables import Table, plural, settings_table
from rmtlib.report.view import View
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.progress import amount, duration, size

ROOT = ".."  # of the book, as its artifacts/*.md see it
RESULTS = """## The paper beside ours

{figure}
{beside}
"""
DETAILS = """## Claims

{claims}

## Tables

Each seed (`s0`, `s1`, …) leads to the record of its run.

{tables}

## What was run, and what it takes

{scales}

{trials}

{differences}
## Settings

{settings}
"""
"""What every artifact's page includes, before and after its own words on what came out."""


def figure_fragment(view: View, folder: Path) -> str:
    """The figure with its description, what to see in it, and where its data is; writes both into `folder`."""
    name = view.artifact.name
    _, svg = figures.save(view.draw(), folder / name)
    (folder / f"{name}.csv").write_text(view.csv(), encoding="utf-8")
    caption = escape(view.report.caption(view.results))
    return (
        f'<figure class="plot"><img src="{ROOT}/{folder.name}/{svg.name}" alt="{escape(view.alt())}">\n'
        f'<figcaption>{caption}. <a href="{ROOT}/{folder.name}/{name}.csv">Data as CSV</a>, '
        f'<a href="{ROOT}/{folder.name}/{name}.png">figure as PNG</a>, '
        f'<a href="{ROOT}/_generated/{name}-notebook.html">notebook</a>.</figcaption></figure>\n'
    )


def scales_table(view: View, results: Path) -> Table:
    """Every scale: how many runs there are of how many, or "not run"; what the default and the missing rows cost."""
    artifact, every = view.artifact, view.results.records
    rows: list[tuple[str | tuple[str, ...], ...]] = []
    for scale in artifact.scales:
        if scale == "smoke" and scale not in view.results.scales:
            continue
        records = latest(record for record in every if record["scale"] == scale)
        names, seeds = artifact.default_rows(scale), artifact.default_seeds(scale)
        cost = [cost_of(artifact, every, scale, names, seeds, results)]
        missing = [row.name for row in artifact.rows if row.name not in {record["row"] for record in records}]
        if records and missing:
            one_each = cost_of(artifact, every, scale, missing, 1, results)
            cost.append(f"Not run: {', '.join(missing)}; one run of each: {one_each}")
        rows.append((scale, plural(len(records), "run") if records else "not run", tuple(cost)))
    return Table(
        "Which scales were run, and what a scale's default runs and the rows that were not run are estimated to take.",
        ("scale", "state", "estimated cost"),
        tuple(rows),
        prose=("estimated cost",),
    )


def trials_table(artifact: Artifact, records: Iterable[Record]) -> Table | None:
    """The trials of a search for settings: what each reached on validation, and what it took. None without any."""
    if not artifact.trials:
        return None
    by_id, rows = {record["run_id"]: record for record in records}, []
    for trial in artifact.trials:
        reached, took = "no record", ""
        if record := by_id.get(trial.config.id):
            *_, last = record["curves"]["validation"]
            reached = f"{record['metrics'].get('validation', last[-1]):.4g}"
            took = f"{duration(record['wall_s'])}, {amount(record['tokens'])} tokens"
        rows.append((trial.name, f"{trial.config.row}, seed {trial.config.seed}", trial.note, reached, took))
    return Table(
        "Trials from which the settings of medium were chosen: the best value on validation text, or exact match on "
        "validation samples at the end. Their times are those of a machine with other work.",
        ("trial", "of", "what it tried", "validation", "time"),
        tuple(rows),
        prose=("of", "what it tried"),
    )


def settings_fragment(view: View) -> str:
    """The settings of a row at every scale, and how other rows' differ; from records if there are any."""
    artifact, records = view.artifact, view.results.records
    row = artifact.typical_row
    columns = {scale: config_of(artifact, records, row, scale).params for scale in artifact.scales}
    caption = f"Settings of a run of {row} at each scale. {artifact.settings_note}".rstrip()
    tables = [settings_table(caption, columns)]
    rows = {row: config_of(artifact, records, row, "small").params for row in artifact.default_rows("small")}
    rows = {name: params for name, params in rows.items() if set(params) == set(columns["small"])}  # no n-grams
    if len(rows) > 1:
        tables.append(settings_table("What differs between the small scale's default rows.", rows, differing=True))
    return "\n\n".join(table.to_html() for table in tables) + "\n"


def records_fragment(views: Iterable[View], folder: Path) -> str:
    """A section for every record; writes the records into `folder` as JSON."""
    parts = []
    folder.mkdir(parents=True, exist_ok=True)
    for view in views:
        parts.append(f"## {view.artifact.title}\n")
        records = latest(view.results.records)
        if not records:
            parts.append("Not run.\n")
        live = {record["run_id"] for record in view.results.live}
        for record in records:
            name = slug(record)
            (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            status = "a run of this machine, not published" if record["run_id"] in live else "published"
            measured = measured_table(view.report.measure(record))
            parts.append(record_section(record, measured, status, f"{folder.name}/{name}.json"))
    return "\n".join(parts)


def measured_table(measurements: Iterable[Measurement]) -> Table:
    """All that one record measured."""
    rows = []
    for m in measurements:
        interval = "" if m.low is None else f"{m.low:.4f} to {m.high:.4f}"
        x = "" if m.x is None else f"{m.x:g}"
        rows.append((m.metric, x, str(m.segments or ""), f"{m.value:.4f}", interval, str(m.n or "")))
    return Table("Measured", ("metric", "at", "segments", "value", "95 % interval", "n"), tuple(rows))


def record_section(record: Record, measured: Table, status: str, raw: str) -> str:
    """One record: what it measured, and all that says where that comes from."""
    name = slug(record)
    data = "; ".join(f"{d['name']} ({d.get('source', 'unknown')}, {str(d.get('sha256'))[:12]})" for d in record["data"])
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
        "data": data,
        "notes": "; ".join(record["notes"]) or "none",
    }
    origin = Table("Where it comes from", ("", " "), tuple(facts.items()), prose=(" ",))
    other = {key: value for key, value in record["metrics"].items() if key not in ("exact_match", "unit", "value")}
    config = escape(json.dumps({"config": record["config"], "other metrics": other}, indent=1))
    title = f"{record['row']}, {record['scale']} scale, seed {record['seed']}"
    return (
        f"({name.lower()})=\n### {in_markdown(title)}: {record['run_id']}\n\n{measured.to_html()}\n{origin.to_html()}\n"
        f'<p><a href="{raw}">The whole record as JSON</a></p>\n'
        f'<details class="raw"><summary>Config and other metrics</summary>\n<pre>{config}</pre></details>\n'
    )


def _machine(hardware: Mapping[str, Any]) -> str:
    parts = dict(hardware)
    memory = parts.pop("memory_bytes", None)
    parts |= {"memory": size(memory)} if memory else {}
    return _inline({name: value for name, value in parts.items() if value is not None})


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def differences_fragment(notebook: Path) -> str:
    """The notebook's cell of numbered differences, so that they are written once."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "differences" in c["metadata"].get("tags", []))
    return source + "\n"
