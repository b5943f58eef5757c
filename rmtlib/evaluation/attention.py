"""Attention weights of a model, segment by segment, and what they say about its memory.

    maps = read_attention(model, segments)
    operations(maps[0])["write"].excess_LH      # layer by layer, head by head: 0 at chance, 1 on text alone

Nothing in the model files is made for this: the weights are recorded in passing (`AttentionRecorder`). Works for
Transformer-XL with and without memory, and for RMT, ARMT and PRMT around the package's decoder.

Shapes: B batch, S text tokens of a segment, L layers, H heads, E width of a head, T queries (read block, text, write
block), K keys (cached positions, then the same T).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rmtlib.errors import RmtlibError
from rmtlib.evaluation.operations import BLOCKS, OPERATIONS


def plain_attention(
    q_BHTE: Tensor,
    k_BGKE: Tensor,
    v_BGKE: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scaled_dot_product_attention` without dropout: its output, the weights (B, H, T, K), and what may be seen.

    What may be seen is boolean, (1 or B, 1, T, K); so is `attn_mask`.
    """
    groups = q_BHTE.shape[1] // k_BGKE.shape[1]
    k_BHKE, v_BHKE = (x.repeat_interleave(groups, dim=1) for x in (k_BGKE, v_BGKE))
    T, K = q_BHTE.shape[2], k_BHKE.shape[2]
    visible = torch.ones(1, 1, T, K, dtype=torch.bool, device=q_BHTE.device)
    visible = visible.tril() if is_causal else visible if attn_mask is None else attn_mask
    scores_BHTK = (q_BHTE @ k_BHKE.transpose(-1, -2) / math.sqrt(q_BHTE.shape[-1])).masked_fill(~visible, -torch.inf)
    weights_BHTK = scores_BHTK.softmax(-1)
    return weights_BHTK @ v_BHKE, weights_BHTK, visible


class AttentionRecorder(TorchFunctionMode):
    """While it is entered, every attention leaves its weights (B, H, T, K) here, in the order of the layers.

    Transformer-XL computes its weights itself, and they are noted as they are. The decoder's fused attention never
    has them: `plain_attention` does its work, so that what is recorded is what made the output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.visible: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            out, weights_BHTK, visible = plain_attention(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
            if func is not Tensor.softmax:
                return out
            weights_BHTK, visible = out, ~args[0].isneginf()[:, :1]
        self.weights.append(weights_BHTK)
        self.visible.append(visible)
        return out


class SegmentAttention(NamedTuple):
    """All attention weights of one segment, which of them are not masked, and how long the blocks of keys are."""

    weights_LBHTK: Tensor
    visible_BTK: Tensor
    cache: int
    read: int
    text: int
    write: int

    def count(self, block: str) -> int:
        """How many keys a block has."""
        return (self.cache, self.read, self.text, self.write)[BLOCKS.index(block)]

    def keys(self, block: str) -> slice:
        """Where a block's keys stand."""
        first = sum(self.count(earlier) for earlier in BLOCKS[: BLOCKS.index(block)])
        return slice(first, first + self.count(block))

    def queries(self, block: str) -> slice:
        """Where the queries of a block stand: the cache has none."""
        keys = self.keys(block)
        return slice(keys.start - self.cache, keys.stop - self.cache)


class Operation(NamedTuple):
    """How much some queries look at a block of keys.

    Attributes:
        mass_LH: weight that a query gives to the block, of 1: the mean over the queries and the batch.
        chance: the same if every query looked equally at all keys that it may see.
        keys_in_use_LH: over how many keys of the block the queries' weight is spread: the exponential of the entropy of
            their mean weights, for each sample, then the mean. 1: all look at one key; the block's length: all keys
            are looked at alike.
    """

    mass_LH: Tensor
    chance: float
    keys_in_use_LH: Tensor

    @property
    def excess_LH(self) -> Tensor:
        """(mass - chance) / (1 - chance): 0 at chance, 1 if the queries look at nothing else, below 0 if they avoid it.

        A query sees itself, so chance is below 1 for every operation.
        """
        return (self.mass_LH - self.chance) / (1 - self.chance)


@torch.no_grad()
def read_attention(model: Any, segments: Sequence[Tensor]) -> list[SegmentAttention]:
    """The attention of every segment of these samples, each segment (B, S) and full. The last one writes nothing.

    Raises:
        RmtlibError: the model has no attention (Mamba), or is in training mode.
    """
    if model.training:
        raise RmtlibError("attention is read without dropout: call model.eval() first")
    state, maps = model.initial_state(len(segments[0])), []
    for s, input_ids_BS in enumerate(segments, start=1):
        with AttentionRecorder() as recorder:
            _, state = model.step(input_ids_BS, state, write=s < len(segments))
        if not recorder.weights:
            raise RmtlibError(f"{type(model).__name__} has no attention to read: choose a model with attention layers")
        maps.append(_labelled(model, recorder, *input_ids_BS.shape))
    return maps


def _labelled(model: Any, recorder: AttentionRecorder, B: int, S: int) -> SegmentAttention:
    """What was recorded, with the lengths of its blocks: they are in the shapes, but for whether a model reads."""
    weights_LBHTK, visible_BTK = torch.stack(recorder.weights), recorder.visible[0][:, 0]
    T, K = weights_LBHTK.shape[-2:]
    memory_tokens = (model if hasattr(model, "memory_tokens") else model.config).memory_tokens
    read = memory_tokens * getattr(model, "has_read_block", True)
    return SegmentAttention(weights_LBHTK, visible_BTK.expand(B, -1, -1), K - T, read, S, T - S - read)


def operation(segment: SegmentAttention, queries: str, keys: str) -> Operation:
    """How much the queries of one block look at the keys of another (both have some)."""
    rows, columns = segment.queries(queries), segment.keys(keys)
    weights_LBHk = segment.weights_LBHTK[..., rows, columns].mean(3)
    mass_LBH = weights_LBHk.sum(-1)
    entropy_LBH = torch.special.entr(weights_LBHk / mass_LBH[..., None].clamp_min(1e-30)).sum(-1)
    visible_BTK = segment.visible_BTK[:, rows].double()
    chance = visible_BTK[..., columns].sum(-1) / visible_BTK.sum(-1)
    return Operation(mass_LBH.mean(1), float(chance.mean()), entropy_LBH.exp().mean(1))


def operations(segment: SegmentAttention) -> dict[str, Operation]:
    """All of `OPERATIONS` whose blocks this segment has."""
    return {
        name: operation(segment, queries, keys)
        for name, (queries, keys) in OPERATIONS.items()
        if segment.count(queries) and segment.count(keys)
    }


class Ablation(NamedTuple):
    """Right answers if a model's memory is lost on the way.

    Attributes:
        correct: row s (from 0), column t: tokens answered right in segment t + 1 if the memory after segment s was
            replaced by the initial one. Row 0: it never was.
        answers: answered tokens of each segment.
    """

    correct: list[list[int]]
    answers: list[int]


@torch.no_grad()
def ablate_memory(model: Any, segments: Sequence[Tensor], targets: Sequence[Tensor]) -> Ablation:
    """Answer with the memory after segment s replaced by that of the beginning (of Transformer-XL: an empty cache).

    Args:
        model: in eval mode.
        segments: input ids (B, S) of each segment, the true answers among them: no answer suffers from another.
        targets: the next tokens (B, S), negative at positions that are no answers.
    """
    initial = model.initial_state(len(segments[0]))
    state, intact = initial, []
    for input_ids_BS, targets_BS in zip(segments, targets, strict=True):
        right, state = _right(model, input_ids_BS, targets_BS, state)
        intact.append(right)
    correct = [intact]
    for s in range(1, len(segments)):
        row, state = intact[:s], initial
        for input_ids_BS, targets_BS in zip(segments[s:], targets[s:], strict=True):
            right, state = _right(model, input_ids_BS, targets_BS, state)
            row = [*row, right]
        correct.append(row)
    return Ablation(correct, [int((targets_BS >= 0).sum()) for targets_BS in targets])


def _right(model: Any, input_ids_BS: Tensor, targets_BS: Tensor, state: Any) -> tuple[int, Any]:
    """How many answers of a segment are right, and the next state."""
    hidden_BSD, state = model.step(input_ids_BS, state)
    asked_BS = targets_BS >= 0
    if not asked_BS.any():
        return 0, state
    predicted_N = model.logits(hidden_BSD[asked_BS]).argmax(-1)
    return int((predicted_N == targets_BS[asked_BS]).sum()), state
