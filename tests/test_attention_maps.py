"""The artifact attention-maps: its runs, its records, and figure, tables and claims over records of known content."""

import copy
import csv
import json
from dataclasses import replace
from itertools import product

import fakes
import numpy as np
import pytest
import torch

from rmtlib.data.algorithmic import TASKS
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.attention import read_attention
from rmtlib.evaluation.operations import pack_weights, unpack_weights
from rmtlib.experiments.algorithmic import run as algorithmic
from rmtlib.experiments.algorithmic.rows import task_row
from rmtlib.experiments.algorithmic.scales import settings
from rmtlib.experiments.attention import run as attention
from rmtlib.experiments.attention.rules import arms, numbers, sources, title_of, top_head
from rmtlib.experiments.attention.settings import Params
from rmtlib.experiments.registry import get_artifact
from rmtlib.experiments.view import view_of
from rmtlib.report import pages
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.records import write_record
from rmtlib.runs.spec import RunConfig
from rmtlib.segments import IGNORE
from rmtlib.settings import from_dict

ARTIFACT = get_artifact("attention-maps")


# Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A smoke run of RMT on reverse: its config, its folder and its result."""
    config = ARTIFACT.config("reverse-2-rmt-24", "smoke", 0)
    folder = RunFolder(run_folder(config, tmp_path_factory.mktemp("runs")))
    return config, folder, attention.execute(config, folder)


def test_a_run_measures_the_model_that_it_trained(run):
    config, folder, result = run
    params, metrics = from_dict(Params, config.params), result.metrics
    assert ARTIFACT.check_metrics(metrics, result.curves, config) is None
    model = attention.trained_model(params.training, folder.path)
    segments, targets = attention.held_out(params.training, range(params.samples))
    maps = read_attention(model, segments)
    for s, one in enumerate(maps):
        for name, (queries, keys) in {"write": ("write", "text"), "read": ("text", "read")}.items():
            if one.count(queries):
                block = one.weights_LBHTK[..., one.queries(queries), one.keys(keys)]
                recorded = torch.tensor(metrics["operations"][s][name]["mass"])
                torch.testing.assert_close(block.sum(-1).mean((1, 3)), recorded, atol=1e-4, rtol=0)
    shown = next(x for x in metrics["sample"]["maps"] if (x["segment"], x["operation"]) == (2, "read"))
    assert (shown["layer"] - 1, shown["head"] - 1) == top_head(metrics["operations"], "read")
    own = maps[1].weights_LBHTK[shown["layer"] - 1, 0, shown["head"] - 1]
    assert abs(unpack_weights(shown["weights"], *own.shape) - own.numpy()).max() < 0.003
    intact, _ = metrics["ablation"]["correct"]
    state, right = model.initial_state(params.samples), []
    for ids_BS, targets_BS in zip(segments, targets, strict=True):
        hidden_BSD, state = model.step(ids_BS, state)
        right.append(int((model.logits(hidden_BSD).argmax(-1) == targets_BS).sum()))
    assert intact == right


def test_a_model_without_its_weights_is_refused(run, tmp_path):
    config, folder, _ = run
    training = from_dict(Params, config.params).training
    with pytest.raises(RmtlibError, match="has no checkpoint: train this run first"):
        attention.trained_model(training, tmp_path)
    with pytest.raises(RmtlibError, match="weights are those of another model"):
        attention.trained_model(replace(training, model=replace(training.model, d_ff=8)), folder.path)


def test_batches_make_no_difference(run, monkeypatch):
    config, folder, result = run
    params = from_dict(Params, config.params)
    model = attention.trained_model(params.training, folder.path)
    segments, _ = attention.held_out(params.training, range(params.samples))
    monkeypatch.setattr(attention, "AT_ONCE", 3)
    for s, found in enumerate(attention.mean_operations(model, segments)):
        for name, operation in found.items():
            torch.testing.assert_close(
                operation.mass_LH, torch.tensor(result.metrics["operations"][s][name]["mass"]), atol=1e-4, rtol=0
            )


@pytest.mark.parametrize("dirty", [False, True])
def test_weights_of_the_same_run_of_algorithmic_are_taken_over(run, tmp_path, dirty):
    config, _, own = run
    trained = attention.training_config(config)
    source = RunFolder(run_folder(trained, tmp_path))
    result = algorithmic.execute(from_dict(Params, config.params).training, source)
    assert get_artifact("algorithmic").config(config.row, config.scale, config.seed) == trained
    about = {"artifact": "algorithmic", "row": trained.row, "scale": "smoke", "config": trained.to_json()}
    about |= {"run_id": trained.id, "metrics": result.metrics, "git": {"commit": "c" * 40, "dirty": dirty}}
    write_record(source.path / "record.json", fakes.record() | about)
    before = (source.path / "metrics.jsonl").read_bytes()
    folder = RunFolder(run_folder(config, tmp_path))
    notes = attention.take_over(config, folder.path)
    assert bool(notes) != dirty and all(trained.slug in note for note in notes)
    again = attention.execute(config, folder)
    assert again.metrics == own.metrics and ((folder.path / "metrics.jsonl").read_bytes() == before)
    assert all(note in again.notes for note in notes)


def _set(metrics, path, value):
    *way, last = path
    for key in way:
        metrics = metrics[key]
    metrics[last] = value


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("operations", 0, "read", "mass", 0, 0), 1.2, "mass of read in segment 1 has 1.2"),
        (("operations", 0, "read", "mass", 0), [0.5], "is not of 2 layers with 2 heads"),
        (("operations", 1, "segment"), 3, "operations are not of segments 1 to 2"),
        (("operations", 0, "read", "chance"), 1, "chance of read in segment 1"),
        (("operations", 0, "eat"), {}, "eat"),
        (("ablation", "correct", 1, 1), 10**6, "without the memory after segment 1"),
        (("ablation", "correct", 1, 0), 1, "without the memory after segment 1"),
        (("ablation", "answers", 1), 7, "answers are"),
        (("sample", "tokens"), [1], "1 tokens"),
        (("sample", "maps", 0, "blocks"), [1, 6, 6, 6], "blocks of segment 1"),
        (("sample", "maps", 0, "weights"), pack_weights(torch.zeros(2, 2)), "map of segment 1"),
        (("validation",), 0.123, "validation"),
    ],
)
def test_numbers_that_cannot_be_are_refused(run, path, value, why):
    config, _, result = run
    metrics = copy.deepcopy(result.metrics)
    _set(metrics, path, value)
    assert why in ARTIFACT.check_metrics(metrics, result.curves, config)


def test_every_row_at_every_scale_has_a_config_and_a_cost():
    for row, scale in product(ARTIFACT.rows, ARTIFACT.scales):
        config = ARTIFACT.config(row.name, scale, 0)
        more, less = ARTIFACT.cost(config), get_artifact("algorithmic").cost(attention.training_config(config))
        assert less.tokens < more.tokens < 2 * less.tokens and less.flops < more.flops
    with pytest.raises(ValueError, match="must be 'copy' or 'reverse'"):
        Params(settings(task_row("algorithmic", "retrieval-2-rmt-5"), "smoke", 0), 1)


# Records of known content


@pytest.mark.parametrize(
    ("task", "segments"), [("reverse", 2), ("reverse", 4), ("reverse", 6), ("copy", 3), ("copy", 6), ("copy", 9)]
)
def test_sources_are_where_the_symbols_stand(task, segments):
    """With all symbols different an answered symbol is looked up in the tokens of the segments before."""
    made = TASKS[task](36, 36)
    sample = made.lay_out(np.arange(2, 38))
    size = made.segment_size(segments)
    tokens, labels = (x.reshape(segments, size) for x in (sample.tokens, sample.labels))
    for t in range(1, segments + 1):
        for symbol in labels[t - 1][labels[t - 1] != IGNORE]:
            first, last = sources(task, segments, t)
            there = [s for s in range(1, t) if symbol in tokens[s - 1]]
            there = [s for s in there if s <= t - segments // 3] if task == "copy" else there[:1]
            spilled = symbol == tokens[last][0]  # the start token moves the first copy by one position
            assert first == min(there) and (last == max(there) or spilled)


def record(row: str, seed: int = 0, *, scale="medium", accuracy=1.0, lost=0.1, harmed=0.0, **excess: float) -> dict:
    """A record of `row` whose head 2.3 has these excesses (of read, "before" is that of segments of input)."""
    config = ARTIFACT.config(row, scale, seed)
    params = from_dict(Params, config.params)
    training, n = params.training, params.samples
    segments, task, model = training.segments, training.tasks[-1], training.model
    size = training.segment_sizes[-1]
    answering = segments // 2 + 1 if training.task == "reverse" else segments // 3 + 1
    excess = {"write": 0.9, "carry": 0.8, "read": 0.95, "before": -0.2, "cache": 0.9} | excess

    def operation(value: float) -> dict:
        mass_LH = np.full((model.n_layers, model.n_heads), 0.4)
        mass_LH[1, 2] = 0.4 + 0.6 * value
        return {"chance": 0.4, "mass": mass_LH.tolist(), "keys_in_use": np.full(mass_LH.shape, size / 2).tolist()}

    operations, maps = [], []
    for s in range(1, segments + 1):
        found = {"segment": s}
        if model.memory_tokens:
            found["read"] = operation(excess["read" if s >= answering else "before"])
            if s < segments:
                found |= {name: operation(excess[name]) for name in ("write", "carry")}
        elif s > 1:
            found["cache"] = operation(excess["cache"])
        operations.append(found)
        M, P = model.memory_tokens, min(model.cache, (s - 1) * size)
        blocks = [P, M, size, M * (s < segments)]
        weights = torch.rand(sum(blocks[1:]), sum(blocks), generator=torch.Generator().manual_seed(s)).square()
        for name in set(found) - {"segment"}:
            shown = {"segment": s, "operation": name, "layer": 2, "head": 3, "blocks": blocks}
            maps.append(shown | {"weights": pack_weights(weights / weights.sum(-1, keepdim=True))})
    answers = [n * size * (s >= answering) for s in range(1, segments + 1)]
    correct = [[round(accuracy * count) for count in answers]]
    for s in range(1, segments):
        row_of = list(correct[0])
        for t in range(max(s + 1, answering), segments + 1):
            first, last = sources(training.task, segments, t)
            left = lost if s >= last else accuracy - harmed if s < first else 0.5
            row_of[t - 1] = round(left * answers[t - 1])
        correct.append(row_of)
    right = round(accuracy * task.answer_size)
    counted = {"n": 1000, "samples_by_correct": [1000 * (k == right) for k in range(task.answer_size + 1)]}
    counted["correct_by_position"] = [1000 * (k < right) for k in range(task.answer_size)]
    made = fakes.record(seed=seed) | {"artifact": "attention-maps", "row": row, "scale": scale, "run_id": config.id}
    made["metrics"] = {
        "test": {"generated": counted}, "segments": segments, "segment_size": size, "answer_size": task.answer_size,
        "chance": task.chance, "validation": accuracy, "operations": operations,
        "ablation": {"correct": correct, "answers": answers},
        "sample": {"tokens": [2] * task.length, "maps": maps},
    }  # fmt: skip
    made["curves"] = {"loss": [], "validation": [[len(training.sizes), 1, accuracy]]}
    return made | {"config": config.to_json()}


def study(rows=None, seeds=3, **options) -> list[dict]:
    """Records of these rows; seeds differ a little."""
    rows = rows or [row.name for row in ARTIFACT.rows]
    return [
        record(row, seed, **{"write": 0.9 - 0.01 * seed, "lost": 0.1 + 0.002 * seed} | options)
        for row in rows
        for seed in range(seeds)
    ]


def verdicts(records) -> dict:
    """Claim -> its verdict, by the newest declaration of its rule."""
    return {verdict.claim.name: verdict for verdict in reversed(view_of("attention-maps", records).verdicts())}


@pytest.mark.parametrize("row", ["reverse-2-rmt-24", "reverse-4-trxl-6", "copy-6-rmt-12"])
def test_a_made_up_record_is_one_that_could_be(row):
    made = record(row)
    assert ARTIFACT.check_metrics(made["metrics"], made["curves"], RunConfig.from_json(made["config"])) is None


def test_numbers_of_a_record_are_the_top_heads_and_the_answers_left():
    found = numbers(record("reverse-4-rmt-12", lost=0.1, harmed=0.25, carry=0.7, before=0.1))
    expected = {
        "write": 0.9,
        "carry": 0.7,
        "read": 0.95,
        "read before": 0.1,
        "lost": 0.1,
        "harmed": 0.25,
        "solved": 1.0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.001), name
    assert found["symbols a read key"] == pytest.approx(2)
    cached = numbers(record("reverse-4-trxl-12"))
    assert cached["cache"] == pytest.approx(0.9) and "read" not in cached
    assert "harmed" not in numbers(record("reverse-2-rmt-24"))  # memory can only be lost between
    assert arms(study(["copy-3-rmt-24"]))["copy-3-rmt-24: write"] == pytest.approx([0.9, 0.89, 0.88])


def test_a_title_has_the_sizes_of_its_scale():
    assert title_of(record("copy-3-trxl-24", scale="small")) == "Tr-XL, copy of 12 symbols in 3 segments, cache 12"
    assert title_of(record("reverse-4-rmt-6")) == "RMT, reverse of 24 symbols in 4 segments, memory 6"


def test_all_claims_hold_if_memory_is_written_read_and_needed():
    found = verdicts(study())
    primary = ("written-and-read", "answer-is-in-memory", "lost-exactly-between")
    assert {found[name].outcome for name in primary} == {"holds"}
    at_rest = verdicts(study(["reverse-2-rmt-24", "copy-3-rmt-24"], before=0.99))["read-to-answer"]
    assert all(effect.effect > 0 for effect in at_rest.effects)
    for name in ("copy-too", "read-to-answer", "memory-is-carried", "cache-is-read"):
        assert all(effect.effect < 0 for effect in found[name].effects), name


@pytest.mark.parametrize(
    ("claim", "options", "outcome"),
    [
        ("written-and-read", {"write": 0.1}, "fails"),
        ("written-and-read", {"read": 0.3}, "fails"),
        ("written-and-read", {"before": 0.99}, "holds"),  # where there is nothing to read, heads may rest there
        ("written-and-read", {"accuracy": 0.5}, "undecided"),  # it did not learn the task
        ("answer-is-in-memory", {"lost": 0.9}, "fails"),
        ("answer-is-in-memory", {"accuracy": 0.5}, "undecided"),
        ("lost-exactly-between", {"lost": 0.9}, "fails"),
        ("lost-exactly-between", {"harmed": 0.4}, "fails"),  # a memory before the input is needed too
        ("lost-exactly-between", {"seeds": 2}, "not enough runs"),
    ],
)
def test_claims_fail_if_it_is_otherwise(claim, options, outcome):
    assert verdicts(study(["reverse-2-rmt-24", "reverse-4-rmt-12"], **options))[claim].outcome == outcome


def test_figure_and_tables_have_the_records_numbers_and_files_stay_small(tmp_path):
    records = study()
    assert max(len(json.dumps(each, indent=1)) for each in records) < 200_000
    view = view_of("attention-maps", records)
    view.save(tmp_path)
    assert (tmp_path / "attention-maps.svg").stat().st_size < 500_000
    lines = list(csv.DictReader((tmp_path / "attention-maps.csv").open()))
    wrote = [float(x["value"]) for x in lines if (x["row"], x["metric"]) == ("reverse-2-rmt-24", "write")]
    assert wrote == pytest.approx([0.9, 0.89, 0.88], abs=1e-3)
    assert "0.89 ± 0.01" in view.tables() and "2.3" in view.tables()
    assert (
        "RMT, reverse of 24 symbols in 2 segments, memory 24 (medium scale, 3 runs): top heads' excess write +0.89"
        in view.alt()
    )
    assert (
        "RMT with memory 24, reverse of 24 symbols in two segments writes +0.89 and reads +0.95 above"
        in view.report.caption(view.results)
    )
    assert "excess over chance of write +0.89" in (tmp_path / "summary.txt").read_text()
    drawn = view_of("attention-maps", [r for r in records if r["row"].startswith("reverse-2")]).draw()
    titles = [ax.get_title() for part in drawn.subfigs for ax in part.axes]
    assert "segment 1: input\nhead 2.3 writes" in titles and "segment 2: answers\nhead 2.3 reads the cache" in titles
    bars = next(ax for ax in drawn.subfigs[-1].axes if ax.get_title() == "RMT, reverse in 2 segments")
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([1.0, 0.102], abs=1e-3)


def test_without_records_the_page_says_so_and_has_the_papers_words():
    view = view_of("attention-maps")
    assert view.report.compare(view.results).to_html().count("not run") == len(ARTIFACT.rows)
    assert (
        "compress the whole segment into memory tokens" in view.tables()
        and "Nothing was run" in view.report.caption(view.results)
    )
    assert view.alt() and view.draw() and "training" in pages.settings_fragment(view)
