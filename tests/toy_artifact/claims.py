"""What the paper says, as contrasts."""

from collections.abc import Iterable, Mapping
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.report.claims import Claim

MEANS = {"fast": 0.1, "slow": 0.4}

CLAIMS = (
    Claim(
        "fast-is-better",
        "Larger steps leave a smaller error.",
        "a paper, Table 1",
        "After the last step the mean error of fast is below that of slow.",
        Rule((Contrast({"fast": 1, "slow": -1}),), paper=MEANS, spread=dict.fromkeys(MEANS, 0.01)),
        primary=True,
    ),
)


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Row -> error after the last step, seed by seed."""
    by_row: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        by_row.setdefault(record["row"], []).append(record["metrics"]["errors"][-1][1])
    return by_row
