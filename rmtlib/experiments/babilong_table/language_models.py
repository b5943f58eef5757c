"""What BABILong published of language models, and the papers' two series of RMT: data with its source, for tables.

None of it is measured here, and nothing here is compared with it by a rule: samples, background and scorer differ.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from rmtlib.data.babi import TASKS
from rmtlib.experiments.babilong_table.rows import ARMT_LENGTHS, ARMT_TABLE_1, LENGTHS, TABLE_4
from rmtlib.report.measurements import Results
from rmtlib.report.tables import Cell, Table

FILE = Path(__file__).with_name("language_models.json")


@cache
def published() -> dict[str, Any]:
    """The file: "source", "prompts", and "series" of model, prompt, fine_tuned_on, task and accuracy (per cent)."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def _name(series: dict[str, Any]) -> str:
    tuned = f"fine-tuned on {series['fine_tuned_on']}, " if series["fine_tuned_on"] else ""
    return f"{series['model']} ({tuned}{series['prompt']})"


def language_models(results: Results) -> Table:
    """A row for each model and task, a column for each nominal length."""
    all_series = published()["series"]
    lengths = [length for length in LENGTHS if any(length in series["accuracy"] for series in all_series)]
    body: list[tuple[Cell, ...]] = [
        (
            _name(series),
            series["task"],
            *(f"{series['accuracy'][at] / 100:.2f}" if at in series["accuracy"] else "" for at in lengths),
        )
        for series in all_series
    ]
    return Table(
        "Language models on BABILong, from the answers that its authors published: not trained on its tasks, or "
        f"fine-tuned on one. Source: {published()['source']}. By the benchmark's scorer for answers in sentences, on "
        "the published samples; ours above are on this project's samples, by exact match. The command rmtlib evaluate "
        "babilong asks any model the same way here.",
        ("model and prompt", "task", *lengths),
        tuple(body),
        prose=("model and prompt",),
        merged=True,
    )


def two_series(results: Results) -> Table:
    """RMT in BABILong's Table 4 beside RMT in ARMT's Table 1, at the lengths of the latter."""
    at = {"500k": "512k"}  # named so in Table 4
    first = {length: LENGTHS.index(at.get(length, length)) for length in ARMT_LENGTHS if length != "50M"}
    body: list[tuple[Cell, ...]] = []
    for task in TASKS:
        other = dict(zip(ARMT_LENGTHS, ARMT_TABLE_1["rmt"][task], strict=False))
        body.append((task, "BABILong, Table 4", *(f"{TABLE_4['rmt'][task][i] / 100:.2f}" for i in first.values())))
        body.append((task, "ARMT, Table 1", *(f"{other[length] / 100:.3f}" for length in first)))
    return Table(
        "The two series of RMT in the papers: one training length, one backbone. Table 4 is probably a mean of three "
        "runs, as BABILong's Appendix C has three for each experiment; ARMT's table averages runs of ARMT and of Mamba "
        "and does not say how many runs RMT's rows are of.",
        ("task", "where", *first),
        tuple(body),
        merged=True,
    )
