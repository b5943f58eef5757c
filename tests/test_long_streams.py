"""ARMT's memory on streams of any length: bounded, near the exact arithmetic, and unchanged as long as it is tame."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_delta_rule import D, difference, draw, with_gradients

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.language import likelihood
from rmtlib.models import delta_rule
from rmtlib.models.armt import ARMT
from rmtlib.models.config import ARMTConfig, DecoderConfig, DeltaRule
from rmtlib.models.decoder import Decoder
from rmtlib.models.delta_rule import Association
from rmtlib.models.interface import check_finite
from rmtlib.settings import to_params

BOUNDED = [DeltaRule(update, bounded=True) for update in ("sequential", "batched")]  # type: ignore[arg-type]


def write(memory: Association, tokens, rule: DeltaRule) -> Association:
    return delta_rule.add(memory, delta_rule.write(memory, *tokens, rule))


def drawn(samples: int, M: int, E: int, random: torch.Generator):
    """Keys of all sizes, values, betas, float32."""
    keys = delta_rule.dpfp(torch.randn(samples, M, E, generator=random))
    return keys, torch.randn(samples, M, 2, generator=random), torch.rand(samples, M, generator=random)


@pytest.mark.parametrize("rule", BOUNDED, ids=lambda rule: rule.update)
def test_two_million_tokens_stay_finite_and_near_float64(rule):
    """1,024 streams of 256 segments of 8 memory tokens; the largest value ever written is about 5."""
    random = torch.Generator().manual_seed(0)
    memory = delta_rule.empty((1024,), 24, 2, torch.zeros(1))
    exact = Association(*(x.double() for x in memory))
    for s in range(256):
        tokens = drawn(1024, 8, 4, random)
        memory = write(memory, tokens, rule)
        if s < 64:  # half a million tokens are enough for the slower comparison
            exact = write(exact, [x.double() for x in tokens], rule)
            early = memory
    check_finite(memory)
    assert max(x.abs().max().item() for x in memory) < 1e3
    assert difference(early, exact) < 1e-3 * exact.matrix_BKD.abs().max()


def test_a_single_long_stream_overflows_only_without_the_bound():
    def read(rule):
        random = torch.Generator().manual_seed(0)
        memory = delta_rule.empty((1,), 48, 2, torch.zeros(1))
        for _ in range(1500):
            memory = write(memory, drawn(1, 8, 8, random), rule)
        return memory

    check_finite(read(DeltaRule(bounded=True)))
    with pytest.raises(RmtlibError, match=r"not finite after 12,000 tokens \(matrix_BKD\).*initial_state"):
        check_finite(read(DeltaRule()), 12_000)


@settings(max_examples=30, deadline=None)
@given(M=st.integers(1, 6), seed=st.integers(0, 10**6), detach=st.booleans(), size=st.sampled_from([0.1, 1.0, 3.0]))
def test_fast_form_equals_the_bounded_equations(M, seed, detach, size):
    """Where both bounds are reached: z has negative entries, and keys are far smaller than those before."""
    memory, keys, *rest = draw(M, seed)
    memory = Association(memory.matrix_BKD, memory.norm_BK * (1 - (torch.arange(18) % 3 == 0) * 1.5))
    rule = DeltaRule(detach_gamma=detach, bounded=True)

    def slow(A, z, *tokens):
        return delta_rule.write_token_by_token(Association(A, z), *tokens, rule)

    def fast(A, z, *tokens):
        return write(Association(A, z), tokens, rule)

    inputs = (*memory, keys * size, *rest)
    for a, b in zip(with_gradients(fast, inputs), with_gradients(slow, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * max(1.0, b.detach().abs().max().item()))


@pytest.mark.parametrize("clipped", [False, True])
def test_compiling_it_needs_no_look_at_values(clipped):
    memory, *tokens = draw(4, 1)
    memory = memory._replace(norm_BK=memory.norm_BK * (1 if clipped else 0.1))
    rule = DeltaRule(bounded=True)
    expected = delta_rule.write(memory, *tokens, rule)
    assert (expected.gammas_BM == delta_rule.LEAST_GAMMA).any() == clipped
    compiled = torch.compile(delta_rule.write, backend="eager", fullgraph=True)(memory, *tokens, rule)
    for found, wanted in zip(compiled, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_bounds_are_what_they_say():
    memory = Association(torch.ones(1, 3, D), torch.tensor([[3.0, -2.0, 0.0]]))
    query = torch.tensor([[[1.0, 1.0, 0.0]]])  # z.q = 1, |z|.q = 5, A'q = 2
    assert delta_rule.read(memory, query)[0, 0, 0].item() == pytest.approx(2 / 1, rel=1e-4)
    assert delta_rule.read(memory, query, bounded=True)[0, 0, 0].item() == pytest.approx(2 / 2.5, rel=1e-4)
    small = torch.tensor([[[0.5, 0.0, 0.0]]])  # counted six times
    tokens = small, torch.zeros(1, 1, D), torch.ones(1, 1)
    for update, bounded, gamma in (("sequential", False, -5), ("sequential", True, -1), ("batched", True, -1)):
        written = delta_rule.write(memory, *tokens, DeltaRule(update, bounded=bounded))  # type: ignore[arg-type]
        assert written.gammas_BM.item() == pytest.approx(gamma, rel=1e-3)


@pytest.mark.parametrize("update", ["sequential", "batched"])
@pytest.mark.parametrize("gamma", ["paper", "released", "off"])
def test_a_tame_stream_is_the_same_to_the_bit(update, gamma):
    """Keys of one size with little overlap, each written many times."""
    random = torch.Generator().manual_seed(0)
    known = torch.nn.functional.normalize(torch.eye(18)[:8] + 0.05 * torch.rand(8, 18, generator=random), dim=-1)
    plain = bounded = delta_rule.empty((1,), 18, 2, torch.zeros(1))
    for _ in range(200):
        keys = known[torch.randperm(8, generator=random)[:4]][None]
        tokens = keys, torch.randn(1, 4, 2, generator=random), torch.rand(1, 4, generator=random)
        plain = write(plain, tokens, DeltaRule(update, gamma))
        bounded = write(bounded, tokens, DeltaRule(update, gamma, bounded=True))
        assert torch.equal(delta_rule.read(plain, keys), delta_rule.read(bounded, keys, bounded=True))
    assert difference(plain, bounded) == 0


def test_models_are_bounded_and_old_run_ids_stay():
    assert ARMT(Decoder(DecoderConfig(9, 8, 1, 2)), 2).rule.bounded
    assert ARMTConfig(DecoderConfig(9, 8, 1, 2), 2).rule.bounded
    assert to_params(DeltaRule()) == {"update": "sequential", "gamma": "paper", "detach_gamma": True}
    assert to_params(DeltaRule(bounded=True))["bounded"]


def stirred(rule: DeltaRule | None) -> ARMT:
    torch.manual_seed(4)
    model = ARMT(Decoder(DecoderConfig(64, 32, 2, 4)), 4, 8, rule).eval()
    torch.nn.init.uniform_(model.value_LDD, -(32**-0.5), 32**-0.5)
    return model


def test_evaluation_refuses_a_state_that_has_overflowed():
    ids = torch.randint(0, 64, (8 * 400,), generator=torch.Generator().manual_seed(0)).numpy()
    assert likelihood(stirred(None), Stream(ids, 0), 8, columns=1).bits > 0
    with pytest.raises(RmtlibError, match="not finite after 3,200 tokens"):
        likelihood(stirred(DeltaRule()), Stream(ids, 0), 8, columns=1)


def test_one_stream_of_two_million_tokens_is_read_to_its_end():
    """By a whole model; without the bounds its memory overflows in the first eighth."""

    def model(rule):
        torch.manual_seed(4)
        made = ARMT(Decoder(DecoderConfig(16, 8, 1, 1)), 4, 8, rule).eval()
        torch.nn.init.uniform_(made.value_LDD, -(8**-0.5), 8**-0.5)
        return made

    ids = torch.randint(0, 16, (2**21,), generator=torch.Generator().manual_seed(0)).numpy()
    with pytest.raises(RmtlibError, match="not finite after 262,144 tokens"):
        likelihood(model(DeltaRule()), Stream(ids[: 2**18], 0), 256, columns=1)
    found = likelihood(model(None), Stream(ids, 0), 256, columns=1)
    assert found.tokens == 2**21
    assert 4 <= found.bits < 5
