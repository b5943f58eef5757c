"""The generated parts of the book, from records: `python -m rmtlib.report.pages`, before Sphinx runs.

Everything goes to book/_generated/: fragments that hand-written pages include, the executed notebooks, and in
`extra/` what is copied into the book as it is (figures, tables as CSV, records as JSON).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.notebooks import execute
from rmtlib.report import figures, speed
from rmtlib.report.claim import ABOUT_TESTS, BY_TEST
from rmtlib.report.claims import CLAIMS
from rmtlib.report.measurements import Record, latest, slug
from rmtlib.report.tables import settings_table
from rmtlib.report.view import View
from rmtlib.runs.plan import plan
from rmtlib.runs.progress import amount, duration, size
from rmtlib.runs.records import find_records
from rmtlib.runs.spec import SCALES, RunConfig

RECORDS_PAGE = "records.html"


def figure_fragment(view: View, folder: Path) -> str:
    """The figure with its description, and where its data is; writes figure and data into `folder`."""
    name = view.artifact.name
    _, svg = figures.save(view.draw(), folder / name)
    (folder / f"{name}.csv").write_text(view.parts.csv(view.live, view.published, view.artifact.rows), encoding="utf-8")
    return (
        f'<figure class="plot"><img src="{folder.name}/{svg.name}" alt="{escape(view.alt())}">\n'
        f'<figcaption>{escape(view.artifact.title)}. <a href="{folder.name}/{name}.csv">Data as CSV</a>, '
        f'<a href="{folder.name}/{name}.png">figure as PNG</a>.</figcaption></figure>\n'
    )


def badge(outcome: str) -> str:
    """A verdict as a coloured word."""
    return f'<span class="verdict {outcome.replace(" ", "-")}">{outcome}</span>'


def claims_fragment(view: View) -> str:
    """Each claim with its rule, and its verdict at every scale that was run."""
    verdicts = view.verdicts()
    rows = []
    for claim in CLAIMS.get(view.artifact.name, ()):
        about = (
            f'<td class="prose">{escape(claim.text)}<br><small>{escape(claim.source)}. '
            f"Checked as: {escape(claim.rule)}</small></td>"
        )
        found = [verdict for verdict in verdicts if verdict.claim is claim]
        for verdict in found:
            rows.append(
                f"<tr>{about}<td>{verdict.scale}</td><td>{badge(verdict.outcome)}</td>"
                f'<td class="prose">{escape(verdict.statistic)}</td></tr>'
            )
        if not found:
            rows.append(f"<tr>{about}<td></td><td>{badge('not enough runs')}</td><td>not run</td></tr>")
    caption = "The paper's claims as checks over the records."
    if any(BY_TEST in claim.rule for claim in CLAIMS.get(view.artifact.name, ())):
        caption += f" {ABOUT_TESTS}"
    return _html_table(caption, ("claim", "scale", "verdict", "statistic"), rows)


def _html_table(caption: str, header: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    return (
        f'<div class="table-wrap" tabindex="0"><table class="table results">\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>\n"
    )


def config_of(view: View, row: str, scale: str, seed: int = 0) -> RunConfig:
    """The config of the run's record where there is one, else that of a machine which has all files."""
    for record in latest(view.records):
        if (record["row"], record["scale"], record["seed"]) == (row, scale, seed):
            return RunConfig.from_json(record["config"])
    return view.artifact.with_all_files(row, scale, seed)


def cost_of(view: View, scale: str, rows: Iterable[str], seeds: int, results: Path) -> str:
    """What a scale's runs of these rows take, from published runs of it where there are any, else computed."""
    none_yet = results / "no-local-runs"  # what this machine has trained does not make a run cheaper
    configs = []
    for row in rows:
        for seed in range(seeds):
            config = config_of(view, row, scale, seed)
            try:
                view.artifact.cost(config)
            except RmtlibError:  # settings of earlier code
                config = view.artifact.with_all_files(row, scale, seed)
            configs.append(config)
    found = plan(view.artifact, configs, runs_dir=none_yet, results_dir=results)
    total = found["total"]
    device = re.sub("; there is none here[^)]*", "", found["device"] or "")  # the book is read elsewhere
    where = f" on {device}" if device else ", as measured in the published runs"
    return (
        f"{duration(total['seconds'])}, {amount(total['tokens'])} tokens, {size(total['memory_bytes'])} of memory and "
        f"{size(total['disk_bytes'])} of disk for {total['runs']} runs, {found['jobs']} at once{where}"
    )


def scales_fragment(view: View, results: Path) -> str:
    """Every scale: how many runs there are of how many, or "not run"; what the default and the missing rows cost."""
    rows = []
    for scale in view.artifact.scales:
        if scale == "smoke" and scale not in view.scales:
            continue
        records = latest(record for record in view.records if record["scale"] == scale)
        state = f"{len(records)} run{'s' * (len(records) > 1)}" if records else "not run"
        artifact = view.artifact
        cost = escape(cost_of(view, scale, artifact.default_rows(scale), artifact.default_seeds(scale), results))
        missing = [row.name for row in view.artifact.rows if row.name not in {record["row"] for record in records}]
        if records and missing:
            cost += f"<br>Not run: {escape(', '.join(missing))}; one run of each: " + escape(
                cost_of(view, scale, missing, 1, results)
            )
        rows.append(f"<tr><th scope='row'>{scale}</th><td>{state}</td><td class='prose'>{cost}</td></tr>")
    return _html_table(
        "Runs at each scale, and what the scale's default runs and the rows that were not run are estimated to take.",
        ("scale", "state", "estimated cost"),
        rows,
    )


def settings_fragment(view: View) -> str:
    """The settings of a row at every scale, and how other rows' differ; from records where there are any."""
    artifact, row = view.artifact, view.artifact.typical_row
    columns = {scale: config_of(view, row, scale).params for scale in artifact.scales}
    caption = f"Settings of a run of {row} at each scale. {artifact.settings_note}".rstrip()
    tables = [settings_table(caption, columns)]
    rows = {row: config_of(view, row, "small").params for row in artifact.default_rows("small")}
    if len(rows) > 1:
        tables.append(settings_table("What differs between the small scale's default rows.", rows, differing=True))
    return "\n\n".join(table.to_html() for table in tables) + "\n"


def scoreboard_fragment(views: Iterable[View]) -> str:
    """All claims of all artifacts, with the verdict at each scale that was run."""
    rows = []
    for view in views:
        name, verdicts, claims = view.artifact.name, view.verdicts(), CLAIMS.get(view.artifact.name, ())
        note = f"<br><small>{escape(view.artifact.note)}</small>" if view.artifact.note else ""
        first = (
            f'<th scope="rowgroup" rowspan="{len(claims)}" class="prose">'
            f'<a href="{name}.html">{escape(view.artifact.title)}</a>{note}</th>'
        )
        for claim in claims:
            found = [v for v in verdicts if v.claim is claim]
            shown = "<br>".join(f"{v.scale} {badge(v.outcome)}" for v in found) or "not run"
            rows.append(f'<tr>{first}<td class="prose">{escape(claim.text)}</td><td>{shown}</td></tr>')
            first = ""
    caption = (
        "Every claim, at every scale that was run. Each artifact's page has the statistics and the runs behind them."
    )
    return _html_table(caption, ("artifact", "claim", "verdict"), rows)


def records_fragment(views: Iterable[View], folder: Path) -> str:
    """A section for every record; writes the records into `folder` as JSON."""
    parts = []
    folder.mkdir(parents=True, exist_ok=True)
    for view in views:
        parts.append(f"## {view.artifact.title}\n")
        records = latest(view.records)
        if not records:
            parts.append("Not run.\n")
        live = {record["run_id"] for record in view.live}
        for record in records:
            name = slug(record)
            (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            where = "a run of this machine, not published" if record["run_id"] in live else "published"
            parts.append(record_section(record, where, f"{folder.name}/{name}.json"))
    return "\n".join(parts)


def record_section(record: Record, where: str, raw: str) -> str:
    """One record: what it measured, and all that says where that comes from."""
    name = slug(record)
    data = "; ".join(f"{d['name']} ({d.get('source', 'unknown')}, {str(d.get('sha256'))[:12]})" for d in record["data"])
    git = record["git"]
    changed = ", with uncommitted changes" if git["dirty"] else ""
    facts = {
        "status": where,
        "finished": f"{record['finished']}, after {duration(record['wall_s'])} and {amount(record['tokens'])} tokens",
        "machine": _machine(record["hardware"]),
        "precision": record["precision"],
        "peak memory": size(record["peak_memory_bytes"] or 0),
        "code": f"commit {git['commit']}{changed}; modules {record['modules_sha256'][:12]}",
        "packages": _inline(record["packages"]),
        "data": data,
        "notes": "; ".join(record["notes"]) or "none",
    }
    lines = "\n".join(f"<tr><th scope='row'>{k}</th><td class='prose'>{escape(v)}</td></tr>" for k, v in facts.items())
    other = {key: value for key, value in record["metrics"].items() if key not in ("exact_match", "unit", "value")}
    config = escape(json.dumps({"config": record["config"], "other metrics": other}, indent=1))
    config = re.sub(r"\n\s*\n", "\n", config)
    title = f"{record['row']}, {record['scale']} scale, seed {record['seed']}"
    return (
        f"({name.lower()})=\n### {title}: {record['run_id']}\n\n"
        + measured_table(record)
        + _html_table("Where it comes from", ("", ""), lines.splitlines()).replace(
            '<thead><tr><th scope="col"></th><th scope="col"></th></tr></thead>\n', ""
        )
        + f'<p><a href="{raw}">The whole record as JSON</a></p>\n'
        f'<details class="raw"><summary>Config and other metrics</summary>\n<pre>{config}</pre></details>\n'
    )


def _machine(hardware: Mapping[str, Any]) -> str:
    parts = dict(hardware)
    memory = parts.pop("memory_bytes", None)
    parts |= {"memory": size(memory)} if memory else {}
    return _inline({name: value for name, value in parts.items() if value is not None})


def measured_table(record: Record) -> str:
    """What a record measured: exact match at every length, or one value of the test text."""
    metrics = record["metrics"]
    if "exact_match" in metrics:
        rows = [
            f"<tr><th scope='row'>{e['tokens']}</th><td>{e['segments']}</td><td>{e['correct']} of {e['n']}</td>"
            f"<td>{e['correct'] / e['n']:.3f}</td></tr>"
            for e in metrics["exact_match"]
        ]
        return _html_table("Exact match", ("context tokens", "segments", "right", "accuracy"), rows)
    row = f"<tr><th scope='row'>{metrics['value']:.4f}</th><td>{metrics['tokens']}</td></tr>"
    return _html_table("Test", (metrics["unit"], "over tokens"), [row])


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def differences_fragment(notebook: Path) -> str:
    """The notebook's cell of numbered differences, so that they are written once."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "differences" in c["metadata"].get("tags", []))
    return source + "\n"


def build(out: Path, notebooks: Path, runs: Path, results: Path, bench: Path, scale: str | None = None) -> None:
    """Write everything into `out`.

    Args:
        bench: the record of `make bench`.
        scale: also show the runs of this scale that `runs` holds; without it only published records.
    """
    extra = out / "extra"
    views = []
    for name in ARTIFACTS:
        live = find_records(name, scale=scale, where=(runs,)) if scale else []
        views.append(View(name, live, find_records(name, where=(results,))))
    for view in views:
        folder = out / view.artifact.name
        folder.mkdir(parents=True, exist_ok=True)
        fragments = {
            "figure": figure_fragment(view, extra / "figures"),
            "tables": view.tables(RECORDS_PAGE) + "\n",
            "claims": claims_fragment(view),
            "scales": scales_fragment(view, results),
            "settings": settings_fragment(view),
            "differences": differences_fragment(notebooks / f"{view.artifact.name}.ipynb"),
        }
        for part, text in fragments.items():
            (folder / f"{part}.md").write_text(text, encoding="utf-8")
        source = notebooks / f"{view.artifact.name}.ipynb"
        shown = [("SCALE", scale or ""), ("TRAIN", "false"), ("PUBLISHED_ONLY", str(not scale)), ("OUT", str(folder))]
        execute(source, out / f"{view.artifact.name}-notebook.ipynb", shown, quiet=True)
    (out / "scoreboard.md").write_text(scoreboard_fragment(views), encoding="utf-8")
    for part, cases in (("speed", ""), ("speed-mamba", "Mamba"), ("speed-wavefront", "wavefront")):
        (out / f"{part}.md").write_text(speed.fragment(bench, extra, cases), encoding="utf-8")
    (out / "records.md").write_text(records_fragment(views, extra / "records"), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rmtlib.report.pages", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("book/_generated"))
    parser.add_argument("--scale", choices=SCALES, help="also show this machine's runs of that scale")
    arguments = parser.parse_args(argv)
    try:
        places = (Path("notebooks"), Path("runs"), Path("results"), Path("benchmarks/record.json"))
        build(arguments.out, *places, arguments.scale)
    except RmtlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
