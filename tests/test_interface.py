"""The contract of `models.interface`, one test a promise, for every model of the registry."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.language import likelihood
from rmtlib.evaluation.question_answering import exact_match
from rmtlib.models import decoder
from rmtlib.models.config import (
    ARMTConfig,
    DecoderConfig,
    DeltaRule,
    MambaConfig,
    PRMTConfig,
    RMTConfig,
    RMTRConfig,
    RWKVConfig,
    TransformerXLConfig,
)
from rmtlib.models.generation import generate
from rmtlib.models.hub import RMTForCausalLM, RMTHubConfig
from rmtlib.models.interface import batch_axis, detach, join, select
from rmtlib.models.registry import MODELS, build, size_of
from rmtlib.models.rmt_r import RMTRState
from rmtlib.models.transformer_xl import XLState
from rmtlib.segments import next_token_labels

V, D, S = 29, 12, 6
DECODER = DecoderConfig(V, D, 2, 3, positions="rotary", conv_taps=3, tied=False)
LEARNED = DecoderConfig(V, D, 2, 3, max_positions=32)


def xl(**changes: Any) -> TransformerXLConfig:
    return TransformerXLConfig(V, D, n_layers=2, n_heads=3, d_head=4, d_ff=16, dropout=0.0, **changes)


CONFIGS: dict[str, Any] = {
    "Baseline": xl(),
    "MT": xl(memory_tokens=3, recurrent=False),
    "Tr-XL": xl(cache=8),
    "Tr-XL, adaptive softmax": xl(cache=3, cutoffs=(7, 15)),
    "RMT (Tr-XL code)": xl(memory_tokens=3),
    "RMT, released positions": xl(memory_tokens=2, memory_positions="released"),
    "Tr-XL + RMT": xl(memory_tokens=3, cache=8),
    "Tr-XL + RMT, cached positions": xl(memory_tokens=2, cache=14, cache_counts="positions", memory_sees_cache=True),
    "RMT": RMTConfig(DECODER, 3),
    "RMT, bidirectional": RMTConfig(LEARNED, 3, "bidirectional"),
    "RMT-R": RMTRConfig(DECODER, 3, past_segments=3),
    "RMT-R, top 1": RMTRConfig(LEARNED, 2, "top_1", past_segments=3),
    "ARMT": ARMTConfig(DECODER, 3, 4),
    "ARMT, released": ARMTConfig(LEARNED, 3, 4, DeltaRule("batched", "released")),
    "PRMT": PRMTConfig(LEARNED, 3),
    "Mamba": MambaConfig(V, D, 2, state_size=5),
    "RWKV": RWKVConfig(V, D, 2, head_width=4),
}


@pytest.fixture(params=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> Any:
    return CONFIGS[request.param]


@pytest.fixture
def model(config: Any) -> Any:
    """In float64, with weights large enough for every part to matter."""
    made = build(config, seed=0).double().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


def ids(batch: int, length: int = S, seed: int = 1) -> Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def read(model: Any, segments: list[tuple[Tensor, Tensor | None]], state: Any = None) -> tuple[list[Tensor], Any]:
    state, outputs = model.initial_state(len(segments[0][0])) if state is None else state, []
    for input_ids, lengths in segments:
        hidden, state = model.step(input_ids, state, lengths)
        outputs.append(hidden)
    return outputs, state


def assert_same(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def without_absent(state: Any) -> Any:
    """The state of one sample, without the empty beginning that a padded batch may leave in its cache or past."""
    if not isinstance(state, (XLState, RMTRState)):
        return state
    absent = int(state.absent_BP.sum())
    if isinstance(state, RMTRState):
        return RMTRState(state.read_BRD, state.past_BPMD[:, absent:], state.absent_BP[:, :0])
    return XLState(state.memory_BMD, state.cache_LBPD[:, :, absent:], state.absent_BP[:, :0])


def test_every_registered_model_is_tested_here():
    assert {type(config) for config in CONFIGS.values()} == {entry.config for entry in MODELS.values()}


def test_a_state_is_a_tuple_of_tensors_that_name_their_batch_axis(model):
    hidden, state = model.step(ids(4), model.initial_state(4))
    assert hidden.shape == (4, S, D)
    for before, after in ((model.initial_state(4), state), (state, model.step(ids(4), state)[1])):
        assert type(before) is type(after)
        for name, x in after._asdict().items():
            assert x.shape[batch_axis(name)] == 4 and x.is_floating_point()


def test_a_state_is_never_changed_in_place(model):
    _, state = read(model, [(ids(2), None)])
    copies = [x.clone() for x in state]
    first = model.step(ids(2, seed=2), state)
    assert_same(state, copies, 0.0)
    again = model.step(ids(2, seed=2), state)  # and nothing recurrent hides in the model
    assert_same([first[0], *first[1]], [again[0], *again[1]], 0.0)


def test_without_writing_the_outputs_are_the_same_and_the_state_stays(model):
    _, state = read(model, [(ids(2), None)])
    hidden, same = model.step(ids(2, seed=2), state, write=False)
    assert all(a is b for a, b in zip(same, state, strict=True))
    assert_same([hidden], [model.step(ids(2, seed=2), state)[0]])


@pytest.mark.parametrize("lengths", [None, [S, 3, 0, 5]])
@pytest.mark.parametrize("rows", [[[], [], [], []], [[4], [0], [0], [2]], [[5, 1, 5], [2, 0, 1], [0, 0, 0], [4, 3, 0]]])
@pytest.mark.parametrize("write", [True, False])
def test_chosen_rows_have_the_outputs_state_and_gradients_of_all_rows(monkeypatch, config, model, lengths, rows, write):
    monkeypatch.setattr(decoder, "LEFT_OUT", 0)
    if lengths and isinstance(config, TransformerXLConfig) and config.memory_positions == "released":
        lengths = None
    rows_BN, lengths_B = torch.tensor(rows).long(), lengths and torch.tensor(lengths)
    real_BN = rows_BN < (torch.full((4,), S) if lengths is None else lengths_B)[:, None]

    def run(rows_BN: Tensor | None) -> tuple[Tensor, Any, list[Tensor]]:
        model.zero_grad()
        _, state = model.step(ids(4), model.initial_state(4))
        hidden, state = model.step(ids(4, seed=2), state, lengths_B, write=write, rows_BN=rows_BN)
        if rows_BN is None:
            hidden = hidden[torch.arange(4)[:, None], torch.tensor(rows).long()]
        hidden = hidden[real_BN]
        weights = torch.Generator().manual_seed(3)
        loss = sum((x * torch.randn(x.shape, generator=weights, dtype=x.dtype)).sum() for x in (hidden, *state))
        if loss.requires_grad:
            loss.backward()
        return hidden, state, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]

    (hidden, state, gradients), (every, after, expected) = run(rows_BN), run(None)
    assert_same([hidden, *state, *gradients], [every, *after, *expected])
    assert (every.abs().sum() > 0) == bool(rows[0])


def test_rows_that_are_not_wanted_cost_nothing_in_the_last_layer_but_with_dropout_all_are_drawn(monkeypatch):
    monkeypatch.setattr(decoder, "LEFT_OUT", 0)
    for dropout, expected in ((0.0, [3 + S + 3, 3 + 1]), (0.5, [3 + S + 3] * 2)):
        model = build(RMTConfig(DecoderConfig(V, D, 2, 3, positions="rotary", dropout=dropout), 3), seed=0)
        fed: list[int] = []
        for block in model.decoder.blocks:
            block.feed_forward.register_forward_hook(lambda _, inputs, out, fed=fed: fed.append(inputs[0].shape[1]))
        model.step(ids(2), model.initial_state(2), rows_BN=torch.tensor([[1], [4]]))
        assert fed == expected


def test_nll_is_the_cross_entropy_of_the_logits(model):
    hidden, _ = model.step(ids(2), model.initial_state(2))
    rows, targets = hidden.flatten(0, 1), ids(2, seed=3).flatten()
    assert_same([model.nll(rows, targets)], [F.cross_entropy(model.logits(rows), targets, reduction="none")])
    assert_same([model.logits(hidden).flatten(0, 1)], [model.logits(rows)])
    assert model.bfloat16().nll(rows.bfloat16(), targets).dtype == torch.float32


LENGTHS = [[S, 2, 0, 5, 0], [1, S, 4, 0, 0], None, [3, S, 0, 2, S]]  # one sample starts late, some pause


def test_padding_changes_neither_outputs_nor_state_nor_gradients(model):
    segments = [(ids(5, seed=s), n and torch.tensor(n)) for s, n in enumerate(LENGTHS)]
    outputs, last = read(model, segments)
    masks = [torch.arange(S) < (torch.full((5,), S) if n is None else n)[:, None] for _, n in segments]
    total = sum(h[m].sin().sum() for h, m in zip(outputs, masks, strict=True))
    padded = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    alone: Any = 0.0
    for b in range(5):
        state = model.initial_state(1)
        for (input_ids, _), hidden, mask in zip(segments, outputs, masks, strict=True):
            if mask[b].any():
                expected, state = model.step(input_ids[b : b + 1, : int(mask[b].sum())], state)
                assert_same([hidden[b][mask[b]]], [expected[0]])
                alone = alone + expected.sin().sum()
        assert_same(without_absent(select(last, slice(b, b + 1))), without_absent(state))
    for a, b in zip(padded, torch.autograd.grad(alone, list(model.parameters()), allow_unused=True), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_same([a], [b], 1e-8)


def test_an_ended_sample_keeps_its_state_bitwise(model):
    _, state = read(model, [(ids(2, seed=s), None) for s in range(4)])
    _, after = model.step(ids(2, seed=9), state, torch.tensor([S, 0]))
    pairs = zip(*(without_absent(select(s, slice(1, 2))) for s in (state, after)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_samples_of_a_state_are_chosen_and_joined(model):
    _, state = read(model, [(ids(4), torch.tensor([S, 1, 3, S]))])
    parts = [select(state, slice(0, 1)), select(state, slice(1, 4))]
    assert_same(join(parts), state, 0.0)
    assert_same(join([select(state, torch.tensor([b])) for b in range(4)]), state, 0.0)
    turned = select(state, torch.tensor([3, 0]))
    hidden, after = model.step(ids(4, seed=2)[[3, 0]], turned)
    whole, all_after = model.step(ids(4, seed=2), state)
    assert_same([hidden, *after], [whole[[3, 0]], *select(all_after, torch.tensor([3, 0]))])


def test_a_detached_state_passes_no_gradient(model):
    _, state = read(model, [(ids(2), None)])
    cut = detach(state)
    assert_same(cut, state, 0.0)
    assert not any(x.requires_grad for x in cut)


def test_state_size_counts_the_floats_of_a_full_state(model):
    _, state = read(model, [(ids(1, seed=s), None) for s in range(4)])
    assert model.state_size() == sum(x.numel() for x in state)


def test_the_columns_of_a_stream_are_scored_as_if_each_were_read_alone(model):
    text = Stream(ids(1, 50)[0].numpy(), before=0)
    whole, bounds = likelihood(model, text, S, columns=3), (0, 16, 33, 50)
    parts = [
        likelihood(model, Stream(text.ids[start:stop], int(text.ids[start - 1]) if start else 0), S, columns=1)
        for start, stop in pairwise(bounds)
    ]
    assert whole.tokens == sum(part.tokens for part in parts) == 50
    assert whole.nats == pytest.approx(sum(part.nats for part in parts), rel=1e-10)


@pytest.mark.parametrize("padded", [False, True])
def test_reading_token_by_token_equals_a_step(model, padded):
    before = [(ids(3), torch.tensor([S, 0, 2]) if padded else None), (ids(3, seed=2), None)][: 2 - padded]
    _, state = read(model, before)
    hidden, after = model.step(ids(3, seed=4), state)
    segment, outputs = model.open_segment(state), []
    for piece in ids(3, seed=4).split([3, 1, 2], dim=1):
        part, segment = model.extend(segment, piece)
        outputs.append(part)
    assert_same([torch.cat(outputs, 1)], [hidden])
    closed = model.close_segment(segment)
    for b in range(3):
        assert_same(*(without_absent(select(s, slice(b, b + 1))) for s in (closed, after)))


def test_an_open_segment_without_tokens_leaves_the_state(model):
    _, state = read(model, [(ids(2), None)])
    assert_same(model.close_segment(model.open_segment(state)), state, 0.0)


def test_generation_equals_teacher_forcing_across_segment_borders(model):
    text = prompt = ids(2, 5)
    for _ in range(9):
        outputs, _ = read(model, [(piece, None) for piece in text.split(S, dim=1)])
        text = torch.cat([text, model.logits(outputs[-1][:, -1]).argmax(-1, keepdim=True)], dim=1)
    assert generate(model, prompt, model.initial_state(2), S, 9).tolist() == text[:, 5:].tolist()


def test_questions_of_different_lengths_are_answered_as_generation_answers_them(model):
    """Half of the answers are those that the model gives; they end in a segment of their own or across a border."""
    samples = []
    for i, length in enumerate([4, 9, S, 11]):
        prompt = ids(1, length, seed=i)
        answer = generate(model, prompt, model.initial_state(1), S, 2)
        answer = answer if i % 2 else (answer + 1) % V
        tokens = torch.cat([prompt, answer], dim=1)[0].numpy()
        asked = np.arange(len(tokens)) >= length
        samples.append(SimpleNamespace(tokens=tokens, labels=next_token_labels(tokens, asked)))
    assert exact_match(model, samples, S).tolist() == [False, True, False, True]


def test_sizes_are_counted_without_weights(config, model):
    assert size_of(config)["parameters"] == sum(p.numel() for p in model.parameters())
    with torch.device("meta"):
        shapes = build(config)
        assert shapes.state_size() == model.state_size()
        assert all(p.is_meta for p in shapes.parameters())


def test_matrix_products_of_a_decoder_are_counted():
    c = RMTConfig(DecoderConfig(V, 16, 3, 4, positions="rotary"), 2)
    T, layers = S + 4, 3
    weights = 12 * 16 * 16
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build(c)
        model.step(torch.zeros(1, S, dtype=torch.long), model.initial_state(1))
    assert counter.get_total_flops() == layers * (2 * T * weights + 2 * 2 * T * T * 16)


def test_new_weights_depend_on_the_seed_alone(config):
    torch.manual_seed(5)
    first = build(config, seed=3)
    again, other = build(config, seed=3), build(config, seed=4)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    differs = [not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)]
    assert all(same) and any(differs)


def test_an_unknown_config_is_refused_in_one_line():
    with pytest.raises(RmtlibError, match="no model has a DecoderConfig"):
        build(DECODER)


def test_the_hugging_face_face_keeps_the_contract():
    model = RMTForCausalLM(RMTHubConfig(vars(DECODER), 3, S)).double().eval()
    hidden, state = model.step(ids(2), model.initial_state(2), torch.tensor([S, 2]))
    expected, after = model.rmt.step(ids(2), model.rmt.initial_state(2), torch.tensor([S, 2]))
    assert_same([hidden, *state], [expected, *after], 0.0)
    targets = ids(2, seed=2).flatten()
    assert_same([model.nll(hidden.flatten(0, 1), targets)], [model.rmt.nll(hidden.flatten(0, 1), targets)], 0.0)
    assert model.state_size() == 3 * D
