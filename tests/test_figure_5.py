"""The Figure 5 artifact: complete configs, a run from data to record, exact continuation, costs."""

import json

import pytest
import torch

from rmtlib.data.babi import TASKS
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.outcomes import unpack_outcomes
from rmtlib.experiments.babilong import artifact as figure_5
from rmtlib.experiments.babilong import run
from rmtlib.experiments.babilong.artifact import Figure5
from rmtlib.experiments.babilong.run import build_model, open_data
from rmtlib.experiments.babilong.selection import chosen, selection_table
from rmtlib.experiments.babilong.settings import Params, context_tokens
from rmtlib.report.measurements import Results
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.spec import RunConfig
from rmtlib.runs.storage import write_sealed
from rmtlib.runs.testing import TestSet, batches
from rmtlib.settings import from_dict

FIGURE = Figure5()


@pytest.fixture(autouse=True)
def no_files(monkeypatch, tmp_path):
    """As on a machine without data and network: the simulator and made-up books serve."""
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RMTLIB_DATA", raising=False)


@pytest.mark.parametrize("scale", FIGURE.scales)
@pytest.mark.parametrize("task", TASKS)
def test_configs_are_complete_json_and_give_trainable_settings(scale, task):
    config = FIGURE.config(task, scale, 0)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))).id == config.id
    params = from_dict(Params, config.params)
    train = params.train
    lengths = [stage.segments for stage in train.stages]
    assert lengths == sorted(lengths) and max(map(int, params.test_samples)) > max(lengths) - (scale == "smoke")
    cost = FIGURE.cost(config)
    assert cost.tokens > 0 and cost.flops > cost.tokens and cost.memory_bytes > 0 and cost.disk_bytes > 0


def test_paper_scale_is_appendix_c():
    params = from_dict(Params, FIGURE.config("qa1", "paper", 0).params)
    train = params.train
    assert params.backbone == "gpt2" and params.memory_tokens == 16 and train.segment_size == 512
    assert [stage.segments for stage in train.stages] == [1, 2, 4, 6, 8, 16, 32]
    assert train.batch_size == 64 and train.weight_decay == 0.01 and train.bptt_segments is None
    assert not params.every_question and max(map(int, params.test_samples)) * 512 > 10_000_000


def test_unknown_parameters_are_refused():
    data = FIGURE.config("qa1", "smoke", 0).to_json()["params"]
    with pytest.raises(RmtlibError, match="Params settings unknown or missing: memory_token, memory_tokens"):
        from_dict(Params, {("memory_token" if k == "memory_tokens" else k): v for k, v in data.items()})
    for part, key in (("train", "clip_norm"), ("backbone", "dropout")):  # nothing is left to a default
        less = {k: v for k, v in data[part].items() if k != key}
        with pytest.raises(RmtlibError, match=f"settings unknown or missing: {part}.{key}"):
            from_dict(Params, data | {part: less})


class Interrupted(RunFolder):
    """A folder that asks to stop after a number of questions about it."""

    def __init__(self, path, after: int):
        super().__init__(path)
        self.left = after

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_run_interrupted_in_training_and_testing_equals_one_that_was_not(tmp_path):
    config = FIGURE.config("qa1", "smoke", 0)
    whole = FIGURE.execute(config, RunFolder(tmp_path / "whole"))
    stops = 0
    for after in (7, 9, 5, 1, 2):
        try:
            FIGURE.execute(config, Interrupted(tmp_path / "parts", after))
        except Stopped:
            stops += 1
    parts = FIGURE.execute(config, RunFolder(tmp_path / "parts"))
    assert stops >= 4
    assert parts.metrics == whole.metrics and parts.curves == whole.curves and parts.tokens == whole.tokens
    assert [p["segments"] for p in whole.metrics["exact_match"]] == [1, 2, 4]
    assert all(sum(unpack_outcomes(p["outcomes"], 32)) == p["correct"] for p in whole.metrics["exact_match"])
    assert {d["source"] for d in whole.data} == {"simulator"}
    assert abs(whole.tokens / FIGURE.cost(config).tokens - 1) < 0.25  # the plan's estimate of what was really read


def test_seeds_give_other_runs_on_the_same_test_set():
    params = [from_dict(Params, FIGURE.config("qa4", "smoke", seed).params) for seed in (0, 1)]
    one, two = (open_data("qa4", p) for p in params)
    for i in range(20):
        assert one.test.build(i, 100).tokens[:].tolist() == two.test.build(i, 100).tokens[:].tolist()
        assert one.train.build(i, 100).tokens[:].tolist() != two.train.build(i, 100).tokens[:].tolist()
    first, second = (build_model(p)[0].memory_MD for p in params)
    assert not torch.equal(first, second)


def test_test_results_of_other_weights_are_not_used(tmp_path):
    config = FIGURE.config("qa1", "smoke", 0)
    whole = FIGURE.execute(config, RunFolder(tmp_path))
    path = tmp_path / "evaluation.json"
    kept = json.loads(path.read_text())
    del kept["sha256"]
    other = kept["outcomes"] | {"1": "1" * 32}
    write_sealed(path, kept | {"outcomes": other})
    assert FIGURE.execute(config, RunFolder(tmp_path)).metrics != whole.metrics  # the same weights: taken as they are
    for unused in (
        kept | {"outcomes": other},
        kept | {"weights": "0" * 64, "outcomes": other},
    ):  # no seal, other weights
        path.write_text(json.dumps(unused))
        assert FIGURE.execute(config, RunFolder(tmp_path)).metrics == whole.metrics
    right = kept["outcomes"]["1"]
    for content in ("{", "[]", path.read_text().replace(right, "10"[int(right[0])] + right[1:])):
        path.write_text(content)
        with pytest.raises(
            RmtlibError, match=r"evaluation.json (is damaged|was changed) .*: delete this file; the tests"
        ):
            FIGURE.execute(config, RunFolder(tmp_path))
    write_sealed(path, kept | {"outcomes": {"1": "1" * 33}})
    with pytest.raises(RmtlibError, match=r"evaluation.json is damaged .*: delete this file; the tests"):
        FIGURE.execute(config, RunFolder(tmp_path))
    path.unlink()  # do what it says
    assert FIGURE.execute(config, RunFolder(tmp_path)).metrics == whole.metrics


def test_the_fallback_to_the_simulator_is_said_aloud(monkeypatch, capsys):
    monkeypatch.setattr(figure_5, "available_questions", lambda task: "files" if task == "qa4" else "simulator")
    monkeypatch.setattr(figure_5.sources, "fetch", lambda name: None)
    FIGURE.prepare("small", ["qa1", "qa4"])
    said = capsys.readouterr().err
    assert "bAbI's files of qa1 cannot be had here" in said and "qa4" not in said


def test_summary_says_what_the_records_show():
    points = [{"segments": n, "tokens": 128 * n, "n": 100, "correct": c} for n, c in ((1, 99), (4, 90), (8, 50))]
    metrics = {"exact_match": points, "train_segments": 4, "recency_accuracy": 0.527}
    records = [{"row": "qa1", "metrics": metrics, "data": [{"source": source}]} for source in ("local", "simulator")]
    lines = FIGURE.summary(records)
    assert lines == [
        "qa1: exact match 0.90 at 4 segments, the longest trained on (2 seeds, from 0.90 to 0.90)",
        "qa1: exact match 0.50 at 8 segments (from 0.50 to 0.50)",
        "qa1: naming the most recent answer alone would give 0.53; stories from bAbI's files and the simulator",
    ]


def test_regret_is_what_the_run_chosen_by_short_contexts_lacks_far_beyond_them():
    assert chosen([(0.9, 0.8), (0.95, 0.5), (0.7, 0.9)]) == (0.5, 1)  # never by how far it holds
    assert chosen([(0.95, 0.8), (0.95, 0.5), (0.7, 0.9)]) == (pytest.approx(0.65), 2)

    def record(seed, validation, far):
        points = [{"segments": n, "tokens": 128 * n, "correct": c, "n": 10} for n, c in ((2, 10), (16, far))]
        curve = [[0, 100, 1.0], [1, 50, 0.3], [1, 100, validation]]  # the first stage is of other lengths
        metrics = {"train_segments": 2, "exact_match": points, "recency_accuracy": 0.5}
        about = {"artifact": "figure-5", "row": "qa1", "scale": "medium", "seed": seed, "run_id": f"r{seed}"}
        return about | {"finished": str(seed), "metrics": metrics, "curves": {"validation": curve}, "data": []}

    results = Results(FIGURE.rows, lambda record: [], [record(0, 0.9, 8), record(1, 0.95, 5), record(2, 0.7, 9)])
    table = selection_table(results, "medium")
    assert [(row[1][0], *row[2:]) for row in table.rows] == [("3", "0.500", "0.733", "0.900", "0.400")]
    one = Results(FIGURE.rows, lambda record: [], [record(0, 0.9, 8)])
    assert selection_table(one, "medium") is None and selection_table(results, "small") is None


def test_answers_scored_as_text_belong_to_their_questions(tmp_path, monkeypatch):
    """Whoever writes each sample's own answer has all right; the same answers in another order have not."""

    def written(order):
        def answers(model, samples, segment_size, tokenizer, new_tokens, *, device):
            labels = [s.labels[0 : len(s.tokens)] for s in samples]
            said = [tokenizer.decode(x for x in each[each >= 0].tolist() if x != tokenizer.eos_id) for each in labels]
            return said[::order]

        return answers

    config = FIGURE.config("qa1", "smoke", 0)
    params = from_dict(Params, config.params)
    assert params.scored_as_text == (2, 32)
    for order in (1, -1):
        monkeypatch.setattr(run, "answers_in_text", written(order))
        folder = RunFolder(tmp_path / "run")  # trained once
        (folder.path / "evaluation.json").unlink(missing_ok=True)
        scored = FIGURE.execute(config, folder).metrics["babilong_scorer"]
        assert (scored["segments"], scored["n"]) == (2, 32)
        assert (scored["correct"] == 32) == (order == 1)


def test_contexts_of_ten_million_tokens_are_tested_sixteen_at_once():
    tokens = context_tokens(19_532, 512)
    (first, *_) = batches(TestSet("a", "a", 100, tokens, lambda indices: [], run.AT_ONCE), 64, 0)
    assert tokens > 10**7 and first.samples == 16
