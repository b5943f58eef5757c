"""Transformer-XL with memory tokens: equal to loops over positions, to a plain Transformer, to one long window."""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from torch.nn import functional as F

from rmtlib.errors import RmtlibError
from rmtlib.models import interface
from rmtlib.models.adaptive_softmax import AdaptiveSoftmax
from rmtlib.models.transformer_xl import (
    TransformerXL,
    TransformerXLConfig,
    XLState,
    relative_scores,
    relative_scores_naive,
    sinusoids,
)

V, D, S = 23, 12, 5
TINY = TransformerXLConfig(vocab_size=V, d_model=D, n_layers=2, n_heads=3, d_head=4, d_ff=16, dropout=0.0)


def make(seed=0, **changes) -> TransformerXL:
    """A tiny float64 model whose weights are large enough for every term to matter."""
    torch.manual_seed(seed)
    model = TransformerXL(replace(TINY, **changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def ids(batch=2, length=S, seed=1) -> torch.Tensor:
    return torch.randint(0, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def naive_attention(model, layer, x, past, allowed, M, mode):
    """One layer's attention for one sample, entry by entry. `allowed(i, j)`: row i may see key j (cache first)."""
    c, a = model.config, layer.attention
    keys, P, T = torch.cat([past, x]), len(past), len(x)
    out = torch.zeros_like(x)
    for h in range(c.n_heads):
        part = slice(h * c.d_head, (h + 1) * c.d_head)
        # key and value of a head stand together: E key columns, then E value columns
        kv = a.key_value.weight[2 * h * c.d_head : 2 * (h + 1) * c.d_head]
        w_k, w_v, w_r, w_q = kv[: c.d_head], kv[c.d_head :], a.position.weight[part], a.query.weight[part]
        u, v = model.content_bias_HE[h], model.position_bias_HE[h]
        mixed = []
        for i in range(T):
            q, scores, values = w_q @ x[i], [], []

            def position(row, distance, w_r=w_r, w_q=w_q, v=v):
                r = sinusoids(torch.tensor([float(distance)], dtype=torch.float64), c.d_model)[0]
                return (w_q @ x[row] + v) @ (w_r @ r)

            for j in range(P + T):
                if not allowed(i, j):
                    continue
                distance = P + i - j
                score = (q + u) @ (w_k @ keys[j])
                if distance >= 0 or mode == "signed":
                    score = score + position(i, distance)
                elif mode == "released" and distance < -1:  # the next query's row, from its farthest distance on
                    score = score + position(i + 1, P + T - 1 - (j - i - P - 2))
                scores.append(score / math.sqrt(c.d_head))
                values.append(w_v @ keys[j])
            mixed.append(torch.stack(scores).softmax(0) @ torch.stack(values))
        out = out + torch.stack(mixed) @ a.out.weight[:, part].T
    return out


def naive_step(model, tokens, memory, caches, mode="signed"):
    """One sample through all layers; returns text outputs, written memory and each layer's inputs."""
    c = model.config
    M = c.memory_tokens
    text = model.tokens.weight[tokens] * math.sqrt(c.d_model)
    x = torch.cat([memory, text] + [memory] * c.recurrent)
    T = len(x)

    def block(row):
        return 1 if row < M else 2 if row >= M + S else 0

    inputs = []
    for layer, past in zip(model.layers, caches, strict=True):
        P = len(past)

        def allowed(i, j, P=P):
            if block(i) and j < P:
                return c.memory_sees_cache
            return j <= P + i or (block(i) > 0 and block(i) == block(j - P))

        inputs.append(x)
        mixed = naive_attention(model, layer, x, past, allowed, M, mode)
        x = F.layer_norm(x + mixed, (D,), layer.attention_norm.weight, layer.attention_norm.bias)
        fed = layer.down(F.relu(layer.up(x)))
        x = F.layer_norm(x + fed, (D,), layer.feed_forward_norm.weight, layer.feed_forward_norm.bias)
    assert len(x) == T
    return x[M : M + S], x[M + S :], inputs


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(cache=7),
        dict(memory_tokens=1),
        dict(memory_tokens=3),
        dict(memory_tokens=3, memory_positions="content"),
        dict(memory_tokens=3, memory_positions="released"),
        dict(memory_tokens=3, cache=7, memory_positions="released"),
        dict(memory_tokens=3, cache=7),
        dict(memory_tokens=3, cache=7, cache_counts="positions"),
        dict(memory_tokens=2, cache=4, memory_sees_cache=True),
        dict(memory_tokens=3, recurrent=False),
    ],
    ids=str,
)
def test_steps_equal_a_double_loop_over_positions(changes):
    """Three segments: outputs, memory and cache."""
    model = make(**changes)
    c, M = model.config, model.config.memory_tokens
    with torch.no_grad():
        state, memory = model.initial_state(1), model.memory_MD
        caches = [torch.zeros(0, D, dtype=torch.float64) for _ in model.layers]
        for segment in range(3):
            tokens = ids(1, seed=segment)
            hidden, state = model.step(tokens, state)
            expected, written, inputs = naive_step(model, tokens[0], memory, caches, c.memory_positions)
            torch.testing.assert_close(hidden[0], expected)
            if c.recurrent:
                memory = written
                torch.testing.assert_close(state.memory_BMD[0], memory)
            kept = [x[M : M + S] if c.cache_counts == "tokens" else x for x in inputs]
            caches = [
                torch.cat([old, new])[-c.cache :] if c.cache else old for old, new in zip(caches, kept, strict=True)
            ]
            for layer in range(c.n_layers):
                torch.testing.assert_close(state.cache_LBPD[layer, 0], caches[layer])


def test_relative_scores_equal_a_double_loop():
    generator = torch.Generator().manual_seed(0)
    for T, P, ahead in product((1, 4), (0, 3), (1, 2, 5)):
        q = torch.randn(2, 3, T, 4, dtype=torch.float64, generator=generator)
        r = torch.randn(3, P + T + ahead, 4, dtype=torch.float64, generator=generator)
        valid = torch.ones(T, P + T, dtype=torch.bool).tril(P + ahead)  # distances that r has
        fast, naive = relative_scores(q, r, P + T), relative_scores_naive(q, r, P + T)
        torch.testing.assert_close(fast * valid, naive * valid)
        assert (naive * ~valid == 0).all()


def test_gradients_of_relative_scores_equal_the_double_loop():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    r = torch.randn(2, 9, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(1, 2, 4, 7, dtype=torch.float64, generator=generator).tril(3)
    found = [torch.autograd.grad((f(q, r, 7) * weight).sum(), (q, r)) for f in (relative_scores, relative_scores_naive)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def plain_transformer(model, tokens):
    """A causal post-norm Transformer over one window by ordinary means: no state, a table of all pairs of positions."""
    c = model.config
    n = tokens.shape[1]
    x = model.tokens(tokens) * math.sqrt(D)
    distance = torch.arange(n)[:, None] - torch.arange(n)
    table = sinusoids(distance.flatten().double(), D)
    for layer in model.layers:
        a = layer.attention
        q, k, v, r = (
            z.unflatten(-1, (c.n_heads, -1)) for z in (a.query(x), *_split(a.key_value(x), c), a.position(table))
        )
        content = torch.einsum("bihe,bjhe->bhij", q + model.content_bias_HE, k)
        place = torch.einsum("bihe,ijhe->bhij", q + model.position_bias_HE, r.unflatten(0, (n, n)))
        scores = ((content + place) / math.sqrt(c.d_head)).masked_fill(distance < 0, -torch.inf)
        mixed = torch.einsum("bhij,bjhe->bihe", scores.softmax(-1), v).flatten(2)
        x = layer.attention_norm(x + a.out(mixed))
        x = layer.feed_forward_norm(x + layer.down(F.relu(layer.up(x))))
    return x


def _split(kv, c):
    both = kv.unflatten(-1, (c.n_heads, 2, c.d_head))
    return both[..., 0, :].flatten(-2), both[..., 1, :].flatten(-2)


def test_without_cache_and_memory_it_is_a_plain_causal_transformer():
    model, tokens = make(), ids(2, 9)
    hidden, state = model.step(tokens, model.initial_state(2))
    torch.testing.assert_close(hidden, plain_transformer(model, tokens))
    again, _ = model.step(tokens, state)  # and the second segment knows nothing of the first
    torch.testing.assert_close(again, hidden)
    assert model.state_size() == 0


@pytest.mark.parametrize("length", [1, 4, 5, 20])
def test_a_cache_that_holds_everything_equals_one_long_window(length):
    """A token's layer inputs depend on earlier tokens alone, so caching them all is the same as reading at once."""
    model, tokens = make(cache=20), ids(2, 20)
    whole, _ = model.step(tokens, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for start in range(0, 20, length):
        hidden, state = model.step(tokens[:, start : start + length], state)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_cache_of_one_layer_equals_a_window_of_its_length():
    model, tokens = make(cache=6, n_layers=1), ids(1, 15)
    state = model.initial_state(1)
    for start in range(0, 15, 3):
        hidden, state = model.step(tokens[:, start : start + 3], state)
        window = tokens[:, max(0, start - 6) : start + 3]
        expected, _ = model.step(window, model.initial_state(1))
        torch.testing.assert_close(hidden, expected[:, -3:])
    assert state.cache_LBPD.shape == (1, 1, 6, D)


def test_what_a_cache_holds():
    """Positions, as released: the write tokens and what of the text is left; tokens: text alone."""
    for counts, first in (("tokens", 0), ("positions", 1)):
        model = make(memory_tokens=1, cache=4, cache_counts=counts, n_layers=1)
        _, state = model.step(ids(1), model.initial_state(1))
        text = model.tokens(ids(1))[0] * math.sqrt(D)
        held = torch.cat([text, model.memory_MD])[1 + first :][:4] if first else text[-4:]
        torch.testing.assert_close(state.cache_LBPD[0, 0], held)


def test_the_cache_has_no_gradient_and_the_memory_has():
    model = make(memory_tokens=2, cache=4)
    _, state = model.step(ids(), model.initial_state(2))
    assert state.memory_BMD.requires_grad and not state.cache_LBPD.requires_grad
    assert not any(x.requires_grad for x in interface.detach(state))


def test_memory_carries_what_a_segment_said_and_mt_carries_nothing():
    rmt, mt = make(memory_tokens=2), make(memory_tokens=2, recurrent=False)
    for model, differs in ((rmt, True), (mt, False)):
        states = [model.step(ids(seed=seed), model.initial_state(2))[1] for seed in (1, 2)]
        first, second = (model.step(ids(seed=3), state)[0] for state in states)
        assert torch.equal(first, second) != differs
    without = make()
    without.load_state_dict(mt.state_dict() | {"memory_MD": without.memory_MD})
    assert not torch.allclose(mt.step(ids(), mt.initial_state(2))[0], without.step(ids(), without.initial_state(2))[0])
    assert mt.state_size() == 0 and rmt.state_size() == 2 * D


def test_no_output_depends_on_a_later_token():
    model = make(memory_tokens=2, cache=4)
    tokens = ids()
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V
    state = model.step(ids(seed=7), model.initial_state(2))[1]
    a, b = model.step(tokens, state)[0], model.step(changed, state)[0]
    torch.testing.assert_close(a[:, :3], b[:, :3], rtol=0, atol=0)
    assert not torch.allclose(a[:, 3:], b[:, 3:])


def test_samples_of_a_batch_do_not_meet():
    model = make(memory_tokens=2, cache=4)
    state = model.initial_state(3)
    alone = model.initial_state(1)
    for segment in range(3):
        tokens = ids(3, seed=segment)
        hidden, state = model.step(tokens, state)
        one, alone = model.step(tokens[1:2], alone)
        torch.testing.assert_close(hidden[1:2], one)


def test_without_writing_the_state_stays():
    model = make(memory_tokens=2, cache=4)
    state = model.step(ids(), model.initial_state(2))[1]
    written, _ = model.step(ids(seed=5), state)
    hidden, same = model.step(ids(seed=5), state, write=False)
    assert same is state
    torch.testing.assert_close(hidden, written)  # text never sees the write block


def test_initial_memory():
    copied, distinct = make_memory("copied"), make_memory("distinct")
    assert (copied == copied[0]).all() and not (distinct[1:] == distinct[0]).any()
    assert 0.7 < copied[0].std() < 1.3  # N(0, 1), not scaled


def test_new_weights_have_the_deviation_asked_for():
    for std in (0.02, 0.1):
        model = TransformerXL(replace(TINY, d_model=100, d_ff=400, init_std=std))
        for weight in (model.tokens.weight, model.layers[0].up.weight, model.layers[1].attention.key_value.weight):
            assert weight.std().item() == pytest.approx(std, rel=0.1)


def make_memory(kind):
    torch.manual_seed(0)
    return TransformerXL(
        replace(TINY, d_model=200, d_head=50, n_heads=4, memory_tokens=3, initial_memory=kind)
    ).memory_MD


def count(**kwargs) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in TransformerXL(TransformerXLConfig(**kwargs)).parameters())


def test_parameter_counts_are_the_published_ones():
    enwik8 = dict(vocab_size=204, d_model=512, n_layers=12, n_heads=8, d_head=64, d_ff=2048)
    assert count(**enwik8) == count(**enwik8, cache=200) == 41_055_436
    assert count(**enwik8, memory_tokens=10) == 41_055_436 + 10 * 512
    words = dict(vocab_size=267_735, d_model=410, n_layers=16, n_heads=10, d_head=41, d_ff=2100)
    words["cutoffs"] = (20_000, 40_000, 200_000)
    assert count(**words) == 151_107_538
    assert count(**words, memory_tokens=25) == 151_107_538 + 25 * 410


def test_state_size_counts_what_is_carried():
    model = make(memory_tokens=2, cache=4)
    state = model.initial_state(1)
    for _ in range(3):
        state = model.step(ids(1), state)[1]
    assert model.state_size() == sum(x.numel() for x in state)


@pytest.mark.parametrize(
    "bad", [dict(cache=-1), dict(memory_positions="none"), dict(auxiliary_token=True), dict(d_model=7)]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(TINY, **bad)


def test_released_positions_refuse_what_they_cannot_do_exactly():
    model = make(memory_tokens=3, memory_positions="released")
    with pytest.raises(ValueError, match="padding needs 'signed' or 'content'"):
        model.step(ids(), model.initial_state(2), torch.tensor([5, 3]))
    with pytest.raises(ValueError, match="reading token by token needs"):
        model.open_segment(model.initial_state(2))


# Adaptive softmax


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("cutoffs", [(), (7,), (3, 9, 20)])
def test_adaptive_softmax_is_a_distribution_and_its_loss_reads_it(cutoffs, special):
    torch.manual_seed(0)
    layer, table = AdaptiveSoftmax(V, D, cutoffs, special).double(), torch.randn(V, D, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(V + special, D, dtype=torch.float64)
    log_p = layer.log_probabilities(hidden, table)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(V + special, dtype=torch.float64))
    targets = torch.randperm(V + special)  # every id, those at both sides of each cutoff too
    torch.testing.assert_close(layer(hidden, targets, table), -log_p.gather(1, targets[:, None])[:, 0])


def test_without_cutoffs_it_is_a_plain_softmax():
    torch.manual_seed(0)
    layer, table, hidden = AdaptiveSoftmax(V, D), torch.randn(V, D), torch.randn(4, D)
    with torch.no_grad():
        layer.bias_V.normal_()
    targets = torch.tensor([0, 5, 22, 7])
    expected = F.cross_entropy(F.linear(hidden, table, layer.bias_V), targets, reduction="none")
    torch.testing.assert_close(layer(hidden, targets, table), expected)


def test_clusters_equal_pytorchs_adaptive_softmax():
    """With PyTorch's projections set to the identity, its loss is ours."""
    torch.manual_seed(0)
    cutoffs = [4, 11]
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(D, V, cutoffs, div_value=1.0, head_bias=True).double()
    ours = AdaptiveSoftmax(V, D, cutoffs).double()
    table = torch.randn(V, D, dtype=torch.float64)
    with torch.no_grad():
        torch.nn.init.normal_(ours.extra_CD)
        theirs.head.weight.copy_(torch.cat([table[:4], ours.extra_CD]))
        theirs.head.bias.zero_()
        for tail, low, high in zip(theirs.tail, cutoffs, (*cutoffs[1:], V), strict=True):
            tail[0].weight.copy_(torch.eye(D))
            tail[1].weight.copy_(table[low:high])
    hidden, targets = torch.randn(V, D, dtype=torch.float64), torch.arange(V)
    torch.testing.assert_close(ours(hidden, targets, table), -theirs(hidden, targets).output)


def test_bad_cutoffs_are_refused():
    for cutoffs in ((5, 3), (0,), (V,), (4, 4)):
        with pytest.raises(ValueError, match="cutoffs"):
            AdaptiveSoftmax(V, D, cutoffs)


def test_the_auxiliary_loss_is_of_the_special_token_alone():
    model = make(memory_tokens=2, auxiliary_token=True)
    _, state = model.step(ids(), model.initial_state(2))
    log_p = model.softmax.log_probabilities(state.memory_BMD.flatten(0, 1), model.tokens.weight)
    assert log_p.shape == (4, V + 1)
    torch.testing.assert_close(model.logits(state.memory_BMD).flatten(0, 1), log_p[:, :V])  # it is never generated
    torch.testing.assert_close(model.auxiliary_loss(state), -log_p[..., V].mean())
    model.auxiliary_loss(state).backward()
    assert model.softmax.extra_CD.grad.abs().sum() > 0 and model.memory_MD.grad.abs().sum() > 0
    with pytest.raises(RmtlibError, match="no auxiliary_token: set it in TransformerXLConfig"):
        make(memory_tokens=2).auxiliary_loss(state)


def test_initial_weights_of_a_state_are_those_of_the_parameters():
    model = make(memory_tokens=2)
    state = model.initial_state(3)
    assert isinstance(state, XLState) and state.cache_LBPD.shape == (2, 3, 0, D)
    assert all(torch.equal(state.memory_BMD[b], model.memory_MD) for b in range(3))


def test_compiled_layers_equal_plain_ones(monkeypatch):
    """Over the first segment, a growing and a full cache, with and without gradient: all layers share a graph each."""
    graphs = []
    count = partial(torch.compile, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
    monkeypatch.setattr(torch, "compile", count)
    model = TransformerXL(replace(TINY, memory_tokens=2, cache=6, dropout=0.0)).eval()
    compiled = model.with_cache(6)
    compiled.compile_layers()
    segment = torch.randint(0, TINY.vocab_size, (2, 4))
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient):
            states = [model.initial_state(2)] * 2
            for _ in range(4):
                plain, states[0] = model.step(segment, states[0])
                traced, states[1] = compiled.step(segment, states[1])
                torch.testing.assert_close(traced, plain)
    assert len(compiled.layers) == 2 and 0 < len(graphs) <= 2 * 3


def test_a_copy_with_another_cache_follows_the_weights():
    model = make(cache=3, memory_tokens=2)
    reader, longer = model.with_cache(7), make(cache=7, memory_tokens=2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    longer.load_state_dict(model.state_dict())
    assert not reader.training and reader.state_size() == longer.state_size() > model.state_size()
    state, expected = reader.initial_state(2), longer.initial_state(2)
    for s in range(3):
        ids = torch.arange(10).view(2, 5) + s
        (hidden, state), (wanted, expected) = reader.step(ids, state), longer.step(ids, expected)
        assert torch.equal(hidden, wanted)
