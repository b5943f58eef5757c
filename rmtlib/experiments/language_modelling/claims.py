"""The claims of the RMT paper on language modelling, as checks over the rows of its tables."""

from collections.abc import Mapping
from itertools import combinations

from rmtlib.experiments.language_modelling.rows import TABLES
from rmtlib.report.claims import BY_TEST, RUNS_NEEDED, Claim, Finding, Pair, compare
from rmtlib.report.measurements import Series

Names = list[tuple[str, str]]


def _enough(series: Series | None) -> bool:
    return series is not None and series.n_runs >= RUNS_NEEDED


def _check(rows: Mapping[str, Series], pairs: Names, limit: float) -> Finding:
    """Whether in every pair with enough runs the first row's mean is lower than the second's times 1 + `limit`."""
    run = [(rows[a], rows[b]) for a, b in pairs if _enough(rows.get(a)) and _enough(rows.get(b))]
    if not run:
        names = " and ".join(pairs[0])
        more = " or another such pair" if len(pairs) > 1 else ""
        return Finding("not enough runs", f"{RUNS_NEEDED} runs of each are needed: {names}{more}")
    return compare([Pair(a.row, a.first.values, b.row, b.first.values, limit) for a, b in run])


def _claim(name: str, text: str, source: str, rule: str, pairs: Names, margin: float | None = None) -> Claim:
    """A claim that of every pair the first row has the lower mean, or one that is higher by `margin` at most."""
    rows = tuple(dict.fromkeys(row for pair in pairs for row in pair))
    return Claim(
        name, text, source, rule + BY_TEST, lambda found: _check(found, pairs, margin or 0.0), rows, margin=margin
    )


def _depths(artifact: str) -> Names:
    """(deeper, shallower) of all RMT rows that differ in their BPTT alone."""
    rows = [row for row in TABLES[artifact] if row.kind == "RMT" and not row.variant]
    return [
        (b.name, a.name)
        for a, b in combinations(sorted(rows, key=lambda row: row.bptt or 0), 2)
        if (a.memory, a.segment) == (b.memory, b.segment)
    ]


def _equal_memory(artifact: str) -> Names:
    """(RMT with BPTT, Tr-XL) of equal memory and segment."""
    rows = TABLES[artifact]
    return [
        (a.name, b.name)
        for a in rows
        for b in rows
        if a.kind == "RMT"
        and a.bptt
        and not a.variant
        and b.kind == "Tr-XL"
        and (a.memory, a.segment) == (b.cache, b.segment)
    ]


def _more_bptt(artifact: str) -> Claim:
    return _claim(
        "more-bptt",
        "Backpropagating through more segments makes RMT better.",
        "RMT, section 4 and appendix A",
        "Among RMT rows of equal memory and segment the deeper one has the lower mean, in every pair that was run.",
        _depths(artifact),
    )


def _beats_equal(artifact: str) -> Claim:
    return _claim(
        "beats-equal-memory",
        "RMT trained with BPTT is better than Transformer-XL with a cache of as many states as RMT has memory tokens.",
        "RMT, section 4 and appendix A",
        "The RMT row has the lower mean in every pair of equal memory and segment that was run.",
        _equal_memory(artifact),
    )


CLAIMS = {
    "enwik8": (
        _more_bptt("enwik8"),
        _claim(
            "matches-cache-40",
            "RMT with 5 to 10 memory tokens and BPTT-1 or 2 is as good as Transformer-XL with a cache of 40.",
            "RMT, Table 1",
            "In every pair that was run the mean of such an RMT row is at most 1 % above that of Tr-XL 40 (in the "
            "paper the worst is 0.9 % above).",
            [(f"rmt-{m}-bptt-{k}-seg128", "trxl-40-seg128") for m in (5, 10) for k in (1, 2)],
            margin=0.01,
        ),
        _beats_equal("enwik8"),
    ),
    "wikitext-103": (
        _more_bptt("wikitext-103"),
        _beats_equal("wikitext-103"),
        _claim(
            "mt-does-not-help",
            "Memory tokens that are not passed on (MT) help little.",
            "RMT, Table 2",
            "In every pair that was run the baseline's perplexity is at most 1.4 % (0.4 of the paper's 30) above that "
            "of an MT row.",
            [("baseline-seg150", f"mt-{m}-seg150") for m in (10, 25, 75, 150)],
            margin=0.014,
        ),
        _claim(
            "both-are-no-worse",
            "Transformer-XL with memory tokens is at least as good as Transformer-XL alone.",
            "RMT, Table 2",
            "In every pair that was run the mean of Tr-XL + RMT is below that of Tr-XL with a cache of as many states, "
            "or of the same cache.",
            [
                ("trxl-70-rmt-5-bptt-3-seg150", "trxl-75-seg150"),
                ("trxl-75-rmt-5-bptt-3-seg150", "trxl-75-seg150"),
                ("trxl-140-rmt-10-bptt-0-seg150", "trxl-150-seg150"),
                ("trxl-150-rmt-10-bptt-1-seg150", "trxl-150-seg150"),
                ("trxl-150-rmt-10-bptt-3-2x-seg150", "trxl-150-2x-seg150"),
            ],
        ),
        _claim(
            "beats-cache-50",
            "With segments of 50, RMT with 10 memory tokens and BPTT-4 is better than Transformer-XL with a cache of "
            "50.",
            "RMT, Table 2",
            "The mean of the RMT row is lower.",
            [("rmt-10-bptt-4-seg50", "trxl-50-seg50")],
        ),
    ),
}
