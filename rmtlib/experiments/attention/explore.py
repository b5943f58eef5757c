"""What notebooks/explore.ipynb calls: a trained model, one sample that it answers, pictures of its attention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtlib.data.sources import cache_folder
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.attention import SegmentAttention, operations, read_attention
from rmtlib.experiments.algorithmic import run as algorithmic
from rmtlib.experiments.algorithmic.rows import TABLES, TaskRow
from rmtlib.experiments.algorithmic.scales import CONSTANT, Recipe, params_of
from rmtlib.experiments.algorithmic.settings import Params
from rmtlib.experiments.attention.drawing import draw_heads, draw_map
from rmtlib.experiments.attention.run import held_out, trained_model
from rmtlib.experiments.published import load_checkpoint, published_names
from rmtlib.models.mamba import Mamba
from rmtlib.report.figures import new_figure
from rmtlib.report.tables import Html
from rmtlib.report.view import image
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.records import find_records
from rmtlib.runs.spec import SCALES, RunConfig
from rmtlib.runs.training import default_device
from rmtlib.segments import IGNORE
from rmtlib.settings import from_dict, to_params
from rmtlib.training.checkpoint import MANIFEST

ARTIFACTS = ("attention-maps", "algorithmic")  # whose runs are looked into
TINY = Recipe(
    lengths=(1.0,),
    steps=(600,),
    enough=(0.99,),
    lr=3e-3,
    model=dict(
        d_model=64, n_layers=2, n_heads=4, d_head=16, d_ff=128, dropout=0.0, init_std=0.1, initial_memory="distinct"
    ),
    train=dict(
        batch_size=32, evaluate_every=50, weight_decay=0.0, beta2=0.98, clip_norm=0.25, horizon=CONSTANT, patience=1000
    ),
)  # fmt: skip
"""Under a minute of one core, for those who have trained nothing: four symbols instead of 24."""
TINY_SIZE = 4


@dataclass(frozen=True)
class Trained:
    """A trained model, the settings it was trained with, and in words where it comes from."""

    params: Params
    model: Any
    source: str


def open_model(task: str, segments: int, model: str, scale: str | None = None, *, steps: int = 600) -> Trained:
    """The model of a run of `attention-maps` or `algorithmic` in runs/, else a published one, else a tiny one.

    The tiny one is trained now and kept.

    Args:
        task, segments, model: of a row of `algorithmic`; the first that has them.
        scale: of the run; None: the largest that was run.
        steps: of the tiny model's training.

    Raises:
        RmtlibError: there is no such row; no finished run of that scale.
    """
    row, runs = _row(task, segments, model), Path("runs")
    found = [
        (config, folder)
        for artifact in ARTIFACTS
        for record in find_records(artifact, scale=scale, where=(runs,))
        if record["row"] == row.name and record["scale"] in SCALES and record["scale"] != "smoke"
        for config in [RunConfig.from_json(record["config"])]
        if ((folder := run_folder(config, runs)) / MANIFEST).exists()
    ]
    if found:
        config, folder = max(found, key=lambda pair: (SCALES.index(pair[0].scale), -pair[0].seed))
        params = from_dict(Params, config.params.get("training", config.params))
        return Trained(params, trained_model(params, folder), f"{config.title}, of {folder}")
    if scale is not None:
        raise RmtlibError(f"no finished run of {row.name} at scale {scale}: rmtlib run algorithmic --rows {row.name}")
    if row.name in published_names():
        published = load_checkpoint(row.name)
        return Trained(published.params, published.model.to(default_device()), str(published))
    params = tiny(row, steps)
    key = sha256(json.dumps(to_params(params), sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_folder() / "explore" / f"{row.name}-{key}"
    accuracy = algorithmic.execute(params, RunFolder(folder)).metrics["validation"]
    said = f"a tiny model of {params.tasks[-1].size} symbols, trained here; per-token accuracy {accuracy:.2f}"
    return Trained(params, trained_model(params, folder), said)


def tiny(row: TaskRow, steps: int) -> Params:
    """The settings of the row's tiny model."""
    shrink = 1.0 if row.task == "retrieval" else row.size / TINY_SIZE
    samples = dict(train_samples=None, validation_samples=64, test_samples=32, evaluation_batch=64)
    return params_of(row, replace(TINY, steps=(steps,)), 0, shrink=shrink, **samples)


def _row(task: str, segments: int, model: str) -> TaskRow:
    rows = [row for row in TABLES["algorithmic"] if not row.variant]
    for row in rows:
        if (row.task, row.segments, row.model) == (task, segments, model):
            return row
    known = sorted({f"{row.task} {row.segments} {row.model}" for row in rows})
    raise RmtlibError(f"no row has {task} {segments} {model}: choose task, segments and model of {', '.join(known)}")


@dataclass(frozen=True)
class Answered:
    """One sample as a model read it: tokens, targets and what it predicts in each segment (S), and all attention."""

    tokens: list[Tensor]
    targets: list[Tensor]
    predicted: list[Tensor]
    maps: list[SegmentAttention]

    def __str__(self) -> str:
        """A line for each segment: what is read, and if it answers, what should be and is answered."""
        lines = []
        for s, (read, asked, said) in enumerate(zip(self.tokens, self.targets, self.predicted, strict=True), start=1):
            line = f"segment {s} reads {_symbols(read)}"
            if (answers := asked != IGNORE).any():
                line += f"   to answer {_symbols(asked[answers])}   answered {_symbols(said[answers])}"
            lines.append(line)
        return "\n".join(lines)

    def reader(self) -> tuple[int, int]:
        """(layer, head), both from 1, that reads most in the last segment: memory, else the cache, else 1.1."""
        found = operations(self.maps[-1])
        for name in ("read", "cache"):
            if name in found:
                excess_LH = found[name].excess_LH
                layer, head = divmod(int(excess_LH.argmax()), excess_LH.shape[1])
                return layer + 1, head + 1
        return 1, 1

    def draw(self, layer: int, head: int) -> Html:
        """The attention of one head over all segments, with what it does with memory framed. Both count from 1."""
        L, _, H, _, _ = self.maps[0].weights_LBHTK.shape
        if not (1 <= layer <= L and 1 <= head <= H):
            raise RmtlibError(f"there is no head {layer}.{head}: layers are 1 to {L}, heads 1 to {H}")
        with new_figure(2.6 * len(self.maps), 3.0) as figure:
            axes = figure.subplots(1, len(self.maps), squeeze=False)[0]
            for s, (ax, one) in enumerate(zip(axes, self.maps, strict=True), start=1):
                weights_TK = one.weights_LBHTK[layer - 1, 0, head - 1].float().cpu().numpy()
                draw_map(ax, weights_TK, (one.cache, one.read, one.text, one.write))
                ax.set_title(f"segment {s}")
        return image(figure, f"Attention of head {layer}.{head} over {len(self.maps)} segments.")

    def draw_heads(self) -> Html:
        """How far above chance every head writes, carries and reads in every segment."""
        strips = [
            (f"segment {s}: {name}", found.excess_LH.flatten().float().cpu().numpy())
            for s, one in enumerate(self.maps, start=1)
            for name, found in operations(one).items()
        ]
        if not strips:
            raise RmtlibError("this model has neither memory nor cache: choose MODEL 'rmt', 'mt' or 'trxl'")
        with new_figure(7.0, 0.8 + 0.25 * len(strips)) as figure:
            ax = figure.subplots()
            picture = draw_heads(ax, strips, self.maps[0].weights_LBHTK.shape[2])
            figure.colorbar(picture, ax=ax, label="excess")
        tops = (f"{label}: {_name_of_top(strip, self.maps[0])}" for label, strip in strips)
        return image(figure, f"Excess of all heads; the highest of {'; '.join(tops)}.")


def _name_of_top(strip: np.ndarray, one: SegmentAttention) -> str:
    layer, head = divmod(int(strip.argmax()), one.weights_LBHTK.shape[2])
    return f"{layer + 1}.{head + 1} ({strip.max():+.2f})"


def answer(trained: Trained, index: int) -> Answered:
    """Test sample `index`, read with the true answers among its tokens."""
    return answer_own(trained, *held_out(trained.params, range(index, index + 1)))


@torch.no_grad()
def answer_own(trained: Any, segments: Sequence[Tensor], targets: Sequence[Tensor]) -> Answered:
    """A sample of one's own in segments (1, S), e.g. of `published.own_symbols`, read in the same way.

    Of a Mamba, which has no attention, there are no maps.
    """
    state, predicted = trained.model.initial_state(1), []
    for input_ids_BS in segments:
        hidden_BSD, state = trained.model.step(input_ids_BS, state)
        predicted.append(trained.model.logits(hidden_BSD[0]).argmax(-1))
    maps = [] if isinstance(trained.model, Mamba) else read_attention(trained.model, segments)
    return Answered([x[0] for x in segments], [x[0] for x in targets], predicted, maps)


def _symbols(ids: Tensor) -> str:
    """Token ids as they are in the data."""
    return " ".join(map(str, ids.tolist()))
