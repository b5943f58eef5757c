"""Attention weights and what is read from them: equal to what made the output, known where attention is constructed."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rmtlib.errors import RmtlibError
from rmtlib.evaluation.attention import (
    AttentionRecorder,
    SegmentAttention,
    ablate_memory,
    operations,
    plain_attention,
    read_attention,
)
from rmtlib.evaluation.operations import OPERATIONS, pack_weights, unpack_weights
from rmtlib.models.config import ARMTConfig, DecoderConfig, MambaConfig, PRMTConfig, RMTConfig, TransformerXLConfig
from rmtlib.models.registry import build

V, D, S, L, H, M = 23, 12, 5, 2, 3, 4
DECODER = DecoderConfig(V, D, L, H, positions="rotary", tied=False)
GROUPED = DecoderConfig(V, 16, L, 4, n_kv_heads=2, positions="rotary", tied=False)


def xl(**changes: Any) -> TransformerXLConfig:
    return TransformerXLConfig(V, D, n_layers=L, n_heads=H, d_head=4, d_ff=16, dropout=0.0, **changes)


# name -> config, and how many keys its second segment has in the cache, the read and the write block
MODELS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "Baseline": (xl(), (0, 0, 0)),
    "MT": (xl(memory_tokens=M, recurrent=False), (0, M, 0)),
    "Tr-XL": (xl(cache=3), (3, 0, 0)),
    "RMT (Tr-XL code)": (xl(memory_tokens=M), (0, M, M)),
    "Tr-XL + RMT": (xl(memory_tokens=M, cache=8), (S, M, M)),
    "RMT": (RMTConfig(DECODER, M), (0, M, M)),
    "RMT, grouped keys": (RMTConfig(GROUPED, M), (0, M, M)),
    "RMT, bidirectional": (RMTConfig(DECODER, M, "bidirectional"), (0, M, M)),
    "ARMT": (ARMTConfig(DECODER, M, 4), (0, 0, M)),
    "PRMT": (PRMTConfig(DECODER, M), (0, M, M)),
}


def make(config: Any) -> Any:
    """The model in float64 with weights that make attention uneven."""
    model = build(config, seed=0).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def draw(segments: int = 3, batch: int = 2) -> list[Tensor]:
    return list(torch.randint(0, V, (segments, batch, S), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_distributions_over_what_may_be_seen_and_blocks_have_their_lengths(name):
    config, (cache, read, write) = MODELS[name]
    maps = read_attention(make(config), draw())
    assert len(maps) == 3
    for s, one in enumerate(maps):
        torch.testing.assert_close(one.weights_LBHTK.sum(-1), torch.ones_like(one.weights_LBHTK[..., 0]))
        hidden = ~one.visible_BTK[None, :, None].expand_as(one.weights_LBHTK)
        assert (one.weights_LBHTK[hidden] == 0).all() and (one.weights_LBHTK[~hidden] > 0).all()
        assert one.write == (write if s < 2 else 0)  # the last one writes nothing
    first, second, _ = maps
    assert first.cache == 0 and (second.cache, second.read, second.text, second.write) == (cache, read, S, write)
    assert second.weights_LBHTK.shape[-2:] == (read + S + write, cache + read + S + write)
    text = second.visible_BTK[:, second.queries("text"), second.keys("text")]
    assert torch.equal(text, torch.ones_like(text).tril())
    assert not second.visible_BTK[:, second.queries("text"), second.keys("write")].any()


@pytest.mark.parametrize("name", MODELS)
def test_recording_changes_no_output(name):
    """Of the decoder the recorded weights make the output in place of the fused attention."""
    model, (first, second, _) = make(MODELS[name][0]), draw()
    _, state = model.step(first, model.initial_state(2))
    fast, fast_state = model.step(second, state)
    with AttentionRecorder() as recorder:
        plain, plain_state = model.step(second, state)
    assert len(recorder.weights) == L
    torch.testing.assert_close(plain, fast)
    for a, b in zip(plain_state, fast_state, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["Tr-XL + RMT", "Tr-XL", "MT"])
def test_transformer_xls_weights_times_values_are_its_output(name):
    model, (first, second, _) = make(MODELS[name][0]), draw()
    _, state = model.step(first, model.initial_state(2))
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    for layer in model.layers:
        layer.attention.register_forward_hook(lambda m, args, out: calls.append((args[0], args[1], out)))
    with AttentionRecorder() as recorder:
        model.step(second, state)
    for layer, (x_BTD, past_BPD, out_BTD), weights_BHTK in zip(model.layers, calls, recorder.weights, strict=True):
        maps = layer.attention.key_value(torch.cat([past_BPD, x_BTD], dim=1))
        v_BKHE = maps.unflatten(-1, (H, 2, -1))[..., 1, :]  # of each head its key, then its value
        mixed_BTHE = torch.einsum("bhtk,bkhe->bthe", weights_BHTK, v_BKHE)
        torch.testing.assert_close(layer.attention.out(mixed_BTHE.flatten(2)), out_BTD)


@pytest.mark.parametrize(("groups", "causal", "masked"), [(4, True, False), (2, False, True), (1, False, False)])
def test_plain_attention_is_the_fused_one(groups, causal, masked):
    draw = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, heads, 5, 3, dtype=torch.float64, generator=draw) for heads in (4, groups, groups))
    mask = torch.rand(2, 1, 5, 5, generator=draw) < 0.6
    mask |= torch.eye(5, dtype=torch.bool)
    options = {"attn_mask": mask if masked else None, "is_causal": causal, "enable_gqa": groups != 4}
    torch.testing.assert_close(
        plain_attention(q, k, v, **options)[0], F.scaled_dot_product_attention(q, k, v, **options)
    )


def test_a_model_that_looks_at_all_keys_alike_is_at_chance():
    model = make(MODELS["Tr-XL + RMT"][0])
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.query.weight.zero_()
        model.content_bias_HE.zero_()
        model.position_bias_HE.zero_()
    for one in read_attention(model, draw())[1:]:
        for name, found in operations(one).items():
            assert found.excess_LH.abs().max() < 1e-12, name
            assert found.mass_LH.shape == (L, H)
            assert (found.keys_in_use_LH <= one.count(OPERATIONS[name][1]) + 1e-9).all()
    assert set(operations(one)) == {"read", "cache"}


def test_known_attention_has_its_known_mass_and_chance():
    """One head: every write token looks at one text token, the last of three text tokens at memory alone."""
    read, text, write = 2, 3, 2
    weights = torch.zeros(7, 7)
    weights[:2, 0] = 1.0
    weights[2, 2] = weights[3, 3] = 1.0  # the first two text tokens look at themselves
    weights[4, 1] = 1.0
    weights[5, 2] = weights[6, 3] = 1.0
    visible = torch.ones(7, 7, dtype=torch.bool).tril()
    visible[5:, 5:] = visible[:2, :2] = True
    found = operations(SegmentAttention(weights[None, None, None], visible[None], 0, read, text, write))
    assert set(found) == {"write", "carry", "read"}
    assert found["write"].mass_LH.item() == 1.0 and found["write"].excess_LH.item() == pytest.approx(1.0)
    assert found["write"].chance == pytest.approx(3 / 7)
    assert found["write"].keys_in_use_LH.item() == pytest.approx(2)  # of three
    assert found["read"].keys_in_use_LH.item() == pytest.approx(1)
    assert found["carry"].mass_LH.item() == 0.0 and found["carry"].excess_LH.item() == pytest.approx(-2 / 5)
    assert found["read"].mass_LH.item() == pytest.approx(1 / 3)
    assert found["read"].chance == pytest.approx((2 / 3 + 2 / 4 + 2 / 5) / 3)


def test_the_mean_is_over_queries_and_samples():
    weights = torch.zeros(1, 2, 1, 3, 3)  # no read block, one text token, two write tokens
    weights[0, :, 0, 0, 0] = 1.0
    weights[0, :, 0, 1:, 0] = torch.tensor([[1.0, 0.5], [0.25, 0.25]])
    weights[0, :, 0, 1:, 1] = 1 - weights[0, :, 0, 1:, 0]
    visible = torch.ones(2, 3, 3, dtype=torch.bool)
    found = operations(SegmentAttention(weights, visible, 0, 0, 1, 2))
    assert set(found) == {"write"} and found["write"].mass_LH.item() == pytest.approx(0.5)


def test_packed_weights_come_back():
    weights = torch.rand(5, 7, generator=torch.Generator().manual_seed(3)).softmax(-1)
    packed = pack_weights(weights)
    assert abs(unpack_weights(packed, 5, 7) - weights.numpy()).max() <= 0.5 / 255 + 1e-9
    assert len(pack_weights(torch.eye(72))) < 500
    for text, rows in ((packed, 6), (packed[:-8] + "AAAAAAA=", 5), ("?", 5)):
        with pytest.raises(ValueError):
            unpack_weights(text, rows, 7)


def test_every_operation_is_of_two_blocks_of_one_model():
    seen = set()
    for config, _ in MODELS.values():
        seen |= set(operations(read_attention(make(config), draw())[1]))
    assert seen == set(OPERATIONS)


class Shelf(NamedTuple):
    memory_BM: Tensor


class Librarian:
    """Token 10 a + v puts v into place a; token 100 + a asks for what is there; 0 is there at the beginning."""

    def initial_state(self, batch: int) -> Shelf:
        return Shelf(torch.zeros(batch, 4, dtype=torch.long))

    def step(self, input_ids_BS: Tensor, state: Shelf, **_: Any) -> tuple[Tensor, Shelf]:
        memory, out = state.memory_BM.clone(), torch.zeros_like(input_ids_BS)
        for b, row in enumerate(input_ids_BS.tolist()):
            for i, token in enumerate(row):
                if token >= 100:
                    out[b, i] = memory[b, token - 100]
                else:
                    memory[b, token // 10] = token % 10
        return F.one_hot(out, 10).double(), Shelf(memory)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


def test_losing_the_memory_destroys_an_answer_exactly_if_it_comes_between():
    """Reverse of 4 symbols in 4 segments: the third answers what the second held, the fourth what the first held."""
    symbols = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]])
    put = 10 * torch.arange(4) + symbols
    ask = 100 + torch.arange(3, -1, -1).expand(3, 4)
    segments = [put[:, :2], put[:, 2:], ask[:, :2], ask[:, 2:]]
    none = torch.full((3, 2), -100)
    found = ablate_memory(Librarian(), segments, [none, none, symbols[:, [3, 2]], symbols[:, [1, 0]]])
    assert found.answers == [0, 0, 6, 6]
    assert found.correct == [
        [0, 0, 6, 6],  # never
        [0, 0, 6, 0],  # after segment 1
        [0, 0, 0, 0],
        [0, 0, 6, 0],
    ]


def test_what_has_no_attention_or_is_in_training_is_refused():
    with pytest.raises(RmtlibError, match="Mamba has no attention"):
        read_attention(build(MambaConfig(V, D, L), seed=0).eval(), draw())
    with pytest.raises(RmtlibError, match="eval"):
        read_attention(build(xl(), seed=0), draw())
