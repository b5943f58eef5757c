"""notebooks/tutorial.ipynb, executed in small: what its reader is promised happens."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "tutorial.ipynb"
SMALL = {"BACKBONE_STEPS": 20, "STEPS": 20, "LORA_STEPS": 10, "CHAPTERS": 20}


@pytest.fixture(scope="module")
def tutorial():
    """The variables that its code cells leave."""
    nbformat, matplotlib = pytest.importorskip("nbformat"), pytest.importorskip("matplotlib")
    pytest.importorskip("peft")
    matplotlib.use("agg")
    names: dict = {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"cell {cell.id}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(SMALL) <= set(names)
                names |= SMALL
    matplotlib.pyplot.close("all")
    return names


def test_training_and_the_adapter_lower_the_loss(tutorial):
    losses, adapted = tutorial["losses"], tutorial["lora_losses"]
    assert len(losses) == SMALL["STEPS"] and losses[-1] < losses[0]
    assert len(adapted) == SMALL["LORA_STEPS"] and adapted[-1] < adapted[0]


def test_without_its_adapter_the_model_is_the_one_before(tutorial):
    assert tutorial["off"] < tutorial["on"]
    assert tutorial["off"] == pytest.approx(tutorial["losses"][-1], abs=0.3)
    assert not any("lora" in name for name, _ in tutorial["model"].named_parameters())


def test_the_book_is_read_in_constant_memory(tutorial):
    memory = tutorial["state"]
    assert sum(x.numel() for x in memory) == tutorial["model"].state_size()
    words = SMALL["CHAPTERS"] * 5 * 6
    assert len(tutorial["peaks"]) == -(-(words - 1) // tutorial["S"])
    assert tutorial["peaks"][-1] < 1.1 * tutorial["peaks"][0]
    assert tutorial["with_memory"].shape == tutorial["reset"].shape == (words - 1,)


def test_it_writes_as_many_words_as_asked(tutorial):
    words = tutorial["written"][0].tolist()
    assert 6 < len(words) <= 36 and set(words) <= set(range(len(tutorial["WORDS"])))
