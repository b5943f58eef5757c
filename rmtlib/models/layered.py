"""Models whose recurrence stays inside each layer, and the wavefront that this allows.

Layer l of segment s needs layer l-1 of the same segment and layer l's own state after segment s-1, nothing else. So
all cells (s, l) with the same s + l can run at once, as one batch over stacked weights ("diagonal batching",
arXiv 2506.05229):

    layer 2 |        2  3  4  5
    layer 1 |     1  2  3  4          the number in a cell is the step in which it runs:
    layer 0 |  0  1  2  3             4 segments of 3 layers take 6 steps instead of 12
            +------------------
               segments s = 0 ..

A subclass says how a layer's memory is read into its input (`read_memory`) and written from its output
(`write_memory`), for several layers at once; the loop over layers and the wavefront both call these.

Shapes: L layers, l some of them, B batch, S segment length, n new tokens, M memory tokens, T positions, D width.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any

import torch
from torch import Tensor

from rmtlib.models.adapters import HasMemory
from rmtlib.models.blocks import Blocks, stack
from rmtlib.models.decoder import KeyValues, OpenSegment
from rmtlib.models.hf_decoder import Backbone
from rmtlib.models.interface import LanguageModel
from rmtlib.models.stacked import StackedBlocks, stackable

State = Any
"""A NamedTuple of tensors, each with the layers first: (L, B, ...)."""


def layers_of(state: State, layers: slice) -> State:
    """The state of these layers."""
    return type(state)(*(x[layers] for x in state))


def join_layers(parts: list[State]) -> State:
    """States of consecutive layers as one."""
    return parts[0] if len(parts) == 1 else type(parts[0])(*(torch.cat(xs) for xs in zip(*parts, strict=True)))


class LayeredModel(HasMemory, LanguageModel):
    """A decoder whose layers each have a memory of their own; see the module's text.

    Layout of a segment: [read block, if the model has one | text | write block | padding].
    """

    has_read_block = False

    def __init__(self, decoder: Backbone, memory_tokens: int):
        super().__init__()
        if memory_tokens < 1:
            raise ValueError(f"memory_tokens is {memory_tokens}; it must be 1 or more")
        self.decoder = decoder
        self.memory_tokens = memory_tokens

    # What a subclass defines. The lengths of `blocks` are (l, B) in `read_memory` and `write_memory`.

    def initial_state(self, batch: int) -> State:
        """The state before the first segment."""
        raise NotImplementedError

    def memory_block(self, batch: int) -> Tensor:
        """What stands in a memory block at layer 0, before positions are added: (B, M, D)."""
        raise NotImplementedError

    def read_memory(self, x_lBTD: Tensor, state: State, layers: slice, blocks: Blocks) -> Tensor:
        """The inputs of these layers, once their memory has been brought in."""
        raise NotImplementedError

    def write_memory(self, x_lBMD: Tensor, state: State, layers: slice, blocks: Blocks) -> State:
        """The layers' next state, from their outputs at the write block. Samples of length 0 keep theirs."""
        raise NotImplementedError

    # The same for all of them.

    def state_size(self) -> int:
        """Floats carried from segment to segment, per sample."""
        return sum(x.numel() for x in self.initial_state(1))

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of chosen rows of `hidden`."""
        return self.decoder.logits(hidden)

    def step(
        self,
        input_ids_BS: Tensor,
        state: State,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Read one segment, layer after layer. Arguments and results as `RMT.step`."""
        blocks = self._blocks(input_ids_BS, lengths_B, write)
        x_BTD = self._embed(input_ids_BS, blocks)
        text_BND, parts, _ = self.run_layers(x_BTD, state, blocks, rows_BN=rows_BN)
        return text_BND, join_layers(parts) if parts else state

    def run_layers(
        self,
        x_BTD: Tensor,
        state: State,
        blocks: Blocks,
        cache: KeyValues | None = None,
        write_memory: Callable[[Tensor, State, slice, Blocks], Any] | None = None,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, list[Any], KeyValues]:
        """All layers, one after the other: final norm's output, what `write_memory` made of each layer, grown cache.

        The output is that of the text rows, (B, S, D) or at `rows_BN` (B, N, D).
        """
        write, of_layer, depth = write_memory or self.write_memory, stack([blocks]), self.decoder.config.n_layers
        rows_BQ = None if rows_BN is None else blocks.chosen(rows_BN)
        written: list[Any] = []

        def before(i: int, x_BTD: Tensor) -> Tensor:
            layer = slice(i, i + 1)
            return self.read_memory(x_BTD[None], layers_of(state, layer), layer, of_layer)[0]

        def after(i: int, x_BTD: Tensor) -> None:
            layer = slice(i, i + 1)
            if blocks.write:
                _, written_BMD = blocks.split(x_BTD, rows_BN if i == depth - 1 else None)
                written.append(write(written_BMD[None], layers_of(state, layer), layer, of_layer))

        hidden_BTD, cache = self.decoder.run(x_BTD, cache=cache, rows_BQ=rows_BQ, before=before, after=after)
        return blocks.split(hidden_BTD, rows_BN)[0], written, cache

    def forward_diagonal(
        self, segments: Iterable[tuple[Tensor, Tensor | None]], state: State
    ) -> Generator[Tensor, None, State]:
        """Read segments as a wavefront; equal to `step` after `step`, up to rounding and dropout.

        Args:
            segments: input ids (B, S) and lengths (B) or None of each, all of one shape; taken one at a time.
            state: before the first.

        Yields:
            The outputs (B, S, D) of each segment in order.

        Returns:
            The state after the last.
        """
        if not stackable(self.decoder):  # adapters inside, or Hugging Face's own module
            for input_ids_BS, lengths_B in segments:
                hidden_BSD, state = self.step(input_ids_BS, state, lengths_B)
                yield hidden_BSD
            return state
        run, source = StackedBlocks(self.decoder), iter(segments)
        cells: deque[Blocks] = deque()  # the segments under way, newest first: one each in layers first .. last-1
        first = last = 0
        active, finished = layers_of(state, slice(0, 0)), []  # state of these layers, and of those below
        x_lBTD: Tensor | None = None
        while (segment := next(source, None)) is not None or cells:
            # Every turn is one diagonal: the oldest segment moves into a layer that none has reached (until there is
            # no higher one), each other segment into the layer of the one before it, and a new segment into layer 0,
            # where it becomes row 0 of x (l, B, T, D). Without a new segment the lowest layer has read its last.
            if last < run.depth:
                reached = layers_of(state, slice(last, last + 1))
                active = join_layers([active, reached]) if cells else reached
                last += 1
            if segment is None:
                finished.append(layers_of(active, slice(0, 1)))
                active, first = layers_of(active, slice(1, None)), first + 1
            else:
                cells.appendleft(self._blocks(*segment))
                x_1BTD = self._embed(segment[0], cells[0])[None]
                x_lBTD = x_1BTD if x_lBTD is None else torch.cat([x_1BTD, x_lBTD])
            assert x_lBTD is not None
            layers, blocks = slice(first, last), stack(cells)
            x_lBTD = self.read_memory(x_lBTD, active, layers, blocks)
            x_lBTD = run(x_lBTD, layers)
            active = self.write_memory(blocks.write_rows(x_lBTD), active, layers, blocks)
            if last == run.depth:
                yield cells.pop().text_rows(self.decoder.norm(x_lBTD[-1]))
                x_lBTD = x_lBTD[:-1] if cells else None
        return join_layers([*finished, active]) if finished else state

    def prefers_wavefront(self, batch: int, length: int, count: int) -> bool:
        """Whether `forward_diagonal` is faster for `count` segments of `length` tokens, and gives the same result.

        It is faster if a cell alone is too small to keep the device busy: on a CPU if the calls cost more than the
        arithmetic (three layers up, narrow ones), on a GPU up to some thousand rows (in reading). Measured: see
        benchmarks/.
        """
        if count < 2 or not stackable(self.decoder):
            return False
        c = self.decoder.config
        if c.n_layers < 3 or (self.training and c.dropout > 0):
            return False
        size = batch * (length + (1 + self.has_read_block) * self.memory_tokens) * c.d_model
        if self.decoder.tokens.weight.device.type == "cpu":
            return c.d_model <= 256 and size <= 2**16
        return size <= 2**23

    # Token by token, for generation: open_segment, extend as often as wanted, close_segment; equal to one step.

    def open_segment(self, state: State) -> OpenSegment:
        """Start a segment: put the read block, if there is one, into a key-value cache."""
        batch, cache = state[0].shape[1], None
        if self.has_read_block:
            x_BMD = self.decoder.add_positions(self.memory_block(batch))
            _, _, cache = self.run_layers(x_BMD, state, Blocks(self.memory_tokens, 0, 0))
        ids_B0 = torch.empty(batch, 0, dtype=torch.long, device=self.decoder.tokens.weight.device)
        return OpenSegment(state, cache, ids_B0)

    def extend(self, segment: OpenSegment, input_ids_Bn: Tensor) -> tuple[Tensor, OpenSegment]:
        """Read n more tokens of an open segment; returns their outputs (B, n, D) and the grown segment."""
        seen_Bn, n = torch.cat([segment.input_ids_Bn, input_ids_Bn], dim=1), input_ids_Bn.shape[1]
        first = segment.cache.length if segment.cache else 0
        x_BnD = self.decoder.add_positions(self.decoder.embed_last(seen_Bn, n), first)
        hidden_BnD, _, cache = self.run_layers(x_BnD, segment.state, Blocks(0, n, 0), segment.cache)
        return hidden_BnD, OpenSegment(segment.state, cache, seen_Bn)

    def close_segment(self, segment: OpenSegment) -> State:
        """Append the write block and return the next state."""
        if not segment.input_ids_Bn.shape[1]:
            return segment.state
        assert segment.cache is not None
        x_BMD = self.decoder.add_positions(self.memory_block(len(segment.input_ids_Bn)), segment.cache.length)
        return join_layers(self.run_layers(x_BMD, segment.state, Blocks(0, 0, self.memory_tokens), segment.cache)[1])

    # Parts.

    def _blocks(self, input_ids_BS: Tensor, lengths_B: Tensor | None, write: bool = True) -> Blocks:
        M = self.memory_tokens
        return Blocks(M * self.has_read_block, input_ids_BS.shape[1], M * write, lengths_B)

    def _embed(self, input_ids_BS: Tensor, blocks: Blocks) -> Tensor:
        """Embeddings with positions (B, T, D), memory blocks included."""
        text_BSD = self.decoder.embed(input_ids_BS)
        memory_BMD = self.memory_block(len(text_BSD)).to(text_BSD.dtype)
        x_BTD = torch.cat([memory_BMD] * self.has_read_block + [text_BSD] + [memory_BMD] * (blocks.write > 0), dim=1)
        return self.decoder.add_positions(blocks.arrange(x_BTD))
