"""The artifact babilong-time: what is read and noted, with a clock that the test sets; numbers, verdicts, pages."""

import json
import os
from pathlib import Path

import fakes
import pytest
import torch
from fake_artifact import Fake

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.babilong_time import machine
from rmtlib.experiments.babilong_time import run as timing
from rmtlib.experiments.babilong_time.figure import STYLES
from rmtlib.experiments.babilong_time.machine import Machine
from rmtlib.experiments.babilong_time.numbers import contexts, floor_share, memory_growth, other_load, time_slope
from rmtlib.experiments.babilong_time.rows import LENGTHS, MINUTES, MODELS, ROWS
from rmtlib.experiments.babilong_time.rules import PAPER_SLOPE, RULES
from rmtlib.experiments.babilong_time.settings import Params, cost, flops_per_token
from rmtlib.experiments.registry import get_artifact
from rmtlib.experiments.view import view_of
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.plan import plan
from rmtlib.runs.scheduler import run as run_all
from rmtlib.segments import cut
from rmtlib.settings import from_dict, to_params

TIME = get_artifact("babilong-time")
MB = 10**6


class Clock(Machine):
    """A machine on which a second passes with every look at the clock, and memory stays as it is."""

    def __init__(self, load=1.0):
        super().__init__(torch.device("cpu"))
        self.seconds, self.of_load = 0.0, load

    def now(self):
        self.seconds += 1.0
        return self.seconds

    def cpu(self):
        return self.seconds / 2

    def load(self):
        return self.of_load

    def peak(self):
        return 300 * MB

    def product_flops(self, precision):
        return 1e12


def measured(row, folder, **settings):
    params = from_dict(Params, TIME.config(row, "smoke", 0).to_json()["params"] | settings)
    return params, timing.execute(params, RunFolder(folder), Clock())


def record(row, seed=0, *, power=1.0, growth=0.0, load=1.0, seconds=1e-5, scale="medium"):
    """Of a run whose time grows as that power of the length, and whose memory by that part in the last step."""
    config = TIME.config(row, scale, seed)
    params = from_dict(Params, config.params)
    found = []
    for length, count in params.samples.items():
        wall = count * seconds * int(length) ** power
        last = int(length) == params.lengths[-1]
        found.append(
            {
                "tokens": int(length), "samples": count, "wall_s": [wall] * params.rounds,
                "cpu_s": [wall] * params.rounds, "load": [load] * params.rounds,
                "peak_bytes": round(300 * MB * (1 + growth * last)), "answers": [5], "finite": True,
            }
        )  # fmt: skip
    metrics = {"contexts": found, "product_flops": 1e11, "flops_per_token": flops_per_token(params)}
    made = fakes.record("qa1", scale=scale, seed=seed, finished="2030-01-01T00:00:00+00:00")
    return made | {
        "artifact": "babilong-time", "row": row, "run_id": config.id, "config": config.to_json(), "curves": {},
        "metrics": metrics | timing.model_size(params), "tokens": params.tokens,
        "hardware": made["hardware"] | {"threads": 1},
    }  # fmt: skip


def outcomes(*records):
    return {verdict.claim.name: verdict.outcome for verdict in view_of("babilong-time", records).verdicts()}


@pytest.mark.parametrize("scale", TIME.scales)
@pytest.mark.parametrize("row", [row.name for row in ROWS])
def test_settings_are_complete_and_survive_their_record(row, scale):
    config = TIME.config(row, scale, 1)
    params = from_dict(Params, config.to_json()["params"])
    assert to_params(params) == config.to_json()["params"]
    assert TIME.cost(config) == cost(params) and cost(params).flops > 0
    assert all(count % params.batch == 0 for count in params.samples.values())
    assert (max(params.lengths) > LENGTHS["1M"]) == (row.endswith("-long") and scale in ("medium", "gpu", "paper"))


def test_large_scales_have_the_columns_of_the_paper_and_its_models():
    for scale in ("medium", "gpu", "paper"):
        assert from_dict(Params, TIME.config("rmt", scale, 0).params).lengths == list(LENGTHS.values())
    shape = from_dict(Params, TIME.config("armt-loop", "gpu", 0).params).shape
    assert (shape.d_model, shape.n_layers) == (768, 12)
    assert set(from_dict(Params, TIME.config("mamba", "paper", 0).params).samples.values()) == {1000}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reads": "wavefront"}, "its memory runs through all layers"),
        ({"samples": {"1024": 1, "256": 1}}, "shortest first"),
        ({"samples": {"100": 1, "256": 1}}, "not whole segments of 64"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(RmtlibError, match=said):
        from_dict(Params, TIME.config("rmt", "smoke", 0).to_json()["params"] | wrong)


@pytest.mark.parametrize("row", [*MODELS, "armt-wavefront-batch"])
def test_a_run_gives_answers_finite_states_and_a_record_that_can_be(row, tmp_path):
    params, result = measured(row, tmp_path)
    found = result.metrics["contexts"]
    assert [context["tokens"] for context in found] == params.lengths
    for context in found:
        assert context["wall_s"] == [1.0] * params.rounds and context["cpu_s"] == [0.5] * params.rounds
        assert len(context["answers"]) == min(context["samples"], timing.SHOWN_ANSWERS) and context["finite"]
    assert result.tokens == params.tokens and result.data and result.curves == {}
    assert TIME.check_metrics(result.metrics, result.curves, TIME.config(row, "smoke", 0)) is None


def test_the_wavefront_answers_as_the_loop_does_and_leaves_the_same_state(tmp_path):
    params = from_dict(Params, TIME.config("armt-loop-batch", "smoke", 0).params)
    model, builder = timing.drawn_model(params), timing.open_contexts(params)[0]
    samples = [builder.build(i, params.context(512)) for i in range(2)]
    size = params.segment_size
    loop, _ = timing.answer(model, samples, size, diagonally=False, device="cpu")
    wavefront, state = timing.answer(model, samples, size, diagonally=True, device="cpu")
    assert loop == wavefront
    plain = model.initial_state(2)
    with torch.no_grad():
        for segment in cut([s.tokens for s in samples], None, size):
            _, plain = model.step(segment.input_ids_BS, plain, segment.lengths_B)
    assert float(plain.matrix_LBKD.abs().max()) > 0  # something is stored
    for ours, theirs in zip(state, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_answer_is_that_of_the_question_whatever_the_batch(tmp_path):
    params = from_dict(Params, TIME.config("rmt", "smoke", 0).params)
    model, builder = timing.drawn_model(params), timing.open_contexts(params)[0]
    samples = [builder.build(i, params.context(256)) for i in range(4)]
    size = params.segment_size
    together = timing.answer(model, samples, size, diagonally=False, device="cpu")[0]
    alone = [timing.answer(model, [s], size, diagonally=False, device="cpu")[0][0] for s in samples]
    assert together == alone
    with torch.no_grad():
        model.decoder.tokens.weight.mul_(float("nan"))
    with pytest.raises(RmtlibError, match="scores are not finite"):
        timing.answer(model, samples, size, diagonally=False, device="cpu")


def test_a_stop_is_heard_between_segments_and_the_next_run_begins_anew(tmp_path):
    params = from_dict(Params, TIME.config("rmt", "smoke", 0).params)
    folder, asked = RunFolder(tmp_path), iter(range(10**6))
    folder.should_stop = lambda: next(asked) == 7  # in the midst of a context
    with pytest.raises(Stopped, match="measures anew"):
        timing.execute(params, folder, Clock())
    assert len(timing.execute(params, RunFolder(tmp_path), Clock()).metrics["contexts"][0]["wall_s"]) == params.rounds


def test_several_devices_are_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.peers = type("Two", (), {"size": 2, "first": True})()
    with pytest.raises(RmtlibError, match="leave out --devices"):
        timing.execute(from_dict(Params, TIME.config("rmt", "smoke", 0).params), folder, Clock())


def test_slope_growth_floor_and_load_are_those_of_the_numbers():
    metrics = record("rmt", power=1.3, growth=0.1, load=2.5)["metrics"]
    assert time_slope(metrics) == pytest.approx(1.3) and memory_growth(metrics) == pytest.approx(0.1)
    first = contexts(metrics)[0]
    assert first.seconds == pytest.approx(1e-5 * 4096**1.3)
    assert floor_share(metrics, first) == pytest.approx(metrics["flops_per_token"] / 1e11 / (first.seconds / 4096))
    assert other_load(metrics, 1) == 1.5 and other_load(metrics, 4) == 0.0
    metrics["contexts"][0]["wall_s"] = [9.0, 1.0, 2.0]
    first = contexts(metrics)[0]
    assert (first.seconds, first.fastest) == (2.0 / 8, 1.0 / 8)  # of eight samples; the median, the least
    assert pytest.approx(0.783, abs=0.001) == PAPER_SLOPE  # of all four; from the first to the last it is 0.787


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["contexts"].pop(), "contexts are not the settings'"),
        (lambda m: m["contexts"][1].update(peak_bytes=1), "a peak cannot fall"),
        (lambda m: m["contexts"][0].update(finite=False), "the state is not finite"),
        (lambda m: m["contexts"][0].update(answers=[10**6]), "the answers are"),
        (lambda m: m["contexts"][0].update(answers=[]), "the answers are"),
        (lambda m: m["contexts"][0].update(wall_s=[1e-6, 1e-6]), "less than the arithmetic takes"),
        (lambda m: m["contexts"][0].update(load=[1.0]), "load is"),
        (lambda m: m.update(product_flops=0), "product_flops is 0"),
        (lambda m: m.update(flops_per_token=1.0), "flops_per_token"),
        (lambda m: m.update(parameters=1), "parameters"),
    ],
)
def test_numbers_that_cannot_be_are_found(change, said):
    made = record("rmt")
    config = TIME.config("rmt", "medium", 0)
    assert TIME.check_metrics(made["metrics"], {}, config) is None
    change(made["metrics"])
    assert said in TIME.check_metrics(made["metrics"], {}, config)


def test_verdicts_follow_the_rules():
    def runs(model, **more):
        return [record(model, seed, **more) for seed in range(3)]

    good = [each for model in MODELS for each in runs(model)]
    assert {name: outcomes(*good)[name] for name in RULES} == dict.fromkeys(RULES, "holds")
    assert outcomes(*runs("rmt", power=1.5))["time-is-linear"] == "fails"
    assert outcomes(*runs("rmt", load=2.0))["time-is-linear"] == "undecided"
    rest = [each for model in MODELS if model != "mamba" for each in runs(model)]
    assert outcomes(*rest, *runs("mamba", growth=0.1))["memory-is-flat"] == "fails"
    assert outcomes(*rest)["memory-is-flat"] == "not enough runs"
    assert outcomes(*[record("rmt", seed, scale="smoke") for seed in range(3)]) == {}


def test_figure_tables_and_words_have_the_numbers_of_the_records(tmp_path):
    view = view_of("babilong-time", [record("rmt"), record("armt-wavefront", growth=0.5), record("rmt-batch")])
    view.save(tmp_path)
    assert (tmp_path / "babilong-time.svg").exists()
    said = view.artifact.report().caption(view.results)
    assert "RMT 0.041 s at 4k and 10.5 s at 1M" in said and "a processor, 1 thread(s)" in said
    assert "in batches" not in said
    alt = view.artifact.report().alt(view.results)
    assert "10.5 s and 450 MB at 1M" in alt and "315 minutes at 1M" in alt
    table = view.artifact.report().compare(view.results).to_html()
    assert "0.78" in table and "50.0 %" in table and "do not compare" in table
    lengths = view.artifact.report().by_scale[0](view.results, "medium").to_html()
    assert "100,000" in lengths and "fastest round" in lengths  # tokens a second
    assert any("grows as the length to the power of 1.00" in line for line in TIME.summary([record("rmt")]))
    assert any(" tokens in 0.1 s, " in line for line in TIME.summary([record("rmt", seconds=1e-7)]))


def test_the_papers_minutes_have_a_unit_of_their_own():
    printed = [m for m in TIME.report().printed if m.metric != "slope"]
    assert [m.value for m in printed] == list(MINUTES.values())
    assert all("minutes" in m.metric and "A100" in m.metric for m in printed)
    assert {row.name for row in ROWS} <= set(STYLES)


def test_runs_that_measure_time_have_the_machine_for_themselves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tests = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tests}{os.pathsep}{tests.parent}")
    monkeypatch.setenv("FAKE_ORDERS", "brief")
    configs = select(Fake(), "small", 2, "qa1")
    assert plan(Fake(), configs, jobs=2)["jobs"] == 2
    monkeypatch.setattr(Fake, "alone", True)
    assert plan(Fake(), configs, jobs=2)["jobs"] == 1
    run_all(Fake(), configs, jobs=2)
    assert "1 at once" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_speed_of_a_product_is_its_arithmetic_over_the_seconds_that_the_clock_shows(precision, monkeypatch):
    monkeypatch.setitem(machine.PRODUCT, "cpu", 8)
    assert Machine.product_flops(Clock(), precision) == 2 * 8**3


def test_records_are_plain_json(tmp_path):
    _, result = measured("mamba", tmp_path)
    assert json.loads(json.dumps(result.metrics)) == result.metrics
