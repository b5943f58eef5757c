"""What the paper says, as contrasts."""

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


def arms(records):
    """Row -> error after the last step, seed by seed."""
    found = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        found.setdefault(record["row"], []).append(record["metrics"]["errors"][-1][1])
    return found
