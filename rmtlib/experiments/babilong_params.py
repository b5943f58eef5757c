"""The settings of a BABILong run, and what it costs. Light to import: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from rmtlib.errors import RmtlibError
from rmtlib.experiments.spec import Cost

if TYPE_CHECKING:
    from rmtlib.training.loop import TrainConfig

ANSWER_ROOM = 20  # tokens that the released scripts leave in the last segment for question, GEN, answer and EOS


@dataclass(frozen=True)
class Params:
    """All that a run depends on besides task and seed."""

    backbone: Mapping[str, Any]  # {"pretrained": name}, or the shape of a decoder that is trained from scratch
    memory_tokens: int
    memory_mask: str
    tokenizer: str  # "word-N" (N entries), "gpt2", "smollm2" or a hub name
    questions: str  # "files" or "simulator"
    background: str  # a collection of `data.books`, or "synthetic"
    join: str
    every_question: bool
    train: Mapping[str, Any]  # TrainConfig without the seed; stages as [segments, steps, lr]
    validation_samples: int
    test_samples: Mapping[str, int]  # segments -> number of test samples
    evaluation_batch: int  # samples evaluated at once

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Params":
        known = {field.name for field in fields(cls)}
        if set(data) != known:
            raise RmtlibError(f"run parameters unknown or missing: {', '.join(sorted(known ^ set(data)))}")
        return cls(**data)

    def train_config(self, seed: int) -> "TrainConfig":
        from rmtlib.training.curriculum import Stage
        from rmtlib.training.loop import TrainConfig

        settings = dict(self.train)
        stages = tuple(Stage(*stage) for stage in settings.pop("stages"))
        return TrainConfig(stages=stages, seed=seed, **settings)


def context_tokens(segments: int, segment_size: int) -> int:
    """Length of a context that fills `segments` segments together with its question and answer."""
    return segments * segment_size - ANSWER_ROOM


def cost(params: Params) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic."""
    shape = {"gpt2": (12, 768, 50_257), "smollm2": (30, 576, 49_152)}.get(params.backbone.get("pretrained", ""))
    if shape is None:
        entries = params.tokenizer.removeprefix("word-")
        shape = (params.backbone["n_layers"], params.backbone["d_model"], int(entries) if entries.isdigit() else 50_257)
    layers, width, vocabulary = shape
    block_weights = 12 * layers * width**2
    train = params.train
    S, batch, recompute = train["segment_size"], train["batch_size"], train.get("recompute", False)
    positions = (S + 2 * params.memory_tokens) / S  # memory tokens are computed too
    per_token = positions * (2 * block_weights + 2 * layers * (S + 2 * params.memory_tokens) * width)
    stages = [(max(segments, 1), steps) for segments, steps, _ in train["stages"]]
    trained = sum(steps * batch * context_tokens(1, S) * (1 + segments) // 2 for segments, steps in stages)
    every = train.get("evaluate_every", 100)
    validated = sum(-(-steps // every) * params.validation_samples * segments * S for segments, steps in stages)
    tested = sum(context_tokens(int(segments), S) * count for segments, count in params.test_samples.items())
    weights = block_weights + vocabulary * width
    kept = 1 if recompute else max(segments for segments, _ in stages)
    half = 2 if train.get("precision") == "bf16" else 1
    activations = (
        4 * 34 * layers * width * batch * S * positions * kept / half
    )  # 34 values a position (Korthikanti 2022)
    return Cost(
        tokens=trained + tested,
        flops=per_token * ((4 if recompute else 3) * trained + validated + tested),
        memory_bytes=int(16 * weights + activations),
        disk_bytes=20 * weights,  # weights, best weights, two moments, and the old file while the new one is written
    )
