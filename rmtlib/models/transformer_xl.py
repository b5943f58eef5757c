"""Transformer-XL (Dai et al. 2019) with memory tokens: the models of the RMT paper's language modelling tables.

One relative-position decoder serves every row; what differs is what passes from segment to segment:

    Baseline        nothing                                         cache=0, memory_tokens=0
    MT              nothing; M learned tokens before each segment   memory_tokens=M, recurrent=False
    Tr-XL           each layer's inputs at the last positions       cache=m
    RMT             the outputs at M write tokens                   memory_tokens=M
    Tr-XL + RMT     both                                            cache=m, memory_tokens=M

    [ cache P | read memory M | segment S | write memory M ]  ->  layers  ->  outputs at the write block: next memory

Shapes: B batch, S segment length, M memory tokens, D width, H heads, E width of a head, L layers, P cached positions,
T = M + S + M new positions, K = P + T keys, R relative distances, N rows, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.errors import RmtlibError
from rmtlib.models.adaptive_softmax import AdaptiveSoftmax
from rmtlib.models.blocks import Blocks
from rmtlib.models.config import TransformerXLConfig
from rmtlib.models.interface import take_rows


class XLState(NamedTuple):
    """All that passes from one segment to the next: written memory (B, M, D), each layer's cached inputs (L, B, P, D).

    The cache never carries a gradient. It grows from nothing to its full length over the first segments. A sample that
    has read less than others of its batch has its inputs at the end; `absent_BP` is 1 at the positions before them.
    While all texts are full it is empty: (B, 0).
    """

    memory_BMD: Tensor
    cache_LBPD: Tensor
    absent_BP: Tensor


class OpenSegment(NamedTuple):
    """A segment that is being read token by token: the state before it, each layer's inputs (L, B, M + n, D) so far."""

    state: XLState
    inputs_LBQD: Tensor


def sinusoids(distances_R: Tensor, width: int) -> Tensor:
    """Sinusoidal embeddings (R, width) of distances, which may be negative: all sines, then all cosines."""
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, device=distances_R.device, dtype=distances_R.dtype) / width)
    angle = distances_R[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def relative_scores(q_BHTE: Tensor, r_HRE: Tensor, keys: int) -> Tensor:
    """Position scores (B, H, T, K) of every query with the distance to every key, without a loop.

    Args:
        q_BHTE: the last T of K positions.
        r_HRE: projected embeddings of the distances K-1, K-2, ..., K-R (so of negative ones at the end); R > K.

    Entry (i, j) is the score of query i with distance (K - T + i) - j. Row i of ``q r^T`` holds it at column
    T - 1 - i + j, so reading the flattened rows with one column less a row lines them up (Dai et al., appendix B).
    What lies beyond the last distance is the beginning of the next row. Callers mask it, or see to it that there are
    enough distances; `memory_positions="released"` leaves it in, as released code does.
    """
    raw_BHTR = q_BHTE @ r_HRE.transpose(-1, -2)
    T, R = raw_BHTR.shape[-2:]
    shifted = raw_BHTR.flatten(2)[..., T - 1 : T - 1 + T * (R - 1)]
    return shifted.unflatten(2, (T, R - 1))[..., :keys]


def relative_scores_naive(q_BHTE: Tensor, r_HRE: Tensor, keys: int) -> Tensor:
    """`relative_scores` as a double loop; entries beyond the last distance are zero."""
    B, H, T, _ = q_BHTE.shape
    scores = q_BHTE.new_zeros(B, H, T, keys)
    for i in range(T):
        for j in range(keys):
            distance = keys - T + i - j
            if keys - 1 - distance < r_HRE.shape[1]:
                scores[:, :, i, j] = (q_BHTE[:, :, i] * r_HRE[:, keys - 1 - distance]).sum(-1)
    return scores


class Shared(NamedTuple):
    """What the attentions of all layers have in common in one pass: embeddings of the distances, mask, two biases."""

    positions_RD: Tensor
    mask: Tensor
    content_bias_HE: Tensor
    position_bias_HE: Tensor


class RelativeAttention(nn.Module):
    """Attention over cache and segment: content and position terms, each with a bias of its own on the query side."""

    def __init__(self, config: TransformerXLConfig):
        super().__init__()
        inner = config.n_heads * config.d_head
        self.heads = config.n_heads
        self.query = nn.Linear(config.d_model, inner, bias=False)
        self.key_value = nn.Linear(config.d_model, 2 * inner, bias=False)
        self.position = nn.Linear(config.d_model, inner, bias=False)
        self.out = nn.Linear(inner, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, past_BPD: Tensor, shared: Shared, first: int = 0) -> Tensor:
        """Outputs (B, T - first, D) of the new positions from `first` on (Dai et al. 2019, section 3.3).

        The score of query q and key k at a signed distance whose embedding is mapped to r, with the two biases u and v:
        ((q + u) k + (q + v) r) / sqrt(E). `past_BPD`: the layer's cached inputs.
        """
        q_BHTE = self._heads(self.query(x_BTD[:, first:]))
        k_BHKE, v_BHKE = self._heads(self.key_value(torch.cat([past_BPD, x_BTD], dim=1))).chunk(2, dim=-1)
        r_HRE = self.position(shared.positions_RD).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        content_H1E, position_H1E = (bias_HE.to(q_BHTE.dtype)[:, None] for bias_HE in shared[2:])
        score_BHTK = (q_BHTE + content_H1E) @ k_BHKE.transpose(-1, -2)
        score_BHTK = score_BHTK + relative_scores(q_BHTE + position_H1E, r_HRE, k_BHKE.shape[2])
        score_BHTK = (score_BHTK / math.sqrt(q_BHTE.shape[-1])).masked_fill(~shared.mask[:, :, first:], -torch.inf)
        mixed_BHTE = score_BHTK.softmax(-1).to(v_BHKE.dtype) @ v_BHKE
        return self.out(mixed_BHTE.transpose(1, 2).flatten(2))

    def _heads(self, x_BTI: Tensor) -> Tensor:
        return x_BTI.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Post-norm layer: attention, then a two-layer perceptron with ReLU."""

    def __init__(self, config: TransformerXLConfig):
        super().__init__()
        self.attention = RelativeAttention(config)
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, past_BPD: Tensor, shared: Shared, first: int = 0) -> Tensor:
        """The outputs of the new positions from `first` on: (B, T - first, D)."""
        mixed_BTD = self.attention(x_BTD, past_BPD, shared, first)
        x_BTD = self.attention_norm(x_BTD[:, first:] + self.dropout(mixed_BTD))
        fed_BTD = self.down(self.dropout(F.relu(self.up(x_BTD))))
        return self.feed_forward_norm(x_BTD + self.dropout(fed_BTD))


class TransformerXL(nn.Module):
    """The decoder with explicit state: ``hidden, state = model.step(input_ids, state)``.

    Memory enters and leaves as the vector it is: text embeddings are scaled by sqrt(D), memory is not, and the
    outputs at the write block are taken after the final dropout, as released.

    The parameters are those of the published models: 41,055,436 for enwik8, 151,107,538 for WikiText-103, and D more
    for each memory token.
    """

    def __init__(self, config: TransformerXLConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.content_bias_HE = nn.Parameter(torch.randn(config.n_heads, config.d_head) * 0.02)
        self.position_bias_HE = nn.Parameter(torch.randn(config.n_heads, config.d_head) * 0.02)
        self.softmax = AdaptiveSoftmax(config.vocab_size, config.d_model, config.cutoffs, config.auxiliary_token)
        self.dropout = nn.Dropout(config.dropout)
        self.apply(self._initialise)
        M, D = config.memory_tokens, config.d_model
        vectors = torch.randn(1, D).repeat(M, 1) if config.initial_memory == "copied" else torch.randn(M, D)
        self.memory_MD = nn.Parameter(vectors)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def state_size(self) -> int:
        """Floats carried from segment to segment, per sample, once the cache is full."""
        c = self.config
        return c.d_model * (c.memory_tokens * c.recurrent + c.cache * c.n_layers)

    def with_cache(self, cache: int) -> "TransformerXL":
        """A model in eval mode of these very weights, also as they change, with a cache of another length."""
        with torch.device("meta"):
            other = TransformerXL(replace(self.config, cache=cache))
        other.load_state_dict(self.state_dict(), assign=True)
        return other.eval()

    def compile_layers(self) -> None:
        """Fuse what a layer computes, with torch.compile: once for each shape, whose code all layers share."""
        for layer in self.layers:
            layer.compile(dynamic=False)  # code for any shape takes longer to make, and failed on a GPU

    def initial_state(self, batch: int) -> XLState:
        """The learned memory, once per sample, and an empty cache."""
        c, like = self.config, self.memory_MD
        memory_MD = self.memory_MD if c.recurrent else self.memory_MD[:0]
        cache_LBPD = like.new_empty(c.n_layers, batch, 0, c.d_model)
        return XLState(memory_MD.expand(batch, -1, -1), cache_LBPD, like.new_empty(batch, 0))

    def step(
        self,
        input_ids_BS: Tensor,
        state: XLState,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, XLState]:
        """Read one segment.

        Args:
            input_ids_BS: token ids, right-padded.
            state: memory and cache before the segment.
            lengths_B: real tokens of each sample, 0 to S; None if every sample is full. A sample of length 0
                keeps its state; padding never changes a sample's outputs or state.
            write: False leaves out the write block and returns the state as it was (for the last segment).
            rows_BN: text positions whose outputs are wanted; None: all. If there are none (N = 0) and all texts are
                full, the last layer computes the write block alone, which gives the same up to rounding; not with
                dropout in training, so that the random draws keep their meaning.

        Returns:
            The outputs at the text positions (B, S, D), or at `rows_BN` (B, N, D), undefined in rows of padding, and
            the next state.

        Raises:
            ValueError: `lengths_B` with memory_positions="released" and more than two memory tokens.
        """
        c, M = self.config, self.config.memory_tokens
        if lengths_B is not None:
            self._need_exact_positions("padding")
        blocks = Blocks(M, input_ids_BS.shape[1], M * (write and c.recurrent), lengths_B)
        text_BSD = self.tokens(input_ids_BS) * math.sqrt(c.d_model)
        memory_BMD = self._memory(state).to(text_BSD.dtype)
        x_BTD = torch.cat([memory_BMD, text_BSD] + [memory_BMD] * (write and c.recurrent), dim=1)
        no_text = rows_BN is not None and not rows_BN.shape[1]
        first = 0
        if no_text and lengths_B is None and not (self.training and c.dropout > 0):
            first = blocks.read + blocks.text
        mask = self._mask(blocks, state)
        hidden_BTD, inputs = self._run_layers(blocks.arrange(x_BTD), state.cache_LBPD, mask, first)
        if no_text:
            text_BND = hidden_BTD[:, :0]
        else:
            text_BND = blocks.text_rows(hidden_BTD)
            text_BND = text_BND if rows_BN is None else take_rows(text_BND, rows_BN)
        return text_BND, self._next_state(state, blocks, hidden_BTD, inputs) if write else state

    # Token by token, for generation: open_segment, extend as often as wanted, close_segment; equal to one step. Like
    # the cache, an open segment keeps every layer's inputs, not keys and values.

    def open_segment(self, state: XLState) -> OpenSegment:
        """Start a segment: run the read block, if there is one."""
        self._need_exact_positions("reading token by token")
        M = self.config.memory_tokens
        if not M:
            return OpenSegment(state, state.cache_LBPD[:, :, :0])
        _, inputs = self._run_layers(self._memory(state), state.cache_LBPD, self._mask(Blocks(M, 0, 0), state))
        return OpenSegment(state, torch.stack(inputs))

    def extend(self, segment: OpenSegment, input_ids_Bn: Tensor) -> tuple[Tensor, OpenSegment]:
        """Read n more tokens of an open segment; returns their outputs (B, n, D) and the grown segment."""
        x_BnD = self.tokens(input_ids_Bn) * math.sqrt(self.config.d_model)
        hidden_BnD, inputs_LBQD = self._continue(segment, x_BnD, Blocks(0, x_BnD.shape[1], 0))
        return hidden_BnD, OpenSegment(segment.state, inputs_LBQD)

    def close_segment(self, segment: OpenSegment) -> XLState:
        """Append the write block and return the next state."""
        c, M = self.config, self.config.memory_tokens
        state, hidden_BMD, inputs_LBQD = segment.state, segment.state.memory_BMD, segment.inputs_LBQD
        n = inputs_LBQD.shape[2] - M
        if not n:
            return state
        if M and c.recurrent:
            hidden_BMD, inputs_LBQD = self._continue(segment, self._memory(state), Blocks(0, 0, M))
        return self._next_state(state, Blocks(M, n, M * c.recurrent), hidden_BMD, inputs_LBQD.unbind())

    def _continue(self, segment: OpenSegment, x_BTD: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, D) of more positions of an open segment, and each layer's inputs with theirs behind."""
        past_LBPD = torch.cat([segment.state.cache_LBPD, segment.inputs_LBQD], dim=2)
        mask = self._mask(blocks, segment.state, segment.inputs_LBQD.shape[2])
        hidden_BTD, inputs = self._run_layers(x_BTD, past_LBPD, mask)
        return hidden_BTD, torch.cat([segment.inputs_LBQD, torch.stack(inputs)], dim=2)

    # Parts.

    def _memory(self, state: XLState) -> Tensor:
        """What stands in the read block (B, M, D)."""
        return state.memory_BMD if self.config.recurrent else self.memory_MD.expand(state.cache_LBPD.shape[1], -1, -1)

    def _need_exact_positions(self, what: str) -> None:
        """Refuse what the released positions make impossible; up to two memory tokens look no more than one ahead."""
        if self.config.memory_positions == "released" and self.config.memory_tokens > 2:
            raise ValueError(
                f"memory_positions is 'released', whose positions depend on the segment's length; {what} needs "
                "'signed' or 'content'"
            )

    def _run_layers(
        self, x_BTD: Tensor, past_LBPD: Tensor, mask: Tensor, first: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """Outputs of the new positions, which follow `past_LBPD`, from `first` on, and each layer's inputs (B, T, D).

        The outputs are (B, T - first, D).
        """
        x_BTD = self.dropout(x_BTD)
        positions_RD = self.dropout(self._positions(past_LBPD.shape[2] + x_BTD.shape[1], x_BTD))
        shared = Shared(positions_RD, mask, self.content_bias_HE, self.position_bias_HE)
        inputs: list[Tensor] = []
        for layer, past_BPD in zip(self.layers, past_LBPD, strict=True):
            inputs.append(x_BTD)
            skipped = first if len(inputs) == len(self.layers) else 0
            if skipped == x_BTD.shape[1]:  # no output is wanted
                return x_BTD[:, skipped:], inputs
            x_BTD = layer(x_BTD, past_BPD.to(x_BTD.dtype), shared, skipped)
        return self.dropout(x_BTD), inputs

    def _mask(self, blocks: Blocks, state: XLState, earlier: int = 0) -> Tensor:
        """(1 or B, 1, T, K), True = may look, over the keys [cache P | earlier positions of the segment | T new ones].

        Text is causal, inside a memory block all see all (RMT paper, Figure 6d); nothing sees what is absent.
        """
        device, P = state.cache_LBPD.device, state.cache_LBPD.shape[2]
        new_BTT, text_BT = blocks.mask(device), blocks.in_memory(device) == 0
        cache_BTP = (text_BT | self.config.memory_sees_cache)[..., None].expand(-1, -1, P)
        if state.absent_BP.shape[1]:
            cache_BTP = cache_BTP & (state.absent_BP == 0)[:, None]
        earlier_BTQ = text_BT.new_ones(1, new_BTT.shape[1], earlier)
        B = max(len(cache_BTP), len(new_BTT))
        return torch.cat([part.expand(B, -1, -1) for part in (cache_BTP, earlier_BTQ, new_BTT)], dim=-1)[:, None]

    def _positions(self, K: int, like: Tensor) -> Tensor:
        """Embeddings (R, D) of the distances K-1 ... 0, then of what memory tokens see ahead of them."""
        ahead = max(self.config.memory_tokens - 1, 1) if self.config.memory_positions != "released" else 1
        exact = torch.float64 if like.dtype == torch.float64 else torch.float32
        distances_R = torch.arange(K - 1, -ahead - 1, -1, dtype=exact, device=like.device)
        positions_RD = sinusoids(distances_R, self.config.d_model).to(like.dtype)
        if self.config.memory_positions != "signed":
            positions_RD[K:] = 0.0
        return positions_RD

    def _next_state(self, state: XLState, blocks: Blocks, hidden_BTD: Tensor, inputs: Sequence[Tensor]) -> XLState:
        """The state after a segment, from the outputs at (and before) its write block and all layers' inputs."""
        memory_BMD = state.memory_BMD
        if self.config.recurrent:
            memory_BMD = blocks.unless_empty(blocks.write_rows(hidden_BTD), state.memory_BMD)
        return XLState(memory_BMD, *self._grow(state, inputs, blocks))

    @torch.no_grad()
    def _grow(self, state: XLState, inputs: Sequence[Tensor], blocks: Blocks) -> tuple[Tensor, Tensor]:
        """The cache with this segment's layer inputs behind it, cut to its length, and what is absent in it."""
        c, (cache_LBPD, absent_BP) = self.config, state[1:]
        if c.cache == 0:
            return cache_LBPD, absent_BP
        tokens = c.cache_counts == "tokens"
        new_LBTD = torch.stack([blocks.text_rows(x) if tokens else x for x in inputs]).to(cache_LBPD.dtype)
        if blocks.lengths is None and not absent_BP.shape[1]:
            return torch.cat([cache_LBPD, new_LBTD], dim=2)[:, :, -c.cache :].contiguous(), absent_BP
        # Each sample keeps the positions up to its own last real one, as many as the fullest: of [absent | cache | new]
        # the window that ends there.
        (L, B, P, D), T = cache_LBPD.shape, new_LBTD.shape[2]
        length = min(P + T, c.cache)
        lengths_B = absent_BP.new_full((B,), blocks.text).long() if blocks.lengths is None else blocks.lengths
        new_B = lengths_B if tokens else (lengths_B + blocks.read + blocks.write) * (lengths_B > 0)
        window_BP = P + new_B[:, None] + torch.arange(length, device=new_B.device)
        if not absent_BP.shape[1]:
            absent_BP = absent_BP.new_zeros(B, P)
        absent_BQ = torch.cat([absent_BP.new_ones(B, length), absent_BP, absent_BP.new_zeros(B, T)], dim=1)
        cache_LBQD = torch.cat([cache_LBPD.new_zeros(L, B, length, D), cache_LBPD, new_LBTD], dim=2)
        return cache_LBQD.gather(2, window_BP[:, :, None].expand(L, -1, -1, D)), absent_BQ.gather(1, window_BP)

    def nll(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Negative log-likelihood (N) in nats; 0 for the target IGNORE."""
        return self.softmax(hidden_ND, targets_N, self.tokens.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """Log-probabilities (..., V) of chosen rows (..., D); the special token of the auxiliary loss is left out."""
        log_p_NV = self.softmax.log_probabilities(hidden.flatten(0, -2), self.tokens.weight)
        return log_p_NV.unflatten(0, hidden.shape[:-1])[..., : self.config.vocab_size]

    def auxiliary_loss(self, state: XLState) -> Tensor:
        """Mean loss in nats of predicting the special token from every vector of a written memory.

        "We set a new fixed special token to be predicted from memory as target in the auxiliary loss" (RMT paper,
        A.5) is all that is known. Here the token is one more entry of the softmax's head, no text ever has it as
        target, and it is predicted from the outputs at the write block.

        Raises:
            RmtlibError: the model has no special token.
        """
        if self.softmax.special_id is None:
            raise RmtlibError("the model has no auxiliary_token: set it in TransformerXLConfig, or use auxiliary 0")
        rows_ND = state.memory_BMD.flatten(0, 1)
        return self.nll(rows_ND, torch.full_like(rows_ND[:, 0], self.softmax.special_id, dtype=torch.long)).mean()
