"""Published weights: of one finished run each, small enough for a repository, with a card that names their record.

results/checkpoints/ holds NAME.safetensors, the model's tensors alone, and NAME.json, the card, sealed like a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.files import write_atomically
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.records import load_record, record_path
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import check_seal, read_json, to_jsonable, write_sealed
from rmtlib.training import checkpoint

FOLDER = "checkpoints"
MOST_BYTES = 2_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # the first that is small enough
PREFIX = "model."
AGAIN = "publish it again: rmtlib publish ARTIFACT --checkpoint"


def publish_weights(
    artifact: Artifact,
    config: RunConfig,
    name: str,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
) -> Path:
    """Write the weights of a finished run and their card; the card's path.

    Weights that are rounded to bfloat16 are tested again on the record's test samples, and the card has both results.

    Raises:
        RmtlibError: the run is not finished, there is no published record of it, or its weights are too large.
    """
    if Path(name).name != name or name in ("", ".", ".."):
        raise RmtlibError(f"a checkpoint cannot be called {name!r}: give a name without folders")
    folder = run_folder(config, runs_dir)
    if not (folder / "record.json").exists():
        raise RmtlibError(f"{folder} has no record: train this run first (rmtlib run {artifact.name})")
    record = load_record(folder / "record.json")
    published = record_path(record, results_dir)
    if not published.exists():
        raise RmtlibError(f"{published} does not exist: publish the record first (rmtlib publish {artifact.name})")
    if record["git"]["dirty"]:
        raise RmtlibError(f"{folder} was trained by uncommitted code: commit, then train it again with --fresh")
    if (found := checkpoint.load_checkpoint(folder)) is None:
        raise RmtlibError(f"{folder} has no checkpoint: train this run again with --fresh")
    tensors, state = found
    weights = {key.removeprefix(PREFIX): x for key, x in tensors.items() if key.startswith(PREFIX)}
    dtype, content = _small_enough(name, weights)
    rounded = {key: x.float() for key, x in load(content).items()}
    own = record["metrics"]
    tested = own if dtype == "float32" else _tested(artifact, config, folder, tensors, state, rounded)
    card = {
        "name": name,
        "artifact": config.artifact,
        "row": config.row,
        "scale": config.scale,
        "seed": config.seed,
        "run_id": config.id,
        "own_record": load_record(published)["sha256"] == record["sha256"],
        "config": config.to_json(),
        "file": f"{name}.safetensors",
        "sha256_of_file": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "dtype": dtype,
        "parameters": sum(x.numel() for x in weights.values()),
        "metrics_of_run": own,
        "metrics": tested,
    }
    place = Path(results_dir) / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / str(card["file"]), content)
    write_sealed(place / f"{name}.json", card)
    return place / f"{name}.json"


def _small_enough(name: str, weights: dict[str, Tensor]) -> tuple[str, bytes]:
    """The first of `DTYPES` in which the file is small enough, and its content."""
    for dtype, kind in DTYPES.items():
        content = save({key: x.detach().to(kind).contiguous() for key, x in weights.items()})
        if len(content) <= MOST_BYTES:
            return dtype, content
    raise RmtlibError(f"{name} has {len(content):,} bytes in {dtype}, more than {MOST_BYTES:,}: choose a smaller run")


def _tested(
    artifact: Artifact,
    config: RunConfig,
    folder: Path,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    rounded: dict[str, Tensor],
) -> dict[str, Any]:
    """What the run's own tests make of other weights: its execution goes on behind its training."""
    with tempfile.TemporaryDirectory() as scratch:
        changed = tensors | {f"{PREFIX}{key}": x for key, x in rounded.items()}
        with contextlib.suppress(FileNotFoundError):  # checkpoints of later code hold their log
            shutil.copy2(folder / "metrics.jsonl", scratch)
        checkpoint.save_checkpoint(Path(scratch), changed, state)
        return dict(to_jsonable(artifact.execute(config, RunFolder(scratch)).metrics))


def weights_names(results_dir: str | Path = "results") -> list[str]:
    """The names of all published weights."""
    return sorted(path.stem for path in (Path(results_dir) / FOLDER).glob("*.json"))


def load_published_weights(name: str, results_dir: str | Path = "results") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the tensors, in float32.

    Raises:
        RmtlibError: there are none of that name, or they were changed after they were written.
    """
    place = Path(results_dir) / FOLDER
    path = place / f"{name}.json"
    if not path.exists():
        known = ", ".join(weights_names(results_dir)) or f"none in {place}"
        raise RmtlibError(f"no published checkpoint is called {name!r}: there are {known}")
    card: dict[str, Any] = read_json(path, dict, AGAIN)
    check_seal(path, card, AGAIN)
    try:
        content = (place / str(card["file"])).read_bytes()
    except OSError as error:
        raise RmtlibError(f"{place / str(card['file'])} cannot be read ({error.strerror}): {AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != card["sha256_of_file"]:
        raise RmtlibError(f"{place / str(card['file'])} does not have the sha256 of its card: {AGAIN}")
    return card, {key: x.float() for key, x in load(content).items()}


def verify_weights(results_dir: str | Path = "results") -> list[str]:
    """What is wrong with published weights, a line each: hashes, sizes, records that do not exist, missing cards."""
    problems = []
    for name in weights_names(results_dir):
        path = Path(results_dir) / FOLDER / f"{name}.json"
        try:
            card, _ = load_published_weights(name, results_dir)
            config = RunConfig.from_json(card["config"])
        except RmtlibError as error:
            problems.append(str(error))
            continue
        if card["name"] != name or config.id != card["run_id"]:
            problems.append(
                f"{path} is of {card['name']}, run {card['run_id']}, and its config of {config.id}: {AGAIN}"
            )
        elif not (record := Path(results_dir) / config.artifact / f"{config.slug}.json").exists():
            problems.append(f"{path} names a record that does not exist: {record}")
        if card["bytes"] > MOST_BYTES:
            problems.append(f"{path} has {card['bytes']:,} bytes, more than {MOST_BYTES:,}: choose a smaller run")
    for path in sorted((Path(results_dir) / FOLDER).glob("*")):
        if path.suffix != ".json" and not path.with_suffix(".json").exists():
            problems.append(f"{path} has no card: delete it, or {AGAIN}")
    return problems
