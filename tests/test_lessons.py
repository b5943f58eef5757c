"""The lesson at the beginning of every artifact's notebook: it runs in seconds, and one step makes its loss smaller."""

import re
from pathlib import Path

import pytest
import torch

from rmtlib.experiments.lesson import sample_loss, shapes
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.models.config import TransformerXLConfig
from rmtlib.models.registry import build
from rmtlib.segments import IGNORE

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def lesson_cells(name: str) -> list:
    """The code between the parameters and the runs."""
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells
    first = next(i for i, cell in enumerate(cells) if cell.source.startswith("## What the model reads"))
    last = next(i for i, cell in enumerate(cells) if cell.source.startswith("## Run"))
    return [cell for cell in cells[first:last] if cell.cell_type == "code"]


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_notebook_begins_with_a_lesson(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells, names = lesson_cells(name), {}
    assert len(cells) >= 3
    assert all(len(cell.source.splitlines()) <= 16 for cell in cells)  # the work is in the package
    for cell in cells:
        exec(compile(cell.source, f"{name} {cell.id}", "exec"), names)
    said = capsys.readouterr().out
    if name == "babilong-time":  # trains nothing
        loop, wavefront = re.findall("the answer begins with (.+)", said)
        assert loop == wavefront
    else:
        before, after = map(float, re.search(r"([\d.]+) nats before the step, ([\d.]+) after", said).groups())
        assert after < before
    assert len(re.findall(r"carried: \w+ \d", said)) >= 2  # every segment's shapes, and what passes on
    assert not any(tmp_path.glob("runs/*"))  # nothing went through the run cache


def tiny(**shape):
    return build(TransformerXLConfig(11, 8, 2, 2, 4, 16, dropout=0.0, **shape), seed=0)


def test_shapes_say_what_is_carried():
    ids = torch.zeros(1, 3, dtype=torch.long)
    for shape, said in (({"memory_tokens": 2}, "memory 1×2×8"), ({"cache": 2}, "cache 2×1×2×8"), ({}, "nothing")):
        model = tiny(**shape)
        assert shapes(model.step(ids, model.initial_state(1))[1]) == said


def test_the_loss_of_a_sample_is_the_mean_of_what_is_asked_and_reaches_earlier_segments():
    model = tiny(memory_tokens=2)
    segments = [torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6]])]
    targets = [torch.full((1, 3), IGNORE), torch.tensor([[IGNORE, 7, 8]])]
    hidden, state = model.step(segments[0], model.initial_state(1))
    hidden, _ = model.step(segments[1], state)
    loss = sample_loss(model, segments, targets)
    torch.testing.assert_close(loss, model.nll(hidden[0, 1:], torch.tensor([7, 8])).mean())
    loss.backward()
    assert model.tokens.weight.grad[2].abs().sum() > 0  # a token of the first segment
