"""The numbers, tables and words of the babilong page: exact match of every model on every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rmtlib.data.babi import TASKS
from rmtlib.experiments.babilong.figure import PAPER_TRAIN_TOKENS
from rmtlib.experiments.babilong.report import FACTS_ALONE, MATCH, measure
from rmtlib.experiments.babilong.report import VERBS as BABILONG_VERBS
from rmtlib.experiments.babilong.rules import BEYOND, arms, slope
from rmtlib.experiments.babilong.scorers import scorers_table
from rmtlib.experiments.babilong.selection import selection_table
from rmtlib.experiments.babilong_table.claims import CLAIMS
from rmtlib.experiments.babilong_table.figure import EXPLORE, LABELS, STYLES, alt, figure, of_task, printed_of
from rmtlib.experiments.babilong_table.language_models import language_models, two_series
from rmtlib.experiments.babilong_table.rows import ARMT_LENGTHS, ARMT_TABLE_1, LENGTHS, MODELS, STAND_IN, TABLE_4
from rmtlib.report.measurements import Measurement, Results, Series, latest, parse_count, short_count
from rmtlib.report.report import Report
from rmtlib.report.tables import Cell, Table, mean_text, plural, value_cell
from rmtlib.report.words import Verb

MULTIPLES = (1, 2, 4, 8, 64)


def printed() -> Iterator[Measurement]:
    """Table 4's values, with retrieval, and ARMT's Table 1 for RMT-R; contexts without background are left out."""
    values: dict[str, tuple[Sequence[str], Mapping[str, Sequence[float]]]] = {
        model: (LENGTHS, TABLE_4[model]) for model in TABLE_4
    }
    values["rmt-r"] = (ARMT_LENGTHS, ARMT_TABLE_1["rmt-r"])
    for model, (lengths, by_task) in values.items():
        for task, row in by_task.items():
            for length, value in zip(lengths, row, strict=False):
                if tokens := parse_count(length):
                    yield Measurement(
                        "babilong", f"{model}-{task}", "exact match", round(value / 100, 4), "paper", x=tokens,
                        x_trained=PAPER_TRAIN_TOKENS, tokens=tokens,
                    )  # fmt: skip


PLACES = {"trained": " at the training length", "far": f" at {BEYOND} times the training length"}
VERBS = {**BABILONG_VERBS, "trained": Verb(*MATCH)}


def label(arm: str, results: Results, scale: str) -> str:
    """The model and the task of an arm, and at which length."""
    row, _, number = arm.partition(": ")
    model, _, task = row.rpartition("-")
    return f"{LABELS[model]} on {task}{PLACES.get(number, '')}"


def paper_arms() -> dict[str, float]:
    """What Table 4's values make of the arms."""
    found: dict[str, float] = {}
    for model in set(TABLE_4) & set(MODELS):
        for task, values in TABLE_4[model].items():
            points = {
                parse_count(length): v / 100 for length, v in zip(LENGTHS, values, strict=False) if length != "0k"
            }
            trained, far = points[PAPER_TRAIN_TOKENS], points[BEYOND * PAPER_TRAIN_TOKENS]
            numbers = {"trained": trained, "far": far, "fall": trained - far, "slope": slope(points)}
            found |= {f"{model}-{task}: {name}": value for name, value in numbers.items()}
    return found


def by_task(task: str) -> Callable[[Results, str], Table | None]:
    """The table of one task at one scale: a row for each context length, a column for each model."""

    def table(results: Results, scale: str) -> Table | None:
        models = of_task(results.series().get(scale, {}), task)
        if not models:
            return None
        alone = of_task(results.series(FACTS_ALONE).get(scale, {}), task)
        points = {model: {point.runs[0].segments: point for point in s.points} for model, s in models.items()}
        trained = {s.at_trained_x.runs[0].segments for s in models.values()}
        lengths = sorted({segments for at in points.values() for segments in at if segments})
        rows = tuple(
            (
                f"{segments} (longest trained)" if {segments} == trained else str(segments),
                *(value_cell(at.get(segments), missing="not measured") for at in points.values()),
            )
            for segments in lengths
        )
        if alone:
            cells = (
                value_cell(alone[model].first if model in alone else None, missing="not measured") for model in models
            )
            rows = (("facts alone", *cells), *rows)
        return Table(
            f"{task}, {scale} scale: exact match against the context length in segments, mean ± standard deviation "
            "over seeds; for one run its 95 % binomial interval in brackets.",
            ("segments", *(_column(model, s, len(trained) > 1) for model, s in models.items())),
            rows,
            prose=("segments",),
        )

    return table


def _column(model: str, series: Series, differ: bool) -> str:
    """Who, how many runs, and what a segment is; also the longest training length, if that differs between columns."""
    run, trained = series.first.runs[0], series.at_trained_x.runs[0].segments
    said = (
        f"{LABELS[model]}, {plural(series.n_runs, 'run')}, {(run.tokens or 0) // (run.segments or 1)} tokens a segment"
    )
    return f"{said}, trained on up to {trained}" if differ else said


def compare(results: Results) -> Table:
    """Paper above ours, model by model, aligned by how far beyond its own training length each reads."""
    scales = {scale: rows for scale, rows in results.series().items() if scale != "smoke"}
    alone = results.series(FACTS_ALONE)
    sizes = {(r["scale"], r["row"]): r["metrics"]["state_size"] for r in latest(results.records)}
    body: list[tuple[Cell, ...]] = []
    for row in results.rows:
        model, task = row.name.removesuffix(f"-{row.task}"), row.task or ""
        values = {round((m.x or 0) / PAPER_TRAIN_TOKENS, 3): m.value for m in printed_of(results, task).get(model, [])}
        if values:
            cells = [f"{values[m]:.2f}" if m in values else "" for m in MULTIPLES]
            body.append((row.label, "paper", "", f"{row.paper['0k']:.2f}" if "0k" in row.paper else "", *cells))
        ours = [(scale, rows[row.name]) for scale, rows in scales.items() if row.name in rows]
        for scale, series in ours:
            points = [series.at_multiple(m) for m in MULTIPLES]
            whole = model.startswith("full-attention")
            state, missing = ("all tokens", "beyond reach") if whole else (f"{sizes[scale, row.name]:,}", "")
            shown = (missing if p is None else mean_text(p) for p in points)
            without = alone.get(scale, {}).get(row.name)
            body.append((row.label, f"ours, {scale}", state, mean_text(without.first) if without else "", *shown))
        if not ours and not model.endswith(STAND_IN):
            body.append((row.label, "ours", "not run", "", *("" for _ in MULTIPLES)))
    return Table(
        "How exact match falls beyond the training length (1×), the papers' models and ours. Read the order and the "
        "shape, not the level: models, length in tokens and vocabulary differ. Facts alone: without a background text. "
        "RMT-R's values are of ARMT's Table 1, to be read beside the RMT of that table, which another one has.",
        ("row", "whose", "state, floats", "facts alone", *(f"{m}×" for m in MULTIPLES)),
        tuple(body),
        merged=True,
    )


def paper(results: Results) -> Table:
    """The papers' accuracies as printed: a row for each model and task, a column for each length."""
    lengths = sorted({m.tokens or 0 for m in results.printed})
    body = tuple(
        (
            f"{LABELS[model]}, {task}",
            *(f"{values[length]:.3g}" if length in values else "" for length in lengths),
        )
        for task in TASKS
        for model, points in printed_of(results, task).items()
        for values in [{m.tokens: m.value for m in points}]
    )
    return Table(
        "The papers' values: BABILong's Table 4 (RMT, ARMT, Mamba, retrieval with Llama-3 ChatQA), and ARMT's Table 1 "
        "for RMT-R. ARMT's Table 1 has another series of RMT, below.",
        ("model and task", *map(short_count, lengths)),
        body,
    )


def caption(results: Results) -> str:
    """Each model's accuracy at the training length and at the longest context, at the largest scale that was run."""
    parts = []
    for scale, rows in [*results.series().items()][:1]:
        for task in TASKS:
            models = of_task(rows, task).items()
            said = ", ".join(f"{LABELS[model]} {s.at_trained_x.mean:.2f} and {s.last.mean:.2f}" for model, s in models)
            if said:
                parts.append(f"{task} ({scale} scale), exact match at the training length and the longest: {said}")
    return ". ".join(parts) or "Nothing was run yet: the papers' values alone"


def report() -> Report:
    """All parts of the artifact's pages."""
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=caption,
        by_scale=(*(by_task(task) for task in TASKS), selection_table, scorers_table),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        label=label,
        verbs=VERBS,
        paper_arms=paper_arms(),
        printed=tuple(printed()),
        others=(two_series, language_models),
        explore=EXPLORE,
    )
