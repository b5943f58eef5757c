"""Train a model of an algorithmic task, or take over its weights, and record what its heads do with memory."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.attention import Operation, SegmentAttention, ablate_memory, operations, read_attention
from rmtlib.evaluation.operations import OPERATIONS, pack_weights
from rmtlib.experiments.algorithmic import run as algorithmic
from rmtlib.experiments.algorithmic.settings import Params as TrainingParams
from rmtlib.experiments.algorithmic.source import HELD_OUT_SEED
from rmtlib.experiments.attention.rules import top_head
from rmtlib.experiments.attention.settings import Params
from rmtlib.models.registry import build
from rmtlib.runs.folder import run_folder
from rmtlib.runs.records import load_record
from rmtlib.runs.spec import Result, RunConfig
from rmtlib.runs.training import default_device
from rmtlib.settings import from_dict
from rmtlib.training.checkpoint import MANIFEST
from rmtlib.training.trainer import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from rmtlib.runs.folder import RunFolder

AT_ONCE = 32  # samples whose weights are held at once: ten megabytes a segment at the published size


def execute(config: RunConfig, folder: "RunFolder") -> Result:
    """What `algorithmic` does with this row, then attention and lost memories of the trained model."""
    params = from_dict(Params, config.params)
    notes = take_over(config, folder.path)
    trained = algorithmic.execute(params.training, folder)
    model = trained_model(params.training, folder.path)
    if folder.should_stop():
        raise Stopped("stopped before reading attention; the same command goes on there, the training is kept")
    folder.progress("reading attention", 0, 1)
    segments, targets = held_out(params.training, range(params.samples))
    found = [
        {"segment": s, **{name: _to_record(operation) for name, operation in of_segment.items()}}
        for s, of_segment in enumerate(mean_operations(model, segments), start=1)
    ]
    tops = {name: head for name in OPERATIONS if (head := top_head(found, name)) is not None}
    correct, answers = ablate_memory(model, segments, targets)
    metrics = {
        "operations": found,
        "ablation": {"correct": correct, "answers": answers},
        "sample": {
            "tokens": torch.cat(segments, dim=1)[0].tolist(),
            "maps": shown_maps(read_attention(model, [ids_BS[:1] for ids_BS in segments]), tops),
        },
    }
    return Result(
        trained.metrics | metrics,
        trained.curves,
        trained.data,
        trained.tokens + (1 + len(segments)) * params.samples * params.training.tasks[-1].length,
        trained.precision,
        [*trained.notes, *notes],
    )


def training_config(config: RunConfig) -> RunConfig:
    """The run of `algorithmic` that trains the same model."""
    return RunConfig("algorithmic", config.row, config.scale, config.seed, config.params["training"])


def take_over(config: RunConfig, folder: "Path") -> list[str]:
    """Copy the weights of `algorithmic`'s finished run, if it is there: training would give the same again.

    Returns what the record has to say of it.
    """
    source = run_folder(training_config(config), folder.parent.parent)
    if not (folder / MANIFEST).exists():
        with suppress(RmtlibError, OSError):  # no run there, or not a whole one: it is trained here
            if load_record(source / "record.json")["git"]["dirty"]:
                return []
            for path in [source / "metrics.jsonl", *source.glob("checkpoint-*.safetensors")]:
                shutil.copy2(path, folder)
            (folder / "taken_over").write_text(source.name)
            shutil.copy2(source / MANIFEST, folder)
    if not (folder / "taken_over").exists():
        return []
    return [f"trained as {source.name} of algorithmic, whose record has the time that training took"]


def trained_model(params: TrainingParams, folder: "Path") -> Any:
    """The model of a finished run's folder, in eval mode. RmtlibError if it has no checkpoint."""
    model = build(params.model, seed=params.train.seed)
    load_weights(model, folder)
    return model.to(default_device()).eval()


def held_out(params: TrainingParams, indices: range) -> tuple[list[Tensor], list[Tensor]]:
    """These test samples, cut into segments: token ids and targets, each (B, S); the last one may be shorter."""
    task, size = params.tasks[-1], params.segment_sizes[-1]
    samples = [task.sample("test", index, HELD_OUT_SEED) for index in indices]
    device = default_device()

    def cut(rows: Sequence[Any]) -> list[Tensor]:
        return list(torch.stack([torch.from_numpy(row) for row in rows]).to(device).split(size, dim=1))

    return cut([sample.tokens for sample in samples]), cut([sample.labels for sample in samples])


def mean_operations(model: Any, segments: Sequence[Tensor]) -> list[dict[str, Operation]]:
    """What heads do in each segment, the mean over all samples, of which few are read at once."""
    count, parts = len(segments[0]), []
    for first in range(0, count, AT_ONCE):
        batch = [ids_BS[first : first + AT_ONCE] for ids_BS in segments]
        parts.append((len(batch[0]) / count, [operations(one) for one in read_attention(model, batch)]))
    means = []
    for s, of_segment in enumerate(parts[0][1]):
        means.append({
            name: Operation(
                sum((part * read[s][name].mass_LH for part, read in parts), torch.zeros(())),
                of_segment[name].chance,
                sum((part * read[s][name].keys_in_use_LH for part, read in parts), torch.zeros(())),
            )
            for name in of_segment
        })  # fmt: skip
    return means


def shown_maps(maps: Sequence[SegmentAttention], tops: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """The maps of the top heads of one sample, in every segment that has their operation."""
    return [
        {
            "segment": s,
            "operation": name,
            "layer": layer + 1,
            "head": head + 1,
            "blocks": [one.cache, one.read, one.text, one.write],
            "weights": pack_weights(one.weights_LBHTK[layer, 0, head].cpu()),
        }
        for s, one in enumerate(maps, start=1)
        for name, (layer, head) in tops.items()
        if name in operations(one)
    ]


def _to_record(operation: Operation) -> dict[str, Any]:
    """Layer by layer, head by head, with four digits."""
    return {
        "chance": round(operation.chance, 4),
        "mass": _rounded(operation.mass_LH),
        "keys_in_use": _rounded(operation.keys_in_use_LH),
    }


def _rounded(x_LH: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in x_LH.tolist()]
