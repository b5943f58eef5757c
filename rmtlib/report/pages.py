"""The generated parts of the book, from records; `rmtlib.book` writes them into files.

Everything goes to book/_generated/: fragments that hand-written pages include, the executed notebooks, and in
`extra/` what is copied into the book as it is (figures, tables as CSV, pages and JSON of records).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

from rmtlib.report import figures
from rmtlib.report.costs import config_of, cost_of
from rmtlib.report.escape import escape
from rmtlib.report.evidence import shut_gates
from rmtlib.report.interactive import PLOTLY, write_data
from rmtlib.report.measurements import Record, latest
from rmtlib.report.tables import Cell, Link, Table, fold, plural, settings_table
from rmtlib.report.view import View
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.progress import amount, duration

ROOT = ".."  # of the book, as its artifacts/*.md see it
RECORDS = f"{ROOT}/records"
RESULTS = """## Ours beside the paper

{figure}
{cautions}
"""
DETAILS = """## Claims

{claims}

## Table

{beside}

{tables}

{differences}
## Run it, and go on

{go_on}

{scales}

{trials}

{settings}
"""
"""What every artifact's page includes, before and after its own words on what was seen."""


def figure_fragment(view: View, folder: Path) -> str:
    """The figure with its description, what to see in it, and where its data is; writes both into `folder`.

    Two drawings, of which the theme shows the one for its ground.
    """
    name = view.artifact.name
    images = figures.themed_images(view.draw(), folder / name, f"{ROOT}/{folder.name}", view.alt())
    (folder / f"{name}.csv").write_text(view.csv(), encoding="utf-8")
    caption = escape(view.report.caption(view.results))
    explore = view.report.explore
    drawn = explore is not None and write_data(explore, view.results, folder, name)
    offer = f' data-explore="{name}" data-from="{ROOT}/{folder.name}/" data-plotly="{ROOT}/{PLOTLY}"' if drawn else ""
    return (
        f'<figure class="plot" tabindex="0"{offer}>{images}\n'
        f'<figcaption>{caption}. <span class="files"><a href="{ROOT}/{folder.name}/{name}.csv">Data as CSV</a>, '
        f'<a href="{ROOT}/{folder.name}/{name}.png">figure as PNG</a>, '
        f'<a href="{ROOT}/_generated/{name}-notebook.html">notebook</a>.</span></figcaption></figure>\n'
    )


def cautions_fragment(view: View) -> str:
    """What stands in the way of reading the results as the paper's, at each scale: models that counting beats."""
    lines = [
        f'<p class="caution">At {scale} scale {escape(why)}: what stands there is an order among models that have '
        "learned little.</p>"
        for scale in view.results.scales
        for why in shut_gates(view, scale)
    ]
    return "\n".join(lines)


def tables_fragment(view: View) -> str:
    """The tables of each scale and the paper's own, each folded under what it shows."""
    shown = [table for table in view.tables_of_scales() if table is not None]
    return "\n".join(fold(table.title, table.to_html(RECORDS)) for table in shown)


def go_on_fragment(view: View, results: Path) -> str:
    """The commands that make this page's runs again, and the next scale with what it takes."""
    artifact, done = view.artifact, view.results.scales
    lines = [f"make {artifact.name} SCALE={scale}" for scale in (done[::-1] or [_first_scale(artifact)])]
    waiting = [scale for scale in artifact.scales if scale != "smoke" and not _complete(view, scale)]
    text = f"<pre>{escape(chr(10).join(lines))}</pre>\n"
    if waiting:
        scale = waiting[0]
        cost = cost_of(artifact, view.results.records, scale, artifact.default_runs(scale), results)
        text += (
            f"<p>What to run next: <code>make {artifact.name} SCALE={scale}</code>, estimated to take {escape(cost)}. "
            "Runs that are there already are not trained again.</p>\n"
        )
    return text


def _complete(view: View, scale: str) -> bool:
    """Whether a scale's default runs are all there."""
    artifact = view.artifact
    there = {(record["row"], record["seed"]) for record in view.results.at(scale)}
    wanted = {(row, artifact.config(row, scale, seed).seed) for row, seed in artifact.default_runs(scale)}
    return wanted <= there


def scales_table(view: View, results: Path) -> Table:
    """Every scale: how many runs there are of how many, or "not run"; what the default and the missing rows cost."""
    artifact, every = view.artifact, view.results.records
    rows: list[tuple[str | tuple[str, ...], ...]] = []
    for scale in artifact.scales:
        if scale == "smoke" and scale not in view.results.scales:
            continue
        records = latest(record for record in every if record["scale"] == scale)
        cost = [cost_of(artifact, every, scale, artifact.default_runs(scale), results)]
        missing = [row.name for row in artifact.rows_at(scale) if row.name not in {record["row"] for record in records}]
        if records and missing:
            one_each = cost_of(artifact, every, scale, [(row, 0) for row in missing], results)
            cost.append(f"Not run: {', '.join(missing)}; one run of each: {one_each}")
        rows.append((scale, plural(len(records), "run") if records else "not run", tuple(cost)))
    return Table(
        "Which scales were run, and what a scale's default runs and the rows that were not run are estimated to take.",
        ("scale", "state", "estimated cost"),
        tuple(rows),
        prose=("estimated cost",),
    )


def costs_table(views: Iterable[View], results: Path) -> Table:
    """What the default runs of every artifact take at every scale."""
    rows = []
    for view in views:
        artifact = view.artifact
        for scale in artifact.scales:
            if scale != "smoke":
                cost = cost_of(artifact, view.results.records, scale, artifact.default_runs(scale), results)
                rows.append((artifact.name, scale, cost))
    caption = "What the default runs of a scale are estimated to take."
    return Table(caption, ("artifact", "scale", "estimate"), tuple(rows), prose=("estimate",), merged=True)


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
        "Trials from which settings were chosen: the best value on validation text, or the score on validation samples "
        "at the end, as training measures it. No record: not run, or given up. Times are of a machine with other work.",
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
    scale = _first_scale(artifact)
    rows = {row: config_of(artifact, records, row, scale).params for row in artifact.default_rows(scale)}
    rows = {name: params for name, params in rows.items() if set(params) == set(columns[scale])}  # no n-grams
    if len(rows) > 1:
        tables.append(settings_table(f"What differs between the {scale} scale's default rows.", rows, differing=True))
    return fold("Settings", "\n\n".join(table.to_html() for table in tables))


def _first_scale(artifact: Artifact) -> str:
    """The one to begin with on a machine without a GPU."""
    return "small" if "small" in artifact.scales else artifact.scales[0]


def beside_fragment(view: View) -> str:
    """The paper beside ours: the rows that were run, and folded those that were not."""
    if not view.results.scales:
        return ""
    table = view.report.compare(view.results)
    groups = (
        [list(rows) for _, rows in groupby(table.rows, lambda row: row[0])]
        if table.merged
        else [[r] for r in table.rows]
    )
    waiting = [group for group in groups if any(_not_run(row) for row in group)]
    if len(waiting) in (0, len(groups)):
        return table.to_html(RECORDS)
    run, rest = (tuple(chain(*part)) for part in ([group for group in groups if group not in waiting], waiting))
    missing = replace(table, rows=rest, caption="The paper's values of what was not run here.").to_html(RECORDS)
    return (
        replace(table, rows=run).to_html(RECORDS)
        + "\n"
        + fold(f"{plural(len(waiting), 'row')} that were not run", missing)
    )


def _not_run(row: Sequence[Cell]) -> bool:
    """Whether a row says so and has no number of ours."""
    return "not run" in row and not any(
        isinstance(part, Link) for cell in row if isinstance(cell, tuple) for part in cell
    )


def differences_fragment(notebook: Path) -> str:
    """The notebook's cell of numbered differences, so that they are written once; the list itself is folded."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "differences" in c["metadata"].get("tags", []))
    heading, _, text = source.partition("\n")
    count = len(re.findall(r"^\d+\. ", text, flags=re.M))
    return f"{heading}\n\n" + fold(f"{count} numbered differences", f"\n{text.strip()}\n") + "\n"
