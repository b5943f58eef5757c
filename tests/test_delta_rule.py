"""The associative memory: three forms of writing, their gradients, safety at zero, reading."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmtlib.models import delta_rule
from rmtlib.models.config import DeltaRule
from rmtlib.models.delta_rule import Association

B, E, D = 2, 3, 5
K = 6 * E
RULES = [
    DeltaRule(u, g, d) for u in ("sequential", "batched") for g in ("paper", "released", "off") for d in (True, False)
]
SEQUENTIAL = [rule for rule in RULES if rule.update == "sequential"]


def draw(
    M: int, seed: int, *, stored: bool = True, collide: bool = False
) -> tuple[Association, Tensor, Tensor, Tensor]:
    """A memory, keys, values, betas; with `collide` every key stands twice, one of them also in the memory.

    No key is all but orthogonal to what is stored: 1 / z.k would then amplify rounding beyond any fixed bound.
    Nor more often: gamma would be 0 to rounding, where clipping has a kink.
    """
    random = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=random)  # noqa: E731
    raw = normal(B, M, E)
    if collide:
        raw = raw[:, torch.arange(M) // 2]
    keys = delta_rule.dpfp(raw) + 0.1
    memory = delta_rule.empty((B,), K, D, keys)
    if stored:
        earlier = torch.cat([delta_rule.dpfp(normal(B, 4, E)) + 0.1, keys[:, :1]], dim=1)
        rule = DeltaRule(gamma="released")
        memory = delta_rule.write_token_by_token(memory, earlier, normal(B, 5, D), normal(B, 5).sigmoid(), rule)
    return memory, keys, normal(B, M, D), normal(B, M).sigmoid()


def with_gradients(function, inputs):
    """Outputs of `function`, and the gradients of a fixed random projection of them."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    random = torch.Generator().manual_seed(5)
    total = sum((x * torch.randn(x.shape, dtype=x.dtype, generator=random)).sum() for x in outputs)
    return [*outputs, *torch.autograd.grad(total, leaves)]


@settings(max_examples=60, deadline=None)
@given(
    M=st.integers(1, 7), seed=st.integers(0, 10**6), rule=st.sampled_from(SEQUENTIAL),
    stored=st.booleans(), collide=st.booleans(),
)  # fmt: skip
def test_sequential_form_equals_the_equations(M, seed, rule, stored, collide):
    memory, *tokens = draw(M, seed, stored=stored, collide=collide)

    def slow(A, z, *tokens):
        return delta_rule.write_token_by_token(Association(A, z), *tokens, rule)

    def fast(A, z, *tokens):
        memory = Association(A, z)
        return delta_rule.add(memory, delta_rule.write(memory, *tokens, rule))

    inputs = (*memory, *tokens)
    for a, b in zip(with_gradients(fast, inputs), with_gradients(slow, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * max(1.0, b.detach().abs().max().item()))


def released(memory: Association, keys: Tensor, values: Tensor, betas: Tensor, first: bool) -> Association:
    """The released code's update, written as there: one batch, three-operand einsum."""
    A, z = memory
    presence = torch.einsum("bmk,bk->bm", keys, z) + 1e-5
    if first:
        recalled, gamma = torch.zeros_like(values), torch.ones_like(presence)
    else:
        recalled = torch.einsum("bmk,bkd->bmd", keys, A) / presence[..., None]
        gamma = (1 - presence / (keys.square().sum(-1) + 1e-5)).clamp(0, 1).detach()
    return Association(
        A + torch.einsum("bm,bmk,bmd->bkd", betas, keys, values - recalled), z + torch.einsum("bm,bmk->bk", gamma, keys)
    )


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("M", [1, 4])
def test_batched_form_equals_the_released_code(M, stored):
    memory, *tokens = draw(M, 3, stored=stored, collide=True)
    rule = DeltaRule("batched", "released")
    ours = with_gradients(lambda *x: delta_rule.add(memory, delta_rule.write(memory, *x, rule)), tokens)
    theirs = with_gradients(lambda *x: released(memory, *x, first=not stored), tokens)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def difference(a: Association, b: Association) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("gamma", ["paper", "released", "off"])
def test_where_batched_and_sequential_agree(gamma):
    """Equal for one token, and for keys without overlap; different when keys of a segment overlap."""

    def both(memory, *tokens):
        return [
            delta_rule.add(memory, delta_rule.write(memory, *tokens, DeltaRule(u, gamma)))
            for u in ("sequential", "batched")
        ]  # type: ignore[arg-type]

    assert difference(*both(*draw(1, 0))) < 1e-12
    memory, _, values, betas = draw(4, 0)
    apart = torch.eye(K, dtype=torch.float64)[:4].expand(B, 4, K) * 2
    assert difference(*both(memory, apart, values, betas)) < 1e-12
    assert difference(*both(*draw(4, 0, collide=True))) > 1e-2


def test_a_rewritten_key_returns_its_latest_value():
    """beta = 1 and gamma on: after any number of rewrites the key holds its last value and counts once in z."""
    k = delta_rule.dpfp(torch.randn(1, 1, E, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    k = k / k.norm()
    ones, last = torch.ones(1, 1, dtype=torch.float64), torch.arange(D, dtype=torch.float64).view(1, 1, D)
    found = {}
    for gamma in ("paper", "released", "off"):
        memory = delta_rule.empty((1,), K, D, k)
        for value in (*torch.eye(D, dtype=torch.float64).view(D, 1, 1, D), last):
            memory = delta_rule.add(memory, delta_rule.write(memory, k, value, ones, DeltaRule(gamma=gamma)))  # type: ignore[arg-type]
        found[gamma] = (delta_rule.read(memory, k) - last).abs().max().item(), (memory.norm_BK * k[:, 0]).sum().item()
    assert found["paper"][0] < 1e-3 and abs(found["paper"][1] - 1) < 1e-3
    assert found["released"][0] < 1e-3 and abs(found["released"][1] - 1) < 1e-3
    assert found["off"][0] > 1 and abs(found["off"][1] - (D + 1)) < 1e-9  # z remembers what A has erased


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(RULES), stored=st.booleans(), normalised=st.booleans(),
    keys=st.lists(st.sampled_from(["zero", "one", "minus", "tiny", "huge"]), min_size=1, max_size=5),
)  # fmt: skip
def test_no_division_by_zero_and_finite_gradients(rule, stored, normalised, keys):
    size = {"zero": 0.0, "one": 1.0, "minus": -1.0, "tiny": 1e-12, "huge": 1e3}
    memory, *_ = draw(1, 1, stored=stored)
    raw = torch.stack([torch.full((B, E), size[k], dtype=torch.float64) for k in keys], dim=1)
    values = torch.ones(B, len(keys), D, dtype=torch.float64)

    def run(raw, values, logits):
        phi = delta_rule.dpfp(raw, normalised=normalised)
        after = delta_rule.add(memory, delta_rule.write(memory, phi, values, logits.sigmoid(), rule))
        return *after, delta_rule.read(after, phi)

    assert all(bool(x.isfinite().all()) for x in with_gradients(run, (raw, values, values[..., 0])))


def test_reading_an_empty_memory_gives_exactly_zero():
    queries = delta_rule.dpfp(torch.randn(B, 7, E))
    assert (delta_rule.read(delta_rule.empty((B,), K, D, queries), queries) == 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_zero_key_changes_nothing(rule):
    memory, keys, values, betas = draw(3, 2)
    after = delta_rule.add(memory, delta_rule.write(memory, torch.zeros_like(keys), values, betas, rule))
    assert difference(after, memory) == 0


def test_dpfp_is_the_published_one():
    x = torch.randn(2, 4, E, dtype=torch.float64)
    both = torch.cat([x.relu(), (-x).relu()], dim=-1)
    parts = [both * both.roll(j, -1) for j in (1, 2, 3)]
    assert torch.equal(delta_rule.dpfp(x), torch.cat(parts, dim=-1)) and delta_rule.dpfp(x).shape[-1] == K
    assert torch.equal(delta_rule.dpfp(x, nu=1), parts[0]) and delta_rule.dpfp(x, nu=2).shape[-1] == 4 * E
    lengths = delta_rule.dpfp(x, normalised=True).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_layers_and_batch_may_both_lead():
    memory, *tokens = draw(3, 6)
    wide = Association(*(x.expand(4, *x.shape) for x in memory))
    after = delta_rule.add(
        wide, delta_rule.write(wide, *(x.expand(4, *x.shape) for x in tokens), DeltaRule(gamma="released"))
    )
    one = delta_rule.add(memory, delta_rule.write(memory, *tokens, DeltaRule(gamma="released")))
    torch.testing.assert_close(after.matrix_BKD[2], one.matrix_BKD, rtol=0, atol=1e-13)


@pytest.mark.parametrize("update", ["sequential", "batched"])
def test_bf16_autocast_keeps_the_memory_in_float32(update):
    memory, *tokens = (x if isinstance(x, Association) else x.float() for x in draw(3, 7))
    memory = Association(*(x.float() for x in memory))
    rule = DeltaRule(update, "released")
    plain = delta_rule.add(memory, delta_rule.write(memory, *tokens, rule))
    with torch.autocast("cpu", torch.bfloat16):
        cast = delta_rule.add(memory, delta_rule.write(memory, *tokens, rule))
    assert cast.matrix_BKD.dtype == torch.float32 and difference(cast, plain) == 0


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="update is 'fast'"):
        DeltaRule("fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gamma is 'clipped'"):
        DeltaRule(gamma="clipped")  # type: ignore[arg-type]
