"""LoRA on models with memory: what is frozen, what is trained, what a checkpoint holds, and what does not fit."""

import math
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.lora.settings import Tuning
from rmtlib.experiments.lora.source import TuningSource
from rmtlib.models.armt import ARMT
from rmtlib.models.config import DecoderConfig, LoRAConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.lora import add_lora, keep_frozen_maps_in_bf16, trained_parameters
from rmtlib.models.rmt import RMT
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.trainer import Trainer

pytest.importorskip("peft")

V, D, R = 29, 16, 4
LORA = LoRAConfig(rank=R, alpha=8, dropout=0.1)
BACKBONE = "ab" * 32


def model(kind: str = "rmt", lora: LoRAConfig | None = LORA, memory: int = 3, names: str = "rmtlib", seed: int = 0):
    torch.manual_seed(seed)
    decoder = Decoder(DecoderConfig(V, D, 3, n_heads=2, positions="rotary", bias=False, names=names))
    made = ARMT(decoder, memory, 4) if kind == "armt" else RMT(decoder, memory)
    if lora is not None:
        add_lora(made, lora)
    return made


def text(length: int = 2000) -> Stream:
    """A text with something to learn: most tokens follow from the one before."""
    rng = np.random.default_rng(0)
    ids = [1]
    for _ in range(length - 1):
        ids.append(1 + (ids[-1] * 7 + int(rng.integers(3))) % (V - 1))
    return Stream(np.array(ids, dtype=np.uint16), 0)


def tuning(segments: int = 2, labels: str = "all", steps: int = 6, chunk: int = 8, batch: int = 8, **train) -> Tuning:
    made = dict(stages=(Stage(segments, steps, 1e-2),), segment_size=5, batch_size=batch // segments, seed=0,
                horizon=1.0, evaluate_every=3, patience=100, log_every=1) | train  # fmt: skip
    return Tuning(LORA, "synthetic", segments, labels, chunk, TrainConfig(**made), 100)


def trainer(folder, made, settings=None, should_stop=lambda: False, backbone=BACKBONE) -> Trainer:
    source = TuningSource(settings or tuning(), text(), backbone)
    return Trainer(made, source, folder, lambda model, _: -model.memory_MD.sum().item(), should_stop=should_stop)


@pytest.mark.parametrize("kind", ["rmt", "armt"])
def test_adapters_and_memory_are_trained_and_nothing_else(kind):
    made = model(kind)
    trained = {name for name, p in made.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora_" not in n} == {n for n, _ in made.named_parameters() if "decoder" not in n}
    assert all(".qkv.lora_" in name for name in trained if "lora_" in name)
    own = sum(p.numel() for n, p in made.named_parameters() if "decoder" not in n)
    assert trained_parameters(made) == own + 3 * R * (D + 3 * D)


@pytest.mark.parametrize(("names", "maps"), [("llama", ["q_proj", "k_proj", "v_proj"]), ("gpt2", ["c_attn"])])
def test_query_key_and_value_have_adapters_whatever_the_backbone_calls_them(names, maps):
    made = model(names=names)
    found = {name.split(".")[-4] for name, _ in made.named_parameters() if "lora_A" in name}
    assert found == set(maps)


@pytest.mark.parametrize("kind", ["rmt", "armt"])
def test_untrained_adapters_change_nothing_and_trained_ones_add_their_product(kind):
    plain, made = model(kind, None).eval(), model(kind).eval()
    ids = torch.randint(1, V, (2, 7))
    first, _ = plain.step(ids, plain.initial_state(2))
    assert torch.equal(made.step(ids, made.initial_state(2))[0], first)
    with torch.no_grad():
        for mine, block in zip(made.decoder.blocks, plain.decoder.blocks, strict=True):
            adapted = mine.attention.qkv
            adapted.lora_B["default"].weight.normal_(std=0.1)
            product = adapted.lora_B["default"].weight @ adapted.lora_A["default"].weight
            block.attention.qkv.weight += LORA.alpha / LORA.rank * product
    torch.testing.assert_close(made.step(ids, made.initial_state(2))[0], plain.step(ids, plain.initial_state(2))[0])
    assert not torch.allclose(made.step(ids, made.initial_state(2))[0], first)


def test_frozen_maps_in_bf16_give_what_autocast_gives():
    ids, found = torch.randint(1, V, (2, 7)), []
    for stored in (False, True):
        made = model().eval()
        if stored:
            keep_frozen_maps_in_bf16(made)
        with torch.autocast("cpu", torch.bfloat16):
            hidden, _ = made.step(ids, made.initial_state(2))
            loss = made.nll(hidden.flatten(0, 1), ids.flatten()).mean()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in made.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_checkpoint_holds_what_is_trained_and_frozen_weights_have_no_optimiser_state(tmp_path):
    made = model()
    before = {name: x.clone() for name, x in made.state_dict().items()}
    fitted = trainer(tmp_path, made).fit()
    (path,) = tmp_path.glob("checkpoint-*.safetensors")
    names = set(load_file(path))
    assert not any("base_layer" in name or "tokens" in name for name in names)
    assert {f"model.{name}" for name, p in made.named_parameters() if p.requires_grad} <= names
    assert all(p.requires_grad for p in fitted.optimizer.state)
    changed = {name for name, x in made.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == {name for name, p in made.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("labels", ["all", "last"])
def test_a_run_that_was_stopped_continues_bitwise(tmp_path, labels):
    settings = tuning(labels=labels)
    whole = trainer(tmp_path / "whole", model(), settings).fit()
    for after in (2, 3):
        asked = iter([False] * after + [True] * 99)
        with pytest.raises(Stopped):
            trainer(tmp_path / "parts", model(seed=0), settings, lambda asked=asked: next(asked)).fit()
    parts = trainer(tmp_path / "parts", model(), settings).fit()
    for name, x in whole.model.state_dict().items():
        assert torch.equal(x, parts.model.state_dict()[name]), name
    assert whole.curve("loss") == parts.curve("loss") and whole.state.tokens == parts.state.tokens


def _stopped(tmp_path):
    asked = iter([False] * 2 + [True] * 9)
    with pytest.raises(Stopped):
        trainer(tmp_path, model(), should_stop=lambda: next(asked)).fit()


def test_adapters_of_another_backbone_or_memory_size_are_refused_in_one_line(tmp_path):
    _stopped(tmp_path)
    with pytest.raises(RmtlibError, match=r"the checkpoint is damaged \(its stored states are those of another model"):
        trainer(tmp_path, model(), backbone="cd" * 32).fit()
    with pytest.raises(RmtlibError, match="its weights are those of another model"):
        trainer(tmp_path, model(memory=4)).fit()
    with pytest.raises(RmtlibError, match="its weights are those of another model"):
        trainer(tmp_path, model(lora=LoRAConfig(rank=R + 1))).fit()
    trainer(tmp_path, model()).fit()


def test_unknown_targets_and_a_missing_package_are_one_line(monkeypatch):
    with pytest.raises(RmtlibError, match="no linear map 'c_attn' for LoRA: use some of down, out, qkv, up"):
        model(lora=LoRAConfig(targets=("qkv", "c_attn")))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RmtlibError, match="pip install peft"):
        model()


def read(settings: Tuning, steps: int) -> list[list[int]]:
    """The targets of each step, sorted by where they stand."""
    source, index, found = TuningSource(settings, text(), BACKBONE), 0, []
    for step in range(steps):
        batch = source.next_batch(0, step, index)
        index += batch.samples
        found.append([int(x) for sample in batch.content[0] for x in sample.labels])
    return found


def test_rows_without_memory_and_with_any_number_of_segments_read_the_same_tokens_in_every_step():
    one = read(tuning(1), 60)
    assert read(tuning(2), 60) == read(tuning(4), 60) == read(tuning(8), 60) == one
    assert all(len(step) == 40 for step in one)
    epoch = 2000 // 40
    ids = text().ids[: epoch * 40].tolist()
    assert sorted(x for step in one[:epoch] for x in step) == sorted(ids)
    assert one[epoch:] != one[: 60 - epoch]  # another order in the next epoch


def test_labels_on_the_last_segment_are_those_of_windows_with_history():
    source = TuningSource(tuning(3, "last", batch=3, chunk=3), text(), BACKBONE)
    samples = [source.window(i) for i in range(20)]
    assert all((sample.labels[:-5] == -100).all() and (sample.labels[-5:] != -100).all() for sample in samples)
    assert max(len(sample.tokens) for sample in samples) == 15


def test_settings_whose_windows_do_not_fill_chunks_and_short_texts_are_one_line():
    with pytest.raises(ValueError, match="must be a multiple of segments, 3"):
        tuning(3)
    with pytest.raises(ValueError, match="must be whole chunks of 8"):
        tuning(2, batch=6)
    with pytest.raises(RmtlibError, match="the training text has 30 tokens, fewer than 40"):
        TuningSource(tuning(), text(30), BACKBONE)
    assert math.isclose(tuning().tokens, 6 * 40)
