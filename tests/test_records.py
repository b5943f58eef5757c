"""Records and configs: sealed, verified, found, published; and the provenance they carry."""

import errno
import hashlib
import json
import math
import os
import shutil
import subprocess
from dataclasses import replace
from functools import partial

import pytest
from fakes import record

from rmtlib.cli import main
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import all_artifacts, get_artifact
from rmtlib.files import write_atomically
from rmtlib.runs import checks, provenance
from rmtlib.runs.checks import NO_OUTCOMES, check_record
from rmtlib.runs.records import (
    KEYS,
    find_records,
    load_record,
    make_record,
    publish,
    record_path,
    verify,
    write_record,
)
from rmtlib.runs.spec import PILOT, Result, RunConfig
from rmtlib.runs.storage import canonical, json_sha256, write_json

CONFIG = RunConfig("figure-5", "qa1", "small", 3, {"lr": 0.003, "stages": [[1, 300], [2, 400]], "model": {"d": 64}})


FIGURE_5 = get_artifact("figure-5")
new_record = partial(record, n=None)
ALL = all_artifacts()


def impossible(record):
    return check_record(record, ALL[record["artifact"]])[0]


# Configs


def test_the_id_is_a_hash_of_everything_and_never_changes():
    text = (
        '{"artifact":"figure-5","params":{"lr":0.003,"model":{"d":64},"stages":[[1,300],[2,400]]},'
        '"row":"qa1","scale":"small","seed":3}'
    )
    assert CONFIG.id == hashlib.sha256(text.encode()).hexdigest()[:12] == "71d192f4bc05"
    assert CONFIG.slug == "qa1-small-s3-71d192f4bc05"
    others = [
        replace(CONFIG, artifact="x"),
        replace(CONFIG, row="qa2"),
        replace(CONFIG, scale="gpu"),
        replace(CONFIG, seed=4),
        replace(CONFIG, params={**CONFIG.params, "lr": 0.001}),
    ]
    assert len({CONFIG.id, *(other.id for other in others)}) == 6


def test_the_id_does_not_depend_on_the_order_of_keys():
    turned = dict(reversed(list(CONFIG.to_json()["params"].items())))
    assert replace(CONFIG, params=turned) == CONFIG
    assert replace(CONFIG, params=turned).id == CONFIG.id


def test_configs_go_through_json_unchanged():
    again = RunConfig.from_json(json.loads(json.dumps(CONFIG.to_json())))
    assert again == CONFIG
    assert hash(again) == hash(CONFIG)


def test_configs_are_frozen_all_the_way_down():
    with pytest.raises(TypeError):
        CONFIG.params["lr"] = 1.0
    with pytest.raises(TypeError):
        CONFIG.params["model"]["d"] = 1
    with pytest.raises(TypeError):
        CONFIG.params["stages"][0] = (1, 1)
    source = {"stages": [1]}
    config = replace(CONFIG, params=source)
    source["stages"].append(2)
    assert config.params["stages"] == (1,)


@pytest.mark.parametrize(
    "change",
    [{"seed": "3"}, {"seed": True}, {"row": 1}, {"params": [1]}, {"more": 1}, {"params": {"lr": math.nan}}],
)
def test_wrong_configs_are_refused(change):
    with pytest.raises(RmtlibError):
        RunConfig.from_json({**CONFIG.to_json(), **change})


def test_canonical_json_is_one_text_per_value():
    assert canonical({"b": (1, 2.5), "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": math.inf})
    with pytest.raises(TypeError, match="JSON"):
        canonical({"a": object()})


# Records


def a_slice(**changes):
    return {
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "finished",
        "wall_s": 10.0,
        "peak_memory": {"host": 100, "gpu": None},
        "git": {"commit": "c" * 40, "dirty": False},
        "modules_sha256": "1" * 64,
        "packages": {"python": "3.11.0"},
        "hardware": {"cpu": "a", "gpu": None},
    } | changes


def a_result(**changes):
    given = {"metrics": {"a": 1}, "curves": {}, "data": [], "tokens": 7, "precision": "float32", "notes": []}
    return Result(**(given | changes))


def test_a_record_has_all_keys_and_loads_as_it_was_written(tmp_path):
    record = make_record(CONFIG, a_result(notes=["from the run"]), [a_slice()], ["from the folder"])
    sealed = write_record(tmp_path / "record.json", record)
    assert set(sealed) == KEYS
    assert load_record(tmp_path / "record.json") == sealed
    assert sealed["run_id"] == CONFIG.id
    assert sealed["notes"] == ["from the folder", "from the run"]
    assert sealed["sha256"] == json_sha256({key: value for key, value in sealed.items() if key != "sha256"})


def test_slices_add_up():
    slices = [
        a_slice(wall_s=1.5, peak_memory={"host": 300, "gpu": 7}, hardware=None),
        a_slice(wall_s=2.0, peak_memory={"host": 200, "gpu": 9}),
    ]
    record = make_record(CONFIG, a_result(), slices, [])
    assert record["wall_s"] == 3.5
    assert record["peak_memory_bytes"] == 9
    assert record["peak_host_memory_bytes"] == 300
    assert record["git"] == {"commit": "c" * 40, "dirty": False}
    assert record["notes"] == ["trained in 2 slices, each continuing from the last one's checkpoint"]


@pytest.mark.parametrize(
    ("first", "note"),
    [
        ({"modules_sha256": "2" * 64}, "modules changed between slices"),
        ({"git": {"commit": "d" * 40, "dirty": False}}, "git commit changed between slices"),
        ({"git": {"commit": "c" * 40, "dirty": True}}, "2 slices"),
    ],
)
def test_code_that_changed_between_slices_makes_a_record_dirty(first, note):
    record = make_record(CONFIG, a_result(), [a_slice(**first), a_slice()], [])
    assert record["git"]["dirty"] is True
    assert any(note in line for line in record["notes"])


def test_numbers_that_json_lacks_become_null_and_are_noted():
    record = make_record(CONFIG, a_result(metrics={"a": [math.nan, 1.0]}, curves={"b": math.inf}), [a_slice()], [])
    assert record["metrics"] == {"a": [None, 1.0]}
    assert record["curves"] == {"b": None}
    assert "2 numbers were NaN or infinite" in record["notes"][0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record["metrics"]["exact_match"][0].update(correct=500),
        lambda record: record.update(wall_s=1.0),
        lambda record: record["notes"].append("all is well"),
        lambda record: record.update(sha256="0" * 64),
        lambda record: record.pop("hardware"),
        lambda record: record.update(extra=1),
        lambda record: record.update(metrics=[]),
        lambda record: record.update(schema=2),
        lambda record: record.update(schema=3),
    ],
)
def test_a_record_edited_by_hand_is_noticed(tmp_path, edit):
    path = tmp_path / "record.json"
    record = write_record(path, new_record())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(RmtlibError, match="record.json") as error:
        load_record(path)
    assert "\n" not in str(error.value)
    assert "delete" in str(error.value)


@pytest.mark.parametrize("key", ["run_id", "row", "seed", "scale", "artifact"])
def test_a_resealed_record_still_has_to_agree_with_its_config(tmp_path, key):
    record = new_record()
    record[key] = {"seed": 9, "run_id": "0" * 12}.get(key, "other")
    write_record(tmp_path / "record.json", record)
    with pytest.raises(RmtlibError, match="its config"):
        load_record(tmp_path / "record.json")


def test_a_resealed_record_still_has_to_say_which_code_made_it(tmp_path):
    write_record(tmp_path / "record.json", new_record() | {"git": {"commit": "0" * 40}})
    with pytest.raises(RmtlibError, match=r"values of another type or length \(git\)"):
        load_record(tmp_path / "record.json")


SCRIPT = "<script>alert(1)</script>"
DIRECTIVE = "```{literalinclude} /etc/passwd\n```"


def deep(levels):
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    "change",
    [
        {"row": "../../../etc/cron.d/x"},
        {"artifact": "a/b"},
        {"scale": SCRIPT},
        {"notes": [DIRECTIVE]},
        {"notes": ["a" * 501]},
        {"notes": [["a"]]},
        {"notes": ["\u202egnp.exe"]},
        {"seed": True},
        {"seed": 2**64},
        {"wall_s": True},
        {"tokens": 1.5},
        {"precision": SCRIPT},
        {"modules_sha256": "code"},
        {"run_id": "58904E741772"},
        {"finished": "yesterday"},
        {"finished": "2026-01-02"},
        {"git": {"commit": "main", "dirty": False}},
        {"git": {"commit": "c" * 40, "dirty": "no"}},
        {"git": {"commit": "c" * 40, "dirty": False, "more": 1}},
        {"packages": {"torch": 2}},
        {"packages": {"torch\n# heading": "2"}},
        {"hardware": {"cpu": ["a"]}},
        {"data": [{"name": "x", "source": {"a": 1}}]},
        {"metrics": {"a": deep(20)}},
        {"metrics": {"a": deep(900)}},
        {"metrics": {"a": "a" * 100_001}},
        {"metrics": {"a\nb": 1}},
        {"curves": [1]},
        {"schema": True},
        {"schema": "1"},
    ],
    ids=lambda change: f"{change!r:.60}",
)
def test_a_sealed_record_of_another_shape_is_refused(tmp_path, change):
    """Every string has a type and a length, before it is hashed, names a file or is shown."""
    path = tmp_path / "results" / "figure-5" / "x.json"
    record = new_record() | change
    write_record(path, new_record())
    try:
        record["sha256"] = json_sha256(record)
    except RecursionError:
        record["sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(RmtlibError, match="x.json ") as error:
        load_record(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1200
    assert len(verify(ALL, tmp_path / "results").problems) == 1


def test_json_too_deep_to_be_read_is_a_line_not_a_traceback(folders):
    path = folders / "results" / "figure-5" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 1, "metrics": ' + "[" * 100_000 + "]" * 100_000 + "}")
    (problem,) = verify(ALL, "results").problems
    assert "x.json is damaged" in problem and "\n" not in problem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hardware": {}}, "hardware is {}"),
        ({"hardware": {"cpu": "", "cores": 2, "memory_bytes": 1}}, "hardware is"),
        ({"hardware": {"cpu": "a", "cores": 0, "memory_bytes": 1}}, "hardware is"),
        ({"packages": {}}, "packages are empty"),
        ({"data": []}, "data is empty"),
        ({"data": [{"name": "enwik8", "sha256": "0" * 64, "bytes": 100_000_000}]}, "data has enwik8 with sha256 '0"),
        ({"data": [{"name": "babi-qa3-train", "sha256": "0" * 64, "bytes": 1}]}, "babi-qa3-train with bytes 1, the"),
        ({"tokens": 10**12}, "tokens are 1000000000000, the settings take at most"),
        ({"curves": {"loss": [[1, 10**6, 2.0]]}}, "the curve loss has step 1000000"),
        ({"curves": {"loss": [[99, 1, 2.0]]}}, "has stage"),
        ({"curves": {"loss": [[1, "a", 2.0]]}}, "TypeError while they were read"),
        ({"metrics": {"exact_match": [[1]]}}, "exact_match has [1]"),
        ({"metrics": {"exact_match": {"a": 1}, "train_segments": {}}}, "exact_match is"),
    ],
)
def test_invented_circumstances_are_found(change, said):
    assert said in impossible(new_record() | change)


def test_settings_of_earlier_code_must_still_be_of_the_lengths_that_were_measured():
    old = new_record(params={"earlier": 1})
    assert check_record(old, FIGURE_5)[0] is None and "earlier" in check_record(old, FIGURE_5)[1]
    for change in ({"tokens": 64}, {"n": 10**6}, {"segments": 3}):
        record = new_record(params={"earlier": 1})
        record["metrics"]["exact_match"][1] |= change
        assert "which the settings do not" in impossible(record)


def test_a_commit_that_the_repository_lacks_is_found(folders):
    git(folders, "init")
    (folders / "file").write_text("a")
    git(folders, "add", "file")
    git(folders, "commit", "-m", "a")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    for seed, named in enumerate((commit, "c" * 40, "c" * 40)):
        record = new_record(seed=seed) | {"git": {"commit": named, "dirty": False}}
        write_record(record_path(record), record)
    (problem,) = verify(ALL, "results").problems
    assert "-s1-" in problem and "(and 1 more) names commit cccccccccccc, which this repository lacks" in problem


def test_a_record_whose_inputs_were_changed_is_not_published(folders):
    record = new_record() | {"schema": 2, "micro_batch": 4, "inputs": {"evaluation.json": "0" * 64, "gone": "0" * 64}}
    record["hardware"] = record["hardware"] | {"threads": 1}
    finish(record)
    folder = next((folders / "runs" / "figure-5").iterdir())
    (folder / "evaluation.json").write_text("{}")
    assert "evaluation.json is not what its record was made from" in publish(FIGURE_5).refused[0]["reason"]
    (folder / "evaluation.json").unlink()
    assert len(publish(FIGURE_5).published) == 1
    done = verify(ALL, "results")
    assert done.problems == [] and [line.partition(": ")[2] for line in done.not_recomputed] == [NO_OUTCOMES]


def test_notes_of_any_length_make_a_record_that_can_be_read(tmp_path):
    write_record(tmp_path / "record.json", make_record(CONFIG, a_result(notes=["a\nb " * 400]), [a_slice()], []))
    (note,) = load_record(tmp_path / "record.json")["notes"]
    assert note.startswith("a b a b") and len(note) == 500


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1', b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_named(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(RmtlibError, match="record.json is damaged"):
        load_record(path)


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    old = write_record(path, new_record())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RmtlibError, match="the disk is full: cannot write .*record.json"):
        write_record(path, new_record(seed=1))
    monkeypatch.undo()
    assert load_record(path) == old
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_that_cannot_be_written_is_not_called_full(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(RmtlibError) as error:
        write_atomically(tmp_path / "file", b"content")
    assert str(error.value) == (
        f"cannot write {tmp_path}/file (Read-only file system); fix that, then the same command continues"
    )
    assert not list(tmp_path.iterdir())


def test_a_write_that_stops_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1}


# Finding, publishing, verifying


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finish(record, runs="runs"):
    config = RunConfig.from_json(record["config"])
    return write_record(f"{runs}/{config.artifact}/{config.slug}/record.json", record)


def test_records_are_found_once_in_order(folders):
    local = finish(new_record(seed=1))
    finish(new_record("qa2", seed=0))
    finish(new_record(seed=0, scale="gpu"))
    other = new_record(seed=1, accuracy=lambda segments: 0.1)
    write_record(record_path(other), other)
    published = new_record(seed=0)
    write_record(record_path(published), published)
    found = find_records("figure-5", scale="small")
    assert [(each["row"], each["seed"]) for each in found] == [("qa1", 0), ("qa1", 1), ("qa2", 0)]
    assert found[1] == local  # before the published one of the same id
    assert len(find_records("figure-5")) == 4
    assert len(find_records("figure-5", where=("results",))) == 2
    assert find_records("other") == []


def test_publish_copies_clean_records_and_says_what_it_refuses(folders):
    clean = finish(new_record(seed=0))
    finish(new_record(seed=1) | {"git": {"commit": "c" * 40, "dirty": True}})
    unfinished = RunConfig("figure-5", "qa1", "small", 2, {})
    write_json(folders / "runs" / "figure-5" / unfinished.slug / "config.json", unfinished.to_json())
    broken = finish(new_record(seed=3))
    path = next((folders / "runs" / "figure-5").glob(f"*{broken['run_id']}/record.json"))
    path.write_text(path.read_text().replace("321.5", "1.5"))
    done = publish(FIGURE_5)
    assert [load_record(each) for each in done.published] == [clean]
    assert {each["run"].split("-")[2]: each["reason"] for each in done.refused}.keys() == {"s1", "s2", "s3"}
    reasons = " ".join(each["reason"] for each in done.refused)
    assert "uncommitted" in reasons and "not finished" in reasons and "changed after it was written" in reasons
    assert len(list((folders / "results").rglob("*.json"))) == 1
    assert verify(ALL, "results").problems == []


def test_publishing_again_changes_nothing(folders):
    finish(new_record())
    (path,) = publish(FIGURE_5).published
    before = os.stat(path).st_mtime_ns
    done = publish(FIGURE_5)
    assert (done.published, done.unchanged) == ([], [path])
    assert os.stat(path).st_mtime_ns == before


def test_a_row_of_paper_scale_is_published_in_one_precision(folders, monkeypatch):
    monkeypatch.setattr("rmtlib.runs.records.check_record", lambda *_: ("", ""))  # not that scale's lengths
    finish(new_record(seed=0, scale="paper"))
    rough = finish(new_record(seed=1, scale="paper", params={"learning_rate": 0.1}) | {"precision": "bf16"})
    done = publish(FIGURE_5)
    assert len(done.published) == 1
    (refused,) = done.refused
    assert refused["run"] == RunConfig.from_json(rough["config"]).slug
    assert "it is in bf16, and results/ has the row in float32" in refused["reason"]


def test_a_run_that_is_published_and_not_here_is_left_as_it_is(folders):
    record = finish(new_record(seed=0))
    (path,) = publish(FIGURE_5).published
    shutil.rmtree("runs/figure-5")
    asked = RunConfig.from_json(record["config"]).slug
    done = publish(FIGURE_5, slugs=[asked])
    assert (done.published, done.unchanged, done.refused) == ([], [path], [])


def test_a_new_config_supersedes_the_published_record_of_its_cell(folders):
    finish(new_record(seed=0))
    finish(new_record(seed=1))
    old = publish(FIGURE_5).published
    shutil.rmtree("runs")
    new = finish(new_record(seed=0, params={"learning_rate": 0.1}))
    done = publish(FIGURE_5)
    assert done.superseded == [path for path in old if "-s0-" in path]
    assert new in find_records("figure-5", where=("results",))
    assert len(find_records("figure-5", where=("results",))) == 2


def test_publish_takes_only_the_runs_asked_for(folders):
    first, second = finish(new_record(seed=0)), finish(new_record(seed=1))
    done = publish(FIGURE_5, slugs=[RunConfig.from_json(second["config"]).slug])
    assert find_records("figure-5", where=("results",)) == [second] != [first]
    assert len(done.published) == 1


def test_publish_leaves_smoke_runs_out_unless_they_are_asked_for(folders):
    finish(new_record(seed=0))
    smoke = new_record(seed=0, scale="smoke", segments=(1, 2, 4), train_segments=2) | {"curves": {}, "tokens": 1000}
    for point in smoke["metrics"]["exact_match"]:
        point["tokens"] //= 2  # segments of 64 tokens
    finish(smoke)
    slug = RunConfig.from_json(smoke["config"]).slug
    done = publish(FIGURE_5)
    assert len(done.published) == 1 and "-small-" in done.published[0] and done.left_out == [slug] and not done.refused
    assert len(publish(FIGURE_5, slugs=[slug]).published) == 1


def test_publish_without_runs_says_what_to_do(folders):
    with pytest.raises(RmtlibError, match="rmtlib run figure-5"):
        publish(FIGURE_5)


def test_a_record_from_a_copy_without_git_is_published_where_its_code_is_the_committed_one(folders, monkeypatch):
    finish(new_record() | {"git": {"commit": None, "dirty": False}, "modules_sha256": "5" * 64})
    monkeypatch.setattr(provenance, "modules_sha256", lambda: "5" * 64)
    for state in ({"commit": None, "dirty": False}, {"commit": "c" * 40, "dirty": True}):
        monkeypatch.setattr(provenance, "git_state", lambda state=state: state)
        assert "outside a git checkout" in publish(FIGURE_5).refused[0]["reason"]
    monkeypatch.setattr(provenance, "git_state", lambda: {"commit": "c" * 40, "dirty": False})
    monkeypatch.setattr(provenance, "modules_sha256", lambda: "6" * 64)
    assert "outside a git checkout" in publish(FIGURE_5).refused[0]["reason"]
    monkeypatch.setattr(provenance, "modules_sha256", lambda: "5" * 64)
    assert len(publish(FIGURE_5).published) == 1


def test_verify_names_every_problem(folders):
    good, moved, edited, dirty = (new_record(seed=seed) for seed in range(4))
    write_record(record_path(good), good)
    write_record(folders / "results" / "figure-5" / "elsewhere.json", moved)
    write_record(record_path(edited), edited)
    path = record_path(edited)
    path.write_text(path.read_text().replace("12345678", "12345679"))
    dirty["git"] = {"commit": "c" * 40, "dirty": True}
    write_record(record_path(dirty), dirty)
    twin = new_record(seed=0, params={"learning_rate": 0.1})
    write_record(record_path(twin), twin)
    problems = verify(ALL, "results").problems
    assert len(problems) == 4
    text = "\n".join(problems)
    for part in ("elsewhere.json is misplaced", "changed after it was written", "uncommitted", "keep one"):
        assert part in text
    assert "restore it (git checkout --" in text


def point(**changes):
    return {"exact_match": [{"segments": 1, "tokens": 128, "n": 10, "correct": 5} | changes]}


def test_outcomes_that_fit_are_accepted():
    record = new_record() | {"artifact": "memory-capacity"}
    for outcomes in ({}, {"outcomes": "f840"}, {"outcomes": "f800"}):
        metrics = record["metrics"] | point(**outcomes)
        assert (impossible(record | {"metrics": metrics}) is None) == (outcomes != {"outcomes": "f840"})


@pytest.mark.parametrize(
    "artifact, metrics, said",
    [
        ("figure-5", point(correct=11), "11 of 10 correct at 1 segments"),
        ("figure-5", point(correct=-1), "-1 of 10 correct"),
        ("figure-5", point(correct=2.5), "2.5 of 10 correct"),
        ("figure-5", point(outcomes="f840"), "outcomes are 'f840', not 5 of 10 at 1 segments"),
        ("figure-5", point(outcomes="f8"), "outcomes are 'f8', not 5 of 10"),
        ("memory-capacity", point(n=0, correct=0), "'n': 0"),
        ("figure-5", {"exact_match": []}, "exact_match is"),
        ("figure-5", {"exact_match": None}, "exact_match is None"),
        ("figure-5", {"exact_match": [None]}, "exact_match has None"),
        ("figure-5", {"recency_accuracy": 1.2}, "recency_accuracy is 1.2"),
        ("memory-capacity", {"train_segments": 0}, "train_segments is 0"),
        ("wikitext-103", {"unit": "perplexity", "value": 0.9, "validation": 30.0}, "value is 0.9 perplexity"),
        ("enwik8", {"unit": "bpc", "value": -0.1, "validation": 1.0}, "value is -0.1 bpc"),
        ("enwik8", {"unit": "perplexity", "value": 2.0}, "unit is 'perplexity', not 'bpc'"),
        (
            "enwik8",
            {"unit": "bpc", "value": 1.0, "validation": 1.0, "tokens": 10, "nats": 70.0},
            "nats over its tokens",
        ),
    ],
)
def test_impossible_numbers_are_refused_under_a_valid_seal(artifact, metrics, said, folders):
    record = new_record()
    assert impossible(record) is None
    config = replace(RunConfig.from_json(record["config"]), artifact=artifact)
    record |= {"artifact": artifact, "config": config.to_json(), "run_id": config.id}
    record["metrics"] |= metrics
    assert said in impossible(record)
    write_record(record_path(record), record)
    (problem,) = verify(ALL, "results").problems
    assert "has impossible numbers" in problem and said in problem and "publish the run again" in problem
    finish(record)
    assert said in publish(get_artifact(artifact)).refused[0]["reason"]


@pytest.mark.parametrize(
    "artifact, change, said",
    [
        ("enwik8", {"value": 2.0}, "its nats over its tokens are"),
        ("enwik8", {"nats": None}, "nats are None"),
        ("enwik8", {"validation": 2.0}, "the best of its curve is"),
        ("enwik8", {"segment": 128}, "segment is 128, the settings give 32"),
        ("wikitext-103", {"cache": 7}, "cache is 7, the settings give"),
        ("wikitext-103", {"memory_tokens": 50}, "memory_tokens is 50, the settings give"),
        ("enwik8", {"parameters": 1}, "parameters is 1, the settings give"),
        ("enwik8", {"state_size": 1}, "state_size is 1, the settings give"),
        ("memory-capacity", {"parameters": 1}, "parameters is 1, the settings give"),
        ("memory-capacity", {"state_size": 1}, "state_size is 1, the settings give"),
        ("memory-capacity", {"train_segments": 2}, "train_segments is 2, the settings give"),
        ("memory-capacity", {"values": 8}, "values is 8, the settings give 16"),
        ("memory-capacity", {("n",): 1000}, "n is 1000, the settings give 500"),
        ("memory-capacity", {("tokens",): 1000}, "tokens is 1000, the settings give"),
        ("memory-capacity", {("pairs",): 99}, "exact_match is not of the settings'"),
        ("figure-5", {("n",): 1000}, "not 500 of 1000 at 1 segments"),
        ("figure-5", {("tokens",): 1000}, "tokens is 1000, the settings give"),
        ("figure-5", {("segments",): 99}, "exact_match is not of the settings'"),
        ("figure-5", {"train_segments": 8}, "train_segments is 8, the settings give 4"),
        ("figure-5", {"parameters": 1}, "parameters is 1, the settings give"),
    ],
)
def test_a_published_value_that_was_changed_and_sealed_again_is_found(artifact, change, said, root):
    """Each derived value of a published record, against what it is derived from."""
    records = [json.loads(path.read_text()) for path in sorted((root / "results" / artifact).glob("*.json"))]
    small = [r for r in records if r["scale"] == "small" and "train" in r["config"]["params"]]
    record = next(r for r in small if check_record(r, ALL[artifact]) in [(None, None), (None, NO_OUTCOMES)])
    for key, value in change.items():
        if isinstance(key, tuple):
            record["metrics"]["exact_match"][0][key[0]] = value
        else:
            record["metrics"][key] = value
    assert said in impossible(record)


def test_settings_of_earlier_code_are_said_and_no_problem(folders):
    old = new_record(params={"learning_rate": 0.1})
    write_record(record_path(old), old)
    done = verify(ALL, "results")
    assert done.problems == []
    assert len(done.not_recomputed) == 1 and "unknown or missing: learning_rate" in done.not_recomputed[0]


def test_verify_says_whose_counts_are_taken_as_written(folders, root, capsys):
    old = next((root / "results" / "memory-capacity").glob("armt-remember-small-s0-*.json"))
    (folders / "results" / "memory-capacity").mkdir(parents=True)
    shutil.copy(old, folders / "results" / "memory-capacity")
    assert main(["verify"]) == 0
    assert "counts taken as written, for want of each sample's outcome: 1 records" in capsys.readouterr().out


def test_a_record_of_an_unknown_artifact_is_a_problem(folders):
    record = new_record()
    write_record(record_path(record), record)
    (problem,) = verify({}, "results").problems
    assert "unknown artifact" in problem


def test_trials_stand_side_by_side_and_apart_from_results(folders):
    settings = FIGURE_5.config("qa1", "small", 0).to_json()["params"]

    def trial(memory):
        record = new_record(scale="small")
        config = RunConfig("figure-5", "qa1", PILOT, 100, settings | {"memory_tokens": memory})
        parts = {key: getattr(config, key) for key in ("row", "scale", "seed")}
        return record | parts | {"run_id": config.id, "config": config.to_json()}

    finish(trial(4))
    finish(trial(16))
    finish(new_record())
    done = publish(FIGURE_5)
    assert len(done.published) == 3 and not done.superseded and not done.refused
    assert verify(ALL, "results").problems == []
    assert len(find_records("figure-5")) == 1
    assert len(find_records("figure-5", scale=PILOT, where=("results",))) == 2


def test_impossible_curves_and_costs_are_found():
    for changes, said in (
        ({"curves": {"loss": [[1, 1, -2.0]]}}, "the curve loss has -2.0"),
        ({"curves": {"validation": [[1, 1, 1.5]]}}, "the curve validation has 1.5"),
        ({"curves": {"loss": None}}, "the curve loss is None"),
        ({"data": [{"sha256": "0"}]}, "without a name"),
        ({"tokens": 0}, "tokens is 0"),
        ({"wall_s": -1.0}, "wall_s is -1.0"),
    ):
        assert said in impossible(new_record() | changes)
    assert impossible(new_record() | {"curves": {"loss": [[1, 1, None]]}}) is None


# Provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of a package in a git checkout of its own."""
    folder = tmp_path / "checkout" / "rmtlib"
    (folder / "report").mkdir(parents=True)
    for name in ("model.py", "cli.py", "report/tables.py"):
        (folder / name).write_text(f"# {name}\n")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_git_state_follows_the_files_that_results_depend_on(package):
    root = package.parent
    assert provenance.git_state() == {"commit": None, "dirty": False}
    git(root, "init")
    assert provenance.git_state() == {"commit": None, "dirty": True}
    git(root, "add", ".")
    git(root, "commit", "-m", "a")
    state = provenance.git_state()
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (root / "README.md").write_text("docs")
    (package / "report" / "tables.py").write_text("# other")
    (package / "cli.py").write_text("# other")
    assert provenance.git_state() == state
    (package / "new.py").write_text("")
    assert provenance.git_state() == state | {"dirty": True}
    (package / "new.py").unlink()
    (root / "constraints.txt").write_text("torch")
    assert provenance.git_state()["dirty"] is True


def test_a_package_inside_another_projects_checkout_has_no_commit(package):
    git(package.parent.parent, "init")
    assert provenance.git_state() == {"commit": None, "dirty": False}


def test_no_git_on_the_machine_is_no_error(package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() == {"commit": None, "dirty": False}


def test_the_modules_hash_follows_names_and_contents(package):
    first = provenance.modules_sha256()
    (package / "cli.py").write_text("# other")
    (package / "report" / "tables.py").write_text("# other")
    assert provenance.modules_sha256() == first
    (package / "model.py").rename(package / "models.py")
    second = provenance.modules_sha256()
    (package / "models.py").write_text("# other")
    assert len({first, second, provenance.modules_sha256()}) == 3


@pytest.mark.parametrize("name", ["report", "claims", "figure", "settings", "run", "artifact", "rows"])
def test_what_only_shows_results_does_not_change_their_hash(package, name):
    path = package / "experiments" / "babilong" / f"{name}.py"
    path.parent.mkdir(parents=True)
    path.write_text("# one")
    first = provenance.modules_sha256()
    path.write_text("# two")
    assert (provenance.modules_sha256() == first) == (name in ("report", "claims", "figure"))


def test_hardware_and_packages_are_filled_in():
    found = provenance.hardware()
    assert found["cpu"] and found["cores"] >= 1 and found["memory_bytes"] > 2**26
    assert {"python", "torch", "numpy", "transformers"} <= set(provenance.packages())
    assert provenance.peak_memory()["host"] > 2**22


def test_records_module_and_runner_start_without_torch(root):
    modules = "sys, rmtlib.cli, rmtlib.runs.scheduler, rmtlib.runs.plan"
    code = f"import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([os.sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize("where", ["train", "tuning", "training"])
def test_curves_have_no_more_stages_and_steps_than_the_settings_wherever_these_stand(where):
    train = {"stages": [{"steps": 6}, {"steps": 9}]}
    params = {"train": train} if where == "train" else {where: {"train": train}}
    check = lambda *point: checks._check_settings({}, {"validation": [[*point, 0.5]]}, params)  # noqa: E731
    assert check(2, 9) is None and check(1, 6) is None
    assert "has step 7" in check(1, 7) and "has stage 3" in check(3, 1) and "has stage 0" in check(0, 1)
