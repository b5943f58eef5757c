"""What BABILong published of language models, and the papers' two series: data with its source, for tables.

None of it is measured here, and nothing here is compared with it by a rule: samples, background and scorer differ.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rmtlib.data.babi import TASKS
from rmtlib.experiments.babilong_table.rows import ARMT_LENGTHS, ARMT_TABLE_1, LENGTHS, MODELS, TABLE_4
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
    """What BABILong's Table 4 and ARMT's Table 1 print of the same models, at the lengths of the latter."""
    body: list[tuple[Cell, ...]] = []
    for task in TASKS:
        for model in ARMT_TABLE_1:
            if model in TABLE_4:
                named = dict(zip(LENGTHS, TABLE_4[model][task], strict=False))
                named["500k"] = named.pop("512k", math.nan)
                body.append((task, MODELS[model], "BABILong, Table 4", *_shares(named, 2)))
            named = dict(zip(ARMT_LENGTHS, ARMT_TABLE_1[model][task], strict=False))
            body.append((task, MODELS[model], "ARMT, Table 1", *_shares(named, 3)))
    return Table(
        "The papers' two series, up to the 50 million tokens that ARMT read; both trained on the same length. RMT's "
        "differ, most on qa1 and qa2. Table 4 is probably a mean of three runs, as BABILong's Appendix C has three for "
        "each experiment; ARMT's table averages three runs of ARMT and two of Mamba and does not say how many runs the "
        "other rows are of. It has 500k where Table 4 has 512k.",
        ("task", "model", "where", *ARMT_LENGTHS),
        tuple(body),
        merged=True,
    )


def _shares(percent: Mapping[str, float], digits: int) -> list[str]:
    """Per cent as shares, at ARMT's lengths; empty where nothing is printed."""
    values = [percent.get(length, math.nan) / 100 for length in ARMT_LENGTHS]
    return ["" if math.isnan(value) else f"{value:.{digits}f}" for value in values]
