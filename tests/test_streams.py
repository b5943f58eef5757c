"""Streams: columns, evaluation that counts every token once, BPTT-k with replay, exact resume."""

import json
import math

import numpy as np
import pytest
import torch
from test_transformer_xl import make

from rmtlib.data.streams import (
    Stream,
    enwik8_symbols,
    evaluation_segments,
    train_segment,
    train_segments,
    vocabulary,
    words_of,
)
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.language import Likelihood, likelihood
from rmtlib.models.interface import detach
from rmtlib.segments import IGNORE
from rmtlib.settings import to_params
from rmtlib.training import checkpoint
from rmtlib.training.bptt import Read, replayed_loss, window_loss
from rmtlib.training.sources import StreamSource
from rmtlib.training.stream_config import StreamConfig
from rmtlib.training.trainer import Trainer

V, S = 23, 5


def stream(length=211, seed=0) -> Stream:
    return Stream(np.random.default_rng(seed).integers(0, V, length).astype(np.uint16), before=3)


# Text


def test_enwik8_symbols_leave_out_newlines():
    data = np.frombuffer(b"ab\nca\n\nb\nd", dtype=np.uint8)
    splits = enwik8_symbols(data, (5, 3, 2))
    assert {name: ids.tolist() for name, ids in splits.items()} == {
        "train": [0, 1, 2, 0], "validation": [1], "test": [3]
    }  # fmt: skip


def test_every_line_ends_in_eos():
    assert list(words_of("a b\n\n c \n")) == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]
    assert vocabulary(words_of("b a b\nb a c\n")) == ["b", "<eos>", "a", "c"]  # by frequency, ties by spelling


# Columns


def test_training_columns_are_contiguous_and_predict_the_next_token():
    text = stream()
    count = train_segments(text, 3, S)
    assert count == 211 // 3 // S
    segments = [train_segment(text, 3, S, i) for i in range(count)]
    labels = torch.cat([s.labels_BS for s in segments], 1).numpy()
    inputs = torch.cat([s.input_ids_BS for s in segments], 1).numpy()
    for column in range(3):
        start = column * (211 // 3)
        assert (labels[column] == text.ids[start : start + count * S]).all()
        assert (inputs[column, 1:] == labels[column, :-1]).all()
        assert inputs[column, 0] == (3 if column == 0 else text.ids[start - 1])


def test_too_short_a_stream_is_refused():
    with pytest.raises(RmtlibError, match="use fewer columns"):
        train_segments(stream(20), 5, S)


@pytest.mark.parametrize("length", [1, 7, 50, 211])
@pytest.mark.parametrize("columns", [1, 4, 10])
def test_evaluation_has_every_token_as_target_once(length, columns):
    text, seen = stream(length), []
    for segment in evaluation_segments(text, columns, S):
        rows = segment.labels_BS != IGNORE
        seen += segment.labels_BS[rows].tolist()
    assert sorted(seen) == sorted(text.ids.tolist())
    joined_BT = torch.cat([segment.labels_BS for segment in evaluation_segments(text, columns, S)], 1)
    assert joined_BT[joined_BT != IGNORE].tolist() == text.ids.tolist()  # in order


# Evaluation


def test_bits_of_a_uniform_model_are_the_logarithm_of_its_vocabulary():
    model = make(vocab_size=204)
    with torch.no_grad():
        model.tokens.weight.zero_()
        model.softmax.bias_V.zero_()
    result = likelihood(model, stream(100), S)
    assert result.bits == pytest.approx(math.log2(204), abs=1e-12)
    assert result.perplexity == pytest.approx(204, abs=1e-9)
    assert result.tokens == 100


def test_likelihood_is_what_reading_token_by_token_gives():
    model, text = make(cache=300), stream(60)
    nats, state = 0.0, model.initial_state(1)
    with torch.no_grad():
        for token, before in zip(text.ids, [text.before, *text.ids[:-1]], strict=True):
            hidden, state = model.step(torch.tensor([[int(before)]]), state)
            nats -= model.logits(hidden)[0, 0, int(token)].item()
    assert likelihood(model, text, S, columns=1).nats == pytest.approx(nats, rel=1e-10)


def test_more_context_needs_state_and_a_baseline_depends_on_its_segment():
    text = stream(100)
    assert likelihood(make(), text, 5).nats != pytest.approx(likelihood(make(), text, 10).nats)
    cached = make(cache=200)
    assert likelihood(cached, text, 5).nats == pytest.approx(likelihood(cached, text, 10).nats, rel=1e-10)


def test_an_evaluation_stops_when_asked():
    with pytest.raises(Stopped):
        likelihood(make(), stream(), S, should_stop=lambda: True)


def test_units():
    assert Likelihood(math.log(2) * 30, 10).bits == pytest.approx(3)
    assert Likelihood(math.log(7) * 30, 30).perplexity == pytest.approx(7)


# BPTT-k


def reads(model, count, text=None):
    """Segments and the states before them, as training stores them: detached, the first one None."""
    text, found, state = text or stream(), [], None
    with torch.no_grad():
        for i in range(count):
            segment = train_segment(text, 2, S, i)
            found.append(Read(segment, state))
            state = model.initial_state(2) if state is None else state
            state = detach(model.step(segment.input_ids_BS, state)[1])
    return found


@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_gradient_reaches_exactly_k_segments_back(k):
    """Every reading of a segment gets embeddings of its own; all those of the k earlier ones get a gradient."""
    model = make(memory_tokens=2)
    recent = reads(model, 6)[-(k + 1) :]
    probes = []

    def probe(module, inputs, output):
        probes.append(torch.zeros_like(output, requires_grad=True))
        return output + probes[-1]

    handle = model.tokens.register_forward_hook(probe)
    loss, mean, _ = replayed_loss(model, recent, "stored")
    handle.remove()
    assert loss is mean and len(probes) == k + 1  # no segment before is read at all
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, probes))


@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_write_block_learns_from_the_k_earlier_segments_alone(k):
    """With k = 0 no written memory has a gradient: the write block learns nothing at all."""
    model, written = make(memory_tokens=2), []
    recent = reads(model, 6)[-(k + 1) :]
    step = model.step
    model.step = lambda *args, **options: written.append(step(*args, **options)) or written[-1]
    loss, _, _ = replayed_loss(model, recent, "stored")
    memories = [state.memory_BMD for _, state in written]
    gradients = torch.autograd.grad(loss, memories, allow_unused=True)
    assert [g is not None and bool(g.abs().sum() > 0) for g in gradients] == [True] * k + [False]


def test_with_the_auxiliary_loss_the_write_block_learns_at_k_0_too():
    model = make(memory_tokens=2, auxiliary_token=True)
    recent = reads(model, 1)
    loss, _, state = replayed_loss(model, recent, "stored", auxiliary=0.01)
    assert torch.autograd.grad(loss, state.memory_BMD)[0].abs().sum() > 0


def test_the_initial_memory_learns_only_within_reach():
    model = make(memory_tokens=2)
    recent = reads(model, 4)
    for last, reached in ((1, True), (2, True), (3, False)):
        loss, _, _ = replayed_loss(model, recent[max(last - 2, 0) : last + 1], "stored")
        gradient = torch.autograd.grad(loss, model.memory_MD, allow_unused=True)[0]
        assert (gradient is not None) == reached


@pytest.mark.parametrize("changes", [{"memory_tokens": 2}, {"memory_tokens": 2, "cache": 4}], ids=str)
def test_replay_from_the_stored_memory_repeats_what_was_read(changes):
    """With the same weights and no dropout the replay ends where reading once ended: the loss is that of one pass."""
    model = make(**changes)
    recent = reads(model, 5)
    plain, _, _ = replayed_loss(model, recent[-1:], "stored")
    for k in (1, 2, 4):
        loss, _, state = replayed_loss(model, recent[-(k + 1) :], "stored")
        torch.testing.assert_close(loss, plain)
    segment = recent[-1].segment
    torch.testing.assert_close(state, model.step(segment.input_ids_BS, recent[-1].state)[1])


def test_replay_from_the_newest_memory_reads_segments_again():
    """As released: the k earlier segments are read on top of a memory that has read them already."""
    model = make(memory_tokens=2)
    recent = reads(model, 5)
    state = recent[-1].state
    for segment, _ in recent[2:4]:
        _, state = model.step(segment.input_ids_BS, state)
    hidden, _ = model.step(recent[4].segment.input_ids_BS, state)
    expected = model.nll(hidden.flatten(0, 1), recent[4].segment.labels_BS.flatten()).mean()
    newest, _, _ = replayed_loss(model, recent[2:], "newest")
    stored, _, _ = replayed_loss(model, recent[2:], "stored")
    torch.testing.assert_close(newest, expected)
    assert abs(newest - stored) > 1e-9  # the memory of random weights forgets fast


def test_the_newest_memory_goes_with_the_stored_cache():
    model = make(memory_tokens=2, cache=4)
    recent, seen = reads(model, 5), []
    step = model.step
    model.step = lambda ids, state, **options: seen.append(state) or step(ids, state, **options)
    replayed_loss(model, recent[2:], "newest")
    assert seen[0].memory_BMD is recent[4].state.memory_BMD and seen[0].cache_LBPD is recent[2].state.cache_LBPD


def test_released_replay_gives_every_segment_the_cache_stored_for_it():
    """Three segments back, after a change of weights; the last segment has the cache of the replay."""
    model = make(memory_tokens=2, cache=4)
    recent, seen = reads(model, 6)[2:], []
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    step = model.step
    model.step = lambda ids, state, **options: (seen.append(state), step(ids, state, **options))[1]
    released, _, _ = replayed_loss(model, recent, "released")
    assert seen[0].memory_BMD is recent[-1].state.memory_BMD
    assert [state.cache_LBPD is read.state.cache_LBPD for state, read in zip(seen, recent, strict=True)] == [1, 1, 1, 0]
    assert all(state.memory_BMD.requires_grad for state in seen[1:])
    newest, _, _ = replayed_loss(model, recent, "newest")
    assert abs(released - newest) > 1e-9
    shorter = [replayed_loss(model, recent[-2:], replay)[0] for replay in ("released", "newest")]
    torch.testing.assert_close(*shorter, rtol=0, atol=0)


def test_a_window_has_the_losses_of_all_its_segments():
    model = make(memory_tokens=2)
    recent = reads(model, 3)
    loss, mean, state = window_loss(model, [read.segment for read in recent], None)
    singles = [replayed_loss(model, recent[: i + 1], "stored")[0] for i in range(3)]
    torch.testing.assert_close(loss, torch.stack(singles).mean())
    torch.testing.assert_close(mean, loss)
    parameters = list(model.parameters())
    actual = torch.autograd.grad(loss, parameters, allow_unused=True)
    expected = torch.autograd.grad(torch.stack(singles).mean(), parameters, allow_unused=True)
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_the_auxiliary_loss_is_added_but_not_reported():
    model = make(memory_tokens=2, auxiliary_token=True)
    recent = reads(model, 2)
    loss, mean, state = replayed_loss(model, recent, "stored", auxiliary=0.01)
    torch.testing.assert_close(loss, mean + 0.01 * model.auxiliary_loss(state))


# The loop


def config(**changes) -> StreamConfig:
    options = dict(steps=23, segment_size=S, batch_size=4, lr=3e-3, seed=0, evaluate_every=6, log_every=1)
    return StreamConfig(**(options | changes))


def trainer(folder, stop_after=None, text=None, model=None, **changes) -> Trainer:
    asked = []

    def should_stop():
        asked.append(1)
        return stop_after is not None and len(asked) > stop_after

    text = text or stream(4 * S * 9 + 3)  # nine segments an epoch
    model = model or make(memory_tokens=2, cache=3, auxiliary_token=True).float()
    model.dropout.p = 0.1
    for layer in model.layers:
        layer.dropout.p = 0.1
    validate = lambda m, _: -likelihood(m, stream(50, seed=1), S, columns=2).nats  # noqa: E731
    return Trainer(model, StreamSource(config(**changes), text), folder, validate, should_stop=should_stop)


@pytest.mark.parametrize(
    "changes",
    [
        dict(bptt=2),
        dict(bptt=2, replay="released"),
        dict(bptt=2, replay="none", auxiliary=0.01),
        dict(bptt=0),
        dict(bptt=2, order="rotated"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stop_after", [0, 4, 9, 14])
def test_a_stopped_run_continues_bitwise(tmp_path, changes, stop_after):
    whole = trainer(tmp_path / "whole", **changes).fit()
    with pytest.raises(Stopped):
        trainer(
            tmp_path / "parts", min(stop_after, 7) if changes.get("replay") == "none" else stop_after, **changes
        ).fit()
    parts = trainer(
        tmp_path / "parts", model=make(seed=9, memory_tokens=2, cache=3, auxiliary_token=True).float(), **changes
    )
    parts.fit()
    for name, x in whole.model.state_dict().items():
        assert torch.equal(x, parts.model.state_dict()[name]), name
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "parts/metrics.jsonl").read_text()


def batches(seed=0, order="rotated", epochs=2):
    """The targets of every step, (steps, columns, S), of nine segments an epoch; all tokens differ."""
    text = Stream(np.arange(4 * S * 9 + 3, dtype=np.uint16), before=3)
    source = StreamSource(config(seed=seed, order=order, steps=9 * epochs), text)
    return np.stack([source.next_batch(0, step, 0).content[0].labels_BS.numpy() for step in range(9 * epochs)])


def test_a_rotated_epoch_reads_every_segment_once_in_batches_of_its_own():
    """Nothing but the composition changes: each column has the same segments, in the same order but for where it
    begins; other seeds and epochs put others together."""
    plain = batches(order="text", epochs=1)
    found = [epoch for seed in (0, 1) for epoch in np.split(batches(seed), 2)]
    for rotated in found:
        for column in range(4):
            begin = int(np.flatnonzero((plain[:, column] == rotated[0, column]).all(1)).item())
            assert (rotated[:, column] == np.roll(plain[:, column], -begin, axis=0)).all()
    compositions = [{tuple(batch[:, 0]) for batch in epoch} for epoch in (plain, *found)]
    for i, one in enumerate(compositions):
        assert all(one != other for other in compositions[:i])
    assert (batches(0) == batches(0)).all()


def test_in_the_texts_order_all_seeds_and_epochs_have_the_same_batches():
    first, second = np.split(batches(0, "text"), 2)
    assert (first == second).all() and (first == batches(1, "text", 1)).all()
    assert (first == np.arange(4 * S * 9).reshape(4, 9, S).swapaxes(0, 1)).all()
    assert "order" not in to_params(config()) and to_params(config(order="rotated"))["order"] == "rotated"


def test_a_finished_run_trains_no_more(tmp_path):
    first = trainer(tmp_path).fit()
    again = trainer(tmp_path, model=make(seed=9, memory_tokens=2, cache=3, auxiliary_token=True).float()).fit()
    assert again.state == first.state and again.state.stage == 1 and again.state.tokens == 23 * 4 * S
    for name, x in first.model.state_dict().items():
        assert torch.equal(x, again.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "changes", [dict(bptt=2), dict(bptt=1, replay="newest"), dict(bptt=2, replay="none", auxiliary=0.01)], ids=str
)
def test_less_memory_gives_the_same_training_in_more_passes(tmp_path, monkeypatch, changes):
    """Batches of 5 in parts of 3 and 2, then of 2, 2 and 1, once given up in the middle: the weights are those of
    whole batches up to rounding, and the notes say so."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    runs = []
    for scarce in (False, True):
        model = make(memory_tokens=2, cache=3, auxiliary_token=True).double()
        run = trainer(tmp_path / str(scarce), model=model, text=stream(5 * S * 9 + 3), batch_size=5, **changes)
        for module in (model, *model.layers):
            module.dropout.p = 0.0
        one_pass, calls = run.source._pass, []

        def sometimes(model, segments, columns, one_pass=one_pass, calls=calls, scarce=scarce):
            calls.append(columns)
            if scarce and len(calls) in (1, 13):  # at the first pass of all, and at the second one of a later step
                raise torch.cuda.OutOfMemoryError
            return one_pass(model, segments, columns)

        run.source._pass = sometimes
        runs.append(run.fit())
    whole, parts = runs
    assert parts.state.micro_batch == 2 and not whole.state.notes
    assert [note.split(": ")[1] for note in parts.state.notes] == ["micro-batch 3", "micro-batch 2"]
    for name, x in whole.model.state_dict().items():
        torch.testing.assert_close(x, parts.model.state_dict()[name], rtol=1e-8, atol=1e-10)


def test_a_checkpoint_without_a_micro_batch_continues(tmp_path):
    """As earlier code left it."""
    with pytest.raises(Stopped):
        run = trainer(tmp_path, 4, bptt=1)
        save = run.save
        run.save = lambda: (setattr(run.state, "micro_batch", 0), save())
        run.fit()
    assert trainer(tmp_path, bptt=1).fit().state.micro_batch == 4


def test_stored_states_of_earlier_code_are_read_and_those_of_another_model_refused(tmp_path):
    """A field of the state that earlier code did not have stands as at the start; one that is unknown is refused."""
    with pytest.raises(Stopped):
        trainer(tmp_path, 4, bptt=1).fit()
    tensors, state = checkpoint.load_checkpoint(tmp_path)
    older = {name: x for name, x in tensors.items() if "cache_LBPD" not in name}
    checkpoint.save_checkpoint(tmp_path, older, state)
    run = trainer(tmp_path, bptt=1)
    run.restore()
    assert torch.equal(run.source.state.memory_BMD, tensors["extra.2.memory_BMD"])
    assert run.source.state.cache_LBPD.shape[2] == 0
    checkpoint.save_checkpoint(tmp_path, tensors | {"extra.2.scan_LBIN": torch.zeros(1)}, state)
    with pytest.raises(RmtlibError, match="the checkpoint is damaged .its stored states are those of another model"):
        trainer(tmp_path, bptt=1).restore()


def test_updates_and_tokens(tmp_path):
    """Replay: an update a segment. Without: one for k+1 segments, fewer at the end of an epoch; the same text."""
    for replay, updates in (("stored", 23), ("none", 3 + 3 + 2)):
        run = trainer(tmp_path / replay, bptt=2, replay=replay).fit()
        lines = [json.loads(x) for x in (tmp_path / replay / "metrics.jsonl").read_text().splitlines()]
        assert sum("loss" in line for line in lines) == updates
        assert run.state.tokens == 23 * 4 * S


def test_the_state_is_carried_through_an_epoch_and_not_into_the_next(tmp_path):
    run, seen = trainer(tmp_path, bptt=1, steps=20), []
    train_step = run._train_step
    run._train_step = lambda: (train_step(), seen.append([read.state is None for read in run.source.recent]))[0]
    run.fit()
    assert [i for i, states in enumerate(seen) if states == [True]] == [0, 9, 18]
    assert all(states == [True, False] for states in (seen[1], seen[10], seen[19]))


def test_a_stream_that_repeats_is_learned_and_the_best_weights_are_kept(tmp_path):
    text = Stream(np.tile(np.arange(7), 200).astype(np.uint8), before=6)
    torch.manual_seed(0)
    model = make(memory_tokens=1).float()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    validate = lambda m: -likelihood(m, text.head(100), S, columns=2).bits  # noqa: E731
    source = StreamSource(config(steps=150, lr=1e-2, bptt=1, evaluate_every=50), text)
    run = Trainer(model, source, tmp_path, lambda m, _: validate(m)).fit()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [line["validation"] for line in lines if "validation" in line]
    assert scores[-1] > -1.0 > scores[0]  # a uniform guess has -2.8
    model.eval()
    assert validate(run.model) == pytest.approx(max(scores))


def test_the_learning_rate_falls_as_a_cosine():
    c = config(steps=100, lr=1.0, warmup=10)
    assert c.learning_rate(0) == pytest.approx(0.1) and c.learning_rate(50) == pytest.approx(0.5)
    assert 0 < c.learning_rate(99) < 1e-3


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="replay"):
        config(replay="old")
    with pytest.raises(ValueError, match="bptt"):
        config(bptt=-1)
