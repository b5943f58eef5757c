"""What decides the claims of attention-maps: numbers of a record, and rules over them, declared before the runs.

The paper shows maps and prints no numbers, so the worlds that power is simulated in are assumptions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from rmtlib.evaluation.counted import token_accuracy
from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.evaluation.operations import OPERATIONS
from rmtlib.experiments.algorithmic.rows import LABELS

USED = 0.5  # of the way from chance to nothing but this block: from here on a head counts as doing it
LOST = 0.2  # accuracy that is called lost; guessing one of 10 symbols gives 0.1
SPARED = 0.1  # accuracy that an answer may lose by what is none of its business
SOLVED = 0.9  # accuracy without which there is nothing to explain

TWO, FOUR, COPY = "reverse-2-rmt-24", "reverse-4-rmt-12", "copy-3-rmt-24"


def _gates(row: str) -> tuple[Gate, ...]:
    return (Gate(f"{row}: solved", above=SOLVED, why="it did not learn the task"),)


def written_and_read(row: str) -> tuple[Contrast, ...]:
    """Written above chance in segments of input, read above chance in those of answers."""
    return (Contrast({f"{row}: write": -1}, limit=-USED), Contrast({f"{row}: read": -1}, limit=-USED))


RULES: dict[str, Rule] = {
    "written-and-read": Rule(
        written_and_read(TWO),
        gates=_gates(TWO),
        paper={f"{TWO}: write": 0.9, f"{TWO}: read": 0.9},
        spread={f"{TWO}: write": 0.07, f"{TWO}: read": 0.07},
    ),
    "answer-is-in-memory": Rule(
        (Contrast({f"{TWO}: lost": 1}, limit=LOST),),
        gates=_gates(TWO),
        paper={f"{TWO}: lost": 0.1},
        spread={f"{TWO}: lost": 0.02},
    ),
    "lost-exactly-between": Rule(
        (Contrast({f"{FOUR}: lost": 1}, limit=LOST), Contrast({f"{FOUR}: harmed": 1}, limit=SPARED)),
        gates=_gates(FOUR),
        paper={f"{FOUR}: lost": 0.1, f"{FOUR}: harmed": 0.0},
        spread={f"{FOUR}: lost": 0.02, f"{FOUR}: harmed": 0.02},
    ),
}


def sources(task: str, segments: int, t: int) -> tuple[int, int]:
    """First and last segment before t that had the symbols which segment t answers, all counted from 1.

    The second copy's are in the input and in the first copy. (There the start token moves tokens by one position, so
    that one symbol stands a segment later: of a whole segment it is left if the memory is lost.)
    """
    if task == "reverse":
        return segments + 1 - t, segments + 1 - t
    third = segments // 3
    return (t - third if t <= 2 * third else t - 2 * third), t - third


def excess(operations: Sequence[Mapping[str, Any]], name: str) -> dict[int, np.ndarray]:
    """Segment -> how far above chance (L, H), from a record's operations; segments that lack this one are left out."""
    found = {}
    for of_segment in operations:
        if name in of_segment:
            mass_LH, chance = np.array(of_segment[name]["mass"]), of_segment[name]["chance"]
            found[of_segment["segment"]] = (mass_LH - chance) / (1 - chance)
    return found


def top_head(operations: Sequence[Mapping[str, Any]], name: str) -> tuple[int, int] | None:
    """(layer, head) from 0 with the most excess, the mean over segments, so that no segment is favoured."""
    found = excess(operations, name)
    if not found:
        return None
    mean_LH = np.mean(list(found.values()), axis=0)
    layer, head = divmod(int(mean_LH.argmax()), mean_LH.shape[1])
    return layer, head


def by_segment(record: Mapping[str, Any], name: str) -> dict[int, float]:
    """Segment -> the top head's excess."""
    operations = record["metrics"]["operations"]
    head = top_head(operations, name)
    return {} if head is None else {s: float(of[head]) for s, of in excess(operations, name).items()}


def first_answer(record: Mapping[str, Any]) -> int:
    """The first segment with answers, from 1; those before it have input alone."""
    return next(s for s, count in enumerate(record["metrics"]["ablation"]["answers"], start=1) if count)


def ablated(record: Mapping[str, Any]) -> Iterator[tuple[int, int, float, float]]:
    """(s, t, accuracy, intact): answers of segment t with the memory lost after segment s < t, and with all memory."""
    answers, (intact, *rows) = (record["metrics"]["ablation"][key] for key in ("answers", "correct"))
    for s, row in enumerate(rows, start=1):
        for t in range(s + 1, len(answers) + 1):
            if count := answers[t - 1]:
                yield s, t, row[t - 1] / count, intact[t - 1] / count


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """What the claims compare. Of an operation the top head's excess, the mean over segments.

    "write", "carry": in segments before the first answer ("carry" from the second on: the first has nothing to carry).
    "read", "cache": in segments that answer; "read before", "cache before": in those before.
    "lost": accuracy of answers if the memory is lost between the last segment that had their symbols and their own;
    "harmed": what answers lose if it is lost before the first that had them.
    "symbols a read key": of an answering segment, for each key in use; "symbols a cache key" as well.
    "solved": accuracy of generated answers.
    """
    metrics, task = record["metrics"], record["config"]["params"]["training"]["task"]
    answering, segments = first_answer(record), metrics["segments"]
    found = {"solved": token_accuracy(metrics["test"]["generated"])}
    for name in OPERATIONS:
        curve = by_segment(record, name)
        before = [value for s, value in curve.items() if s < answering and (name != "carry" or s > 1)]
        after = [value for s, value in curve.items() if s >= answering]
        parts = {name: before} if name in ("write", "carry") else {name: after, f"{name} before": before}
        found |= {part: fmean(values) for part, values in parts.items() if values}
    cells = [(s, *sources(task, segments, t), acc, intact) for s, t, acc, intact in ablated(record)]
    lost = [accuracy for s, _, last, accuracy, _ in cells if s >= last]
    harmed = [intact - accuracy for s, first, _, accuracy, intact in cells if s < first]
    found |= {"lost": fmean(lost)} | ({"harmed": fmean(harmed)} if harmed else {})
    for name in ("read", "cache"):
        if head := top_head(metrics["operations"], name):
            layer, of_layer = head
            used = [of[name]["keys_in_use"][layer][of_layer] for of in metrics["operations"][answering - 1 :]]
            found[f"symbols a {name} key"] = metrics["segment_size"] / fmean(used)
    return found


def title_of(record: Mapping[str, Any]) -> str:
    """The run in words, with the sizes of its scale: RMT, reverse of 12 symbols in 2 segments, memory 12."""
    model = record["config"]["params"]["training"]["model"]
    passes = f"memory {model['memory_tokens']}" if model["memory_tokens"] else f"cache {model['cache']}"
    return f"{short_title(record, sized=True)}, {passes}"


def short_title(record: Mapping[str, Any], *, sized: bool = False) -> str:
    """The run in a few words: RMT, reverse in 2 segments."""
    training = record["config"]["params"]["training"]
    task = training["task"] + (f" of {training['sizes'][-1]} symbols" if sized else "")
    return f"{LABELS[record['row'].split('-')[2]]}, {task} in {record['metrics']['segments']} segments"


def arms(records: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """ "<row>: <number>" -> the numbers, one a seed, from the records of one scale."""
    by_arm: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        for name, value in numbers(record).items():
            by_arm.setdefault(f"{record['row']}: {name}", []).append(value)
    return by_arm
