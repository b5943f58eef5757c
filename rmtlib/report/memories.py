"""Drawings of what each kind of memory carries, side by side, made from what `evaluation.dataflow` measures.

L layers, D width, M memory tokens, P cached positions, K key features, I inner width, N states of a channel, W taps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rmtlib.evaluation.dataflow import Carried, Flow, measure_flow
from rmtlib.models.config import (
    ARMTConfig,
    DecoderConfig,
    MambaConfig,
    PRMTConfig,
    RMTConfig,
    TransformerXLConfig,
)
from rmtlib.models.registry import build
from rmtlib.models.size import armt_state
from rmtlib.report.escape import escape
from rmtlib.report.words import counted

ORANGE, BLUE = "#d9822b", "#4b7fd1"  # readable on both grounds
SEGMENTS = 3
PITCH, SIDE, GAP = 12, 10, 46  # of positions, a position's square, between segments
LEVEL, LEFT, TOP = 48, 52, 12
MOST = 8  # positions that a column has room for, so that all drawings have one scale


@dataclass(frozen=True)
class Memory:
    """A kind of model in the comparison.

    Attributes:
        page: where its method is explained.
        tiny: the config that is measured and drawn.
        usual: one of the width and depth of GPT-2 small, for the size of its state.
        formula: floats that it carries, in words.
        floats: the same of a config.
    """

    name: str
    page: str
    tiny: Any
    usual: Any
    formula: str
    floats: Callable[[Any], int]


_TINY = DecoderConfig(vocab_size=11, d_model=8, n_layers=3, n_heads=2)
_USUAL = DecoderConfig(vocab_size=50_257, d_model=768, n_layers=12, n_heads=12)
TOKENS = 16  # of memory, or cached, in the usual size

MEMORIES = (
    Memory(
        "RMT", "method", RMTConfig(_TINY, 2), RMTConfig(_USUAL, TOKENS), "M · D",
        lambda c: c.memory_tokens * c.backbone.d_model,
    ),
    Memory(
        "PRMT", "method-armt", PRMTConfig(_TINY, 2), PRMTConfig(_USUAL, TOKENS), "L · M · D",
        lambda c: c.backbone.n_layers * c.memory_tokens * c.backbone.d_model,
    ),
    Memory(
        "ARMT", "method-armt", ARMTConfig(_TINY, 2, d_memory=8), ARMTConfig(_USUAL, TOKENS), "L · K · (D + 1)",
        lambda c: armt_state(c.backbone.n_layers, c.backbone.d_model, c.d_memory, c.rule.nu),
    ),
    Memory(
        "Transformer-XL", "method-transformer-xl",
        TransformerXLConfig(11, d_model=8, n_layers=3, n_heads=2, d_head=4, d_ff=16, cache=2),
        TransformerXLConfig(50_257, d_model=768, n_layers=12, n_heads=12, d_head=64, d_ff=3072, cache=TOKENS),
        "L · P · D", lambda c: c.n_layers * c.cache * c.d_model,
    ),
    Memory(
        "Mamba", "method-mamba", MambaConfig(11, d_model=8, n_layers=3, state_size=4),
        MambaConfig(50_280, d_model=768, n_layers=24), "L · I · (N + W − 1)",
        lambda c: c.n_layers * c.d_inner * (c.state_size + c.conv_taps - 1),
    ),
)  # fmt: skip


def fragment() -> str:
    """All drawings side by side, each with its words and the size of its state."""
    figures = "\n".join(_figure(memory, measure_flow(build(memory.tiny, seed=0))) for memory in MEMORIES)
    return f'<div class="multiples">\n{figures}\n</div>\n'


def _figure(memory: Memory, flow: Flow) -> str:
    size = f"{memory.floats(memory.usual):,}"
    return (
        f'<figure class="drawing">{drawing(memory.name, flow)}\n'
        f'<figcaption><a href="{memory.page}.html"><strong>{escape(memory.name)}</strong></a>: '
        f'{escape(in_words(flow))} State: <strong class="formula">{escape(memory.formula)}</strong> floats, '
        f"{size} at the usual size.</figcaption></figure>"
    )


def in_words(flow: Flow) -> str:
    """What is carried from where to where, what happens to the old value, and whether gradients pass."""
    pairs = [(carried.level, carried.layer) for carried in flow.carried]
    first = flow.carried[0]
    own = f"each layer's {'output' if first.level == first.layer else 'input'}"
    several = len({level - layer for level, layer in pairs}) == 1 and len(pairs) == flow.layers
    source = own if several and first.level - first.layer in (0, -1) else f"the output of layer {first.level}"
    target = "the same layer" if several else f"layer {first.layer}"
    into = f" at {_places(first.into, flow)}" if first.into else ""
    old = "It is combined with what was carried before" if first.kept else "It replaces what was carried before"
    back = "gradients pass back through it" if first.gradient else "no gradient passes back"
    what = f"{source[:1].upper()}{source[1:]} at {_places(first.positions, flow)}"
    return f"{what} goes to {target} of the next segment{into}. {old}; {back}."


def _places(positions: Sequence[int], flow: Flow) -> str:
    """Positions of a segment, relative to its text."""
    if len(positions) == flow.positions and len(flow.text) < flow.positions:
        return "every position"
    before, behind = ([p for p in positions if p < flow.text[0]], [p for p in positions if p > flow.text[-1]])
    within = [p for p in positions if p in flow.text]
    parts = []
    if within:
        last = within == list(flow.text[-len(within) :])
        some = f"the last {counted(len(within), 'token')}" if last else counted(len(within), "token")
        parts.append("every token" if len(within) == len(flow.text) else some)
    if before:
        parts.append(f"{counted(len(before), 'position')} before the text")
    if behind:
        parts.append(f"{counted(len(behind), 'position')} behind {'it' if before else 'the text'}")
    return " and ".join(parts)


def drawing(name: str, flow: Flow) -> str:
    """Layers upwards, segments to the right, as inline SVG: text takes the page's colour, memory is orange."""
    width = LEFT + SEGMENTS * _column(flow) + (SEGMENTS - 1) * GAP + 8
    height = TOP + flow.layers * LEVEL + SIDE + 24
    label = escape(f"{name}: {in_words(flow)}")
    parts = [*_stores(flow), *_segments(flow), *_arrows(flow)]
    tip = f"tip-{name.lower()}"
    marker = (
        f'<defs><marker id="{tip}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="6" markerHeight="6" '
        f'orient="auto"><path d="M0 0L10 5L0 10z" fill="{ORANGE}"/></marker></defs>'
    )
    body = "".join(parts).replace("TIP", tip)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        f'font-family="inherit" font-size="11"><title>{escape(name)}</title>{marker}{body}</svg>'
    )


def _span(flow: Flow) -> int:
    return flow.positions * PITCH


def _column(flow: Flow) -> int:
    return max(MOST, flow.positions) * PITCH


def _x(flow: Flow, segment: int, position: int) -> int:
    """The left of a position's square; a segment stands in the middle of its column."""
    return LEFT + segment * (_column(flow) + GAP) + (_column(flow) - _span(flow)) // 2 + position * PITCH


def _y(flow: Flow, level: int) -> int:
    """The top of a level's squares."""
    return TOP + (flow.layers - level) * LEVEL


def _bar(flow: Flow, layer: int) -> float:
    """The middle of a layer's bar."""
    return _y(flow, layer) + SIDE + (LEVEL - SIDE) / 2


def _segments(flow: Flow) -> Iterator[str]:
    sources = {(c.level, p) for c in flow.carried for p in c.positions}
    targets = {(c.layer - 1, p) for c in flow.carried for p in c.into}
    for layer in range(1, flow.layers + 1):
        yield f'<text x="4" y="{_bar(flow, layer) + 4:g}" fill="currentColor">layer {layer}</text>'
    for s in range(SEGMENTS):
        for layer in range(1, flow.layers + 1):
            x, y = _x(flow, s, 0) - 3, _bar(flow, layer) - 6
            middle = x + (_span(flow) + 4) / 2
            yield (
                f'<rect x="{x}" y="{y:g}" width="{_span(flow) + 4}" height="12" rx="3" fill="currentColor" '
                f'fill-opacity=".12" stroke="currentColor" stroke-opacity=".5"/>'
                f'<path d="M{middle:g} {y - 3:g}V{_y(flow, layer) + SIDE + 3}M{middle:g} {_y(flow, layer - 1) - 3}'
                f'V{y + 15:g}" stroke="currentColor" stroke-opacity=".5"/>'
            )
        for level in range(flow.layers + 1):
            for p in range(flow.positions):
                yield _square(flow, s, level, p, (level, p) in sources, (level, p) in targets and s > 0)
        middle = _x(flow, s, 0) + _span(flow) / 2 - 1
        below = _y(flow, 0) + SIDE + 17
        yield f'<text x="{middle:g}" y="{below}" text-anchor="middle" fill="currentColor">segment {s + 1}</text>'


def _square(flow: Flow, s: int, level: int, position: int, source: bool, target: bool) -> str:
    """A position at a level; what is carried away is filled, what is changed by the memory has a thick edge."""
    colour = BLUE if position in flow.text else ORANGE
    fill, opacity = (ORANGE, ".95") if source else (colour, ".22")
    edge = f'stroke="{ORANGE}" stroke-width="2"' if source or target else f'stroke="{colour}" stroke-width="1"'
    return (
        f'<rect x="{_x(flow, s, position)}" y="{_y(flow, level)}" width="{SIDE}" height="{SIDE}" rx="2" '
        f'fill="{fill}" fill-opacity="{opacity}" {edge}/>'
    )


def _store(flow: Flow, s: int, carried: Carried) -> tuple[float, float]:
    """Where a store stands behind segment s, at the height of the layer that reads it."""
    return LEFT + (s + 1) * (_column(flow) + GAP) - GAP / 2 - 2, _bar(flow, carried.layer)


def _stores(flow: Flow) -> Iterator[str]:
    """Lines between the stores of memories that are added to; they run behind the layers."""
    for carried in flow.carried:
        if carried.kept:
            (x, y), (end, _) = _store(flow, 0, carried), _store(flow, SEGMENTS - 2, carried)
            yield f'<path d="M{x:g} {y:g}H{end:g}" stroke="{ORANGE}" stroke-width="2" stroke-opacity=".6"/>'


def _arrows(flow: Flow) -> Iterator[str]:
    for carried in flow.carried:
        dash = "" if carried.gradient else ' stroke-dasharray="4 3"'
        look = f'fill="none" stroke="{ORANGE}" stroke-width="1.8"{dash}'
        for s in range(SEGMENTS - 1):
            x0, y0 = _x(flow, s, max(carried.positions)) + SIDE + 1, _y(flow, carried.level) + SIDE / 2
            if carried.into:
                x1, y1 = _x(flow, s + 1, min(carried.into)) - 2.0, _y(flow, carried.layer - 1) + SIDE / 2
            else:
                x1, y1 = _x(flow, s + 1, 0) - 4.0, _bar(flow, carried.layer)
            if carried.kept:
                x, y = _store(flow, s, carried)
                yield f'<path d="{_curve(x0, y0, x, y)}" {look}/><path d="{_curve(x, y, x1, y1)}" {look}'
                yield f' marker-end="url(#TIP)"/><path d="M{x - 6:g} {y:g}l6 -6l6 6l-6 6z" fill="{ORANGE}"/>'
            else:
                yield f'<path d="{_curve(x0, y0, x1, y1)}" {look} marker-end="url(#TIP)"/>'


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    bend = (x1 - x0) / 2
    return f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
