"""What decides the primary claims of enwik8 and wikitext-103: rules as data (see book/protocol.md).

An arm is a row, with the value of its test text for each seed: bits per character or perplexity, lower is better. The
world in which the paper is exactly true has the paper's values (`rows.py`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.language_modelling.rows import table_row

SPREAD = {"enwik8": 0.003, "wikitext-103": 0.003}
"""Standard deviation between seeds, relative to the mean."""


def _paper(artifact: str, row: str) -> float:
    """The paper's value of a row; if it prints none, the mean of the authors' runs."""
    return float(table_row(artifact, row).paper["mean"])


def _rule(artifact: str, gate: Gate, weights: Mapping[str, float]) -> Rule:
    paper = {row: _paper(artifact, row) for row in weights}
    spread = {row: SPREAD[artifact] * value for row, value in paper.items()}
    return Rule((Contrast(weights),), (gate,), paper=paper, spread=spread)


def _less(low: str, high: str) -> dict[str, float]:
    """The weights of "the first row has the lower mean"."""
    return {low: 1, high: -1}


def _share(artifact: str, row: str, baseline: str, cache: str, half: str) -> dict[str, float]:
    """The weights of "the row has enough of what the cache gains over the baseline".

    Enough is halfway between all of it and the share that half the cache has in the paper.
    """
    gain = {name: _paper(artifact, baseline) - _paper(artifact, name) for name in (cache, half)}
    share = (1 + gain[half] / gain[cache]) / 2
    return {row: 1, baseline: share - 1, cache: -share}


def _enwik8() -> dict[str, Rule]:
    baseline, rmt = "baseline-seg128", "rmt-5-bptt-2-seg128"
    gate = Gate(baseline, than="ngram-5", why="the baseline is no better than counting five characters")
    cache = _share("enwik8", rmt, baseline, "trxl-40-seg128", "trxl-20-seg128")
    return {
        # Table 4 and the authors' runs: every RMT with BPTT is far below the model without memory.
        "memory-helps": _rule("enwik8", gate, _less(rmt, baseline)),
        # Table 4: few memory tokens do what a cache of 40 does.
        "matches-cache-40": _rule("enwik8", gate, cache),
        # Table 4: without backpropagation through time, 20 memory tokens are worse than a cache of 10.
        "bptt-0-is-behind": _rule("enwik8", gate, _less("trxl-10-seg128", "rmt-20-bptt-0-seg128")),
    }


def _wikitext_103() -> dict[str, Rule]:
    baseline, rmt = "baseline-seg50", "rmt-10-bptt-2-seg50"
    gate = Gate(baseline, than="ngram-3", why="the baseline is no better than counting three words")
    cache = _share("wikitext-103", rmt, baseline, "trxl-50-seg50", "trxl-25-seg50")
    return {
        # Table 5, segments of 50.
        "memory-helps": _rule("wikitext-103", gate, _less(rmt, baseline)),
        # Table 5, segments of 50: at an equal number of states RMT is better than a cache.
        "beats-equal-memory": _rule("wikitext-103", gate, _less(rmt, "trxl-10-seg50")),
        # Table 5, segments of 50: ten memory tokens do what a cache of 50 does.
        "matches-cache-50": _rule("wikitext-103", gate, cache),
    }


RULES: dict[str, dict[str, Rule]] = {"enwik8": _enwik8(), "wikitext-103": _wikitext_103()}


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the rules compare: row -> test value of each seed, from the records of one scale."""
    by_arm: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        by_arm.setdefault(record["row"], []).append(record["metrics"]["value"])
    return by_arm
