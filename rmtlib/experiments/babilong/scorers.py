"""Two scorers of the same answers: the fine-tuning papers' exact match, and BABILong's for answers in sentences."""

from rmtlib.evaluation.outcomes import unpack_outcomes
from rmtlib.report.measurements import Record, Results
from rmtlib.report.tables import Cell, Table, runs_cell

SCORER = "BABILong's scorer"


def both(record: Record) -> tuple[int, int, int, int] | None:
    """Of the samples that both judged: how many, right by exact match, right by BABILong's scorer, judged alike.

    None of records that are older than the second scorer.
    """
    metrics = record["metrics"]
    scored = metrics.get("babilong_scorer")
    if scored is None:
        return None
    point = next(p for p in metrics["exact_match"] if p["segments"] == scored["segments"])
    exact = unpack_outcomes(point["outcomes"], point["n"])[: scored["n"]]
    text = unpack_outcomes(scored["outcomes"], scored["n"])
    return len(text), sum(exact), sum(text), sum(a == b for a, b in zip(exact, text, strict=True))


def scorers_table(results: Results, scale: str) -> Table | None:
    """A row for every row of the artifact; all its seeds together."""
    body: list[tuple[Cell, ...]] = []
    for row in results.rows:
        runs = [record for record in results.at(scale) if record["row"] == row.name]
        counted = [(record, counts) for record in runs if (counts := both(record)) is not None]
        if counted:
            n, exact, text, alike = map(sum, zip(*(counts for _, counts in counted), strict=True))
            runs_here = runs_cell([record for record, _ in counted])
            body.append((row.label, runs_here, str(n), f"{exact / n:.3f}", f"{text / n:.3f}", str(n - alike)))
    if not body:
        return None
    return Table(
        f"Both scorers, {scale} scale, on the same test samples within the training length. Tables and claims here use "
        "exact match, as the fine-tuning papers do. BABILong's scorer, which its table of language models uses, "
        "accepts an answer that names the right label and no other; labels in the question do not count.",
        ("row", "runs", "answers", "exact match", SCORER, "judged differently"),
        tuple(body),
        prose=("row",),
    )
