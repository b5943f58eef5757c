"""Figure 5's numbers, tables and words: exact match against context length, task by task and scale by scale."""

from __future__ import annotations

from collections.abc import Iterator

from rmtlib.evaluation.statistics import binomial_interval
from rmtlib.experiments.babilong.claims import CLAIMS
from rmtlib.experiments.babilong.figure import (
    EXPLORE,
    FILES,
    PAPER_TRAIN_TOKENS,
    RECENCY,
    SIMULATED,
    STYLES,
    alt,
    figure,
    printed_by_task,
)
from rmtlib.experiments.babilong.rows import ROWS, tested_on_the_simulator
from rmtlib.experiments.babilong.rules import BEYOND, PAPER, arms, slope
from rmtlib.experiments.babilong.scorers import SCORER, scorers_table
from rmtlib.experiments.babilong.selection import selection_table
from rmtlib.report.measurements import Measurement, Record, Results, parse_count, short_count
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, plural, value_cell
from rmtlib.report.words import Verb

FACTS_ALONE = "exact match on the facts alone"


def measure(record: Record) -> Iterator[Measurement]:
    """Exact match at every tested length in tokens, and what naming the most recent place would give."""
    metrics = record["metrics"]
    longest = max(metrics["exact_match"], key=lambda entry: entry["tokens"])
    trained = round(metrics["train_segments"] * longest["tokens"] / longest["segments"])
    stories = SIMULATED if tested_on_the_simulator(record) else FILES
    for entry in sorted(metrics["exact_match"], key=lambda entry: not entry["segments"]):  # the main metric first
        correct, n = entry["correct"], entry["n"]
        low, high = binomial_interval(correct, n)
        place = {"x": entry["tokens"], "x_trained": trained, "segments": entry["segments"], "tokens": entry["tokens"]}
        name, place = ("exact match", place) if entry["segments"] else (FACTS_ALONE, {})
        yield Measurement.of(record, name, correct / n, n=n, low=low, high=high, data=stories, **place)
    if scored := metrics.get("babilong_scorer"):
        yield Measurement.of(
            record, SCORER, scored["correct"] / scored["n"], x=scored["tokens"], x_trained=trained,
            segments=scored["segments"], tokens=scored["tokens"], n=scored["n"], data=stories,
        )  # fmt: skip
    if metrics.get("recency_accuracy") is not None:
        yield Measurement.of(record, RECENCY, metrics["recency_accuracy"], data=stories)


def printed() -> Iterator[Measurement]:
    """The paper's accuracies; those without background (0k) are left out."""
    for row in ROWS:
        for length, value in row.paper.items():
            if tokens := parse_count(length):
                yield Measurement(
                    "figure-5", row.name, "exact match", value, "paper", x=tokens, x_trained=PAPER_TRAIN_TOKENS,
                    tokens=tokens,
                )  # fmt: skip


FALLS = f"from the training length to {BEYOND} times that length"
MATCH = ("has {} less exact match than", "has {} more exact match than")
VERBS = {
    "fall": Verb("loses {} less than", "loses {} more than", f"loses {{}} of exact match {FALLS}"),
    "trained": Verb(*MATCH, alone="has an exact match of {} at the training length"),
    "fall to the longest": Verb(alone="loses {} of exact match up to the longest context"),
    "far": Verb(*MATCH),
    "slope": Verb("loses {} more exact match per doubling than", "loses {} less exact match per doubling than"),
    "deviation trained": Verb(
        "varies less between seeds, by {} standard errors of its questions, than",
        "varies more between seeds, by {} standard errors of its questions, than",
    ),
}
ARMS = {"deviation trained": " at the training length"}


def label(arm: str, results: Results, scale: str) -> str:
    """The task of an arm, and at which length."""
    task, _, number = arm.partition(": ")
    return task + ARMS.get(number, f" at {BEYOND} times the training length" if number.endswith("far") else "")


def paper_arms() -> dict[str, float]:
    """What the paper's values make of the arms that are of means."""
    found: dict[str, float] = {}
    for task, lengths in PAPER.items():
        points = {parse_count(length): value for length, value in lengths.items() if parse_count(length)}
        trained, far = points[PAPER_TRAIN_TOKENS], points[BEYOND * PAPER_TRAIN_TOKENS]
        found |= {f"{task}: fall": trained - far, f"{task}: far": far, f"{task}: slope": slope(points)}
        found[f"{task}: fall to the longest"] = trained - points[max(points)]
    return found


def accuracy_table(results: Results, scale: str) -> Table | None:
    """Exact match at one scale: a row for each context length, a column for each task."""
    tasks = results.series().get(scale)
    if not tasks:
        return None
    by_segments = {task: {point.runs[0].segments: point for point in s.points} for task, s in tasks.items()}
    trained = {s.at_trained_x.runs[0].segments for s in tasks.values()}
    lengths = sorted({segments for points in by_segments.values() for segments in points if segments})
    rows = tuple(
        (
            f"{segments} (longest trained)" if {segments} == trained else str(segments),
            *(value_cell(points.get(segments), missing="not measured") for points in by_segments.values()),
        )
        for segments in lengths
    )
    sizes = {task: (run.tokens or 0) // (run.segments or 1) for task, s in tasks.items() for run in s.first.runs}
    columns = (f"{task}, {plural(s.n_runs, 'run')}, {sizes[task]} tokens a segment" for task, s in tasks.items())
    return Table(
        f"How exact match changes with the context length in segments, {scale} scale: mean ± standard deviation over "
        "seeds; for one run its 95 % binomial interval in brackets.",
        ("segments", *columns),
        rows,
        prose=("segments",),
    )


def comparison_table(results: Results) -> Table:
    """Paper above ours, task by task, aligned by how far beyond its own training length each model reads."""
    ours = {scale: tasks for scale, tasks in results.series().items() if scale != "smoke"}
    paper = {
        task: {tokens // PAPER_TRAIN_TOKENS: value for tokens, value in values.items()}
        for task, values in printed_by_task(results).items()
    }
    multiples = sorted({m for column in paper.values() for m in column if 1 <= m <= 64})
    body: list[tuple[Cell, ...]] = []
    for task, values in paper.items():
        body.append((task, "paper", *(f"{values[m]:.2f}" if m in values else "" for m in multiples)))
        series = [tasks[task] for tasks in ours.values() if task in tasks]
        for s in series:
            points = [s.at_multiple(m) for m in multiples]
            body.append((task, f"ours, {s.scale}", *("" if p is None else mean_text(p) for p in points)))
        if not series:
            body.append((task, "ours", "not run", *("" for _ in multiples[1:])))
    return Table(
        "How fast exact match falls beyond the training length (1×), the paper's model and ours. Read the shape of the "
        "decline, not the level: model, length in tokens and vocabulary differ.",
        ("task", "whose", *(f"{m}×" for m in multiples)),
        tuple(body),
        merged=True,
    )


def paper_table(results: Results) -> Table:
    """The paper's accuracies as printed: a row for each context length, a column for each task."""
    tasks = printed_by_task(results)
    body = tuple(
        (
            short_count(length) + (" (longest trained)" if length == PAPER_TRAIN_TOKENS else ""),
            *(f"{values[length]:.2f}" if length in values else "" for values in tasks.values()),
        )
        for length in sorted({length for values in tasks.values() for length in values})
    )
    return Table("The paper's values (Table 4, RMT with GPT-2).", ("context", *tasks), body)


def caption(results: Results) -> str:
    """Where each task's accuracy starts to fall and how far, at the largest scale that was run."""
    parts = []
    for tasks in [*results.series().values()][:1]:
        for s in tasks.values():
            start, end = s.at_trained_x, s.last
            parts.append(
                f"{s.row} ({s.scale} scale): exact match {start.mean:.2f} at the training length of "
                f"{short_count(round(start.x))} tokens, {end.mean:.2f} at {short_count(round(end.x))}"
            )
    return "; ".join(parts) or "Nothing was run yet: the paper's values alone"


def report() -> Report:
    """All parts of Figure 5's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(accuracy_table, selection_table, scorers_table),
        compare=comparison_table,
        paper=paper_table,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
        paper_arms=paper_arms(),
        printed=tuple(printed()),
        explore=EXPLORE,
    )
