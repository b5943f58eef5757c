"""Write the generated parts of the book: `python -m rmtlib.book`, before Sphinx runs.

Everything goes to book/_generated/: fragments that hand-written pages include, the executed notebooks, and in
`extra/` what is copied into the book as it is (figures, tables as CSV, records as JSON).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rmtlib import kept
from rmtlib.errors import RmtlibError
from rmtlib.experiments.attention.explore import ARTIFACTS as EXPLORED
from rmtlib.experiments.headline import headline_fragment
from rmtlib.experiments.registry import ARTIFACTS, all_artifacts, get_artifact
from rmtlib.experiments.view import view_of
from rmtlib.kept import Job
from rmtlib.kernels import fork_kernels
from rmtlib.report import memories, negative, rehearsed, speed, stress
from rmtlib.report.interactive import write_plotly
from rmtlib.report.measurements import Record, slug
from rmtlib.report.pages import (
    DETAILS,
    RESULTS,
    beside_fragment,
    cautions_fragment,
    costs_table,
    differences_fragment,
    figure_fragment,
    go_on_fragment,
    scales_table,
    settings_fragment,
    tables_fragment,
    trials_table,
)
from rmtlib.report.record_pages import write_records
from rmtlib.report.scoreboard import in_a_sentence, scoreboard, tally
from rmtlib.report.tables import fold
from rmtlib.report.values import values
from rmtlib.report.verdicts import rules_table
from rmtlib.report.view import View
from rmtlib.runs import rehearsals
from rmtlib.runs.checks import check_record
from rmtlib.runs.plan import core_flops
from rmtlib.runs.provenance import cores
from rmtlib.runs.records import find_records, verify
from rmtlib.runs.spec import PILOT, SCALES
from rmtlib.runs.storage import write_json
from rmtlib.runs.weights import verify_weights
from rmtlib.training.checkpoint import MANIFEST

FRONT = """<p class="lead">This book says which results of the papers on recurrent memory reproduce with an \
independent implementation, rmtlib, by how much, and at which scale. {sentence}</p>

{tally}

{headline}

## Scoreboard

{scoreboard}
"""


CHECKPOINTS = "results/checkpoints/*"
LESSONS = {
    "explore": (CHECKPOINTS, *(f"runs/{name}/*/{file}" for name in EXPLORED for file in ("record.json", MANIFEST))),
    "tutorial": (),
}
"""Notebooks of no artifact, and what they read."""


def write_artifact(view: View, out: Path, notebook: Path, results: Path) -> None:
    """Write the two parts that an artifact's page includes into `out`."""
    folder, name = out / view.artifact.name, view.artifact.name
    trials = trials_table(view.artifact, find_records(name, scale=PILOT, where=(results,)))
    folder.mkdir(parents=True, exist_ok=True)
    fragments = {
        "figure": figure_fragment(view, out / "extra" / "figures"),
        "cautions": cautions_fragment(view),
        "claims": view.claims(),
        "beside": beside_fragment(view),
        "tables": tables_fragment(view),
        "go_on": go_on_fragment(view, results),
        "scales": fold("What every scale takes", scales_table(view, results).to_html()),
        "trials": fold("Trials from which settings were chosen", trials.to_html() if trials else ""),
        "differences": differences_fragment(notebook),
        "settings": settings_fragment(view),
    }
    (folder / "results.md").write_text(RESULTS.format(**fragments), encoding="utf-8")
    (folder / "details.md").write_text(DETAILS.format(**fragments), encoding="utf-8")


def _write_artifact(name: str, live: list[Record], published: list[Record], *where: Path) -> None:
    write_artifact(view_of(name, live, published), *where)


def notebook_job(name: str, out: Path, notebooks: Path, scale: str | None) -> Job:
    """An artifact's notebook, which trains nothing here, as the book shows it."""
    shown = [("SCALE", scale or ""), ("TRAIN", "false"), ("PUBLISHED_ONLY", str(not scale)), ("OUT", str(out / name))]
    reads = None if scale else (f"results/{name}/**/*.json", CHECKPOINTS)
    return Job(notebooks / f"{name}.ipynb", out / f"{name}-notebook.ipynb", shown, reads)


@contextmanager
def executing(jobs: Sequence[Job]) -> Iterator[Callable[..., None]]:
    """Execute notebooks during the `with`, as many at once as there are cores; its end waits for them.

    A kept one (see `kept`) is not executed again. `with executing(jobs) as also`: `also(f, *arguments)` has `f`
    called in one of the processes, after the notebooks have begun.

    Raises:
        RmtlibError: the first that failed; those that have not begun are left.
    """
    around = kept.surroundings()
    keys = [kept.key(job, around) for job in jobs]  # before a kernel imports anything
    left = [(job, key) for job, key in zip(jobs, keys, strict=True) if not kept.restore(job, key)]
    # A process with a notebook only waits for its kernel.
    with ProcessPoolExecutor(cores(), mp_context=get_context("fork"), initializer=fork_kernels) as pool:
        begun = [pool.submit(kept.execute_and_keep, job, key, around) for job, key in left]
        try:
            yield lambda *call: begun.append(pool.submit(*call))
            for each in as_completed(begun):
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _verify(results: Path) -> None:
    if problems := verify(all_artifacts(), results).problems + verify_weights(results):
        more = f"; {len(problems) - 1} more: see `rmtlib verify {results}`" if len(problems) > 1 else ""
        raise RmtlibError(f"the book shows only what `rmtlib verify` accepts: {problems[0]}{more}")


def _check(live: Sequence[dict[str, Any]], runs: Path) -> None:
    for record in live:
        if why := check_record(record, get_artifact(record["artifact"]))[0]:
            raise RmtlibError(f"the record of {slug(record)} in {runs}/ has impossible numbers ({why}): train it anew")


def build(
    out: Path, notebooks: Path, runs: Path, results: Path, bench: Path, tried: Path, scale: str | None = None
) -> None:
    """Write everything into `out`.

    Args:
        bench: the record of `make bench`.
        tried: the record of `make stress`.
        scale: also show the runs of this scale that `runs` holds; without it only published records, whose executed
            notebooks are kept and used again.

    Raises:
        RmtlibError: `rmtlib verify` refuses a record; nothing is written.
    """
    _verify(results)
    views = []
    for name in ARTIFACTS:
        live = find_records(name, scale=scale, where=(runs,)) if scale else []
        _check(live, runs)
        views.append(view_of(name, live, find_records(name, where=(results,))))
    core_flops()  # for all pages, and before every core has work
    lessons = [Job(notebooks / f"{name}.ipynb", out / f"{name}.ipynb", (), reads) for name, reads in LESSONS.items()]
    with executing([*lessons, *(notebook_job(name, out, notebooks, scale) for name in ARTIFACTS)]) as also:
        for name, view in zip(ARTIFACTS, views, strict=True):
            records = view.results.live, view.results.published  # no view can be sent to another process
            also(_write_artifact, name, *records, out, notebooks / f"{name}.ipynb", results)
        _write_pages(views, out, notebooks, results, bench, tried)
    kept.forget()


def _write_pages(views: Sequence[View], out: Path, notebooks: Path, results: Path, bench: Path, tried: Path) -> None:
    extra = out / "extra"
    write_plotly(extra)
    page = notebooks.parent / "book" / "negative-results.md"
    trials = {name: find_records(name, scale=PILOT, where=(results,)) for name in ARTIFACTS}
    parts = {
        "front": FRONT.format(
            sentence=in_a_sentence(views),
            tally=tally(views),
            headline=headline_fragment({view.artifact.name: view for view in views}, extra / "figures"),
            scoreboard=scoreboard(views),
        ),
        "memories": memories.fragment(),
        "rules": rules_table(views).to_html(),
        "costs": costs_table(views, results).to_html(),
        "rehearsal": rehearsed.fragment(rehearsals.RECORD, [view.artifact for view in views]),
        "records": write_records(views, extra / "records"),
    }
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    parts |= {f"negative/{name}": part for name, part in negative.fragments(views, trials, text).items()}
    (out / "negative").mkdir(exist_ok=True)
    for part, text in parts.items():
        (out / f"{part}.md").write_text(text + "\n", encoding="utf-8")
    write_json(out / "values.json", values(views))
    (out / "speed-gains.md").write_text(speed.gains(bench), encoding="utf-8")
    for name, cases in (("speed", ""), ("speed-mamba", "Mamba"), ("speed-wavefront", "wavefront")):
        (out / f"{name}.md").write_text(speed.fragment(bench, extra, cases), encoding="utf-8")
    (out / "speed-gpu.md").write_text(speed.fragment(bench.with_name("gpu.json"), extra), encoding="utf-8")
    (out / "stress.md").write_text(stress.fragment(tried, extra), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rmtlib.book", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("book/_generated"))
    parser.add_argument("--scale", choices=SCALES, help="also show this machine's runs of that scale")
    arguments = parser.parse_args(argv)
    try:
        sources = (Path("notebooks"), Path("runs"), Path("results"))
        records = (Path("benchmarks/record.json"), Path("stress/record.json"))
        build(arguments.out, *sources, *records, arguments.scale)
    except RmtlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
