"""Models whose recurrence stays inside each layer, and the wavefront that this allows.

Layer l of segment s needs layer l-1 of the same segment and layer l's own state after segment s-1, nothing else. So
all cells (s, l) with the same s + l can run at once, as one batch over stacked weights ("diagonal batching"):

    layer 2 |        2  3  4  5
    layer 1 |     1  2  3  4          the number in a cell is the step in which it runs:
    layer 0 |  0  1  2  3             4 segments of 3 layers take 6 steps instead of 12
            +------------------
               segments s = 0 ..

A subclass says what happens where a layer's input enters (`enter`) and where its output leaves (`leave`), for several
layers at once; the loop over layers and the wavefront both call these.

Shapes: L layers, l some of them, B batch, S segment length, M memory tokens, T positions, D width.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmtlib.models.decoder import Decoder, KeyValues
from rmtlib.models.interface import LanguageModel
from rmtlib.models.stacked import StackedBlocks

State = Any
"""A NamedTuple of tensors, each with the layers first: (L, B, ...)."""


class Frame(NamedTuple):
    """Which memory blocks stand around the text of some cells, and how long the texts are.

    `lengths_lB`: real tokens of each cell's samples; None where all are full. The write block follows them.
    """

    read: bool
    write: bool
    lengths_lB: Tensor | None = None


class OpenLayers(NamedTuple):
    """A segment that is being read token by token: its starting state, key-value cache and tokens so far (B, n)."""

    state: State
    cache: KeyValues | None
    input_ids_Bn: Tensor


class _Cell(NamedTuple):
    """A segment on its way up through the layers: its text length S and its samples' lengths."""

    text: int
    lengths_B: Tensor | None


def layers_of(state: State, layers: slice) -> State:
    """The state of these layers."""
    return type(state)(*(x[layers] for x in state))


def join_layers(parts: list[State]) -> State:
    """States of consecutive layers as one."""
    return parts[0] if len(parts) == 1 else type(parts[0])(*(torch.cat(xs) for xs in zip(*parts, strict=True)))


class LayeredModel(LanguageModel):
    """A decoder whose layers each have a memory of their own; see the module's text.

    Layout of a segment: [read block, if the model has one | text | write block | padding].
    """

    has_read_block = False

    def __init__(self, decoder: Decoder, memory_tokens: int):
        super().__init__()
        if memory_tokens < 1:
            raise ValueError(f"memory_tokens is {memory_tokens}; it must be 1 or more")
        self.decoder = decoder
        self.memory_tokens = memory_tokens

    # What a subclass defines.

    def initial_state(self, batch: int) -> State:
        """The state before the first segment."""
        raise NotImplementedError

    def memory_block(self, batch: int) -> Tensor:
        """What stands in a memory block at layer 0, before positions are added: (B, M, D)."""
        raise NotImplementedError

    def enter(self, x_lBTD: Tensor, state: State, layers: slice, frame: Frame) -> Tensor:
        """The inputs of these layers, once their memory has been brought in."""
        raise NotImplementedError

    def leave(self, x_lBTD: Tensor, state: State, layers: slice, frame: Frame) -> State:
        """The layers' next state, from their outputs. Samples of length 0 keep theirs."""
        raise NotImplementedError

    # The same for all of them.

    @staticmethod
    def detach(state: State) -> State:
        """The same state, cut from its graph."""
        return type(state)(*(x.detach() for x in state))

    def state_size(self) -> int:
        """Floats carried from segment to segment, per sample."""
        return sum(x.numel() for x in self.initial_state(1))

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of chosen rows of `hidden`."""
        return self.decoder.logits(hidden)

    def step(
        self, input_ids_BS: Tensor, state: State, lengths_B: Tensor | None = None, *, write: bool = True
    ) -> tuple[Tensor, State]:
        """Read one segment, layer after layer. Arguments and results as `RMT.step`."""
        frame = Frame(self.has_read_block, write, None if lengths_B is None else lengths_B[None])
        hidden_BTD, parts, _ = self._climb(self._layout(input_ids_BS, frame), state, frame)
        return self._text(hidden_BTD, input_ids_BS.shape[1]), join_layers(parts) if parts else state

    def sweep(self, segments: Iterable[tuple[Tensor, Tensor | None]], state: State) -> Generator[Tensor, None, State]:
        """Read segments as a wavefront; equal to `step` after `step`, up to rounding and dropout.

        Args:
            segments: input ids (B, S) and lengths (B) or None of each, all of one shape; taken one at a time.
            state: before the first.

        Returns:
            Yields the outputs (B, S, D) of each segment in order; the generator's value is the state after the last.
        """
        blocks, source = StackedBlocks(self.decoder), iter(segments)
        cells: deque[_Cell] = deque()  # those that run next, lowest layer (newest segment) first
        first = last = 0  # they stand in layers first .. last-1
        active, finished = layers_of(state, slice(0, 0)), []  # state of these layers, and of those below
        x_lBTD: Tensor | None = None
        while (segment := next(source, None)) is not None or cells:
            if last < blocks.depth:
                entering = layers_of(state, slice(last, last + 1))
                active = join_layers([active, entering]) if cells else entering
                last += 1
            if segment is None:
                finished.append(layers_of(active, slice(0, 1)))
                active, first = layers_of(active, slice(1, None)), first + 1
            else:
                ids_BS, lengths_B = segment
                cells.appendleft(_Cell(ids_BS.shape[1], lengths_B))
                x_1BTD = self._layout(ids_BS, self._frame([cells[0]], ids_BS))[None]
                x_lBTD = x_1BTD if x_lBTD is None else torch.cat([x_1BTD, x_lBTD])
            assert x_lBTD is not None
            layers, frame = slice(first, last), self._frame(cells, x_lBTD)
            x_lBTD = blocks(self.enter(x_lBTD, active, layers, frame), layers)
            active = self.leave(x_lBTD, active, layers, frame)
            if last == blocks.depth:
                yield self._text(self.decoder.norm(x_lBTD[-1]), cells.pop().text)
                x_lBTD = x_lBTD[:-1] if cells else None
        return join_layers([*finished, active]) if finished else state

    def prefers_wavefront(self, batch: int, length: int, count: int) -> bool:
        """Whether `sweep` is the faster way to read `count` segments of `length` tokens, and gives the same result.

        It is where a cell alone is too small to keep the device busy: on a CPU where the calls cost more than the
        arithmetic (three layers up, narrow ones: measured, see benchmarks/); on a GPU up to some thousand rows (an
        estimate).
        """
        c = self.decoder.config
        if count < 2 or c.n_layers < 3 or (self.training and c.dropout > 0):
            return False
        size = batch * (length + (1 + self.has_read_block) * self.memory_tokens) * c.d_model
        if self.decoder.tokens.weight.device.type == "cpu":
            return c.d_model <= 256 and size <= 2**16
        return size <= 2**21

    # Token by token, for generation: open_segment, extend as often as wanted, close_segment; equal to one step.

    def open_segment(self, state: State) -> OpenLayers:
        """Start a segment: put the read block, if there is one, into a key-value cache."""
        batch, cache = state[0].shape[1], None
        if self.has_read_block:
            x_BMD = self.decoder.place(self.memory_block(batch))
            _, _, cache = self._climb(x_BMD, state, Frame(True, False))
        ids_B0 = torch.empty(batch, 0, dtype=torch.long, device=self.decoder.tokens.weight.device)
        return OpenLayers(state, cache, ids_B0)

    def extend(self, segment: OpenLayers, input_ids_Bn: Tensor) -> tuple[Tensor, OpenLayers]:
        """Read n more tokens of an open segment; returns their outputs (B, n, D) and the grown segment."""
        seen, n = torch.cat([segment.input_ids_Bn, input_ids_Bn], dim=1), input_ids_Bn.shape[1]
        reach = n + max(self.decoder.config.conv_taps - 1, 0)
        first = segment.cache.length if segment.cache else 0
        x_BnD = self.decoder.place(self.decoder.embed(seen[:, -reach:])[:, -n:], first)
        hidden_BnD, _, cache = self._climb(x_BnD, segment.state, Frame(False, False), segment.cache)
        return hidden_BnD, OpenLayers(segment.state, cache, seen)

    def close_segment(self, segment: OpenLayers) -> State:
        """Append the write block and return the next state."""
        if not segment.input_ids_Bn.shape[1]:
            return segment.state
        first = segment.cache.length if segment.cache else 0
        x_BMD = self.decoder.place(self.memory_block(segment.input_ids_Bn.shape[0]), first)
        return join_layers(self._climb(x_BMD, segment.state, Frame(False, True), segment.cache)[1])

    # Parts.

    def _climb(
        self,
        x_BTD: Tensor,
        state: State,
        frame: Frame,
        cache: KeyValues | None = None,
        leave: Callable[[Tensor, State, slice, Frame], Any] | None = None,
    ) -> tuple[Tensor, list[Any], KeyValues]:
        """All layers, one after the other: final norm's output, what `leave` made of each layer, grown cache."""
        angles = self.decoder.angles(cache.length if cache else 0, x_BTD.shape[1], x_BTD.device)
        parts, keys, values = [], [], []
        for i, block in enumerate(self.decoder.blocks):
            layers = slice(i, i + 1)
            before = layers_of(state, layers)
            past = (cache.keys[i], cache.values[i]) if cache else None
            x_BTD, (k, v) = block(self.enter(x_BTD[None], before, layers, frame)[0], angles, None, past)
            keys.append(k)
            values.append(v)
            if frame.write:
                parts.append((leave or self.leave)(x_BTD[None], before, layers, frame))
        return self.decoder.norm(x_BTD), parts, KeyValues(tuple(keys), tuple(values))

    def _layout(self, input_ids_BS: Tensor, frame: Frame) -> Tensor:
        """Embeddings with positions: [read | text | write | padding], so that padding shifts nothing."""
        text_BSD = self.decoder.embed(input_ids_BS)
        memory_BMD = self.memory_block(len(text_BSD)).to(text_BSD.dtype)
        x_BTD = torch.cat([memory_BMD] * frame.read + [text_BSD] + [memory_BMD] * frame.write, dim=1)
        if frame.lengths_lB is not None and frame.write:
            M, S, R = self.memory_tokens, text_BSD.shape[1], self.memory_tokens * frame.read
            t_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
            end_B1 = R + frame.lengths_lB[0][:, None]
            order_BT = torch.where(t_T < end_B1, t_T, torch.where(t_T < end_B1 + M, t_T - end_B1 + R + S, t_T - M))
            x_BTD = x_BTD.gather(1, order_BT[..., None].expand_as(x_BTD))
        return self.decoder.place(x_BTD)

    def _text(self, hidden_BTD: Tensor, length: int) -> Tensor:
        first = self.memory_tokens * self.has_read_block
        return hidden_BTD[:, first : first + length]

    def write_block(self, x_lBTD: Tensor, frame: Frame) -> Tensor:
        """The rows of the write block: (l, B, M, D)."""
        if frame.lengths_lB is None:
            return x_lBTD[:, :, -self.memory_tokens :]
        return x_lBTD.gather(2, self.write_places(x_lBTD, frame))

    def write_places(self, x_lBTD: Tensor, frame: Frame) -> Tensor:
        """Index of the write block along T, as `gather` and `scatter` want it: (l, B, M, D)."""
        M, T = self.memory_tokens, x_lBTD.shape[2]
        m_M = torch.arange(M, device=x_lBTD.device)
        if frame.lengths_lB is None:
            return (T - M + m_M)[:, None].expand(*x_lBTD.shape[:2], M, x_lBTD.shape[3])
        at_lBM = M * frame.read + frame.lengths_lB[..., None] + m_M
        return at_lBM[..., None].expand(-1, -1, -1, x_lBTD.shape[3])

    def _frame(self, cells: Iterable[_Cell], like: Tensor) -> Frame:
        cells = list(cells)
        if all(c.lengths_B is None for c in cells):
            return Frame(self.has_read_block, True)
        batch = like.shape[-3] if like.dim() > 2 else like.shape[0]
        full = [torch.full((batch,), c.text, device=like.device) if c.lengths_B is None else c.lengths_B for c in cells]
        return Frame(self.has_read_block, True, torch.stack(full))
