"""Training: gradient reach of BPTT-k, recomputation, exact resume, early stopping, checkpoints that survive."""

import errno
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_rmt import V, make

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.models import reading
from rmtlib.models.interface import detach
from rmtlib.segments import Segment, cut, next_token_labels
from rmtlib.training import bptt, checkpoint, recompute, sources
from rmtlib.training import trainer as trainer_module
from rmtlib.training.captured import GraphsDropped
from rmtlib.training.curriculum import Stage, TrainConfig, draw_segments, learning_rate
from rmtlib.training.sources import CurriculumSource
from rmtlib.training.trainer import Trainer

S = 5


def batch(lengths, labelled, seed=0, border=True) -> list[Segment]:
    """Segments of random sequences; `labelled` is the set of segments whose tokens are to be predicted.

    `border`: also their first tokens, which are predicted from the segment before.
    """
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, V, n) for n in lengths]
    masks = [np.array([t // S in labelled and (border or t % S > 0) for t in range(n)]) for n in lengths]
    return list(cut(rows, [next_token_labels(r, m) for r, m in zip(rows, masks, strict=True)], S))


def gradients(model, run) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    run()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def replayed(model, segments, k):
    """BPTT-k by its definition: for every loss, run segments s-k .. s from the detached state before them."""
    states = [model.initial_state(len(segments[0].input_ids_BS))]
    for segment in segments:
        states.append(detach(model.step(segment.input_ids_BS, states[-1], segment.lengths_B)[1]))
    for s in range(len(segments)):
        state = states[max(s - k, 0)]  # states[0] is the initial state, with its graph
        for segment in segments[max(s - k, 0) : s + 1]:
            loss, state = reading.segment_loss(model, segment, state, True)
        if loss.requires_grad:
            loss.backward()


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("labelled", [{4}, {1, 2, 4}, {0, 1, 2, 3, 4}])
def test_bptt_k_equals_its_definition(k, labelled):
    model, segments = make(), batch([25, 18, 25], labelled)
    expected = gradients(model, lambda: replayed(model, segments, k))
    actual = gradients(model, lambda: bptt.backward(model, segments, bptt_segments=k))
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 2, None])
def test_gradient_reaches_exactly_k_segments_back(k):
    """Each segment gets input embeddings of its own; only those within reach of the last loss have a gradient."""
    model, segments = make(), batch([30], {5}, border=False)
    probes = [
        torch.zeros(1, S, model.decoder.config.d_model, dtype=torch.float64, requires_grad=True) for _ in segments
    ]
    embed, calls = model.decoder.embed, iter(probes)
    model.decoder.embed = lambda x: embed(x) + next(calls)
    bptt.backward(model, segments, bptt_segments=k)
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in probes]
    assert reached == [k is None or s >= 5 - k for s in range(6)]


def test_the_initial_memory_learns_only_within_reach():
    model, segments = make(), batch([30], {5}, border=False)
    for k, learns in ((4, False), (5, True), (None, True)):
        model.zero_grad(set_to_none=True)
        bptt.backward(model, segments, bptt_segments=k)
        moved = model.memory_MD.grad is not None and bool(model.memory_MD.grad.abs().sum() > 0)
        assert moved == learns


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_segments_gives_the_same_gradient(dropout):
    model, segments = make(dropout=dropout).train(), batch([25, 13], {1, 4})

    def run(**options):
        torch.manual_seed(0)
        bptt.backward(model, segments, **options)

    plain, recomputed = (gradients(model, lambda o=o: run(recompute=o)) for o in (False, True))
    for a, b in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(a, b)


def test_recomputation_keeps_memory_flat_in_the_number_of_segments():
    """Storage that the forward pass keeps for the backward pass, a segment: a state, not the activations."""

    def kept(segments, recomputed):
        storages = {}  # by address, held alive: what a view keeps counts whole

        def keep(x):
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            state = model.initial_state(2)
            run = recompute.recomputed_loss if recomputed else reading.segment_loss
            for segment in segments:
                _, state = run(model, segment, state, True)
                keep(state.memory_BMD)
        return sum(storage.nbytes() for storage in storages.values())

    model = make()
    recomputed, plain = (
        kept(batch([20 * S] * 2, {19}), r) - kept(batch([10 * S] * 2, {9}), r) for r in (True, False)
    )  # fmt: skip
    state = 2 * model.state_size() * 8
    ids_and_labels = 2 * 2 * S * 8
    assert recomputed <= 10 * (state + ids_and_labels) < 0.1 * plain


def test_state_of_a_finished_sample_gets_no_gradient_from_later_segments():
    model = make()
    both = gradients(model, lambda: bptt.backward(model, batch([5, 25], {0, 4})))
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, V, n) for n in (5, 25)]
    total = [torch.zeros_like(p) for p in model.parameters()]
    for row in rows:
        mask = np.array([t // S in {0, 4} for t in range(len(row))])
        alone = list(cut([row], [next_token_labels(row, mask)], S))
        total = [a + b for a, b in zip(total, gradients(model, lambda x=alone: bptt.backward(model, x)), strict=True)]
    for a, b in zip(both, total, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


class Repeat:
    """Samples whose second half repeats the first, across a segment border: learnable by a tiny model in seconds."""

    def __init__(self, index: int):
        row = np.random.default_rng(index).integers(0, 4, 6)
        self.tokens = np.concatenate([row, row])
        self.labels = next_token_labels(self.tokens, np.arange(12) >= 6)


class Counting:
    """The ids from 0 on, as long as wanted."""

    def __init__(self, length: int):
        self.tokens = np.arange(length) % V
        self.labels = next_token_labels(self.tokens)


def test_recomputation_begins_at_the_stage_that_needs_it(monkeypatch, tmp_path):
    seen = {}

    def accumulate(model, segments, *, recompute=False, **options):
        seen.setdefault(len(segments), recompute)
        return bptt.accumulate(model, segments, recompute=recompute, **options)

    monkeypatch.setattr(sources, "accumulate", accumulate)
    stages = tuple(Stage(n, 1, 1e-3) for n in (1, 2, 3))
    source = CurriculumSource(
        TrainConfig(stages, S, 2, 0, recompute=True, recompute_from=2), lambda stage, index: Counting(S * (stage + 1))
    )
    Trainer(make(), source, tmp_path, lambda model, stage: 0.0).fit()
    assert seen == {1: False, 2: True, 3: True}


def config(**kwargs) -> TrainConfig:
    options = dict(
        stages=(Stage(1, 9, 3e-3), Stage(2, 8, 1e-3)),
        segment_size=S,
        batch_size=4,
        seed=0,
        evaluate_every=4,
        log_every=1,
    )
    return TrainConfig(**(options | kwargs))


def trainer(folder, stop_after=None, model=None, **kwargs) -> Trainer:
    asked = []

    def should_stop():
        asked.append(1)
        return stop_after is not None and len(asked) > stop_after

    torch.manual_seed(0)
    model = model or make(dropout=0.1).float()
    score = kwargs.pop("score", None) or (lambda m, stage: float(sum(p.sum() for p in m.parameters()) * 1000 % 7))
    options = {name: kwargs.pop(name) for name in ("enough", "clip_value") if name in kwargs}
    sizes = kwargs.pop("segment_sizes", None)
    source = CurriculumSource(config(**kwargs), lambda stage, i: Repeat(i), sizes)
    return Trainer(model, source, folder, score, should_stop=should_stop, **options)


def test_a_killed_and_resumed_run_is_bitwise_the_run_that_was_not(tmp_path):
    whole = trainer(tmp_path / "whole").fit()
    for stop in (0, 1, 3, 4, 2, 6):  # before the first step, in both stages, on and off the evaluation steps
        with pytest.raises(Stopped, match="with a checkpoint in"):
            trainer(tmp_path / "parts", stop_after=stop).fit()
    parts = trainer(tmp_path / "parts").fit()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    one, two = ((tmp_path / x / "metrics.jsonl").read_bytes() for x in ("whole", "parts"))
    assert one == two and len(one.splitlines()) > 17
    finals = [checkpoint.load_checkpoint(tmp_path / x) for x in ("whole", "parts")]
    assert finals[0][1] == finals[1][1]


def test_a_run_that_dies_without_warning_loses_only_what_came_after_its_checkpoint(tmp_path):
    whole = trainer(tmp_path / "whole").fit()
    dying = trainer(tmp_path / "parts")
    step, taken = dying._train_step, []

    def die():
        taken.append(1)
        if len(taken) == 6:
            dying.save()
        if len(taken) == 8:  # the checkpoint is of step 5; lines of steps 6 and 7 are already in metrics.jsonl
            raise KeyboardInterrupt
        return step()

    dying._train_step = die
    with pytest.raises(KeyboardInterrupt):
        dying.fit()
    trainer(tmp_path / "parts").fit()
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert whole.state.samples == 17 * 4


class Recall:
    """The last token is the first one again, a segment later: only memory can carry it."""

    def __init__(self, index: int):
        key = np.random.default_rng(index).integers(1, 5)
        self.tokens = np.array([key, 0, 0, 0, 0, 0, 0, key])
        self.labels = next_token_labels(self.tokens, np.arange(8) == 7)


def test_training_learns_what_only_memory_can_carry(tmp_path):
    run = trainer(tmp_path, model=make().float(), stages=(Stage(1, 150, 5e-3),), batch_size=16, score=lambda *_: 0.0)
    run.source.sample = lambda stage, index: Recall(index)
    losses = [json.loads(line) for line in run.fit().metrics_path.read_text().splitlines()]
    losses = [line["loss"] for line in losses if "loss" in line]
    assert np.mean(losses[:3]) > np.log(4) > 0.5 > np.mean(losses[-10:])  # log 4: the key is guessed


def test_a_stage_stops_early_and_the_best_weights_go_on(tmp_path):
    """After more validations without a better score than its patience, as in the released code."""
    seen, scores = [], iter([0.5, 0.9, 0.1, 0.2, 0.3, 0.4])

    def score(model, stage):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores)

    run = trainer(tmp_path, stages=(Stage(1, 100, 1e-2),), evaluate_every=2, patience=3, score=score).fit()
    assert len(seen) == 6 and run.state.samples == 12 * 4
    assert all(torch.equal(v, seen[1][k]) for k, v in run.model.state_dict().items())
    assert not all(torch.equal(v, seen[5][k]) for k, v in run.model.state_dict().items())


def test_a_score_that_is_enough_ends_the_stage(tmp_path):
    scores = iter([0.5, 1.0, 0.0])
    made = trainer(
        tmp_path, score=lambda m, stage: next(scores), enough=1.0, evaluate_every=2, stages=(Stage(2, 50, 1e-3),)
    )
    made.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4]


def test_a_stage_may_have_segments_of_its_own_size(tmp_path, monkeypatch):
    sizes, plain = [], bptt.accumulate

    def spy(model, segments, **options):
        sizes.append({segment.input_ids_BS.shape[1] for segment in segments})
        return plain(model, segments, **options)

    monkeypatch.setattr(sources, "accumulate", spy)
    trainer(tmp_path, stages=(Stage(2, 1, 1e-3),) * 2, segment_sizes=(S, 3)).fit()
    assert sizes == [{S}, {3}]


def test_clipping_by_value(tmp_path):
    made = trainer(tmp_path, clip_value=1e-4, stages=(Stage(2, 1, 1e-3),))
    made.fit()
    largest = max(p.grad.abs().max().item() for p in made.model.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-4)


def test_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path):
    run = trainer(tmp_path, model=make().float())
    batch = run.source.next_batch(0, 0, 0)
    whole, parts = (gradients(run.model, lambda n=n: run.source.backward(run.model, batch, n)) for n in (4, 3))
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b)


def test_a_stage_that_ends_unlearned_is_noted(tmp_path):
    run = trainer(tmp_path, score=lambda model, stage: 0.25 + stage / 2, enough=(0.5, 0.5))
    run.fit()
    assert run.state.notes == ["stage 1 ended after 9 steps with a score of 0.250; 0.5 would have ended it as learned"]
    assert trainer(tmp_path / "never", score=lambda model, stage: 0.25, enough=1.01).fit().state.notes == []


def test_out_of_memory_halves_the_micro_batch_and_says_so(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    original = run.source.backward

    def scarce(model, batch, micro_batch):
        if micro_batch > 1:
            raise torch.cuda.OutOfMemoryError
        return original(model, batch, micro_batch)

    run.source.backward = scarce
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    run.fit()
    assert run.state.micro_batch == 1 and "micro-batch 2" in run.state.notes[0]
    assert len(run.state.notes) == 4  # each stage begins with the whole batch: it may need less memory


def test_out_of_memory_with_graphs_costs_the_graphs_and_not_the_batch(monkeypatch, tmp_path):
    run, failed = trainer(tmp_path), []
    backward = run.source.backward

    def scarce(model, batch, micro_batch):
        if not failed:
            failed.append(micro_batch)
            raise GraphsDropped
        return backward(model, batch, micro_batch)

    run.source.backward = scarce
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    run.fit()
    assert run.state.micro_batch == failed[0] == 4
    assert run.state.notes == ["out of memory in stage 1, step 0: no CUDA graphs in this stage"]


def test_a_loss_that_is_not_a_number_ends_the_run_in_one_line(tmp_path):
    run = trainer(tmp_path)
    torch.nn.init.constant_(run.model.memory_MD, float("nan"))
    with pytest.raises(RmtlibError, match="the loss is nan in stage 1, step 0; use a lower learning rate"):
        run.fit()


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path):
    run = trainer(tmp_path)
    before = {name: x.clone() for name, x in run.model.state_dict().items()}
    backward = run.source.backward

    def overflowing(*arguments):
        loss = backward(*arguments)
        run.model.memory_MD.grad[0, 0] = float("inf")
        return loss

    run.source.backward = overflowing
    with pytest.raises(RmtlibError, match="the gradient's norm is inf in stage 1, step 0; use a lower learning rate"):
        run.fit()
    assert all(torch.equal(x, before[name]) for name, x in run.model.state_dict().items())


def test_checkpoints_are_written_by_the_clock(tmp_path, monkeypatch):
    saves = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(trainer_module, "SAVE_SECONDS", seconds)
        here = trainer(tmp_path / str(seconds))
        here.save = lambda seconds=seconds: saves.append(seconds)
        here.fit()
    assert saves.count(0.0) == 17 + 2 and saves.count(1e9) == 2  # every step; and the end of each stage


def test_checkpoints_that_take_long_are_rarer(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "save_checkpoint", lambda *_: (saves.append(1), time.sleep(0.2)))
    saves = []
    trainer(tmp_path).fit()
    assert len(saves) < 17  # a step takes far less than twenty times as long as a checkpoint


@pytest.mark.parametrize("change", ["lost", "cut", "digit", "zeros"])
def test_no_log_makes_a_checkpoint_useless(change, tmp_path):
    """After a power cut the log may end anywhere, or be what somebody made of it: the checkpoint has its own copy."""
    whole = trainer(tmp_path / "whole").fit()
    with pytest.raises(Stopped):
        trainer(tmp_path / "parts", stop_after=8).fit()
    log = tmp_path / "parts" / "metrics.jsonl"
    content = log.read_text()
    log.unlink()
    if change == "cut":
        log.write_text(content[:-20])
    elif change == "digit":
        log.write_text(content.replace('"loss": 2', '"loss": 1').replace('"loss": 3', '"loss": 0'))
        assert log.read_text() != content
    elif change == "zeros":
        log.write_bytes(b"\0" * len(content))  # what some file systems leave of a file after a power cut
    parts = trainer(tmp_path / "parts").fit()
    assert log.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert parts.curve("loss") == whole.curve("loss") and parts.curve("validation") == whole.curve("validation")


def test_a_digit_changed_in_the_log_of_a_finished_run_is_not_taken_for_a_result(tmp_path):
    whole = trainer(tmp_path).fit().curve("loss")
    (tmp_path / "metrics.jsonl").write_text('{"stage": 1, "step": 1, "loss": 0.0}\n{')
    assert trainer(tmp_path).fit().curve("loss") == whole


@pytest.mark.parametrize("left", [1.0, 0.5, 0.0])
def test_a_checkpoint_of_earlier_code_without_its_log_says_what_is_missing(left, tmp_path):
    with pytest.raises(Stopped):
        trainer(tmp_path, stop_after=8).fit()
    tensors, state = checkpoint.load_checkpoint(tmp_path)
    content = (tmp_path / "metrics.jsonl").read_bytes()
    del tensors["log"]
    checkpoint.save_checkpoint(tmp_path, tensors, state | {"metrics_bytes": len(content)})
    (tmp_path / "metrics.jsonl").write_bytes(content[: int(left * len(content))] + b"later lines\n" * (left == 1.0))
    made = trainer(tmp_path).fit()
    assert made.state.samples == 17 * 4
    assert ((tmp_path / "metrics.jsonl").read_bytes()[: len(content)] == content) == (left == 1.0)
    assert [bool(note.count("of the log were lost")) for note in made.state.notes] == [True] * (left < 1.0)
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a descriptor is of from /proc")
def test_a_checkpoint_reaches_the_disk_before_the_one_before_it_is_deleted(tmp_path, monkeypatch):
    """What a power cut may take back is what was not synced: file and name, tensors first, then the manifest."""
    events = []

    def synced(descriptor, fsync=os.fsync):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append("folder" if os.path.isdir(path) else Path(path).name.split(".")[1])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "unlink", lambda path, unlink=Path.unlink: (events.append("deleted"), unlink(path)))
    for value in range(2):
        checkpoint.save_checkpoint(tmp_path, {"x": torch.full((2,), value)}, {})
    once = ["safetensors", "folder", "json", "folder"]
    assert events == [*once, *once, "deleted"]


def test_what_a_killed_save_left_is_cleaned_up(tmp_path):
    run = trainer(tmp_path)
    (tmp_path / "checkpoint-0123456789ab.safetensors.partial").write_bytes(b"half")
    run.fit()
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path, monkeypatch):
    run = trainer(tmp_path, stop_after=3)
    with pytest.raises(Stopped):
        run.fit()
    before = checkpoint.load_checkpoint(tmp_path)

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RmtlibError, match="the disk is full: cannot write"):
        trainer(tmp_path).fit()
    monkeypatch.undo()
    after = checkpoint.load_checkpoint(tmp_path)
    assert before[1] == after[1] and all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    assert not list(tmp_path.glob("*.partial"))


def test_a_log_that_cannot_be_written_is_a_one_line_error(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    run = trainer(tmp_path)
    with pytest.raises(RmtlibError, match="the disk is full: cannot write .*metrics.jsonl; free some space"):
        run.log(loss=1.0)


def test_a_damaged_checkpoint_is_a_one_line_error(tmp_path):
    with pytest.raises(Stopped):
        trainer(tmp_path, stop_after=3).fit()
    tensors = next(tmp_path.glob("*.safetensors"))
    content = tensors.read_bytes()
    for damaged in (content[:-100], content[:-1] + bytes([content[-1] ^ 1])):
        tensors.write_bytes(damaged)
        with pytest.raises(
            RmtlibError, match="the checkpoint is damaged .* delete .* to train this run from the start"
        ):
            trainer(tmp_path).fit()
    tensors.write_bytes(content)
    manifest = json.loads((tmp_path / "checkpoint.json").read_text())
    for changed in ({"step": 2}, {"unknown": 1}):
        state = manifest["state"] | changed
        (tmp_path / "checkpoint.json").write_text(json.dumps(manifest | {"state": state}))
        with pytest.raises(RmtlibError, match="the checkpoint is damaged .the state does not have its sha256"):
            trainer(tmp_path).fit()
    other = manifest | {"state": state, "state_sha256": checkpoint._state_sha256(state)}
    (tmp_path / "checkpoint.json").write_text(json.dumps(other))
    with pytest.raises(RmtlibError, match="its state lacks or adds unknown: other code wrote it"):
        trainer(tmp_path).fit()
    assert not list(tmp_path.glob("*.pt")) and not list(tmp_path.glob("*.pkl"))


def test_learning_rate_rises_and_falls_linearly():
    stage = Stage(1, 100, 1.0)
    rates = [learning_rate(stage, step, warmup=0.1, horizon=2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(101 / 190) and learning_rate(stage, 99, 0.1, 1.0) == pytest.approx(1 / 90)
    assert max(learning_rate(Stage(1, 15, 1.0), step, 0.1, 1.0) for step in range(15)) == 1.0  # it rises for 1.5 steps


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"horizon": 0.9}, "horizon is 0.9; it must be 1 or more"),  # the rate would fall below zero
        ({"bptt_segments": -1}, "bptt_segments is -1"),  # the released scripts' word for full BPTT
        ({"precision": "bf15"}, "precision is 'bf15'; it must be one of float32, bf16"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
    ],
)
def test_settings_that_would_train_wrongly_are_refused(wrong, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        config(**wrong)


def test_stage_lengths_are_uniform_from_one_to_n():
    drawn = [draw_segments(Stage(4, 1, 1.0), 0, i) for i in range(2000)]
    assert set(drawn) == {1, 2, 3, 4} and all(abs(drawn.count(n) / 2000 - 0.25) < 0.04 for n in range(1, 5))
    assert drawn != [draw_segments(Stage(4, 1, 1.0), 1, i) for i in range(2000)]
    assert draw_segments(Stage(0, 1, 1.0), 0, 3) == 0
