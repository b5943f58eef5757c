"""What the paper says, as checks."""

from rmtlib.report.claims import BY_TEST, Claim, Pair, compare, too_few


def _fast_is_better(rows):
    if short := too_few(rows, ["fast", "slow"]):
        return short
    return compare([Pair("fast", rows["fast"].last.values, "slow", rows["slow"].last.values)])


CLAIMS = (
    Claim(
        "fast-is-better",
        "Larger steps leave a smaller error.",
        "a paper, Table 1",
        "After the last step the mean error of fast is below that of slow." + BY_TEST,
        _fast_is_better,
        rows=("fast", "slow"),
    ),
)
