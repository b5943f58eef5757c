"""Backbones at the scale gpu: GPT-2 first; what stands in for it has rows of its own; no id depends on files."""

import pytest

from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.rows import stand_in_of
from rmtlib.experiments.babilong.settings import MAMBA
from rmtlib.experiments.babilong_table import artifact as babilong_table
from rmtlib.experiments.registry import get_artifact
from rmtlib.runs import backbones
from rmtlib.runs.artifact import select
from rmtlib.runs.plan import plan
from rmtlib.runs.queue import missing

FIGURE, TABLE = get_artifact("figure-5"), get_artifact("babilong")


@pytest.fixture
def machine(monkeypatch):
    """``machine(gpt2, smollm2)``: which weights it has; nothing can be fetched."""

    def have(gpt2, smollm2):
        monkeypatch.setattr(backbones, "has_gpt2", lambda: gpt2)
        monkeypatch.setattr("rmtlib.data.sources.state", lambda name: "cached" if smollm2 else "absent")

    def refuse(*names, **options):
        raise RmtlibError("no network")

    monkeypatch.setattr("rmtlib.models.backbones.load_hf", refuse)
    monkeypatch.setattr("rmtlib.data.sources.fetch", refuse)
    return have


def rows(artifact, **options):
    return list(dict.fromkeys(config.row for config in select(artifact, "gpu", 1, **options)))


def test_what_runs_by_default_is_gpt2_then_smollm2_then_a_new_decoder(machine, monkeypatch):
    monkeypatch.setattr(type(FIGURE), "prepare", lambda self, scale, rows: backbones.fetch_gpt2_or_other())
    for have, name in (((True, True), "qa1"), ((False, True), "smollm2-qa1"), ((False, False), "scratch-qa1")):
        machine(*have)
        assert rows(FIGURE, prepare=True)[0] == name
    assert rows(FIGURE)[0] == "qa1"  # not asked for yet: it may be had


def test_in_the_table_models_around_a_backbone_are_replaced_and_mamba_is_not(machine, monkeypatch):
    machine(False, True)
    found = rows(TABLE)
    assert {"rmt-smollm2-qa1", "window-smollm2-qa3", "mamba-qa2"} <= set(found)
    assert "rmt-qa1" not in found and len(found) == len(TABLE.default_rows("gpu"))
    monkeypatch.setattr(TABLE, "prepare", lambda scale, rows: None)
    for have, there in ((False, True), (False, False), (True, True), (True, False)):
        machine(have, True)
        monkeypatch.setattr(babilong_table, "is_cached", lambda name, there=there: there and name == MAMBA)
        assert (
            any(row.startswith("mamba") for row in rows(TABLE, prepare=True)) == there
        )  # else its runs could only fail
    machine(True, True)
    assert rows(TABLE) == [row.name for row in TABLE.rows if row.name in TABLE.default_rows("gpu")]


def test_the_queue_leaves_stand_ins_alone_where_the_weights_are_there(machine, monkeypatch, tmp_path):
    for artifact in (FIGURE, TABLE):
        monkeypatch.setattr(artifact, "prepare", lambda scale, rows: None)
    machine(True, True)
    left, _ = missing([FIGURE, TABLE], "gpu", runs_dir=tmp_path, results_dir=tmp_path)
    assert left and not any(stand_in_of(entry.config.row) for entry in left)


@pytest.mark.parametrize("artifact", [FIGURE, TABLE])
def test_no_rows_settings_depend_on_what_weights_are_here(artifact, machine):
    ids = []
    for have in ((True, True), (False, True), (False, False)):
        machine(*have)
        ids.append([artifact.config(row.name, "gpu", 0).params["backbone"] for row in artifact.rows_at("gpu")])
    assert ids[0] == ids[1] == ids[2]


def test_rows_differ_in_the_backbone_alone():
    gpt2, other = (FIGURE.with_all_files(row, "gpu", 0).to_json()["params"] for row in ("qa1", "smollm2-qa1"))
    assert (gpt2["backbone"], other["backbone"]) == ("gpt2", "smollm2")
    for params in (gpt2, other):  # how much a GPU holds is the backbone's
        params["train"].pop("recompute_from")
    assert {key for key in gpt2 if gpt2[key] != other[key]} == {"backbone", "tokenizer"}
    table = TABLE.with_all_files("armt-smollm2-qa3", "gpu", 0).params
    assert (table["backbone"], table["kind"]) == ("smollm2", "armt")


def test_a_row_of_one_scale_is_refused_at_another():
    with pytest.raises(RmtlibError, match="figure-5 has smollm2-qa1 at scale gpu alone, not at small"):
        select(FIGURE, "small", 1, "smollm2-qa1")
    assert all("smollm2" not in config.row for config in select(FIGURE, "small", 1, "all"))
    with pytest.raises(RmtlibError, match="smollm2 stands in for GPT-2 at the scale gpu, not at paper"):
        FIGURE.config("smollm2-qa1", "paper", 0)


def test_the_plan_says_which_weights_are_here(machine, tmp_path):
    def said(artifact, scale="gpu"):
        configs = select(artifact, scale, 1)[:1]
        return " ".join(plan(artifact, configs, runs_dir=tmp_path, results_dir=tmp_path)["warnings"])

    machine(False, True)
    assert "GPT-2's weights are not here" in said(FIGURE) and "smollm2-qa1" in said(FIGURE)
    assert "rmt-smollm2-qa1" in said(TABLE)
    assert "SmolLM2, which is here, is tuned" in said(get_artifact("lora-wikitext-2"))
    assert "GPT-2" not in said(FIGURE, "paper")
    machine(True, True)
    assert said(FIGURE) == said(TABLE) == said(get_artifact("lora-wikitext-2")) == ""
    machine(False, False)
    assert "WikiText-103 or GPT-2 is not here" in said(get_artifact("lm-segments"))


def test_the_plan_says_which_runs_are_large_for_a_gpu(tmp_path):
    def said(rows):
        return plan(TABLE, select(TABLE, "gpu", 1, rows), runs_dir=tmp_path, results_dir=tmp_path)["warnings"]

    (large,) = [warning for warning in said("full-attention-smollm2-qa1,rmt-smollm2-qa1") if "of a GPU" in warning]
    assert large.startswith("1 of these runs want up to") and "(full-attention-smollm2-qa1)" in large
    assert not any("of a GPU" in warning for warning in said("rmt-smollm2-qa1"))


def test_a_run_that_falls_back_says_so(machine, capsys):
    machine(False, True)
    FIGURE._prepare_backbones(["qa1"])
    assert "GPT-2's weights are not here" in capsys.readouterr().err
    FIGURE._prepare_backbones(["smollm2-qa1"])
    assert capsys.readouterr().err == ""


def test_every_stand_in_has_a_plot_style():
    for artifact in (FIGURE, TABLE):
        styles = artifact.report().styles
        assert all(row.name in styles or row.name.removesuffix(f"-{row.task}") in styles for row in artifact.rows)
