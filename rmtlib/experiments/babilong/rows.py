"""The rows of Figure 5: the five tasks, with the paper's accuracies."""

from collections.abc import Mapping
from typing import Any

from rmtlib.data.babi import TASKS
from rmtlib.runs.spec import Row

LABELS = {
    "qa1": "qa1: single supporting fact",
    "qa2": "qa2: two supporting facts",
    "qa3": "qa3: three supporting facts",
    "qa4": "qa4: two-argument relations",
    "qa5": "qa5: three-argument relations",
}
LENGTHS = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "512k", "1M", "10M")
PAPER = {  # BABILong paper, Table 4, column RMT (fine-tuned GPT-2), in per cent
    "qa1": (100, 100, 100, 100, 100, 100, 99, 96, 94, 87, 84, 66),
    "qa2": (100, 100, 99, 98, 97, 94, 82, 59, 39, 25, 22, 19),
    "qa3": (97, 94, 88, 81, 73, 66, 55, 55, 36, 25, 22, 21),
    "qa4": (100, 94, 87, 83, 80, 75, 64, 51, 38, 26, 24, 20),
    "qa5": (100, 100, 99, 99, 99, 94, 90, 89, 86, 69, 63, 44),
}
SOURCE = "BABILong (Kuratov et al. 2024), Table 4, RMT; trained on up to 16k tokens"
BACKBONES = {"smollm2": "SmolLM2", "scratch": "a new decoder"}
"""What stands in for GPT-2 at the scale gpu, as rows "<backbone>-<task>"."""


def stand_in_of(row: str) -> str:
    """What the row has in GPT-2's place; "" if it has what its scale has."""
    return next((name for name in BACKBONES if name in row.split("-")), "")


ROWS = (
    *(
        Row(task, LABELS[task], task, {k: v / 100 for k, v in zip(LENGTHS, PAPER[task], strict=True)}, SOURCE)
        for task in TASKS
    ),
    *(
        Row(
            f"{name}-{task}",
            f"{LABELS[task]}, {label} in GPT-2's place",
            task,
            {},
            "not in the paper",
            ("gpu",),
            stands_in=True,
        )
        for name, label in BACKBONES.items()
        for task in TASKS
    ),
)


def tested_on_the_simulator(record: Mapping[str, Any]) -> bool:
    """Whether a run's test questions were simulated; those of training may be."""
    return any(part.get("source") == "simulator" and part.get("split", "test") == "test" for part in record["data"])
