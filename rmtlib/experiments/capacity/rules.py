"""What decides the primary claims of memory-capacity: rules as data, declared before the runs (see book/protocol.md).

The paper prints no numbers for its Figure 2, so the worlds that power is simulated in are assumptions: they say "stores
all", "three quarters" and "perfect recall" where the paper's text and curves do.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rmtlib.evaluation.capacity import pairs_stored
from rmtlib.evaluation.decisions import Contrast, Gate, Rule

ASKED = 16  # pairs in the context of remember: all the keys of one symbol
FORGETTING = 10  # times the trained number of updates at which rewriting is read (50 and 500 in the paper)
LEARNED = 0.9  # exact match at the trained number of updates, without which forgetting means nothing
SLACK = 0.05  # of exact match: what "perfect memory recall" may lose

RULES: dict[str, Rule] = {
    # "ARMT makes better use of its internal associative memory", at states of 4,680 and 4,864 floats.
    "equal-state": Rule(
        (Contrast({"mamba-remember": 1, "armt-equal-remember": -1}),),
        paper={"mamba-remember": 12.0, "armt-equal-remember": 16.0},
        spread={"mamba-remember": 1.5, "armt-equal-remember": 0.3},
    ),
    # "Both ARMT and Mamba outperform RMT on this task."
    "rmt-stores-least": Rule(
        (
            Contrast({"rmt-remember": 1, "armt-remember": -1}),
            Contrast({"rmt-remember": 1, "mamba-remember": -1}),
        ),
        paper={"rmt-remember": 6.0, "armt-remember": 16.0, "mamba-remember": 12.0},
        spread={"rmt-remember": 0.5, "armt-remember": 0.3, "mamba-remember": 1.5},
    ),
    # "ARMT maintains perfect memory recall on lengths exceeding 10 times those used in training."
    "armt-keeps": Rule(
        (Contrast({"armt-rewrite: fall": 1}, limit=SLACK),),
        gates=(Gate("armt-rewrite: trained", above=LEARNED, why="it did not learn to rewrite"),),
        paper={"armt-rewrite: fall": 0.0},
        spread={"armt-rewrite: fall": 0.01},
    ),
}


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the rules compare, one a seed, from the records of one scale.

    A row of remember is an arm: the pairs that it stored of `ASKED`. A row of rewrite makes three: "<row>: trained",
    its exact match after as many updates as training had, "<row>: far", that after `FORGETTING` times as many, and
    "<row>: fall", what it loses from the one to the other.
    """
    by_arm: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        metrics = record["metrics"]
        accuracy = {point["pairs"]: point["correct"] / point["n"] for point in metrics["exact_match"]}
        row, trained = record["row"], metrics["train_segments"] - 1
        if row.endswith("remember") and ASKED in accuracy:
            by_arm.setdefault(row, []).append(pairs_stored(accuracy[ASKED], ASKED, metrics["values"]))
        elif row.endswith("rewrite") and {trained, FORGETTING * trained} <= set(accuracy):
            far = accuracy[FORGETTING * trained]
            numbers = {"trained": accuracy[trained], "far": far, "fall": accuracy[trained] - far}
            for name, number in numbers.items():
                by_arm.setdefault(f"{row}: {name}", []).append(number)
    return by_arm
