"""The settings of every row of the artifact babilong at every scale: those of Figure 5, with another model.

All models of a task but those with LoRA read the same stream of samples; one that ends a stage early meets it elsewhere
in the next. The reader of retrieved sentences is asked the last question alone: an earlier answer could be retrieved.
"""

from dataclasses import replace
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.scales import LEARNED, NEVER, TRACKED, until_learned
from rmtlib.experiments.babilong.scales import settings as figure_5
from rmtlib.experiments.babilong.settings import MAMBA, MISTRAL, Params, recomputing
from rmtlib.experiments.babilong_table.rows import PRETRAINED
from rmtlib.models.config import DecoderConfig, LoRAConfig, MambaConfig, RWKVConfig
from rmtlib.training.curriculum import Stage

D_MEMORY = 64  # as published
MAMBA_RATE = 3e-4  # of the released script
FROM_SCRATCH_RATE = 5e-4  # where the other rows are pretrained
LONGEST = 8192  # tokens that full attention reads at once: SmolLM2's positions, and what a small one can afford
WHOLE_BATCH = 8  # samples of that length that are tested at once
REACH = {"gpt2": 1024, "smollm2": LONGEST, MISTRAL: 32_768}  # positions of pretrained backbones
LORA_RATE, MISTRAL_RATE = 5e-4, 1e-4


def with_model(params: Params, model: str) -> Params:
    """The same run with another model."""
    if model == "mamba":
        return _with_mamba(params)
    if model == "rwkv":
        return _with_rwkv(params)
    if model == "full-attention":
        return _with_full_attention(params)
    if model == "full-attention-lora":
        return _with_lora(params)
    if model == "window":
        return replace(params, memory_tokens=0)
    kind: Any = model
    if model in ("rag", "rag-dense"):
        return replace(params, kind=kind, memory_tokens=0)
    return replace(params, kind=kind, d_memory=D_MEMORY if model == "armt" else 0)


def _with_mamba(params: Params) -> Params:
    """Mamba-130m where the decoder is pretrained too, with the released rate; else one of the same width.

    Its blocks have about half of a decoder block's weights, so there are twice as many.
    """
    b, params = params.backbone, replace(params, kind="mamba", memory_tokens=0)
    if isinstance(b, str):
        stages = tuple(replace(stage, lr=MAMBA_RATE) for stage in params.train.stages)
        return replace(params, backbone=MAMBA, tokenizer=MAMBA, train=replace(params.train, stages=stages))
    return replace(params, backbone=MambaConfig(b.vocab_size, b.d_model, 2 * b.n_layers))


def _with_rwkv(params: Params) -> Params:
    """An RWKV-5 of the decoder's width, depth and heads, from scratch at every scale.

    Its pretrained weights are published as pickles, which are not loaded here, and in no package registry.
    """
    shape = params.shape
    assert isinstance(shape, DecoderConfig)
    backbone = RWKVConfig(shape.vocab_size, shape.d_model, shape.n_layers, head_width=shape.d_head)
    if isinstance(params.backbone, str):
        stages = tuple(replace(stage, lr=FROM_SCRATCH_RATE) for stage in params.train.stages)
        params = replace(params, train=replace(params.train, stages=stages))
    return replace(params, kind="rwkv", backbone=backbone, memory_tokens=0)


def _with_full_attention(params: Params) -> Params:
    """The backbone on whole samples, in training and in the tests as far as it reaches; the steps stay.

    A sample is one segment, of which recomputation would save nothing.
    """
    reach = REACH.get(params.backbone, LONGEST) if isinstance(params.backbone, str) else LONGEST
    longest = reach // params.train.segment_size
    stages = tuple(stage for stage in params.train.stages if stage.segments <= longest)
    train = replace(params.train, stages=stages, recompute=False, recompute_from=0)
    tests = {segments: count for segments, count in params.test_samples.items() if int(segments) <= longest}
    batch = min(params.evaluation_batch, WHOLE_BATCH)
    params = replace(params, kind="full-attention", memory_tokens=0, evaluation_batch=batch)
    whole = replace(params, train=train, enough=(), test_samples=tests)
    return until_learned(whole) if params.enough else whole


def _with_lora(params: Params, rate: float = LORA_RATE) -> Params:
    whole = _with_full_attention(params)
    stages = tuple(replace(stage, lr=rate) for stage in whole.train.stages)
    return replace(whole, lora=LoRAConfig(), train=replace(whole.train, stages=stages))


def _lora_medium(task: str, seed: int) -> Params:
    """SmolLM2 on facts alone, then on one segment of 512 tokens; tested on up to four."""
    params = figure_5(task, "gpu", seed, "smollm2")
    stages = (Stage(0, 300, LORA_RATE), Stage(1, 100, LORA_RATE))
    train = replace(params.train, stages=stages, batch_size=8, evaluate_every=50)
    tests = {"1": 200, "2": 100, "4": 50}
    return _with_lora(replace(params, train=train, enough=(LEARNED, NEVER), test_samples=tests, validation_samples=50))


def _lora_paper(task: str, seed: int) -> Params:
    """Section 3.3: Mistral-7B on as many samples as three epochs of 1,000 have, here without a repetition.

    The paper says neither how long they were nor that LoRA tuned the model; here they have up to 2k tokens.
    """
    params = figure_5(task, "paper", seed)
    stages = (Stage(4, 3000 // WHOLE_BATCH, MISTRAL_RATE),)
    train = replace(params.train, stages=stages, batch_size=WHOLE_BATCH, evaluate_every=50)
    mistral = replace(params, backbone=MISTRAL, tokenizer=MISTRAL, train=train, validation_samples=100)
    return replace(_with_lora(mistral, MISTRAL_RATE), evaluation_batch=1)


def _medium(task: str, seed: int) -> Params:
    """Figure 5's medium with a layer more, in which every stage but the last ends when it is learned, and longer tests.

    The first stage, of the facts alone, takes at most 800 steps; on two facts 3,000 and on three 5,000, with stories
    that never come again and half the steps of the other stages, as these tasks cost most.
    """
    params = figure_5(task, "medium", seed)
    first, *others = params.train.stages
    if task in TRACKED:
        others = [replace(stage, steps=stage.steps // 2) for stage in others]
    else:
        first = replace(first, steps=800)
    train = replace(params.train, stages=(first, *others))
    shape, tests = params.backbone, {"0": 500, **params.test_samples, "512": 50}
    assert isinstance(shape, DecoderConfig)
    params = replace(params, backbone=replace(shape, n_layers=3), train=train, test_samples=tests)
    return until_learned(replace(params, endless=task in TRACKED))


def _as_released(params: Params, model: str, task: str) -> Params:
    """What the released scripts of ARMT, Mamba and RMT-R have otherwise than RMT's."""
    train, longer = params.train, (2, 3, 5, 8, 16, 32)
    if model == "armt":
        steps = (*[10_000] * 5, 30_000)
        stages = tuple(Stage(n, count, 1e-4, evaluate_every=250) for n, count in zip(longer, steps, strict=True))
        return replace(params, memory_tokens=10, train=replace(train, stages=stages, warmup=0.1, patience=50))
    if model == "mamba":
        steps = (2000, *[10_000] * 4, 30_000)
        stages = tuple(
            Stage(n, count, MAMBA_RATE, evaluate_every=count // 20) for n, count in zip(longer, steps, strict=True)
        )
        return replace(params, train=replace(train, stages=stages, batch_size=128, warmup=0.1, weight_decay=2.0))
    if model.startswith("rmt-r"):
        rate = 3e-5 if task in ("qa3", "qa4") else 5e-5
        first = tuple(stage for stage in train.stages if stage.segments <= 2)  # it starts from a model of two segments
        stages = (*first, *(Stage(n, 10_000, rate, evaluate_every=50) for n in (4, 6, 8, 16, 32)))
        warmup = 0.05 if task == "qa3" else 0.1
        return replace(params, train=replace(train, stages=stages, warmup=warmup, weight_decay=1e-3))
    return params


def settings(model: str, task: str, scale: str, seed: int, stand_in: str = "") -> Params:
    """All that a run depends on; questions "auto" stand for what is on the machine. `stand_in`: as Figure 5 has it."""
    if scale not in PRETRAINED.get(model, (scale,)):
        raise RmtlibError(f"{model} has no settings at {scale}: use one of {', '.join(PRETRAINED[model])}")
    if model == "full-attention-lora" and scale != "gpu":
        return {"medium": _lora_medium, "paper": _lora_paper}[scale](task, seed)
    params = _medium(task, seed) if scale == "medium" else figure_5(task, scale, seed, stand_in)
    if scale == "small":  # as Figure 5 has at medium
        params = replace(params, tracked_questions=TRACKED.get(task, 0))
    params = with_model(params, model)
    if scale == "paper":
        params = _as_released(params, model, task)
    return recomputing(params) if params.train.recompute else params
