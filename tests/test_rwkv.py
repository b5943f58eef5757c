"""RWKV-5: chunks against the recurrence, pieces against the whole, and the package `rwkv` on drawn weights."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmtlib.experiments.babilong.settings import RWKV_CHUNK
from rmtlib.models import rwkv
from rmtlib.models.config import RWKVConfig
from rmtlib.models.registry import size_of
from rmtlib.models.rwkv import RWKV
from rmtlib.models.size import rwkv_weights

V, D, LAYERS = 31, 16, 3


def make(**changes: Any) -> RWKV:
    """In float64, with weights large enough for every part to matter."""
    torch.manual_seed(0)
    model = RWKV(RWKVConfig(V, D, LAYERS, head_width=4, **changes)).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def ids(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_chunks_equal_the_recurrence(lengths, seed):
    """Outputs, state and gradients, whatever is padding; rates from nothing to all lost at once."""
    random = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=random)  # noqa: E731
    B, S, H, E = len(lengths), max(*lengths, 1), 2, 3
    real_BS = torch.arange(S) < torch.tensor(lengths)[:, None]
    inputs = [normal(B, S, H, E) for _ in range(3)]
    inputs[1] = inputs[1] * real_BS[..., None, None]
    inputs += [-(3 * normal(H, E)).exp(), normal(H, E), normal(B, H, E, E)]
    inputs = [x.requires_grad_() for x in inputs]
    weights = normal(B, S, H, E) * real_BS[..., None, None], normal(B, H, E, E)
    found = []
    for form in (rwkv.wkv, rwkv.wkv_by_token):
        outputs = form(*inputs, torch.tensor(lengths))
        outputs = outputs[0] * real_BS[..., None, None], outputs[1]
        total = sum((w * y).sum() for w, y in zip(weights, outputs, strict=True))
        found.append([*outputs, *torch.autograd.grad(total, inputs)])
    for name, a, b in zip("y S r k v decay bonus memory".split(), *found, strict=True):
        if name == "k":  # of padding, which is zero and of which a gradient says nothing
            a, b = a * real_BS[..., None, None], b * real_BS[..., None, None]
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)


def test_a_fast_rate_neither_overflows_nor_loses_the_present():
    one = torch.ones(1, 40, 1, 1)
    y, memory = rwkv.wkv(
        one, one, one, torch.full((1, 1), -1e6), torch.ones(1, 1), torch.ones(1, 1, 1, 1), torch.tensor([40])
    )
    assert y[0, :, 0, 0].tolist() == [2.0] * 40 and memory.item() == 1.0  # the token itself, and the one before it


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_pieces_equal_the_whole(sizes):
    model, x = make(), ids(2, sum(sizes), seed=len(sizes))
    found = []
    for pieces in ([x.shape[1]], sizes):
        model.zero_grad(set_to_none=True)
        state, outputs = model.initial_state(2), []
        for piece in x.split(pieces, dim=1):
            hidden, state = model.step(piece, state)
            outputs.append(hidden)
        hidden = torch.cat(outputs, 1)
        (hidden.sin().sum() + sum(s.cos().sum() for s in state)).backward()
        found.append([hidden, *state, *(p.grad for n, p in model.named_parameters() if n != "head.weight")])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def released_names(model: RWKV) -> dict[str, Tensor]:
    """The model's weights as the released code names them."""
    weights = {"emb.weight": model.tokens.weight, "head.weight": model.head.weight}
    norms = {"blocks.0.ln0": model.first_norm, "ln_out": model.norm}
    for i, layer in enumerate(model.layers):
        at, time, channel = f"blocks.{i}.", layer.time, layer.channel
        norms |= {f"{at}ln1": layer.time_norm, f"{at}ln2": layer.channel_norm, f"{at}att.ln_x": time.norm}
        maps = {
            "receptance": time.receptance,
            "key": time.key,
            "value": time.value,
            "gate": time.gate,
            "output": time.out,
        }
        weights |= {f"{at}att.{name}.weight": each.weight for name, each in maps.items()}
        weights |= {f"{at}att.time_mix_{name}": mix for name, mix in zip("kvrg", time.mix_4D, strict=True)}
        weights |= {f"{at}att.time_decay": time.decay_HE, f"{at}att.time_faaaa": time.bonus_HE}
        weights |= {f"{at}ffn.{name}.weight": getattr(channel, name).weight for name in ("key", "value", "receptance")}
        weights |= {f"{at}ffn.time_mix_{name}": mix for name, mix in zip("kr", channel.mix_2D, strict=True)}
    for name, norm in norms.items():
        weights |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
    return {name: weight.detach().float().clone() for name, weight in weights.items()}


def test_it_is_the_model_of_the_package_rwkv(tmp_path, monkeypatch):
    """Logits and states on drawn weights, in one piece, then in two, then one token; skipped without the package."""
    for name, value in {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": "0"}.items():
        monkeypatch.setitem(os.environ, name, value)
    package = pytest.importorskip("rwkv.model", reason="the Python package rwkv is not installed")
    model = make().float()
    torch.save(released_names(model), tmp_path / "drawn.pth")
    theirs = package.RWKV(model=str(tmp_path / "drawn"), strategy="cpu fp32", verbose=False)
    assert theirs.version == 5.2
    x, state, their_state = ids(1, 30), model.initial_state(1), None
    for piece in x.split([20, 9, 1], dim=1):
        hidden, state = model.step(piece, state)
        logits, their_state = theirs.forward(piece[0].tolist(), their_state, full_output=True)
        torch.testing.assert_close(model.logits(hidden)[0], logits.view(-1, V), rtol=1e-4, atol=1e-4)
        for layer in range(LAYERS):
            of_layer = (state.time_LBD, state.memory_LBHEE, state.channel_LBD)
            for ours, other in zip(of_layer, their_state[3 * layer : 3 * layer + 3], strict=True):
                torch.testing.assert_close(ours[layer, 0], other.float(), rtol=1e-4, atol=1e-4)


def transcribed(model: RWKV, tokens: list[int]) -> Tensor:
    """The equations once more, token by token and head by head, sharing no code with the model: last logits."""
    c, state = model.config, {}
    norm = lambda x, of: (x - x.mean()) / (x.var(unbiased=False) + of.eps).sqrt() * of.weight + of.bias  # noqa: E731
    for token in tokens:
        x = norm(model.tokens.weight[token], model.first_norm)
        for i, layer in enumerate(model.layers):
            t, ch, E = layer.time, layer.channel, c.head_width
            z = norm(x, layer.time_norm)
            before = state.get((i, "time"), torch.zeros(D).double())
            state[i, "time"] = z
            k, v, r, g = (
                w.weight @ (mix * z + (1 - mix) * before)
                for w, mix in zip((t.key, t.value, t.receptance, t.gate), t.mix_4D, strict=True)
            )
            heads = []
            for h in range(c.n_heads):
                part = slice(h * E, (h + 1) * E)
                pair, S = torch.outer(k[part], v[part]), state.get((i, h), torch.zeros(E, E).double())
                y = r[part] @ (S + t.bonus_HE[h][:, None] * pair)
                state[i, h] = torch.exp(-torch.exp(t.decay_HE[h]))[:, None] * S + pair
                y = (y - y.mean()) / (y.var(unbiased=False) + 64e-5).sqrt()
                heads.append(y * t.norm.weight[part] + t.norm.bias[part])
            x = x + t.out.weight @ (torch.cat(heads) * g * torch.sigmoid(g))
            z = norm(x, layer.channel_norm)
            before = state.get((i, "channel"), torch.zeros(D).double())
            state[i, "channel"] = z
            k, r = (
                w.weight @ (m * z + (1 - m) * before) for w, m in zip((ch.key, ch.receptance), ch.mix_2D, strict=True)
            )
            x = x + torch.sigmoid(r) * (ch.value.weight @ torch.relu(k) ** 2)
    return model.head.weight @ norm(x, model.norm)


@torch.no_grad()
def test_it_is_the_equations_written_down_once_more():
    model, x = make(), ids(2, 23)
    hidden, _ = model.step(x, model.initial_state(2))
    for b in range(2):
        torch.testing.assert_close(model.logits(hidden)[b, -1], transcribed(model, x[b].tolist()), rtol=1e-9, atol=1e-9)


def test_new_weights_start_as_released():
    model = RWKV(RWKVConfig(V, 64, 4, head_width=16))
    first, last = model.layers[0].time, model.layers[-1].time
    assert first.decay_HE.flatten()[[0, -1]].tolist() == last.decay_HE.flatten()[[0, -1]].tolist() == [-6, -1]
    assert bool((first.decay_HE.flatten().diff() > 0).all())
    assert first.mix_4D[0].tolist() == pytest.approx([i / 64 for i in range(64)])
    assert last.mix_4D[1].tolist() == pytest.approx([(i / 64) ** 0.25 + 0.3 for i in range(64)])
    assert first.bonus_HE.flatten()[:3].tolist() == pytest.approx([0.0, 0.1, -0.1])
    assert last.bonus_HE.flatten()[0].item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(V, 64, 3, 16), (1000, 128, 2, 64), (V, 12, 1, 4)])
def test_sizes_are_those_of_the_arithmetic(shape):
    config = RWKVConfig(*shape)
    assert rwkv_weights(config) == size_of(config)["parameters"]
    state = RWKV(config).initial_state(1)
    assert RWKV(config).state_size() == sum(x.numel() for x in state)


def test_plans_count_the_chunks_that_are_read():
    assert RWKV_CHUNK == rwkv.CHUNK


def test_a_width_without_whole_heads_is_refused():
    with pytest.raises(ValueError, match="d_model 20 is not a multiple of head_width 16"):
        RWKVConfig(V, 20, 1, head_width=16)


def test_in_bfloat16_what_is_carried_stays_in_float32():
    model, x = make().float(), ids(2, 40)
    expected, state = model.step(x, model.initial_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        hidden, after = model.step(x, model.initial_state(2))
    assert [s.dtype for s in after] == [torch.float32] * 3
    assert (hidden.float() - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert (after.memory_LBHEE - state.memory_LBHEE).abs().mean() < 0.1 * state.memory_LBHEE.abs().mean()
