"""Records: the JSON that a finished run leaves, sealed by a checksum, and their publication in results/."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.runs import provenance
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_record
from rmtlib.runs.folder import changed_inputs
from rmtlib.runs.schema import KEYS, LINE, SCHEMA, misshapen
from rmtlib.runs.spec import PILOT, Result, RunConfig
from rmtlib.runs.storage import check_seal, finite, json_sha256, read_json, to_jsonable, write_json

__all__ = ["KEYS", "find_records", "load_record", "make_record", "publish", "record_path", "verify", "write_record"]


def make_record(
    config: RunConfig,
    result: Result,
    slices: Sequence[dict[str, Any]],
    notes: Iterable[str],
    inputs: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The record of a finished run, not yet sealed. `inputs` are the files it is made from and their sha256.

    `slices` describe the processes that worked on the run one after another (see folder.py). Wall time adds
    up over them and peak memory is their maximum; hardware and packages are the last one's. Where their code
    differs, or any of it was not committed, git.dirty is true.
    """
    last = slices[-1]
    notes = list(notes) + list(result.notes)
    if len(slices) > 1:
        notes.append(f"trained in {len(slices)} slices, each continuing from the last one's checkpoint")
    for key, what in (
        ("modules_sha256", "rmtlib's modules"),
        ("hardware", "the hardware"),
        ("packages", "packages"),
    ):
        if any(part[key] not in (None, last[key]) for part in slices):
            notes.append(f"{what} changed between slices")
    commits = {part["git"]["commit"] for part in slices}
    mixed = len(commits) > 1 or len({part["modules_sha256"] for part in slices}) > 1
    if len(commits) > 1:
        notes.append(f"the git commit changed between slices: {', '.join(sorted(map(str, commits)))}")
    (metrics, curves), lost = finite(to_jsonable((result.metrics, result.curves)))
    if lost:
        notes.append(f"{lost} numbers were NaN or infinite and are null here")
    gpu = [part["peak_memory"]["gpu"] for part in slices if part["peak_memory"]["gpu"] is not None]
    host = max(part["peak_memory"]["host"] for part in slices)
    return {
        "schema": SCHEMA,
        "run_id": config.id,
        "artifact": config.artifact,
        "row": config.row,
        "scale": config.scale,
        "seed": config.seed,
        "config": config.to_json(),
        "metrics": metrics,
        "curves": curves,
        "data": to_jsonable(result.data),
        "packages": last["packages"],
        "hardware": last["hardware"],
        "precision": result.precision,
        "wall_s": round(sum(part["wall_s"] for part in slices), 2),
        "peak_memory_bytes": max(gpu) if gpu else host,
        "peak_host_memory_bytes": host,
        "tokens": int(result.tokens),
        "git": {
            "commit": last["git"]["commit"],
            "dirty": mixed or any(part["git"]["dirty"] for part in slices),
        },
        "modules_sha256": last["modules_sha256"],
        "notes": list(dict.fromkeys(map(_one_line, notes))),
        "micro_batch": result.micro_batch,
        "inputs": dict(inputs),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def write_record(path: str | Path, record: dict[str, Any]) -> dict[str, Any]:
    """Seal `record` with its sha256 and write it, whole or not at all; the sealed record.

    Raises:
        RmtlibError: a full disk, or a folder that cannot be written.
    """
    sealed = to_jsonable({key: value for key, value in record.items() if key != "sha256"})
    sealed["sha256"] = json_sha256(sealed)
    write_json(Path(path), sealed)
    return sealed


def load_record(path: str | Path) -> dict[str, Any]:
    """The record at `path`, verified: schema, checksum, and that it says of itself what its config says.

    A process verifies a text once: a page of the book reads the same records many times.

    Raises:
        RmtlibError: the record is missing, damaged, or was changed after it was written.
    """
    path = Path(path)
    remedy = _remedy(path)
    record: dict[str, Any] = read_json(path, dict, remedy)
    text = hashlib.sha256(path.read_bytes()).digest()
    if text not in _verified:
        _verify_record(path, record, remedy)
        _verified.add(text)
    return record


_verified: set[bytes] = set()
"""Digests of the files that were found whole."""


def _verify_record(path: Path, record: dict[str, Any], remedy: str) -> None:
    if wrong := misshapen(record):
        raise RmtlibError(f"{path} {wrong}: {remedy}")
    check_seal(path, record, remedy)
    try:
        config = RunConfig.from_json(record["config"])
    except RmtlibError as error:
        raise RmtlibError(f"{path}: {error}: {remedy}") from error
    for key in ("artifact", "row", "scale", "seed"):
        if record[key] != getattr(config, key):
            raise RmtlibError(f"{path}: {key} is {record[key]!r}, its config says {getattr(config, key)!r}: {remedy}")
    if record["run_id"] != config.id:
        raise RmtlibError(f"{path}: run id {record['run_id']!r}, its config's is {config.id!r}: {remedy}")


def _remedy(path: Path) -> str:
    if path.name == "record.json":
        return "delete this file, and the same command makes it again from the run's checkpoint"
    return f"restore it (git checkout -- {path}), or delete it and publish the run again"


def find_records(
    artifact: str, *, scale: str | None = None, where: Sequence[str | Path] = ("runs", "results")
) -> list[dict[str, Any]]:
    """All finished, verified records of an artifact in the folders `where`, by row, scale and seed.

    `scale` None means all scales of results: trials (scale "pilot") come only if asked for. One record per run id: if
    several folders hold one, the first folder's.

    Raises:
        RmtlibError: a record is damaged.
    """
    records: dict[str, dict[str, Any]] = {}
    for root in where:
        folder = Path(root) / artifact
        for path in sorted([*folder.glob("*/record.json"), *folder.glob("*.json")]):
            record = load_record(path)
            if record["scale"] == scale or (scale is None and record["scale"] != PILOT):
                records.setdefault(record["run_id"], record)
    return sorted(records.values(), key=lambda record: (record["row"], record["scale"], record["seed"]))


def record_path(record: dict[str, Any], results_dir: str | Path = "results") -> Path:
    """Where a published record lies: results/<artifact>/<slug>.json."""
    config = RunConfig.from_json(record["config"])
    return Path(results_dir) / config.artifact / f"{config.slug}.json"


@dataclass
class Publication:
    """What `publish` did: paths written, that held that record already, and removed; runs refused or left out."""

    published: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def publish(
    artifact: Artifact,
    *,
    slugs: Iterable[str] | None = None,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
) -> Publication:
    """Copy complete, clean records from runs/ to results/<artifact>/<slug>.json.

    `slugs` are the runs to publish (None: all that runs/ holds but those of scale smoke, which show nothing).
    Unfinished runs, damaged records and records of uncommitted code are refused, each with its reason; the others are
    published all the same. A published record of the same row, scale and seed but another config is superseded: its
    file is removed. (Trials of a row and seed stand side by side.)

    Raises:
        RmtlibError: there is no such run, or results/ cannot be written.
    """
    root = Path(runs_dir) / artifact.name
    names = sorted(path.name for path in root.glob("*") if path.is_dir()) if slugs is None else list(slugs)
    if not names:
        raise RmtlibError(f"nothing to publish: {root} holds no runs; train some with `rmtlib run {artifact.name}`")
    done = Publication()
    published = {path: load_record(path) for path in sorted((Path(results_dir) / artifact.name).glob("*.json"))}
    clean_code: dict[str, str] = {}
    for name in names:
        already = Path(results_dir) / artifact.name / f"{name}.json"
        if already in published and not (root / name).exists():
            done.unchanged.append(str(already))
            continue
        try:
            if not (root / name / "record.json").exists():
                raise RmtlibError("not finished; the command that started it continues it")
            record = load_record(root / name / "record.json")
            if slugs is None and record["scale"] == "smoke":
                done.left_out.append(name)
                continue
            if why := check_record(record, artifact)[0]:
                raise RmtlibError(f"impossible numbers ({why}): train it again with --fresh")
            if changed := changed_inputs(root / name, record.get("inputs", {})):
                raise RmtlibError(f"{changed} is not what its record was made from: train it again with --fresh")
            _refuse_unclean(record, clean_code)
            _refuse_mixture(record, published.values())
        except RmtlibError as error:
            done.refused.append({"run": name, "reason": str(error)})
            continue
        target = record_path(record, results_dir)
        if target in published and published[target] == record:
            done.unchanged.append(str(target))
            continue
        write_record(target, record)
        done.published.append(str(target))
        for path, other in published.items():
            same_cell = _cell(other) == _cell(record) and record["scale"] != PILOT
            if same_cell and other["run_id"] != record["run_id"] and path.exists():
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                done.superseded.append(str(path))
        published[target] = record
    return done


def _refuse_unclean(record: dict[str, Any], clean_code: dict[str, str]) -> None:
    again = "commit, then train it again with --fresh"
    if record["git"]["dirty"]:
        raise RmtlibError(f"made by uncommitted or changing code: {again}")
    if record["git"]["commit"] is None:  # trained from a copy without git: is its code what is committed here?
        if not clean_code:
            state = provenance.git_state()
            committed = state["commit"] is not None and not state["dirty"]
            clean_code["sha256"] = provenance.modules_sha256() if committed else ""
        if record["modules_sha256"] != clean_code["sha256"]:
            raise RmtlibError(f"made outside a git checkout, by modules that are not those committed here: {again}")


def _refuse_mixture(record: dict[str, Any], published: Iterable[dict[str, Any]]) -> None:
    """A row of scale paper is published in one precision."""
    for other in published:
        same_row = all(other[name] == record[name] for name in ("artifact", "row", "scale"))
        if same_row and record["scale"] == "paper" and other["precision"] != record["precision"]:
            raise RmtlibError(
                f"it is in {record['precision']}, and results/ has the row in {other['precision']}: a mean over both "
                "would be of two kinds of runs; delete those records first to publish this one"
            )


def _cell(record: dict[str, Any]) -> tuple[Any, ...]:
    """Of these there is one published record each, but for trials."""
    return tuple(record[name] for name in ("artifact", "row", "scale", "seed"))


@dataclass
class Verification:
    """What `verify` found, one line each: what is wrong, and records with a value not computed anew, and why."""

    problems: list[str] = field(default_factory=list)
    not_recomputed: list[str] = field(default_factory=list)


def record_files(results_dir: str | Path = "results") -> list[Path]:
    """Every file of a published record; results/checkpoints has weights and no records."""
    return [path for path in sorted(Path(results_dir).rglob("*.json")) if path.parent.name != "checkpoints"]


def verify(artifacts: Mapping[str, Artifact], results_dir: str | Path = "results") -> Verification:
    """Rehash every published record, and compute its derived values anew.

    Checks what `load_record` checks, that the file's name and folder are the record's, that its code was committed (if
    the folder is in a git checkout with its whole history, in that one),
    that `artifacts` has its artifact, that no number is impossible or contradicts the settings
    (`Artifact.check_metrics`), and that no two records but trials claim the same row, scale and seed.
    """
    done = Verification()
    seen: dict[tuple[Any, ...], Path] = {}
    commits: dict[str, list[Path]] = {}
    for path in record_files(results_dir):
        try:
            record = load_record(path)
        except RmtlibError as error:
            done.problems.append(str(error))
            continue
        expected = record_path(record, results_dir)
        if path != expected:
            done.problems.append(f"{path} is misplaced: this record belongs into {expected}")
        if record["git"]["dirty"]:
            done.problems.append(f"{path} was made by uncommitted code: train it again from a clean checkout")
        if commit := record["git"]["commit"]:
            commits.setdefault(commit, []).append(path)
        if record["artifact"] not in artifacts:
            done.problems.append(f"{path} is of an unknown artifact: register {record['artifact']}, or delete the file")
            continue
        why, not_recomputed = check_record(record, artifacts[record["artifact"]])
        if why:
            done.problems.append(f"{path} has impossible numbers ({why}): {_remedy(path)}")
        if not_recomputed:
            done.not_recomputed.append(f"{path}: {not_recomputed}")
        cell = _cell(record)
        if cell in seen and record["scale"] != PILOT:
            done.problems.append(f"{path} and {seen[cell]} are of the same row, scale and seed: keep one")
        seen.setdefault(cell, path)
    for commit in provenance.unknown_commits(commits, results_dir):
        first, *more = commits[commit]
        others = f" (and {len(more)} more)" if more else ""
        done.problems.append(
            f"{first}{others} names commit {commit[:12]}, which this repository lacks: {_remedy(first)}"
        )
    return done
