"""What each memory carries is measured, and the drawings of it follow the layout of the models."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch

from rmtlib.evaluation.dataflow import Carried, measure_flow
from rmtlib.models.prmt import PRMT
from rmtlib.models.registry import build
from rmtlib.models.rmt import RMT
from rmtlib.report.memories import MEMORIES, drawing, fragment, in_words

BY_NAME = {memory.name: memory for memory in MEMORIES}
AROUND = (0, 1, 6, 7)


def flow_of(name, **changed):
    config = BY_NAME[name].tiny
    return measure_flow(build(replace(config, **changed), seed=0))


def test_rmt_carries_the_top_at_the_write_block_to_the_bottom():
    flow = flow_of("RMT")
    assert (flow.layers, flow.positions, flow.text) == (3, 8, (2, 3, 4, 5))
    assert flow.carried == (Carried(3, (6, 7), 1, AROUND, kept=False, gradient=True),)


def test_prmt_carries_each_layers_output_to_the_same_layer():
    each = tuple(Carried(layer, (6, 7), layer, AROUND, kept=False, gradient=True) for layer in (1, 2, 3))
    assert flow_of("PRMT").carried == each


def test_armt_adds_to_a_store_that_every_position_reads():
    flow = flow_of("ARMT")
    assert flow.text == (0, 1, 2, 3)  # there is no read block
    assert flow.carried == tuple(
        Carried(layer, (4, 5), layer, tuple(range(6)), kept=True, gradient=True) for layer in (1, 2, 3)
    )


def test_transformer_xl_caches_the_inputs_of_layers_without_a_gradient():
    each = tuple(Carried(layer - 1, (2, 3), layer, (), kept=False, gradient=False) for layer in (1, 2, 3))
    assert flow_of("Transformer-XL").carried == each


def test_mamba_adds_every_token_to_each_layers_state():
    each = tuple(Carried(layer - 1, (0, 1, 2, 3), layer, (), kept=True, gradient=True) for layer in (1, 2, 3))
    assert flow_of("Mamba").carried == each


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("RMT", {"memory_tokens": 3}),
        ("PRMT", {"memory_tokens": 1}),
        ("ARMT", {"memory_tokens": 1}),
        ("Transformer-XL", {"cache": 3}),
        ("Transformer-XL", {"memory_tokens": 2}),
        ("Mamba", {"n_layers": 2}),
    ],
)
def test_another_config_gives_another_drawing(name, changed):
    assert drawing(name, flow_of(name)) != drawing(name, flow_of(name, **changed))


def test_a_model_with_another_layout_gives_another_drawing():
    class LeftOnly(RMT):
        """Memory enters before the text alone; the write block stands empty."""

        def memory_blocks(self, state):
            return state.memory_BMD, torch.zeros_like(state.memory_BMD)

    class WriteBlockAlone(PRMT):
        has_read_block = False

    for name, kind in (("RMT", LeftOnly), ("PRMT", WriteBlockAlone)):
        plain = build(BY_NAME[name].tiny, seed=0)
        changed = kind(plain.decoder, plain.memory_tokens)
        assert drawing(name, measure_flow(changed)) != drawing(name, flow_of(name))
    plain = build(BY_NAME["RMT"].tiny, seed=0)
    (carried,) = measure_flow(LeftOnly(plain.decoder, 2)).carried
    assert carried.into == (0, 1)


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: memory.name)
def test_the_formula_of_a_state_is_its_size(memory):
    assert memory.floats(memory.tiny) == build(memory.tiny).state_size()
    with torch.device("meta"):
        assert memory.floats(memory.usual) == build(memory.usual).state_size()


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: memory.name)
def test_drawings_are_svg_with_a_description(memory):
    flow = measure_flow(build(memory.tiny, seed=0))
    svg = ElementTree.fromstring(drawing(memory.name, flow))
    assert svg.attrib["aria-label"] == f"{memory.name}: {in_words(flow)}"
    squares = [rect for rect in svg.iter("{http://www.w3.org/2000/svg}rect") if rect.attrib["height"] == "10"]
    assert len(squares) == 3 * (flow.layers + 1) * flow.positions


def test_what_is_carried_is_said_in_words():
    assert in_words(flow_of("RMT")) == (
        "The output of layer 3 at two positions behind the text goes to layer 1 of the next segment at two positions "
        "before the text and two positions behind it. It replaces what was carried before; gradients pass back "
        "through it."
    )
    assert "at the last two tokens goes to the same layer" in in_words(flow_of("Transformer-XL"))
    assert "no gradient passes back" in in_words(flow_of("Transformer-XL"))


def test_all_five_stand_side_by_side():
    page = fragment()
    assert page.count("<figure") == page.count("<svg") == 5
    assert page.index("RMT") < page.index("Transformer-XL") < page.index("Mamba")
