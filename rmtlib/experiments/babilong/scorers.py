"""Two scorers of the same answers: the fine-tuning papers' exact match, and BABILong's for answers in sentences."""

from rmtlib.evaluation.outcomes import unpack_outcomes
from rmtlib.report.measurements import Record, Results
from rmtlib.report.tables import Cell, Table


def both(record: Record) -> tuple[int, int, int, int] | None:
    """Of the samples that both scorers judged: how many, right by exact match, by BABILong's scorer, judged alike.

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
        found = [both(record) for record in results.at(scale) if record["row"] == row.name]
        if counts := [each for each in found if each is not None]:
            n, exact, text, alike = map(sum, zip(*counts, strict=True))
            body.append((row.label, str(n), f"{exact / n:.3f}", f"{text / n:.3f}", str(n - alike)))
    if not body:
        return None
    return Table(
        f"Both scorers, {scale} scale, on the same test samples within the training length. Tables and claims here use "
        "exact match, as the fine-tuning papers do. BABILong's scorer, which its table of language models uses, looks "
        "for the right label, and for no other one, in what a model writes.",
        ("row", "answers", "exact match", "BABILong's scorer", "judged differently"),
        tuple(body),
        prose=("row",),
    )
