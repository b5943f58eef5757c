"""The numbers, tables and words of the page on quadratic equations."""

from __future__ import annotations

from collections.abc import Iterator

from rmtlib.data.quadratic import QuadraticTask, equations_with_roots
from rmtlib.evaluation.statistics import binomial_interval
from rmtlib.experiments.quadratic.claims import CLAIMS
from rmtlib.experiments.quadratic.counts import SOLVED
from rmtlib.experiments.quadratic.figure import (
    ANSWERS,
    FORCED,
    RELEASED,
    ROOTED,
    STEPS_FORCED,
    STEPS_RIGHT,
    STYLES,
    alt,
    figure,
)
from rmtlib.experiments.quadratic.rows import ROWS, SOLVERS
from rmtlib.experiments.quadratic.rules import arms
from rmtlib.experiments.quadratic.scales import RECIPES
from rmtlib.report.measurements import Measurement, Record, Results
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, value_cell
from rmtlib.report.words import Verb

DIGITS = 3


def measure(record: Record) -> Iterator[Measurement]:
    """Right answers in the three ways to test, of the equations with roots, and step by step (x: 1 to 5)."""
    tests = record["metrics"]["test"]
    own = tests["generated"]
    yield _share(record, ANSWERS, own["steps"][-1], own["n"])
    for metric, how in ((RELEASED, "released"), (FORCED, "forced")):
        yield _share(record, metric, tests[how]["steps"][-1], tests[how]["n"])
    if own["with_roots"]["n"]:
        yield _share(record, ROOTED, own["with_roots"]["steps"][-1], own["with_roots"]["n"])
    for metric, test in ((STEPS_RIGHT, own), (STEPS_FORCED, tests["forced"])):
        for number, right in enumerate(test["steps"], 1):
            yield _share(record, metric, right, test["n"], x=number)


def _share(record: Record, metric: str, right: int, n: int, x: int | None = None) -> Measurement:
    low, high = binomial_interval(right, n)
    segments = record["metrics"]["segments"]
    return Measurement.of(record, metric, right / n, x=x, segments=segments, n=n, low=low, high=high)


def printed() -> Iterator[Measurement]:
    """The printed values, and each run of the authors."""
    for solver in SOLVERS.values():
        if solver.printed:
            mean, std = map(float, solver.printed.split(" ± "))
            yield Measurement("quadratic", solver.name, RELEASED, mean, "paper", std=std)
        for value in solver.authors:
            yield Measurement("quadratic", solver.name, RELEASED, value, "authors")


VERBS = {
    "": Verb(
        "solves {} fewer of the equations than", "solves {} more of the equations than", "solves {} of the equations"
    ),
    "with roots": Verb(
        "solves {} fewer of the equations with roots than", "solves {} more of the equations with roots than"
    ),
    **{
        step: Verb(f"gets the step “{step}” right {{}} less often than", f"gets “{step}” right {{}} more often than")
        for step in SOLVED[:-1]
    },
}
GIVEN = {"released": " with the first token of each segment given", "forced": " with all true tokens given"}


def label(arm: str, results: Results, scale: str) -> str:
    """The row of an arm in words, with its memory at the scale."""
    row, _, number = arm.partition(": ")
    return SOLVERS[row].at(RECIPES[scale].width) + GIVEN.get(number, "")


def ways_to_test(results: Results, scale: str) -> Table | None:
    """Right answers: generated, as released, with teacher forcing, and of the equations with roots."""
    metrics = (ANSWERS, RELEASED, FORCED, ROOTED)
    series = {metric: results.series(metric).get(scale, {}) for metric in metrics}
    if not series[ANSWERS]:
        return None

    def cells(row: str) -> Iterator[Cell]:
        for metric in metrics:
            found = series[metric].get(row)
            yield value_cell(found.first if found else None, DIGITS)

    body = tuple((label(row, results, scale), *cells(row)) for row in series[ANSWERS])
    return Table(
        f"Right answers of each way to test, {scale} scale: mean ± standard deviation over seeds, of one run its 95 % "
        "interval. All of the solution is generated; the first token of every segment is given, as in the released "
        "code; all true tokens before each one are given. Then generated again, the equations with roots alone.",
        ("row", "generated", "as released", "teacher forcing", "generated, with roots"),
        body,
    )


def by_step(results: Results, scale: str) -> Table | None:
    """Right steps, generated and after the true ones: a column for each step."""
    generated, forced = (results.series(metric).get(scale, {}) for metric in (STEPS_RIGHT, STEPS_FORCED))
    if not generated:
        return None
    body: list[tuple[Cell, ...]] = []
    for row, series in generated.items():
        for how, points in (("generated", series.points), ("teacher forcing", forced[row].points)):
            body.append((label(row, results, scale), how, *(value_cell(point, DIGITS) for point in points)))
    return Table(
        f"Where solutions go wrong, {scale} scale: how many have every character of the step right. A generated step "
        "that repeats an earlier mistake counts as wrong; with teacher forcing all characters before it are true."
        + _few(scale),
        ("row", "steps before", *SOLVED),
        tuple(body),
        merged=True,
    )


def _few(scale: str) -> str:
    """How many equations the test can ask, where they are so few that it asks them again and again."""
    recipe = RECIPES[scale]
    if recipe.roots[-1] > 20:
        return ""
    count = equations_with_roots(QuadraticTask(recipe.roots[-1], recipe.multiplier, recipe.width), "test")
    return f" The test split has {count} different equations with roots."


def compare(results: Results) -> Table:
    """The paper's table beside ours."""
    own, released = results.series(ANSWERS), results.series(RELEASED)
    body: list[tuple[Cell, ...]] = []
    for row in results.rows:
        cells: list[Cell] = []
        for scale in own:
            for series in (released[scale].get(row.name), own[scale].get(row.name)):
                cells.append(value_cell(series.first if series else None, DIGITS))
        body.append((row.label, *_published(row.name), *cells))
    columns = [f"{scale}, {how}" for scale in own for how in ("as released", "generated")]
    return Table(
        "Whether ours have the paper's order in right answers. The paper's are to be compared with the column as "
        "released; the verdicts rest on generated solutions. Below medium scale models and numbers are smaller.",
        ("model", "paper", "the authors' runs", *columns),
        tuple(body),
        prose=("model", "the authors' runs"),
    )


def _published(name: str) -> tuple[str, str]:
    solver = SOLVERS[name]
    return solver.printed or "not in the paper", ", ".join(map(str, solver.authors)) or "none"


def paper(results: Results) -> Table:
    """What the paper prints, and the authors' single runs."""
    return Table(
        "The paper's answer accuracy, and each run of the authors in their published file.",
        ("model", "paper", "the authors' runs", "source"),
        tuple((row.label, *_published(row.name), row.source) for row in ROWS if row.paper),
        prose=("model", "the authors' runs", "source"),
    )


def caption(results: Results) -> str:
    """Right answers of each row at the largest scale that was run."""
    for scale, rows in [*results.series().items()][:1]:
        said = ", ".join(
            f"{label(row, results, scale)} {mean_text(series.first, DIGITS)}" for row, series in rows.items()
        )
        return f"Right answers, generated ({scale} scale): {said}"
    return "Nothing was run yet: the authors' runs alone"


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(ways_to_test, by_step),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
        paper_arms={row: solver.mean for row, solver in SOLVERS.items() if solver.authors},
        printed=tuple(printed()),
    )
