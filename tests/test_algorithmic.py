"""Copy, reverse and retrieval: data as published, splits apart, answers as generated, training that learns."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from rmtlib.data.algorithmic import TASKS, Copy, LettersDrill, PairsDrill, Retrieval, Reverse, chunks, split_of
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.answers import answers, counts, forced_answers, generated_answers
from rmtlib.evaluation.counted import check_counts, token_accuracy, token_interval, whole_answers
from rmtlib.experiments.algorithmic.artifact import Algorithmic, AlgorithmicLong
from rmtlib.experiments.algorithmic.rows import LONG, SHORT, TaskRow
from rmtlib.experiments.algorithmic.run import execute
from rmtlib.experiments.algorithmic.scales import SMALL, params_of, settings
from rmtlib.experiments.algorithmic.settings import Params
from rmtlib.experiments.algorithmic.source import TaskSource
from rmtlib.models.config import TransformerXLConfig
from rmtlib.models.registry import build, size_of
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder
from rmtlib.segments import IGNORE, cut
from rmtlib.settings import from_dict
from rmtlib.training.bptt import backward
from rmtlib.training.plateau import Plateau, PlateauConfig
from rmtlib.training.trainer import Trainer

ARTIFACT = Algorithmic()


def tiny(row: TaskRow, seed: int = 0, **changes) -> Params:
    params = settings(row, "smoke", seed)
    return replace(params, **changes)


def row(task: str, segments: int, model: str, memory: int = 0, variant: str = "") -> TaskRow:
    return TaskRow(task, segments, model, memory, size=4 if task == "retrieval" else 24, variant=variant)


# Data.


def test_copy_and_reverse_by_the_definition():
    content = np.array([4, 9, 2, 7])
    copied, reversed_ = Copy(4).lay_out(content), Reverse(4).lay_out(content)
    assert copied.tokens.tolist() == [4, 9, 2, 7, 1, 4, 9, 2, 7, 4, 9, 2]
    assert copied.labels.tolist() == [IGNORE] * 4 + [4, 9, 2, 7, 4, 9, 2, 7]
    assert reversed_.tokens.tolist() == [4, 9, 2, 7, 1, 7, 2, 9]
    assert reversed_.labels.tolist() == [IGNORE] * 4 + [7, 2, 9, 4]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_task_too_small_for_a_split_is_refused_in_one_line(split):
    with pytest.raises(RmtlibError, match=f"no copy of size 3 is in the {split} split; raise size or alphabet"):
        Copy(3, 2).sample(split, 0, 0)


def test_retrieval_by_the_definition():
    content = np.array([13, 3, 11, 9, 16, 0, 21, 5, 11])
    sample = Retrieval(4).lay_out(content)
    assert sample.tokens.tolist() == [*content, 10]
    assert sample.labels.tolist() == [IGNORE] * 9 + [9]


@pytest.mark.parametrize(("name", "size", "vocabulary"), [("copy", 24, 12), ("reverse", 24, 12), ("retrieval", 4, 37)])
def test_samples_have_the_declared_sizes(name, size, vocabulary):
    task = TASKS[name](size)
    assert task.vocabulary == vocabulary
    seen = set()
    for index in range(300):
        sample = task.sample("train", index, 0)
        assert len(sample.tokens) == len(sample.labels) == task.length
        assert (sample.labels != IGNORE).sum() == task.answer_size and sample.labels[-1] != IGNORE
        seen |= set(sample.tokens.tolist())
    everything = set(range(37)) if name == "retrieval" else {1, *range(2, 12)}
    assert seen == everything


def test_pairs_of_retrieval_do_not_repeat():
    for index in range(50):
        tokens = Retrieval(4).sample("train", index, 0).tokens
        assert len(set(tokens[0:8:2].tolist())) == 4 and len(set(tokens[1:8:2].tolist())) == 4
        assert tokens[8] in tokens[0:8:2] and tokens[9] == 10


def test_a_drill_with_pairs_asks_them_once_more_and_at_each_digit_the_letter_before():
    orders = set()
    for index in range(20):
        tokens, labels = (x.tolist() for x in vars(PairsDrill(3).sample("train", index, 0)).values())
        pairs, again = [[*zip(part[::2], part[1::2], strict=True)] for part in (tokens[:6], tokens[6:])]
        assert sorted(pairs) == sorted(again) and labels[:6] == [IGNORE] * 6
        assert [*zip(labels[7::2], labels[6::2], strict=True)] == again
        orders.add(tuple(map(pairs.index, again)))
    assert len(orders) > 3
    assert len(labels) == PairsDrill(3).length and len(labels[6:]) == PairsDrill(3).answer_size


def test_a_drill_with_letters_asks_for_their_digits_and_shows_none_of_them():
    orders = set()
    for index in range(20):
        tokens, labels = (x.tolist() for x in vars(LettersDrill(3).sample("train", index, 0)).values())
        letters, digits, again = tokens[0:6:2], tokens[1:6:2], tokens[6:]
        assert sorted(letters) == sorted(again) and min(again) > 10 > max(digits)
        assert labels[0:6:2] == [IGNORE] * 3 and labels[1:6:2] == letters
        assert labels[6:] == [digits[letters.index(letter)] for letter in again]
        orders.add(tuple(map(letters.index, again)))
    assert len(orders) > 3
    assert len(labels) == LettersDrill(3).length and 6 == LettersDrill(3).answer_size


def test_splits_share_no_content_however_short():
    task, found = Copy(2), {}
    for split in ("train", "validation", "test"):
        found[split] = {tuple(task.sample(split, i, seed).tokens[:2]) for i in range(400) for seed in (0, 1)}
        assert {split_of(np.array(content)) for content in found[split]} == {split}
    assert not found["train"] & found["validation"] and not (found["train"] | found["validation"]) & found["test"]
    assert sum(map(len, found.values())) == 100  # all two-symbol contents are in one of them


def test_a_sample_is_a_function_of_its_arguments():
    same, other = (Reverse(24).sample("train", 7, seed).tokens for seed in (3, 4))
    assert (Reverse(24).sample("train", 7, 3).tokens == same).all() and (same != other).any()


def test_a_fixed_set_is_used_whole_in_a_new_order_each_time():
    source = TaskSource(tiny(row("copy", 3, "baseline"), train_samples=20))
    epochs = [[tuple(source.training_sample(1, 20 * e + i).tokens) for i in range(20)] for e in range(2)]
    assert set(epochs[0]) == set(epochs[1]) and epochs[0] != epochs[1]


def test_chunks_are_those_of_torch():
    for length, target in ((10, 5), (10, 4), (10, 3), (10, 2), (10, 10), (72, 24), (72, 12), (72, 8), (48, 8)):
        pieces = torch.arange(length).chunk(length // target)
        assert chunks(length, target) == (len(pieces), len(pieces[0]))
    assert chunks(10, 4)[0] == 2 and chunks(10, 3)[0] == 3  # published as 3 and 4 segments


@pytest.mark.parametrize("make", [lambda: Copy(0), lambda: Retrieval(11), lambda: LettersDrill(11), lambda: Copy(4, 1)])
def test_impossible_tasks_are_refused(make):
    with pytest.raises(RmtlibError):
        make()


# Rows.


def test_rows_have_the_published_sizes():
    assert size_of(settings(SHORT[0], "paper", 0).model)["parameters"] == 923_148
    assert size_of(settings(LONG[0], "paper", 0).model)["parameters"] == 922_890
    assert len({r.name for r in (*SHORT, *LONG)}) == len(SHORT) + len(LONG)
    for r in SHORT:
        params = settings(r, "paper", 0)
        assert params.segment_sizes[-1] == -(-params.tasks[-1].length // r.segments)
        size = params.segment_sizes[-1]
        asked = {3: 4, 4: 3}.get(r.published, size)  # tgt_len, of which torch.chunk made the size
        assert r.memory in (0, asked, size // 2)
        if r.authors:
            assert r.authors.least <= r.authors.mean <= r.authors.most


# Answers.


def drawn_model(kind: str, task, memory: int = 3, seed: int = 1):
    config = TransformerXLConfig(
        task.vocabulary, 16, 2, 2, 8, 32, dropout=0.0, init_std=0.3, initial_memory="distinct",
        memory_tokens=memory * (kind in ("rmt", "mt")), recurrent=kind != "mt", cache=memory * (kind == "trxl"),
    )  # fmt: skip
    return build(config, seed=seed).double().eval()


@pytest.mark.parametrize("kind", ["baseline", "mt", "trxl", "rmt"])
@pytest.mark.parametrize("true_starts", [False, True])
@pytest.mark.parametrize(("task", "segments"), [(Copy(5), 3), (Reverse(6), 4), (Retrieval(4), 3)])
def test_generation_is_the_argmax_of_full_passes(kind, task, segments, true_starts):
    """Position by position: run everything again with what was predicted so far, take the argmax there."""
    model, size = drawn_model(kind, task), task.segment_size(segments)
    samples = [task.sample("test", i, 0) for i in range(5)]
    right_BA = generated_answers(model, samples, size, true_starts=true_starts)
    tokens = np.stack([s.tokens for s in samples])
    for position in range(task.length - task.answer_size, task.length):
        state, predicted = model.initial_state(5), None
        for start in range(0, position + 1, size):
            hidden, state = model.step(torch.from_numpy(tokens[:, start : start + size]), state)
            predicted = model.logits(hidden).argmax(-1)
        predicted = predicted[:, position % size].numpy()
        wanted = np.array([s.labels[position] for s in samples])
        assert (right_BA[:, position - task.length].numpy() == (predicted == wanted)).all()
        if position + 1 < task.length and not (true_starts and (position + 1) % size == 0):
            tokens[:, position + 1] = predicted


@pytest.mark.parametrize("decoding", ["generated", "released"])
def test_only_wrong_samples_need_to_be_generated(decoding):
    task = Reverse(2, 2)
    model = drawn_model("rmt", task, seed=3)
    samples = [task.sample("train", i, 0) for i in range(40)]
    plain_BA = generated_answers(model, samples, 2, true_starts=decoding == "released")
    assert 0 < forced_answers(model, samples, 2).all(1).sum() < 40  # else the shortcut is not tried
    assert (answers(model, samples, 2, decoding) == plain_BA).all()


def test_counts_keep_what_intervals_need():
    right_BA = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    counted = counts(right_BA)
    assert counted == {"n": 4, "samples_by_correct": [1, 0, 1, 0, 2], "correct_by_position": [3, 2, 3, 2]}
    assert token_accuracy(counted) == 10 / 16 and whole_answers(counted) == 2
    assert check_counts(counted, 4, 4) is None
    assert "tokens are right" in check_counts(counted | {"correct_by_position": [3, 2, 3, 3]}, 4, 4)
    assert "add up" in check_counts(counted | {"samples_by_correct": [1, 0, 1, 0, 3]}, 4, 4)
    assert "not 5" in check_counts(counted, 5, 4)


def test_the_interval_counts_samples_not_tokens():
    """Tokens of a sample that are right or wrong together are worth one sample; independent ones are worth more."""
    together = {"n": 100, "samples_by_correct": [50, *[0] * 23, 50]}
    apart = {"n": 100, "samples_by_correct": [0] * 12 + [100] + [0] * 12}
    wide, narrow = token_interval(together), token_interval(apart)
    assert wide[1] - wide[0] == pytest.approx(0.19, abs=0.01)
    assert narrow[1] - narrow[0] < 0.05
    assert token_interval({"n": 100, "samples_by_correct": [0, 0, 100]})[1] == 1.0


def test_half_of_retrieval_can_be_answered_from_the_second_of_two_segments():
    """It holds v3 k4 v4 q: the digit of a letter asked for, if it is k4; else v3 is right for one of three letters."""
    right = []
    for index in range(2000):
        sample = Retrieval(4).sample("test", index, 0)
        v3, k4, v4, asked, _ = sample.tokens[5:]
        right.append(sample.labels[-1] == (v4 if asked == k4 else v3))
    assert np.mean(right) == pytest.approx(0.5, abs=0.04)


# Training.


def test_an_untrained_model_is_at_chance():
    task = Reverse(24)
    samples = [task.sample("test", i, 0) for i in range(100)]
    right_BA = forced_answers(drawn_model("rmt", task), samples, 24)
    assert 0.06 < right_BA.double().mean() < 0.14


@pytest.mark.parametrize(("variant", "reaches"), [("", True), ("detached", False)])
def test_the_loss_reaches_earlier_segments_unless_memory_is_detached(variant, reaches):
    params = tiny(row("copy", 3, "rmt", 24, variant))
    model = build(params.model, seed=0)
    samples = [params.tasks[-1].sample("train", i, 0) for i in range(4)]
    embedded = []

    def keep(_, inputs, output):
        output.retain_grad()
        embedded.append(output)

    model.tokens.register_forward_hook(keep)
    segments = list(cut([s.tokens for s in samples], [s.labels for s in samples], params.segment_sizes[-1]))
    backward(model, segments, bptt_segments=params.train.bptt_segments)
    assert len(embedded) == 3
    assert (embedded[0].grad is not None and embedded[0].grad.abs().sum() > 0) == reaches
    assert embedded[1].grad.abs().sum() > 0 and embedded[2].grad.abs().sum() > 0  # they have losses of their own


def test_the_cache_is_reset_between_batches_unless_it_is_carried():
    seen = {}
    for variant in ("", "carried"):
        params = tiny(row("reverse", 2, "trxl", 24, variant))
        model, source = build(params.model, seed=0), TaskSource(params)
        starts: list = []

        def step(*args, plain=model.step, starts=starts, **more):
            starts.append(args[1])
            return plain(*args, **more)

        model.step = step
        for index in range(2):
            source.backward(model, source.next_batch(1, index, 8 * index), 3)  # in passes of 3, 3 and 2 samples
        seen[variant] = [state.cache_LBPD.shape[2] for state in starts]
    assert seen[""][6:8] == [0, 6] and seen["carried"][:2] == [0, 6] and seen["carried"][6:8] == [6, 6]


def test_a_carried_cache_is_the_one_that_the_batch_before_left():
    params = tiny(row("reverse", 2, "trxl", 24, "carried"))
    model, source = build(params.model, seed=0), TaskSource(params)
    batches = [source.next_batch(1, index, 8 * index) for index in range(2)]
    losses = [source.backward(model, batch, 8) for batch in batches]
    state, expected = model.initial_state(8), []
    for samples, size, _ in (batch.content for batch in batches):
        nll = []
        for segment in cut([s.tokens for s in samples], [s.labels for s in samples], size):
            hidden, state = model.step(segment.input_ids_BS, state)
            wanted = segment.labels_BS != IGNORE
            nll.append(model.nll(hidden[wanted], segment.labels_BS[wanted]))
        expected.append(torch.cat(nll).mean().item())
    assert losses == pytest.approx(expected, rel=1e-5)


def test_the_rate_falls_on_a_plateau_down_to_its_floor():
    plateau = Plateau(PlateauConfig(patience=1, factor=0.5, floor=0.3))
    rates = []
    for score in (0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3):
        plateau.hear(score)
        rates.append(plateau.learning_rate(1.0))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]


def small(task_row: TaskRow) -> Params:
    """Three of six symbols, which a model of 32 dimensions learns to reverse in seconds."""
    recipe = replace(
        SMALL,
        lengths=(1.0,),
        steps=(250,),
        enough=(0.98,),
        lr=3e-3,
        growing=False,
        end=1.0,
        model={**SMALL.model, "d_model": 32, "n_heads": 2, "init_std": 0.2},
        train={**SMALL.train, "batch_size": 64, "precision": "float32", "warmup": 0.1},
    )
    samples = dict(train_samples=None, validation_samples=64, test_samples=64, evaluation_batch=64)
    return replace(params_of(task_row, recipe, 0, shrink=8, **samples), alphabet=6)


@pytest.mark.parametrize(("model", "learns"), [("rmt", True), ("mt", False)])
def test_reverse_is_learned_by_the_model_whose_memory_is_written(tmp_path, model, learns):
    result = execute(small(row("reverse", 2, model, 24)), RunFolder(tmp_path))
    generated = token_accuracy(result.metrics["test"]["generated"])
    assert generated > 0.6 if learns else generated < 0.3
    assert result.metrics["validation"] == max(score for _, _, score in result.curves["validation"])


def test_training_resumes_with_its_plateau_cache_and_optimiser(tmp_path):
    """Stopped after every step, a run in two stages gives bitwise the weights of one that was not."""
    params = tiny(
        row("reverse", 2, "trxl", 24, "carried"), plateau=PlateauConfig(patience=0), enough=(2.0, 2.0), train_samples=30
    )

    def once(folder, stops):
        source, model = TaskSource(params), build(params.model, seed=0)
        asked = iter([False])  # one step, then a stop
        validate = lambda *_: 0.5  # noqa: E731
        return Trainer(model, source, folder, validate, should_stop=lambda: next(asked, stops)), source

    def trained(folder, stops):
        while True:
            trainer, source = once(folder, stops)
            try:
                return trainer.fit(), source
            except Stopped:
                continue

    (whole, source), (parts, resumed) = trained(tmp_path / "a", False), trained(tmp_path / "b", True)
    assert source.plateau.falls == resumed.plateau.falls > 0
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name
    assert (tmp_path / "a/metrics.jsonl").read_text() == (tmp_path / "b/metrics.jsonl").read_text()


# The artifact.


def test_a_run_makes_a_record_that_its_settings_allow(tmp_path):
    config = ARTIFACT.config("retrieval-3-rmt-3", "smoke", 0)
    result = ARTIFACT.execute(config, RunFolder(tmp_path))
    metrics = json.loads(json.dumps(result.metrics))
    assert ARTIFACT.check_metrics(metrics, result.curves, config) is None
    assert set(metrics["test"]) == {"generated", "forced", "released"} and metrics["segments"] == 3
    assert "by positions" in ARTIFACT.check_metrics(
        metrics | {"test": {"generated": metrics["test"]["forced"] | {"correct_by_position": [33 - 2]}}},
        result.curves,
        config,
    )
    assert "segments is" in ARTIFACT.check_metrics(metrics | {"segments": 4}, result.curves, config)
    assert "validation" in ARTIFACT.check_metrics(metrics | {"validation": 0.99}, result.curves, config)


@pytest.mark.parametrize("artifact", [ARTIFACT, AlgorithmicLong()], ids=lambda artifact: artifact.name)
def test_every_row_has_settings_and_a_cost(artifact):
    for scale in artifact.scales:
        for r in artifact.rows:
            config = artifact.config(r.name, scale, 0)
            assert from_dict(Params, config.params).segments == int(r.name.split("-")[1])
            assert artifact.cost(config).flops > 0
        assert set(artifact.default_rows(scale)) <= {r.name for r in artifact.rows}


def test_at_medium_what_cannot_know_all_answers_has_one_seed_unless_more_are_asked_for():
    seeds = Counter(config.row for config in select(ARTIFACT, "medium"))
    assert seeds["reverse-2-rmt-24"] == seeds["retrieval-3-trxl-3"] == 3
    assert {row for row, count in seeds.items() if count == 1} == {
        row for row in seeds if "baseline" in row or "-mt-" in row
    }
    assert len(select(ARTIFACT, "medium", rows="copy-1-baseline")) == 3
    assert len(select(ARTIFACT, "medium", 2, "copy-3-mt-24")) == 2


@pytest.mark.parametrize("segments", [6, 9])
def test_copy_grows_in_segments_that_are_no_longer_than_the_rows_own(segments):
    params = settings(row("copy", segments, "rmt"), "medium", 0)
    counts = [stage.segments for stage in params.train.stages]
    assert counts == sorted(counts) and counts[0] < segments == counts[-1] == counts[-2]
    assert max(params.segment_sizes) == params.segment_sizes[-1]
    assert [stage.lr for stage in params.train.stages] == [5e-4] * 6 + [1.25e-4]


def test_retrieval_begins_with_drills_in_one_segment_and_ends_with_the_task():
    params = settings(row("retrieval", 3, "rmt"), "medium", 0)
    kinds = [
        (type(task), task.size, stage.segments) for task, stage in zip(params.tasks, params.train.stages, strict=True)
    ]
    assert kinds[:4] == [(LettersDrill, 2, 1), *((LettersDrill, 4, segments) for segments in (1, 2, 3))]
    assert kinds[4:] == [(Retrieval, 4, 3)] * 2
    assert [stage.lr for stage in params.train.stages] == [2e-3] * 5 + [5e-4]
    assert {type(task) for task in settings(row("copy", 3, "rmt"), "medium", 0).tasks} == {Copy}
    for wrong, task in ((6, "retrieval"), (-1, "retrieval"), (1, "copy")):
        with pytest.raises(ValueError, match="only retrieval has drills"):
            replace(settings(row(task, 3, "rmt"), "medium", 0), drills=wrong)


def test_the_trials_of_the_first_drill_have_it_still():
    """Their records name samples by it, which another run of them must draw again."""
    trial = next(t for t in ARTIFACT.trials if t.name == "retrieval-2-rmt-5-drilled")
    tasks = from_dict(Params, trial.config.params).tasks
    assert [type(task) for task in tasks[:3]] == [PairsDrill] * 3 and tasks[0].name == "retrieval drill"
    assert trial.config.id == "d1c725c15a18"


def test_trials_are_no_results():
    assert len({trial.name for trial in ARTIFACT.trials}) == len(ARTIFACT.trials)
    for trial in ARTIFACT.trials:
        from_dict(Params, trial.config.params)
