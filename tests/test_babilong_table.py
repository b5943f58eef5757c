"""The artifact babilong: complete configs of every model, equal data for all, runs, exact continuation, report."""

from dataclasses import replace

import fakes
import pytest
import torch

from rmtlib.data.babi import TASKS
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.outcomes import pack_outcomes
from rmtlib.experiments.babilong.run import build_model, open_data
from rmtlib.experiments.babilong.scales import TRACKED
from rmtlib.experiments.babilong.scorers import both, scorers_table
from rmtlib.experiments.babilong.settings import Params, context_tokens, cost, trained_weights, weights, work
from rmtlib.experiments.babilong_table.figure import STYLES
from rmtlib.experiments.babilong_table.language_models import published
from rmtlib.experiments.babilong_table.rows import LENGTHS, MODELS, PRETRAINED, TABLE_4
from rmtlib.experiments.babilong_table.rules import RULES
from rmtlib.experiments.babilong_table.scales import settings, with_model
from rmtlib.experiments.registry import get_artifact
from rmtlib.experiments.view import view_of
from rmtlib.models.config import LoRAConfig
from rmtlib.models.lora import trained_parameters
from rmtlib.models.registry import build, size_of
from rmtlib.report.pages import beside_fragment
from rmtlib.runs.folder import RunFolder
from rmtlib.settings import from_dict, to_params

TABLE = get_artifact("babilong")


def record(row, accuracy, seed=0, scale="medium"):
    model, _, task = row.rpartition("-")
    made = fakes.record(row=task, seed=seed, scale=scale, accuracy=accuracy, train_segments=8)
    made["metrics"] |= {"state_size": 512, "parameters": 1000}
    return made | {"artifact": "babilong", "row": row, "run_id": f"{seed:012d}"}


def runs(row, *falls, start=0.95):
    """One record a seed, which loses so much from 8 to 64 segments."""
    return [
        record(row, lambda n, fall=fall: start if n <= 8 else start - fall * (n - 8) / 56, seed=seed)
        for seed, fall in enumerate(falls)
    ]


@pytest.mark.parametrize(
    ("row", "scale"),
    [
        (f"{model}-{task}", scale)
        for model in MODELS
        for task in (("qa1",) if model in PRETRAINED else ("qa1", "qa3"))
        for scale in PRETRAINED.get(model, TABLE.scales)
    ],
)
def test_settings_are_complete_and_survive_their_record(row, scale):
    config = TABLE.config(row, scale, 1)
    params = from_dict(Params, config.to_json()["params"])
    assert to_params(params) == config.to_json()["params"]
    counted = size_of(params.model(params.shape))["parameters"]
    assert weights(params) == pytest.approx(counted, rel=0.03)
    assert TABLE.cost(config).flops > 0


@pytest.mark.parametrize("task", TASKS)
def test_all_models_of_a_task_have_the_same_data_and_steps(task):
    own = ("kind", "backbone", "memory_tokens", "d_memory", "test_samples", "evaluation_batch")
    rest = [
        {key: value for key, value in to_params(settings(model, task, "medium", 0)).items() if key not in own}
        for model in sorted(set(MODELS) - set(PRETRAINED))
    ]
    assert all(other == rest[0] for other in rest)
    tests = {model: settings(model, task, "medium", 0).test_samples for model in set(MODELS) - set(PRETRAINED)}
    whole = tests.pop("full-attention")
    assert all(other == tests["rmt"] for other in tests.values()) and whole.items() <= tests["rmt"].items()


def test_two_and_three_facts_are_tracked_in_training_and_one_fact_is_not():
    asked = {task: settings("armt", task, "medium", 0).tracked_questions for task in TASKS}
    assert asked["qa2"] > 0 and asked["qa3"] > 0 and asked["qa1"] == asked["qa4"] == asked["qa5"] == 0


@pytest.mark.parametrize(
    "model", ["rmt-r", "mamba", "rwkv", "rag", "rag-dense", "full-attention", "full-attention-lora"]
)
def test_a_stopped_run_continues_to_the_same_record(tmp_path, model):
    """Two steps a stage, with tracked questions; stopped in the second stage."""
    lora, base = model.endswith("-lora"), model.removesuffix("-lora")
    params = settings(base, "qa2", "smoke", 0)
    if lora:
        bf16 = replace(params.train, precision="bf16")  # frozen maps are then stored as such
        params = replace(params, lora=LoRAConfig(rank=2), train=bf16)
    stages = tuple(replace(stage, steps=2) for stage in params.train.stages)
    params = replace(
        params,
        train=replace(params.train, stages=stages, evaluate_every=2),
        validation_samples=4,
        test_samples={"1": 4, "3": 4},
        tracked_questions=2,
        enough=(0.9,) * len(stages),
    )
    config = replace(TABLE.config(f"{base}-qa2", "smoke", 0), params=to_params(params))
    whole = TABLE.execute(config, RunFolder(tmp_path / "whole"))
    folder, asked = RunFolder(tmp_path / "parts"), iter(range(10**6))
    folder.should_stop = lambda: next(asked) == 3
    with pytest.raises(Stopped):
        TABLE.execute(config, folder)
    parts = TABLE.execute(config, RunFolder(tmp_path / "parts"))
    assert parts.metrics == whole.metrics and parts.curves == whole.curves
    assert TABLE.check_metrics(whole.metrics, whole.curves, config) is None
    assert whole.metrics["state_size"] == size_of(params.model(params.backbone))["state_size"]


@pytest.mark.parametrize(("row", "scale"), [("rmt-qa3", "medium"), ("mamba-qa1", "gpu"), ("full-attention-qa2", "gpu")])
def test_a_stage_ends_by_its_score_and_the_last_one_with_its_steps(row, scale):
    """A GPU that nobody has tried must not stay in a stage that is learned, nor leave one for lack of patience."""
    params = get_artifact("babilong").params(row, scale, 0)
    *first, last = params.enough
    assert set(first) == {0.98} and last > 1
    for stage in params.train.stages:
        assert stage.steps / params.train.evaluate_every < params.train.patience


def test_full_attention_reads_whole_samples_as_far_as_it_reaches():
    small = settings("full-attention", "qa1", "small", 0)
    S = small.train.segment_size
    assert [small.read_at_once(n) for n in (0, 1, 4)] == [S, S, 4 * S]
    assert small.read_at_once(4, training=True) == 5 * S  # earlier questions stand in the sample too
    paper = settings("full-attention", "qa1", "paper", 0)
    assert max(stage.segments for stage in paper.train.stages) == max(map(int, paper.test_samples)) == 2  # GPT-2: 1024
    assert all(paper.read_at_once(stage.segments, training=True) <= 1024 for stage in paper.train.stages)
    gpu = settings("full-attention", "qa1", "gpu", 0, "smollm2")
    assert max(map(int, gpu.test_samples)) * gpu.train.segment_size == 8192
    assert settings("rmt", "qa1", "gpu", 0).read_at_once(8) == gpu.train.segment_size


def test_full_attention_sees_what_a_window_does_not(tmp_path):
    """The same weights and samples of three segments: the outputs at the answer depend on the first segment or not."""
    ids = torch.randint(0, 600, (1, 3 * 64), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % 600
    for model, differs in (("full-attention", True), ("window", False)):
        params = settings(model, "qa1", "smoke", 0)
        built, outputs = build(params.model(params.backbone), seed=0), []
        for text in (ids, changed):
            state = built.initial_state(1)
            for piece in text.split(params.read_at_once(3), dim=1):
                hidden, state = built.step(piece, state)
            outputs.append(hidden[0, -1])
        assert torch.equal(*outputs) != differs


def test_paper_scale_has_the_released_rates():
    rows = ("rmt-qa1", "rmt-qa3", "mamba-qa1", "armt-qa3", "rmt-r-qa2", "rmt-r-qa3")
    params = {row: from_dict(Params, TABLE.with_all_files(row, "paper", 0).params) for row in rows}
    rates = {row: {stage.lr for stage in each.train.stages} for row, each in params.items()}
    ours = {"rmt-qa1": {1e-5}, "rmt-qa3": {3e-5}, "mamba-qa1": {3e-4}, "armt-qa3": {1e-4}, "rmt-r-qa2": {1e-5, 5e-5}}
    assert rates == ours | {"rmt-r-qa3": {3e-5}}
    lengths = {row: [stage.segments for stage in each.train.stages] for row, each in params.items()}
    assert lengths["armt-qa3"] == lengths["mamba-qa1"] == [2, 3, 5, 8, 16, 32]
    assert lengths["rmt-r-qa2"] == lengths["rmt-qa1"] == [1, 2, 4, 6, 8, 16, 32]
    assert [params[row].memory_tokens for row in rows] == [16, 16, 0, 10, 16, 16]
    assert [params[row].train.batch_size for row in rows] == [64, 64, 128, 64, 64, 64]
    assert [params[row].train.warmup for row in rows] == [0.1, 0.2, 0.1, 0.1, 0.1, 0.05]
    assert [params[row].train.weight_decay for row in rows] == [0.01, 0.01, 2.0, 0.01, 1e-3, 1e-3]


def test_with_lora_the_backbone_is_frozen_and_only_adapters_take_training_memory():
    params = settings("full-attention", "qa1", "smoke", 0)
    tuned = replace(params, lora=LoRAConfig(rank=2))
    model, plain = build_model(tuned)[0], build_model(params)[0]
    assert trained_parameters(model) == trained_weights(tuned) == weights(tuned) - weights(params)
    text = torch.randint(0, 600, (1, 100), generator=torch.Generator().manual_seed(0))
    hidden = [each.eval().step(text, each.initial_state(1))[0] for each in (model, plain)]
    assert torch.equal(*hidden)  # untrained adapters change nothing
    whole, adapters = (
        TABLE.cost(replace(TABLE.config("full-attention-qa1", "smoke", 0), params=to_params(each)))
        for each in (params, tuned)
    )
    assert adapters.memory_bytes < whole.memory_bytes and adapters.disk_bytes < whole.disk_bytes / 4
    assert adapters.flops < whole.flops


def test_lora_tunes_pretrained_backbones_alone():
    medium, paper = (settings("full-attention-lora", "qa1", scale, 0) for scale in ("medium", "paper"))
    assert medium.backbone == "smollm2" and medium.lora and medium.train.precision == "bf16"
    assert max(map(int, medium.test_samples)) * medium.train.segment_size <= 2048
    assert "Mistral-7B" in paper.backbone and weights(paper) == pytest.approx(7.24e9, rel=0.01)
    assert sum(s.steps for s in paper.train.stages) * paper.train.batch_size == 3000  # as three epochs of 1,000
    assert not any(
        settings("full-attention-lora", "qa1", "gpu", 0, backbone).train.recompute for backbone in ("", "smollm2")
    )
    assert max(map(int, paper.test_samples)) * 512 == 32_768  # what the published answers reach
    with pytest.raises(
        RmtlibError, match="full-attention-lora has no settings at small: use one of medium, gpu, paper"
    ):
        settings("full-attention-lora", "qa1", "small", 0)


def test_cost_of_full_attention_grows_with_the_square_of_the_length():
    whole, window = (work(settings(model, "qa1", "medium", 0)) for model in ("full-attention", "window"))
    assert all(a >= b for a, b in zip(whole, window, strict=True)) and whole[-1] > 2 * window[-1]


def test_rmt_r_pays_for_its_past_memories():
    """Work grows with the square of the length, memory with the length."""
    rmt, rmt_r = (from_dict(Params, TABLE.config(f"{model}-qa1", "medium", 0).params) for model in ("rmt", "rmt-r"))
    longer = replace(rmt_r, test_samples=dict(rmt_r.test_samples) | {"4096": 50})
    assert cost(longer).memory_bytes - cost(rmt_r).memory_bytes == 4 * (4096 - 512) * 50 * 8 * 64
    tokens = 50 * context_tokens(4096, 128)
    assert work(longer)[-1] - work(rmt_r)[-1] > tokens * (2 * 4096 * 8 * 64**2 / 128)
    assert cost(rmt).flops < cost(rmt_r).flops


def test_rwkv_has_the_decoders_width_depth_and_heads():
    for scale in ("small", "gpu", "paper"):
        params, decoder = settings("rwkv", "qa1", scale, 0), settings("window", "qa1", scale, 0).shape
        shape = params.backbone
        assert (shape.d_model, shape.n_layers, shape.head_width) == (decoder.d_model, decoder.n_layers, decoder.d_head)
        assert scale == "small" or {stage.lr for stage in params.train.stages} == {5e-4}


def test_the_window_has_no_memory_and_retrieval_keeps_all_that_is_tested():
    assert settings("window", "qa1", "small", 0).memory_tokens == 0
    params = settings("rmt-r", "qa1", "medium", 0)
    assert params.model(params.backbone).past_segments == max(map(int, params.test_samples))
    top = with_model(params, "rmt-r-top-1")
    assert top.model(top.backbone).retrieval == "top_1"


def test_verdicts_follow_the_rules():
    rmt = [*runs("rmt-qa2", 0.5, 0.55, 0.6), *runs("rmt-qa3", 0.3, 0.32, 0.34, start=0.7)]
    armt = [*runs("armt-qa2", 0.0, 0.01, 0.02), *runs("armt-qa3", 0.05, 0.04, 0.06)]
    mamba = runs("mamba-qa3", 0.1, 0.12, 0.11)
    found = {v.claim.name: v.outcome for v in view_of("babilong", [*rmt, *armt, *mamba]).verdicts()}
    assert {name: found[name] for name in RULES} == dict.fromkeys(RULES, "holds")
    worse = [*runs("armt-qa2", 0.9, 0.91, 0.92), *runs("armt-qa3", 0.05, 0.04, 0.06)]
    assert {v.claim.name: v.outcome for v in view_of("babilong", [*rmt, *worse]).verdicts()}[
        "armt-falls-less"
    ] == "fails"
    lost = [*runs("rmt-qa2", 0.0, 0.01, 0.02, start=0.4), *runs("rmt-qa3", 0.3, 0.32, 0.34)]
    found = {v.claim.name: v.outcome for v in view_of("babilong", lost).verdicts()}
    assert found["rmt-falls-on-more-facts"] == "undecided"  # it did not learn qa2


def test_an_unlearned_model_is_said_beside_what_it_loses():
    """It loses nothing, which would look like holding."""
    view = view_of("babilong", [*runs("rmt-qa1", 0.0, 0.0, 0.01), *runs("rmt-qa5", 0.0, 0.0, 0.01, start=0.4)])
    found = {v.claim.name: v for v in view.verdicts()}
    held = found["rmt-holds-on-qa1-and-qa5"]
    assert (
        held.outcome == "described" and "it did not learn the task: rmt-qa5: trained is 0.4, not above 0.6" in held.why
    )
    assert "rmt-qa1" not in held.why
    level = [*runs("rmt-qa3", 0.0, 0.01, 0.02, start=0.35), *runs("mamba-qa3", 0.1, 0.12, 0.11)]
    newest = next(v for v in view_of("babilong", level).verdicts() if v.claim.name == "mamba-ahead-on-qa3")
    assert newest.outcome == "undecided" and not newest.former


def test_what_stands_in_for_gpt2_decides_if_gpt2_was_not_to_be_had():
    def lengths(row, seeds=3):
        return [record(row, lambda n: 1.0 if n <= 8 else 0.9, seed, scale="gpu") for seed in range(seeds)]

    arms = TABLE.report().arms
    assert len(arms(lengths("rmt-smollm2-qa1"))["rmt-qa1: far"]) == 3
    both = arms(
        [*lengths("armt-smollm2-qa1"), *lengths("rmt-qa1", 2)]
    )  # never an ARMT on one beside an RMT on the other
    assert len(both["rmt-qa1: far"]) == 2 and len(both["armt-smollm2-qa1: far"]) == 3 and "armt-qa1: far" not in both
    assert "rmt-qa1: far" in arms([*lengths("rmt-smollm2-qa1"), *lengths("mamba-qa1")])  # Mamba is on its own weights
    figure = get_artifact("figure-5").report()
    made = [r | {"artifact": "figure-5"} for r in [*lengths("smollm2-qa1", 4), *lengths("scratch-qa1", 4)]]
    found = figure.arms(made)
    assert len(found["qa1: far"]) == 4 and len(found["scratch-qa1: far"]) == 4 and "smollm2-qa1: far" not in found
    outcomes = {v.claim.name: v.outcome for v in view_of("figure-5", made).verdicts()}
    assert outcomes["holds-beyond"] == "holds"


def test_figure_tables_and_words_have_the_numbers_of_the_records(tmp_path):
    view = view_of("babilong", [*runs("rmt-qa1", 0.5, 0.54), *runs("armt-qa1", 0.0, 0.02)])
    said = view.results and view.artifact.report().caption(view.results)
    assert "qa1 (medium scale), exact match at the training length and the longest: RMT 0.95 and 0.43" in said
    alt = view.artifact.report().alt(view.results)
    assert "ARMT (2 runs) 0.95 at 1k, 0.94 at 8k" in alt and "Mamba from 1.00 at 1k to 0.92 at 512k" in alt
    view.save(tmp_path)
    assert (tmp_path / "babilong.svg").exists()
    text = view.artifact.report().compare(view.results).to_html()
    assert "0.95 ± 0.00" in text and "0.94" in text and "ours, medium" in text


def test_published_language_models_are_shown_with_their_source_and_never_among_ours():
    view = view_of("babilong", runs("rmt-qa1", 0.5))
    *_, series, models = view.tables_of_scales()
    assert "BABILong, Table 4" in series.to_html() and "0.764" in series.to_html()  # ARMT's Table 1, qa1 at 10M
    html = models.to_html()
    assert "predictions_06_2024" in html and "fine-tuned on 1,000 samples of qa1" in html
    rows = {(row[0], row[1]): row[2:] for row in models.rows}
    phi = rows["microsoft/Phi-3-mini-128k-instruct (few-shot)", "qa1"]
    assert phi[:9] == ("0.97", "0.85", "0.72", "0.69", "0.70", "0.60", "0.53", "0.38", "0.01") and set(phi[9:]) == {""}
    assert not any("Phi-3" in line for line in view.csv().splitlines())
    assert not any("Phi-3" in table.to_html() for table in view.tables_of_scales()[:-1] if table)


def test_every_published_accuracy_is_a_whole_number_of_per_cent_of_a_known_task():
    for series in published()["series"]:
        assert series["task"] in TASKS and series["prompt"] in published()["prompts"]
        assert set(series["accuracy"]) <= set(LENGTHS) and all(0 <= v <= 100 for v in series["accuracy"].values())


def test_facts_alone_are_beside_the_lengths_and_no_length():
    made = record("rmt-qa2", lambda n: 0.9)
    alone = {
        "segments": 0,
        "tokens": 0,
        "n": 500,
        "correct": 300,
        "outcomes": pack_outcomes([True] * 300 + [False] * 200),
    }
    made["metrics"]["exact_match"] = [alone, *made["metrics"]["exact_match"]]
    view = view_of("babilong", [made])
    rows = [row for row in view.report.compare(view.results).rows if row[0] == "RMT, qa2"]
    assert rows[0][:5] == ("RMT, qa2", "paper", "", "1.00", "0.94")
    assert rows[1][1] == "ours, medium" and rows[1][3].startswith("0.60") and rows[1][4].startswith("0.90")
    table = next(t for t in view.tables_of_scales() if t and "qa2, medium" in t.caption)
    assert table.rows[0][0] == "facts alone" and table.rows[0][1][0].startswith("0.60") and table.rows[1][0] == "1"
    assert view.report.arms([made])["rmt-qa2: slope"] == [0.0]
    assert "0.60" not in view.report.caption(view.results)


def test_two_and_three_facts_are_trained_on_stories_that_never_come_again(monkeypatch, tmp_path):
    """Tests and validation keep to bAbI's files or what stands in for them."""
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    smoke = from_dict(Params, TABLE.config("rmt-qa2", "smoke", 0).params)
    data = {endless: open_data("qa2", replace(smoke, endless=endless)) for endless in (False, True)}
    assert data[True].test.questions == data[False].test.questions
    assert data[True].validation.questions == data[False].validation.questions
    stories = [data[True].train.question_of(i, 900) for i in range(0, 40_000, 10)]
    assert len({q.facts for q in stories}) > 3900
    assert [part["name"] for part in data[True].provenance][-1] == "simulated-qa2-endless"
    assert data[True].provenance[:-1] == data[False].provenance
    assert all(from_dict(Params, TABLE.config(f"rmt-{t}", "medium", 0).params).endless == (t in TRACKED) for t in TASKS)


def test_what_is_beyond_full_attentions_reach_is_said():
    view = view_of("babilong", [record("full-attention-qa1", lambda n: 0.9)])
    (row,) = [
        row
        for row in view.report.compare(view.results).rows
        if row[0].startswith("backbone on the whole") and row[1] == "ours, medium"
    ]
    assert row[2] == "all tokens" and row[4].startswith("0.90") and row[-1] == "beyond reach"


def test_every_model_and_printed_row_has_a_style():
    assert {*MODELS, *TABLE_4} <= set(STYLES)


def test_both_scorers_are_compared_on_the_same_answers_and_checked():
    made = record("rmt-qa1", lambda n: 0.9)
    point = next(p for p in made["metrics"]["exact_match"] if p["segments"] == 8)
    exact = [True] * 9 + [False]
    point |= {"n": 10, "correct": 9, "outcomes": pack_outcomes(exact)}
    text = [True] * 7 + [False]  # of the first eight, the last one is judged differently
    scored = {"segments": 8, "tokens": point["tokens"], "n": 8, "correct": 7, "outcomes": pack_outcomes(text)}
    made["metrics"]["babilong_scorer"] = scored
    assert both(made) == (8, 8, 7, 7) and both(record("rmt-qa1", lambda n: 0.9)) is None
    table = scorers_table(view_of("babilong", [made]).results, "medium")
    assert [row[2:] for row in table.rows] == [("8", "1.000", "0.875", "1")]
    assert scorers_table(view_of("babilong", [record("rmt-qa1", lambda n: 0.9)]).results, "medium") is None

    config = TABLE.config("rmt-qa1", "medium", 0)
    size = from_dict(Params, config.params).train.segment_size
    points = [
        {"segments": int(n), "tokens": int(n) * size, "n": 10, "correct": 10, "outcomes": pack_outcomes([True] * 10)}
        for n in config.params["test_samples"]
    ]
    metrics = {"exact_match": points, "train_segments": 8}

    def refused(**changed):
        given = metrics | {"babilong_scorer": scored | {"tokens": 8 * size} | changed}
        return TABLE.check_metrics(given, {}, config)

    assert refused() is None
    assert "samples of 4 segments, the settings give 8" in refused(segments=4)
    assert "11 samples, the settings give 10" in refused(n=11, correct=11, outcomes=pack_outcomes([True] * 11))
    assert "not 6 of 8" in refused(correct=6)
    assert refused(outcomes=None) is not None
    assert refused(n=0) == f"babilong_scorer has {scored | {'tokens': 8 * size, 'n': 0}!r}"


def test_models_and_tasks_that_were_not_run_are_folded_away():
    html = beside_fragment(view_of("babilong", [record("rmt-qa1", lambda n: 0.9)]))
    shown, _, folded = html.partition("<details")
    assert "RMT, qa1" in shown and "0.90" in shown and "RMT, qa2" not in shown and "ARMT, qa1" not in shown
    assert "RMT, qa2" in folded and "that were not run" in folded and "0.94" in folded  # the paper's of qa2
