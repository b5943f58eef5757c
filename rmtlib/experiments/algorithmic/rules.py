"""What decides the primary claims of the algorithmic tasks: rules as data (see book/protocol.md).

An arm is a row, with the per-token accuracy of its generated answers for each seed. The world in which the paper is
exactly true has the means of the authors' runs (`rows.py`); seeds spread as theirs do.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rmtlib.evaluation.counted import token_accuracy
from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.experiments.algorithmic.rows import task_row

SPREAD = {"rmt": 0.002, "trxl": 0.02}
"""Standard deviation between seeds of rows that the authors' runs solve, and of Tr-XL's that they do not."""
SPREADS = {"copy-3-trxl-24": 0.002, "copy-9-trxl-8": 0.09, "copy120-9-trxl-40": 0.02}
LEARNED = 0.2  # per-token accuracy, twice chance: below it a model has learned nothing of how the answer is made


def _mean(artifact: str, row: str) -> float:
    """The mean of the authors' runs of a row."""
    return float(task_row(artifact, row).paper["mean"])


def _rule(artifact: str, contrasts: tuple[Contrast, ...], gates: tuple[Gate, ...]) -> Rule:
    arms = {arm for contrast in contrasts for arm in contrast.weights}
    paper = {arm: _mean(artifact, arm) for arm in arms}
    spread = {arm: SPREADS.get(arm, SPREAD[task_row(artifact, arm).model]) for arm in arms}
    return Rule(contrasts, gates, paper=paper, spread=spread)


def _learned(row: str) -> Gate:
    return Gate(row, above=LEARNED, why="it has learned nothing")


def _short() -> dict[str, Rule]:
    solved = Gate("copy-3-rmt-24", above=0.9, why="RMT has not learned to copy in three segments")
    reverse = Gate("reverse-4-rmt-12", above=0.9, why="RMT has not learned to reverse in four segments")
    halved = _mean("algorithmic", "reverse-4-trxl-12") - _mean("algorithmic", "reverse-4-trxl-6")
    gap_9 = {"copy-9-trxl-8": 1, "copy-9-rmt-8": -1}
    return {
        # Figure 3, copy: Transformer-XL falls as segments grow in number, RMT does not.
        "copy-gap-grows": _rule(
            "algorithmic",
            (Contrast(gap_9), Contrast({**gap_9, "copy-3-trxl-24": -1, "copy-3-rmt-24": 1})),
            (solved, _learned("copy-3-trxl-24")),
        ),
        # Figure 3, reverse: RMT is above Transformer-XL of equal memory.
        "reverse-rmt-above": _rule(
            "algorithmic",
            (Contrast({"reverse-4-trxl-12": 1, "reverse-4-rmt-12": -1}),),
            (_learned("reverse-4-trxl-12"),),
        ),
        # Appendix A.1, Figure 2: memory of half a segment is enough; the limit is what Transformer-XL loses by it.
        "half-memory-suffices": _rule(
            "algorithmic",
            (Contrast({"reverse-4-rmt-12": 1, "reverse-4-rmt-6": -1}, limit=round(halved, 3)),),
            (reverse,),
        ),
    }


def _long() -> dict[str, Rule]:
    solved = Gate("copy120-9-rmt-40", above=LEARNED, why="RMT has learned nothing")
    return {
        # Appendix A.1, Figure 2, and the authors' runs: nine segments of 40.
        "copy-rmt-above": _rule(
            "algorithmic-long", (Contrast({"copy120-9-trxl-40": 1, "copy120-9-rmt-40": -1}),), (solved,)
        ),
        # Appendix A.1, Figure 2c: four segments of 60.
        "reverse-rmt-above": _rule(
            "algorithmic-long",
            (Contrast({"reverse120-4-trxl-60": 1, "reverse120-4-rmt-60": -1}),),
            (_learned("reverse120-4-trxl-60"),),
        ),
    }


RULES: dict[str, dict[str, Rule]] = {"algorithmic": _short(), "algorithmic-long": _long()}


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers that the rules compare: row -> accuracy of generated answers of each seed, of one scale's records."""
    by_arm: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        accuracy = token_accuracy(record["metrics"]["test"]["generated"])
        by_arm.setdefault(record["row"], []).append(accuracy)
    return by_arm
