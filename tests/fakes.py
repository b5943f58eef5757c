"""Records as `rmtlib run` would leave them, for tests of what is made of them."""

from collections.abc import Callable, Iterable, Mapping
from math import log2
from pathlib import Path
from typing import Any

from rmtlib.experiments.babilong.artifact import Figure5
from rmtlib.runs.records import record_path, write_record
from rmtlib.runs.spec import RunConfig

COMPLETE = Figure5()
# 128-token segments, trained up to 4 of them, tested up to 64: the shape of the small scale.
SEGMENTS = (1, 2, 4, 8, 16, 32, 64)


def record(
    row: str = "qa1",
    *,
    scale: str = "small",
    seed: int = 0,
    accuracy: Callable[[int], float] = lambda segments: 0.9,
    segments: tuple[int, ...] = SEGMENTS,
    n: int | None = 500,  # None: as many as the settings say
    train_segments: int = 4,
    finished: str = "2026-01-02T03:04:05+00:00",
    params: Mapping[str, Any] | None = None,
    **metrics: Any,
) -> dict[str, Any]:
    """One record; `accuracy` gives the exact match at so many segments."""
    settings = COMPLETE.with_all_files("qa1", scale, seed).params
    samples = {s: n or settings["test_samples"].get(str(s), 500) for s in segments}
    exact_match = [
        {"segments": s, "tokens": 128 * s, "n": count, "correct": round(count * accuracy(s))}
        for s, count in samples.items()
    ]
    config = RunConfig("figure-5", row, scale, seed, settings | (params or {}))
    return {
        "schema": 1,
        "run_id": config.id,
        "artifact": "figure-5",
        "row": row,
        "scale": scale,
        "seed": seed,
        "config": config.to_json(),
        "metrics": {"exact_match": exact_match, "train_segments": train_segments, "recency_accuracy": 0.5, **metrics},
        "curves": {"loss": [[100, 2.0], [200, 1.0]]},
        "data": [{"name": "babi/qa1", "sha256": "0" * 64, "bytes": 10, "licence": "CC BY 3.0", "source": "simulator"}],
        "packages": {"torch": "2.13.0"},
        "hardware": {"cpu": "a processor", "cores": 2, "memory_bytes": 2**30, "gpu": None},
        "precision": "float32",
        "wall_s": 321.5,
        "peak_memory_bytes": 7 * 10**8,
        "peak_host_memory_bytes": 7 * 10**8,
        "tokens": 12_345_678,
        "git": {"commit": "c" * 40, "dirty": False},
        "modules_sha256": "1" * 64,
        "notes": [],
        "finished": finished,
    }


def falling(start: float, per_doubling: float, train_segments: int = 4) -> Callable[[int], float]:
    """Flat up to the training length, then losing `per_doubling` with every doubling, never below 0.1."""
    return lambda segments: max(start - per_doubling * max(log2(segments / train_segments), 0.0), 0.1)


def seeds(row: str, declines: tuple[float, ...], start: float = 0.97, **kwargs: Any) -> list[Mapping[str, Any]]:
    """One record a seed, each with its own decline per doubling beyond the training length."""
    return [record(row, seed=i, accuracy=falling(start, d), **kwargs) for i, d in enumerate(declines)]


def as_in_the_paper() -> list[Mapping[str, Any]]:
    """Three runs of every task, shaped like Figure 5: all that the paper says of it is true of them."""
    return [
        *seeds("qa1", (0.01, 0.04, 0.07), 0.99),
        *seeds("qa2", (0.10, 0.14, 0.18), 0.95),
        *seeds("qa3", (0.15, 0.20, 0.24), 0.90),
        *seeds("qa4", (0.08, 0.12, 0.15), 0.93),
        *seeds("qa5", (0.04, 0.08, 0.11), 0.96),
    ]


def publish(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as results/ holds them, into `folder`."""
    for each in records:
        write_record(record_path(dict(each), folder), dict(each))
