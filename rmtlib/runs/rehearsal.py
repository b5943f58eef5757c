"""Rehearse a scale before it is run: every row's own model and weights, a few steps, a stop, one test sample.

What only the real settings show is then known before a GPU is paid for: whether the config builds, its weights and data
can be had, precision and recomputation work, and a stopped run continues. Only counts are made smaller (`smaller`):
steps, batch, samples, tokens of tests, and the segments of a sample. Nothing is claimed from such a run, and it leaves
no record.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmtlib.errors import NotHere, RmtlibError, Stopped
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact, load_artifact, reference
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.progress import duration, size
from rmtlib.runs.spec import RunConfig

SEGMENTS = 2  # of a sample, at most
RECOMPUTED = 3  # of a sample in a stage that recomputes its segments
SAMPLES = 2
TOKENS = 4000  # of a text that is read for a score
GRAPH_STEPS = 4  # of a stage or stream, on a GPU: the third after the stop may be recorded as a CUDA graph
LEAST = {  # settings that count, by name, and what they are at most in a rehearsal
    "segments": SEGMENTS,
    "batch_size": SAMPLES,
    "evaluation_batch": SAMPLES,
    "validation_samples": SAMPLES,
    "test_samples": SAMPLES,
    "train_samples": 64,
    "validation_windows": 1,
    "validation_tokens": TOKENS,
    "evaluate_every": 1,
    "log_every": 1,
    "columns": 1,
    "histories": SEGMENTS,
}


PASSED = ("finished", "stopped and continued")
NOT_HERE = "not rehearsed, as what it needs cannot be had here"


class _StopsOnce(RunFolder):
    """Asks for a stop once a training step is done."""

    stepped = False

    def progress(self, stage: str, step: int, steps: int, **numbers: float | None) -> None:
        super().progress(stage, step, steps, **numbers)
        if "loss" in numbers:
            self.stepped = True

    def should_stop(self) -> bool:
        return self.stepped


def smaller(params: Any, steps: int = 1) -> Any:
    """The same settings with fewer steps and samples; model, precision, rates and segment length stay.

    A curriculum keeps its stages, with `steps` each (at least two if there is one alone), and recomputes in the same
    ones; a stream has at least three steps.
    """
    if not isinstance(params, Mapping):
        return [smaller(item, steps) for item in params] if isinstance(params, (list, tuple)) else params
    made = {key: _less(key, value, steps) for key, value in params.items()}
    if "stages" in made:
        steps = max(steps, 2 if len(made["stages"]) == 1 else 1)
        first = params.get("recompute_from", 0) if params.get("recompute") else math.inf
        for stage in made["stages"]:
            stage["steps"] = steps
        for stage, whole in zip(made["stages"], params["stages"], strict=True):
            if whole.get("segments", 0) >= first:
                stage["segments"] = min(whole["segments"], RECOMPUTED)
        if "recompute_from" in made:
            made["recompute_from"] = min(made["recompute_from"], RECOMPUTED)
    elif "steps" in made and "lr" in made and "segments" not in made:
        made["steps"] = max(steps, 3)
    return made


def _less(key: str, value: Any, steps: int) -> Any:
    if key == "tokens":  # of the splits of a text, or of one reading; None is all of it
        if isinstance(value, Mapping):
            return {split: _least(count, TOKENS) for split, count in value.items()}
        return _least(value, TOKENS)
    if key == "test_samples" and isinstance(value, Mapping):  # length -> samples: the shortest alone
        return dict.fromkeys(list(value)[:1], 1)
    if key == "test_pairs":
        return list(value)[:2]
    if key in LEAST and isinstance(value, (int, float)) and not isinstance(value, bool):
        return min(value, LEAST[key])
    return smaller(value, steps)


def _least(value: Any, most: int) -> int:
    return most if value is None else min(value, most)


def rehearsal_of(artifact: Artifact, config: RunConfig) -> RunConfig:
    """The config's rehearsal: `smaller`, then what the artifact has to mend so that its settings still fit together."""
    steps = GRAPH_STEPS if provenance.has_gpu() else 1
    return replace(config, params=artifact.rehearsed(smaller(config.to_json()["params"], steps)))


def rehearse(artifact: Artifact, configs: Iterable[RunConfig], seconds: float = 1800) -> Iterator[dict[str, Any]]:
    """Rehearse one run of each row (its first), each in a process of its own.

    Args:
        seconds: the longest one may take.

    Yields:
        For each row {"row", "scale", "outcome", "wall_s", "peak_memory", "gpu_memory", "hardware", "parameters",
        "precision", "planned_memory", "planned_flops", "real"}: the outcome is "stopped and continued", "finished" if
        there was no step to stop at, `NOT_HERE` and why if e.g. pretrained weights are not on this machine, or why it
        failed, in one line; what is planned is the plan's for the rehearsal and `real` that of the run itself (tokens,
        FLOP, bytes).
    """
    seen: set[str] = set()
    missing: dict[Any, str] = {}  # pretrained backbones that cannot be had here, each found out once
    for config in configs:
        if config.row not in seen:
            seen.add(config.row)
            backbone = config.params.get("backbone")
            known = missing.get(backbone) if isinstance(backbone, str) else None
            line = _one(artifact, config, seconds, known)
            if isinstance(backbone, str) and line["outcome"].startswith(NOT_HERE):
                missing[backbone] = line["outcome"]
            yield line


def _one(artifact: Artifact, config: RunConfig, seconds: float, known: str | None) -> dict[str, Any]:
    line: dict[str, Any] = {"row": config.row, "scale": config.scale}
    real = artifact.cost(config)
    line["real"] = {"tokens": real.tokens, "flops": real.flops, "memory_bytes": real.memory_bytes}
    try:
        small = rehearsal_of(artifact, config)
        planned = artifact.cost(small)
        line |= {"planned_memory": planned.memory_bytes, "planned_flops": planned.flops}
    except RmtlibError as error:
        return line | {"outcome": f"its settings do not fit together: {error}"}
    if known:
        return line | {"outcome": known}
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn) as pool,
    ):
        try:
            return line | pool.submit(_execute, reference(artifact), small.to_json(), folder).result(seconds)
        except NotHere as error:
            return line | {"outcome": f"{NOT_HERE}: {error}"}
        except RmtlibError as error:
            return line | {"outcome": str(error)}
        except TimeoutError:
            for process in pool._processes.values():
                process.kill()
            return line | {"outcome": f"not done after {seconds:.0f} s"}
        except BrokenProcessPool:
            return line | {"outcome": "its process was killed, most likely for lack of memory"}
        except Exception as error:
            return line | {"outcome": _in_words(error)}


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _execute(name: str, made: dict[str, Any], folder: str) -> dict[str, Any]:
    """In the process of a run: start, stop after a step, continue to the end."""
    artifact, config = load_artifact(name), RunConfig.from_json(made)
    started, result = time.monotonic(), None
    try:
        with suppress(Stopped):
            result = artifact.execute(config, _StopsOnce(Path(folder)))
        outcome = "finished"
        if result is None:  # by now the first model is gone: the error's traceback would have kept it
            result, outcome = artifact.execute(config, RunFolder(Path(folder))), "stopped and continued"
    except RmtlibError:
        raise
    except Exception as error:  # whatever it is: to find it is what a rehearsal is for. Some cannot leave the process
        return {"outcome": _in_words(error)}
    peak = provenance.peak_memory()
    return {
        "outcome": outcome,
        "wall_s": round(time.monotonic() - started, 1),
        "peak_memory": peak["host"],
        "gpu_memory": peak["gpu"],
        "hardware": provenance.hardware(),
        "parameters": result.metrics.get("parameters"),
        "precision": result.precision,
    }


def as_table(lines: list[dict[str, Any]]) -> list[list[str]]:
    """What was rehearsed, for people: a header, then a row of text for each line of `rehearse`."""
    table = [["row", "outcome", "weights", "took", "memory", "planned"]]
    for line in lines:
        took, memory = duration(line.get("wall_s", 0)), size(line.get("peak_memory", 0))
        weights, planned = f"{line.get('parameters') or 0:,}", size(line.get("planned_memory", 0))
        table.append([line["row"], line["outcome"], weights, took, memory, planned])
    return table
