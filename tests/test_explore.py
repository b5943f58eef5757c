"""notebooks/explore.ipynb, executed with a tiny model of few steps: what its reader is promised happens."""

from pathlib import Path

import pytest
import torch

from rmtlib.errors import RmtlibError
from rmtlib.experiments.attention.explore import answer, open_model

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "explore.ipynb"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project, which holds no runs, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def execute(**parameters) -> dict:
    """The variables that the notebook's code cells leave."""
    nbformat = pytest.importorskip("nbformat")
    names: dict = {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"cell {cell.id}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(parameters) <= set(names)
                names |= parameters
    return names


@pytest.mark.parametrize(
    ("task", "segments", "model"), [("reverse", 2, "rmt"), ("copy", 3, "trxl"), ("retrieval", 3, "mt")]
)
def test_the_notebook_shows_a_tiny_model_where_there_is_no_run(project, task, segments, model, capsys):
    names = execute(TASK=task, SEGMENTS=segments, MODEL=model, STEPS=2, SAMPLE=1)
    assert "a tiny model" in names["trained"].source and not (project / "runs").exists()
    read = names["read"]
    assert len(read.maps) == segments and f"segment {segments} reads" in (said := capsys.readouterr().out)
    assert f"head {names['layer']}.{names['head']}" in said and "to answer" in said
    for picture in (read.draw(names["layer"], names["head"]), read.draw_heads()):
        assert picture.startswith("<img ") and 'alt="' in picture
    assert torch.equal(torch.cat(read.tokens), torch.from_numpy(_sample(names["trained"], 1).tokens))


def _sample(trained, index):
    from rmtlib.experiments.algorithmic.source import HELD_OUT_SEED

    return trained.params.tasks[-1].sample("test", index, HELD_OUT_SEED)


def test_the_tiny_model_is_trained_once(project):
    first, second = (open_model("reverse", 2, "rmt", steps=2) for _ in range(2))
    assert first.source == second.source
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_shown_head_is_the_one_that_reads_most(project):
    read = answer(open_model("reverse", 2, "rmt", steps=2), 0)
    last = read.maps[-1]
    mass_LH = last.weights_LBHTK[..., last.queries("text"), last.keys("read")].sum(-1).mean((1, 3))
    layer, head = read.reader()
    assert mass_LH[layer - 1, head - 1] == mass_LH.max()
    with pytest.raises(RmtlibError, match=r"no head 3\.1"):
        read.draw(3, 1)


def test_what_cannot_be_shown_is_said(project):
    with pytest.raises(RmtlibError, match="no row has reverse 3 rmt"):
        open_model("reverse", 3, "rmt")
    with pytest.raises(RmtlibError, match="no finished run of reverse-2-rmt-24 at scale medium"):
        open_model("reverse", 2, "rmt", "medium")
    baseline = answer(open_model("reverse", 2, "baseline", steps=2), 0)
    assert baseline.reader() == (1, 1)
    with pytest.raises(RmtlibError, match="neither memory nor cache"):
        baseline.draw_heads()
