"""What a command would do and what it would take, before anything starts; and what there is already.

The time of a run is, in this order of preference,

1. measured: finished records of the same artifact, row and scale on the same kind of device, by planned tokens per
   second (stages that end early make a run shorter than planned, and the next one as well); not if such runs may
   take over trained weights;
2. measured: other rows of the same artifact and scale in this precision, by FLOP; for the scale `medium` also the
   trials from which its settings were chosen;
3. measured: runs of other scales and artifacts on a CPU like this one and in this precision, by FLOP: the `ALIKE` of
   them that are nearest in FLOP a token, because small models take more time a FLOP;
4. computed: `Cost.flops` over an effective speed. On a CPU that is the speed of a float32 matrix product, measured
   now, times `CPU_EFFICIENCY`; for bf16 the time is an upper bound, as some CPUs multiply it faster. For the scales
   `gpu` and `paper` it is `GPU_FLOPS` times the artifact's `gpu_efficiency`, in float32 at most `GPU_FLOAT32`:
   assumptions that `plan` prints, whatever GPU is there.

Its memory is the peak that a finished record of the same config has on that kind of device, else computed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.folder import read_config, read_progress, run_folder
from rmtlib.runs.progress import duration, fraction, makespan
from rmtlib.runs.progress import size as size_text
from rmtlib.runs.records import find_records, load_record, record_path
from rmtlib.runs.scheduler import default_jobs
from rmtlib.runs.spec import PILOT, Cost, RunConfig
from rmtlib.runs.storage import is_locked

GPU_FLOPS = 790e12
"""bf16 FLOP/s of an H200-class GPU, measured on a matrix product."""
GPU_FLOAT32 = 33e12
"""float32 FLOP/s to be expected of it without TF32, which is never switched on: half of what its data sheet says."""
GPU_MEMORY = 80 * 2**30
"""Bytes of memory that a GPU for the scales gpu and paper is taken to have."""
SMALL_ON_GPU_EFFICIENCY = 0.01
"""The part of `GPU_FLOPS` that models of the scales smoke and small reach, whose kernels are too small for a GPU."""
ALIKE = 21
"""How many finished runs tell the time of a run that has none of its own artifact and scale."""
CPU_EFFICIENCY = 0.2
"""The part of one core's matrix product speed that small models reach (0.15 to 0.3 seen): the rest is overhead."""

_MATMUL = """
import numpy, time
a = numpy.ones((512, 512), numpy.float32); b = a @ a
best, end = 1e9, time.perf_counter() + 0.2
while time.perf_counter() < end:
    start = time.perf_counter(); numpy.matmul(a, a, b); best = min(best, time.perf_counter() - start)
print(2 * 512**3 / best)
"""


@cache
def core_flops() -> float:
    """float32 FLOP/s of one core in a matrix product, measured once, in another process in under half a second."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", _MATMUL],
        capture_output=True,
        text=True,
        env=os.environ | one,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return float(done.stdout)


def run_state(config: RunConfig, runs_dir: str | Path = "runs", tokens: int = 0) -> dict[str, Any]:
    """{"state", "done", "stage"}: finished, training, partial, to do or damaged; fraction done; where it is."""
    folder = run_folder(config, runs_dir)
    try:
        if (folder / "record.json").exists():
            load_record(folder / "record.json")
            return {"state": "finished", "done": 1.0, "stage": None}
        if (folder / "config.json").exists():
            read_config(folder)
        progress = read_progress(folder)
    except RmtlibError as error:
        return {"state": "damaged", "done": 0.0, "stage": str(error)}
    stage = None if progress is None else f"{progress['stage']}, step {progress['step']} of {progress['steps']}"
    state = "training" if is_locked(folder) else "to do" if progress is None else "partial"
    return {"state": state, "done": fraction(progress, tokens) or 0.0, "stage": stage}


def _on_gpu(scale: str) -> bool:
    return scale in ("gpu", "paper") or provenance.has_gpu()


def device_assumption(artifact: Artifact, scale: str, precision: str) -> dict[str, Any]:
    """{"kind", "flops", "text"}: the device that computed times are for, its effective FLOP/s, in words."""
    if not _on_gpu(scale):
        speed = core_flops()
        text = (
            f"one core of {provenance.hardware()['cpu']} ({speed / 1e9:.0f} GFLOP/s in a matrix "
            f"product, measured now; {CPU_EFFICIENCY:.0%} of it assumed)"
        )
        return {"kind": "cpu", "flops": speed * CPU_EFFICIENCY, "text": text}
    part = artifact.gpu_efficiency if scale in ("gpu", "paper") else SMALL_ON_GPU_EFFICIENCY
    here = "" if provenance.has_gpu() else "; there is none here, and a CPU would take very much longer"
    speed, assumed = GPU_FLOPS * part, f"790 TFLOP/s bf16, {part:.0%} of it assumed"
    if precision == "float32" and speed > GPU_FLOAT32:
        speed, assumed = GPU_FLOAT32, f"{GPU_FLOAT32 / 1e12:.0f} TFLOP/s in float32 assumed"
    text = f"one H200-class GPU ({assumed}; a slower one takes longer{here})"
    return {"kind": "gpu", "flops": speed, "text": text}


def without_gpu(
    artifact: Artifact, configs: list[RunConfig], jobs: int | None = None, *, fresh: bool = False
) -> str | None:
    """A warning with the estimated time if runs that are meant for a GPU would be trained without one."""
    scale, todo = configs[0].scale, _to_train(configs, fresh)
    if scale not in ("gpu", "paper") or provenance.has_gpu() or not todo:
        return None
    speed = core_flops() * CPU_EFFICIENCY
    seconds = makespan([], [artifact.cost(config).flops / speed for config in todo], jobs or default_jobs())
    return (
        f"scale {scale} is meant for a GPU and there is none here: about {duration(seconds)} on this CPU; "
        "--scale small is made for a CPU"
    )


def without_bf16(artifact: Artifact, configs: list[RunConfig], *, fresh: bool = False) -> str | None:
    """A warning if runs that are meant for a CPU would compute in bf16 on one that is slow at it."""
    todo = [config for config in _to_train(configs, fresh) if artifact.cost(config).precision == "bf16"]
    if not todo or todo[0].scale in ("gpu", "paper") or provenance.has_gpu() or provenance.multiplies_bf16():
        return None
    count = "1 run computes" if len(todo) == 1 else f"{len(todo)} runs compute"
    return f"{count} in bf16, for which this processor has no units: several times the time that others take"


def _to_train(configs: list[RunConfig], fresh: bool) -> list[RunConfig]:
    return [config for config in configs if fresh or not (run_folder(config) / "record.json").exists()]


def _measured(
    cost: Cost, row: str, records: list[dict[str, Any]], planned: dict[str, Cost]
) -> tuple[float, str] | None:
    """Seconds of a run by finished ones on such a device (of its scale, or trials), and how that was found.

    `planned`: of each record by its run id, what it would have taken.
    """
    records = [record for record in records if record["wall_s"] > 0 and record["tokens"] > 0]
    same_row = [record for record in records if record["row"] == row]
    if same_row:
        ratios = [record["wall_s"] / planned[record["run_id"]].tokens for record in same_row]
        return cost.tokens * median(ratios), _basis(same_row, "of this row")
    same = [record for record in records if record["precision"] == cost.precision]
    ratios = [record["wall_s"] / flops for record in same if (flops := planned[record["run_id"]].flops)]
    return (cost.flops * median(ratios), _basis(same, "of other rows, by FLOP")) if ratios else None


def _elsewhere(
    precision: str, artifacts: Iterable[Artifact], where: Sequence[str | Path]
) -> list[tuple[Cost, dict[str, Any]]]:
    """Runs of all scales but smoke on a CPU like this one, in this precision: what was planned, and the record."""
    cpu, found = provenance.hardware()["cpu"], []
    for artifact in artifacts:
        if not artifact.times_training:
            continue
        records = {record["run_id"]: record for root in where for record in _good(artifact.name, root)}
        for record in records.values():
            made = (record["hardware"].get("cpu"), record["hardware"].get("gpu"), record["precision"])
            if made == (cpu, None, precision) and record["scale"] != "smoke" and record["wall_s"] > 0:
                if (cost := _planned(artifact, record)).flops:
                    found.append((cost, record))
    return found


def _by_nearest(cost: Cost, runs: list[tuple[Cost, dict[str, Any]]]) -> tuple[float, str] | None:
    """Seconds of a run by those `ALIKE` runs that are nearest in FLOP a token, and how that was found."""
    if not runs or not cost.flops:
        return None

    def unlike(other: Cost) -> float:
        return abs(log(other.flops / other.tokens) - log(cost.flops / cost.tokens))

    nearest = sorted(runs, key=lambda run: unlike(run[0]))[:ALIKE]
    seconds = cost.flops * median(record["wall_s"] / planned.flops for planned, record in nearest)
    which = f"of other scales and artifacts in {cost.precision}, the most alike in FLOP a token"
    return seconds, _basis([record for _, record in nearest], which)


def _planned(artifact: Artifact, record: dict[str, Any]) -> Cost:
    """What the record's run would have taken without an early end of its stages: another run will end early too.

    Of settings of an earlier version only the tokens are known, those that it took.
    """
    if found := _costs.get((type(artifact), record["run_id"])):
        return found
    try:
        return cost_of_run(artifact, RunConfig.from_json(record["config"]))
    except RmtlibError:
        return Cost(record["tokens"], 0.0, 0, 0)


_costs: dict[tuple[type, str], Cost] = {}
"""Of runs by their id, which stands for the whole config: pages plan the same runs many times."""


def cost_of_run(artifact: Artifact, config: RunConfig) -> Cost:
    """`artifact.cost(config)`, computed once for equal configs."""
    key = type(artifact), config.id
    if key not in _costs:
        _costs[key] = artifact.cost(config)
    return _costs[key]


def _basis(records: list[dict[str, Any]], which: str) -> str:
    machines = {
        record["hardware"].get("gpu") or record["hardware"].get("cpu") or "unknown machine" for record in records
    }
    runs = f"{len(records)} finished run{'s' * (len(records) > 1)}"
    return f"measured: {runs} {which} on {', '.join(sorted(machines))}"


def plan(
    artifact: Artifact,
    configs: list[RunConfig],
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
    jobs: int | None = None,
    others: Iterable[Artifact] = (),
) -> dict[str, Any]:
    """What training `configs` (all of one scale) takes, as plain data.

    Args:
        others: artifacts whose records on this kind of machine tell its speed if there are none of this scale.

    Keys: artifact, title, scale, jobs, device (text or None if all times are measured), runs (one dict
    each: run_id, row, seed, state, done, stage, folder, tokens, flops, seconds, basis, memory_bytes,
    memory_basis, disk_bytes; seconds and disk are the whole run's), once (what the first run makes for all, a dict
    each: name, tokens, seconds, basis), total (runs, tokens, seconds, memory_bytes, disk_bytes of what is left to do,
    with `jobs` at once), warnings.
    """
    scale = configs[0].scale
    gpu_scale = _on_gpu(scale)
    jobs = 1 if artifact.alone else jobs or (default_jobs() if provenance.has_gpu() or not gpu_scale else 1)
    published = find_records(artifact.name, scale=scale, where=(results_dir,))
    every = {record["run_id"]: record for record in published + _good_local(artifact.name, scale, runs_dir)}
    trials = find_records(artifact.name, scale=PILOT, where=(results_dir,)) if scale == "medium" else []
    records, trials = (
        [record for record in some if (record["hardware"].get("gpu") is not None) == gpu_scale]
        for some in (every.values(), trials)
    )
    peaks = {record["run_id"]: int(record["peak_memory_bytes"]) for record in records}
    if not artifact.times_training:
        records, trials = [], []
    planned = {record["run_id"]: _planned(artifact, record) for record in (*records, *trials)}
    device: dict[str, Any] | None = None
    elsewhere: dict[str, list[tuple[Cost, dict[str, Any]]]] = {}

    def otherwise(cost: Cost) -> tuple[float, str]:
        """By other runs on such a machine, else by the speed of a device."""
        nonlocal device
        if cost.precision not in elsewhere:
            roots = () if gpu_scale else (runs_dir, results_dir)
            elsewhere[cost.precision] = _elsewhere(cost.precision, others, roots)
        if known := _by_nearest(cost, elsewhere[cost.precision]):
            return known
        device = device or device_assumption(artifact, scale, cost.precision)
        bound = ", an upper bound for bf16" if device["kind"] == "cpu" and cost.precision == "bf16" else ""
        return cost.flops / device["flops"], f"computed{bound}"

    runs = []
    for config in configs:
        cost = cost_of_run(artifact, config)
        measured = _measured(cost, config.row, records, planned) or _measured(cost, config.row, trials, planned)
        measured = measured or otherwise(cost)
        runs.append(
            {
                "run_id": config.id,
                "row": config.row,
                "seed": config.seed,
                **run_state(config, runs_dir, cost.tokens),
                "folder": str(run_folder(config, runs_dir)),
                "tokens": cost.tokens,
                "flops": cost.flops,
                "seconds": measured[0],
                "basis": measured[1],
                "memory_bytes": peaks.get(config.id) or cost.memory_bytes,
                "memory_basis": "measured" if peaks.get(config.id) else "computed",
                "disk_bytes": cost.disk_bytes,
            }
        )
    todo = [run for run in runs if run["state"] != "finished"]
    disk = sum(run["disk_bytes"] for run in todo if run["state"] == "to do")
    memory = sum(sorted((run["memory_bytes"] for run in todo), reverse=True)[:jobs])
    waiting = {run["run_id"] for run in todo}
    makes = {made.key: made for config in configs if config.id in waiting and (made := artifact.once(config))}
    once: list[dict[str, Any]] = []
    for made in makes.values():
        if not made.there:
            seconds, basis = otherwise(made.cost)
            once.append({"name": made.name, "tokens": made.cost.tokens, "seconds": seconds, "basis": basis})
    total = {
        "runs": len(todo),
        "tokens": sum(round(run["tokens"] * (1 - run["done"])) for run in todo) + sum(one["tokens"] for one in once),
        "seconds": makespan([], [run["seconds"] * (1 - run["done"]) for run in todo], jobs)
        + sum(one["seconds"] for one in once),  # the others wait for it
        "memory_bytes": memory,
        "disk_bytes": disk,
    }
    return {
        "artifact": artifact.name,
        "title": artifact.title,
        "scale": scale,
        "jobs": jobs,
        "device": device["text"] if device else None,
        "runs": runs,
        "once": once,
        "total": total,
        "warnings": [
            *artifact.remarks(scale),
            *filter(None, [without_bf16(artifact, configs)]),
            *_warnings(todo, total, Path(runs_dir), gpu_scale),
            *_other_settings(configs, published),
        ],
    }


def _good_local(artifact: str, scale: str, runs_dir: str | Path) -> list[dict[str, Any]]:
    """Local records of a scale, without the damaged ones: those show as such in the list of runs."""
    return [record for record in _good(artifact, runs_dir) if record["scale"] == scale]


def _good(artifact: str, root: str | Path) -> list[dict[str, Any]]:
    """Records of every scale in runs/ or results/, without the damaged ones."""
    records = []
    folder = Path(root) / artifact
    for path in sorted([*folder.glob("*/record.json"), *folder.glob("*.json")]):
        with suppress(RmtlibError):
            records.append(load_record(path))
    return records


def _other_settings(configs: list[RunConfig], published: list[dict[str, Any]]) -> list[str]:
    """A line if these runs are not those that were published: other files are on this machine, or other code."""
    theirs = {(record["row"], record["seed"]): record for record in published if record["scale"] != PILOT}
    changed = []
    for config in configs:
        record = theirs.get((config.row, config.seed))
        if record is not None and record["run_id"] != config.id:
            ours, other = _leaves(config.params), _leaves(record["config"]["params"])
            if keys := [key for key in ours if key in other and ours[key] != other[key]]:
                changed.append((config, keys))
    if not changed:
        return []
    config, keys = changed[0]
    return [
        f"{len(changed)} of {len(configs)} runs: other settings here than in the published records, e.g. "
        f"{config.row} seed {config.seed} in {', '.join(keys)}"
    ]


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Single values by dotted name; names come and go with the code, a value that both have tells."""
    if not isinstance(value, (Mapping, list, tuple)):
        return {name: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {key: leaf for part, item in items for key, leaf in _leaves(item, f"{name}.{part}".lstrip(".")).items()}


def _warnings(todo: list[dict[str, Any]], total: dict[str, Any], root: Path, on_gpu: bool) -> list[str]:
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    warnings = []
    if total["disk_bytes"] > free:
        warnings.append(f"these runs need {size_text(total['disk_bytes'])} of disk, {there} has {size_text(free)} free")
    if not on_gpu and total["memory_bytes"] > provenance.memory_bytes():
        warnings.append(
            f"running {size_text(total['memory_bytes'])} of memory at once does not fit into "
            f"{size_text(provenance.memory_bytes())}: use fewer --jobs"
        )
    if on_gpu and (large := [run for run in todo if run["memory_bytes"] > GPU_MEMORY]):
        most = max(large, key=lambda run: run["memory_bytes"])
        wanted, room = size_text(most["memory_bytes"]), size_text(GPU_MEMORY)
        warnings.append(
            f"{len(large)} of these runs want up to {wanted} of a GPU ({most['row']}): where it has less, e.g. "
            f"{room}, batches are done in parts"
        )
    return warnings


def status(
    artifacts: Iterable[Artifact], *, runs_dir: str | Path = "runs", results_dir: str | Path = "results"
) -> list[dict[str, Any]]:
    """Every run in runs/ and every published record of `artifacts`, as plain data.

    Keys of each: artifact, row, scale, seed, run_id, state, done, stage, folder (None if only published),
    published (path or None), finished (when, UTC), wall_s. A damaged folder has state "damaged" and says why
    in stage.
    """
    entries: dict[str, dict[str, Any]] = {}
    for artifact in artifacts:
        name = artifact.name
        for folder in sorted(path for path in (Path(runs_dir) / name).glob("*") if (path / "config.json").exists()):
            entry: dict[str, Any] = dict.fromkeys(("row", "scale", "seed", "published", "finished", "wall_s"))
            entry |= {"artifact": name, "run_id": folder.name, "folder": str(folder)}
            entry |= {"state": "damaged", "done": 0.0, "stage": None}
            try:
                config = read_config(folder)
                entry.update(row=config.row, scale=config.scale, seed=config.seed, run_id=config.id)
                entry.update(run_state(config, runs_dir, artifact.cost(config).tokens))
                if entry["state"] == "finished":
                    record = load_record(folder / "record.json")
                    entry.update(finished=record["finished"], wall_s=record["wall_s"])
            except RmtlibError as error:
                entry["stage"] = str(error)
            entries[entry["run_id"]] = entry
        published = [
            record for scale in (None, PILOT) for record in find_records(name, scale=scale, where=(results_dir,))
        ]
        for record in published:
            entry = entries.setdefault(
                record["run_id"],
                {key: record[key] for key in ("artifact", "row", "scale", "seed", "run_id", "finished", "wall_s")}
                | {"state": "published", "done": 1.0, "stage": None, "folder": None},
            )
            entry["published"] = str(record_path(record, results_dir))
    return list(entries.values())
