"""Checkpoints that are either whole or absent: tensors in safetensors, everything else in a JSON manifest.

The tensors go to a new file; the manifest, which names that file and its sha256, is replaced last. A crash or a
full disk at any point leaves the previous pair in force. The manifest holds a sha256 of its own state as well.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.files import write_atomically

MANIFEST = "checkpoint.json"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint by `tensors` and the JSON-able `state`."""
    content = save({name: x.detach().contiguous() for name, x in tensors.items()})
    content_sha256 = hashlib.sha256(content).hexdigest()
    name = f"checkpoint-{content_sha256[:12]}.safetensors"
    write_atomically(folder / name, content)
    manifest = {"tensors": name, "sha256": content_sha256, "state": state, "state_sha256": _state_sha256(state)}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    for old in folder.glob("checkpoint-*.safetensors*"):  # also the partial file of a save that was killed
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The folder's checkpoint, or None if it has none.

    Raises:
        RmtlibError: it is damaged (not written by `save_checkpoint`, or changed since).
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        content = (folder / manifest["tensors"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            raise ValueError(f"{manifest['tensors']} does not have the manifest's sha256")
        if manifest["state_sha256"] != _state_sha256(manifest["state"]):
            raise ValueError("the state does not have its sha256")
        return load(content), manifest["state"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, why: object) -> RmtlibError:
    """The one-line error for a checkpoint that cannot be used."""
    return RmtlibError(
        f"{folder / MANIFEST}: the checkpoint is damaged ({why}); delete {folder} to train this run from the start"
    )


def _state_sha256(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def fingerprint(folder: Path) -> str:
    """The sha256 of the folder's checkpointed tensors: tells whether results belong to these weights.

    Raises:
        RmtlibError: there is no checkpoint, or it is damaged.
    """
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> dict[str, Tensor]:
    """The optimiser's state by parameter name, e.g. ``optimizer.decoder.norm.weight.exp_avg``."""
    return {
        f"optimizer.{names[p]}.{key}": value for p, state in optimizer.state.items() for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[Tensor, str], tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    for parameter, name in names.items():
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
        if state:
            # AdamW keeps its step count on the CPU whatever the parameter's device.
            optimizer.state[parameter] = {k: x if k == "step" else x.to(parameter.device) for k, x in state.items()}
