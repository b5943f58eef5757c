"""The cases: each gives rows of the table. On a CPU, one thread, float32 unless a row says bf16."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from benchmarks import naive
from benchmarks.measure import Row, compare, growth_bytes, in_new_process, memory, peak_bytes, seconds, speed
from rmtlib.data.associative import VOCABULARY, PairTask
from rmtlib.errors import RmtlibError
from rmtlib.models import delta_rule
from rmtlib.models.armt import ARMT
from rmtlib.models.config import DecoderConfig, DeltaRule, MambaConfig, TransformerXLConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.delta_rule import Association
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.interface import take_rows
from rmtlib.models.mamba import Mamba
from rmtlib.models.reading import read
from rmtlib.models.rmt import RMT
from rmtlib.models.transformer_xl import TransformerXL
from rmtlib.runs.provenance import multiplies_bf16
from rmtlib.segments import IGNORE, Segment, cut, without_finished
from rmtlib.training.bptt import Read, backward, replayed_loss
from rmtlib.training.trainer import autocast

RELEASED = DeltaRule("batched", "released")
SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
CORE_FLOPS = 0.0  # of a matrix product, measured at the start


def measure_core() -> float:
    """FLOP/s of one thread in a matrix product: the floor of a CPU row."""
    a = torch.randn(1024, 1024)
    best = min(seconds(lambda: a @ a) for _ in range(5))
    return 2 * 1024**3 / best


def _gpt2(layers: int = 12, width: int = 768) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=layers, n_embd=width, n_head=width // 64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **SPECIAL
    )
    return transformers.GPT2LMHeadModel(config).eval()


def _answer_batch(vocabulary: int, segment: int, count: int, batch: int = 1) -> list[Segment]:
    """Segments with labels on the last three positions alone, as in question answering."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (batch, segment * count), generator=random)
    labels = torch.full_like(ids, IGNORE)
    labels[:, -4:-1] = ids[:, -3:]
    return [Segment(x, y, None) for x, y in zip(ids.split(segment, 1), labels.split(segment, 1), strict=True)]


def _check(ours: Any, peer: Any, segments: list[Segment]) -> None:
    """Same answers' logits, to float32's precision."""
    with torch.no_grad():
        *_, (last, hidden) = read(ours, segments, ours.initial_state(len(segments[0].input_ids_BS)), len(segments))
        a = ours.logits(last.labelled().select(hidden))
        b = peer([s.input_ids_BS for s in segments])[:, -last.labels_BS.shape[1] :][last.labels_BS != IGNORE]
    worst = ((a - b).abs().max() / b.abs().max()).item()
    assert worst < 1e-3, f"the peers disagree by {worst:.1e}"


def _prefill(model: Any, segments: list[Segment]) -> torch.Tensor:
    with torch.no_grad():
        *_, (_, hidden) = read(model, segments, model.initial_state(len(segments[0].input_ids_BS)), len(segments))
        return model.logits(hidden[:, -1])


def _train(model: Any, segments: list[Segment], **options: Any) -> None:
    model.zero_grad(set_to_none=True)
    backward(model, segments, scale=1 / 3, **options)


def _train_naive(model: Any, segments: list[Segment]) -> None:
    model.zero_grad(set_to_none=True)
    model([s.input_ids_BS for s in segments], [s.labels_BS for s in segments]).backward()


def _gpt2_rows(name: str, ours: Any, peer: Any, rounds: int, targets: tuple[float, float]) -> Iterator[Row]:
    segments = _answer_batch(50_257, 128, 2)
    _check(ours, peer, segments)
    tokens = sum(s.input_ids_BS.numel() for s in segments)
    weights = sum(p.numel() for p in ours.decoder.blocks.parameters())
    positions = (128 + ours.memory_tokens * (2 if name == "RMT" else 1)) / 128

    def run_naive() -> None:
        with torch.no_grad():
            peer([s.input_ids_BS for s in segments])

    for what, times, mine, theirs, target in (
        ("prefill", 1, lambda: _prefill(ours, segments), run_naive, targets[0]),
        ("training", 3, lambda: _train(ours, segments), lambda: _train_naive(peer, segments), targets[1]),
    ):
        a, b, ratio = compare(mine, theirs, rounds)
        floor = times * 2 * weights * positions * tokens / CORE_FLOPS
        yield speed(f"{name} {what}", "GPT-2 124M, 2 segments of 128, batch 1", a, b, ratio, target, floor)


def rmt(rounds: int) -> Iterator[Row]:
    """RMT on GPT-2 against the wrapped Hugging Face model."""
    hf = _gpt2()
    ours = RMT(decoder_from_hf(hf), 16).eval()
    yield from _gpt2_rows("RMT", ours, naive.NaiveRMT(hf, ours.memory_MD), rounds, (1.4, 1.25))


def armt(rounds: int) -> Iterator[Row]:
    """ARMT on GPT-2, as released, against the wrapped Hugging Face model."""
    hf = _gpt2()
    ours = ARMT(decoder_from_hf(hf), 10, 64, RELEASED).eval()
    torch.nn.init.normal_(ours.value_LDD, std=0.02)
    yield from _gpt2_rows("ARMT", ours, naive.NaiveARMT(hf, hf.transformer.h, ours), rounds, (1.4, 1.4))


def update(rounds: int) -> Iterator[Row]:
    """One segment's memory update with its gradient, batch 16 at the paper's small size."""
    B, K, D, M = 16, 384, 128, 4
    torch.manual_seed(0)
    keys, old = delta_rule.dpfp(torch.randn(B, M, 64)), delta_rule.dpfp(torch.randn(B, 8, 64))
    values, betas = torch.randn(B, M, D), torch.rand(B, M)
    with torch.no_grad():
        memory = delta_rule.empty((B,), K, D, keys)
        memory = delta_rule.add(memory, delta_rule.write(memory, old, torch.randn(B, 8, D), torch.rand(B, 8), RELEASED))
    for leaf in (keys, values, betas):
        leaf.requires_grad_()

    def fast(rule: DeltaRule) -> Association:
        after = delta_rule.add(memory, delta_rule.write(memory, keys, values, betas, rule))
        (after.matrix_BKD.sum() + after.norm_BK.sum()).backward()
        return after

    def slow() -> tuple[torch.Tensor, torch.Tensor]:
        A, z = naive.write_with_einsum(*memory, keys, values, betas)
        (A.sum() + z.sum()).backward()
        return A, z

    def token_by_token() -> None:
        after = delta_rule.write_token_by_token(memory, keys, values, betas, DeltaRule())
        (after.matrix_BKD.sum() + after.norm_BK.sum()).backward()

    torch.testing.assert_close(fast(RELEASED).matrix_BKD, slow()[0], rtol=1e-3, atol=1e-4)
    what = "batch 16, K 384, D 128, 4 tokens, forward and backward"
    many = lambda call: lambda: [call() for _ in range(20)]  # noqa: E731
    a, b, ratio = compare(many(lambda: fast(RELEASED)), many(slow), rounds)
    yield speed("memory update, batched", f"{what}; peer: einsum", a / 20, b / 20, ratio, 9.0)
    a, b, ratio = compare(many(lambda: fast(DeltaRule())), many(token_by_token), rounds)
    yield speed("memory update, WY form", f"{what}; peer: token by token", a / 20, b / 20, ratio, 2.0)


def _associative(pairs: int, batch: int) -> tuple[ARMT, list[Segment], Callable[[], Any]]:
    """The paper's small ARMT, a batch of the remember task, and what makes its naive peer."""
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64, **SPECIAL,
    )  # fmt: skip
    hf = transformers.GPTNeoXForCausalLM(config)
    ours = ARMT(decoder_from_hf(hf), 4, 64, RELEASED)
    torch.nn.init.normal_(ours.value_LDD, std=0.02)
    task = PairTask("remember", 3)
    samples = [task.sample(pairs, 0, "train", i) for i in range(batch)]
    segments = list(cut([s.tokens for s in samples], [s.labels for s in samples], task.segment_size))
    return ours, segments, lambda: naive.NaiveARMT(hf, hf.gpt_neox.layers, ours)


AR_PAIRS, AR_BATCH = 50, 16
AR_FLOPS = 2.5e6  # of a token, forward, memory included


def associative(rounds: int) -> Iterator[Row]:
    """Training of the paper's small ARMT through 51 segments: time, and peak memory in processes of their own."""
    ours, segments, make_peer = _associative(AR_PAIRS, AR_BATCH)
    peer = make_peer()
    _check(ours, peer, segments)
    what = f"4 layers of 128, 51 segments, batch {AR_BATCH}"
    floor = 3 * AR_FLOPS * sum(s.input_ids_BS.numel() for s in segments) / CORE_FLOPS
    for label, options in (("", {}), (" with rebuilt states", {"recompute": True})):
        mine = lambda options=options: _train(ours, segments, **options)  # noqa: E731
        a, b, ratio = compare(mine, lambda: _train_naive(peer, segments), rounds)
        yield speed(f"associative ARMT training{label}", what, a, b, ratio, 2.4, floor)
    theirs, kept, rebuilt = (in_new_process(f"memory-{name}")["bytes"] for name in ("naive", "kept", "rebuilt"))
    for label, mine_bytes, peer_bytes, against in (
        ("", kept, theirs, "naive"),
        (" with rebuilt states", rebuilt, theirs, "naive"),
        (" with rebuilt states, of keeping them", rebuilt, kept, "every memory kept"),
    ):
        case = f"associative ARMT training{label}: peak memory"
        yield memory(case, f"{what}; peer: {against}", mine_bytes, peer_bytes, 0.35)


def child(name: str) -> dict[str, float]:
    """The part of a case that needs a process of its own."""
    torch.set_num_threads(1)
    kind, _, rest = name.partition("-")
    if kind == "stream":
        return _stream(rest)
    if kind == "checkpointed":
        return _checkpointed(int(rest))
    ours, segments, make_peer = _associative(AR_PAIRS, AR_BATCH)
    if name == "memory-naive":
        peer = make_peer()
        return {"bytes": growth_bytes(lambda: _train_naive(peer, segments))}
    return {"bytes": growth_bytes(lambda: _train(ours, segments, recompute=name == "memory-rebuilt"))}


class _AllRows:
    """A model of which every row is asked for."""

    def __init__(self, model: Any):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def step(
        self, input_ids_BS: Any, state: Any, lengths_B: Any = None, *, write: bool = True, rows_BN: Any = None
    ) -> Any:
        hidden, state = self.model.step(input_ids_BS, state, lengths_B, write=write)
        return (hidden if rows_BN is None else take_rows(hidden, rows_BN)), state


def _replay(model: Any, recent: list[Read]) -> None:
    model.zero_grad(set_to_none=True)
    replayed_loss(model, recent, "stored")[0].backward()


def last_layer(rounds: int) -> Iterator[Row]:
    """The last layer on the rows that are needed (labels, write block, last token), against all of them; no dropout."""
    torch.manual_seed(0)
    small = DecoderConfig(1000, 64, 2, 4, positions="rotary", conv_taps=6)
    xl = TransformerXLConfig(
        vocab_size=204, d_model=64, n_layers=4, n_heads=4, d_head=16, d_ff=256, dropout=0.0, memory_tokens=10
    )
    questions, what = _answer_batch(1000, 128, 4, batch=32), "2 layers of 64, 4 segments of 128, batch 32"
    models: list[Any] = [RMT(Decoder(small), 8), ARMT(Decoder(small), 8, 16, RELEASED)]
    for model in models:
        a, b, ratio = compare(partial(_train, model, questions), partial(_train, _AllRows(model), questions), rounds)
        yield speed(f"last layer on needed rows, {type(model).__name__}", f"{what}; peer: all rows", a, b, ratio, 1.2)
    model, recent = TransformerXL(xl), [Read(Segment(x, x, None), None) for x in torch.randint(0, 204, (3, 32, 128))]
    a, b, ratio = compare(partial(_replay, model, recent), partial(_replay, _AllRows(model), recent), rounds)
    what = "Transformer-XL of 4 layers of 64, BPTT-2, segment 128, batch 32; peer: all rows"
    yield speed("last layer on needed rows, replayed segments", what, a, b, ratio, 1.04)
    gpt2, segments = RMT(decoder_from_hf(_gpt2()), 16).eval(), _answer_batch(50_257, 128, 2)
    a, b, ratio = compare(lambda: _prefill(gpt2, segments), lambda: _prefill(_AllRows(gpt2), segments), rounds)
    what = "GPT-2 124M, 2 segments of 128, batch 1; peer: all rows"
    yield speed("last layer on needed rows, prefill", what, a, b, ratio, 1.04)


def finished(rounds: int) -> Iterator[Row]:
    """Training on samples of one to eight segments, leaving out those that have ended, against reading on."""
    torch.manual_seed(0)
    decoder, S, count, batch = DecoderConfig(1000, 64, 2, 4, positions="rotary", conv_taps=6), 128, 8, 32
    tokens = [torch.randint(0, 1000, (S * (1 + i * count // batch),)).numpy() for i in reversed(range(batch))]
    labels = [np.where(np.arange(len(ids)) >= len(ids) - 2, ids, IGNORE) for ids in tokens]
    whole = list(cut(tokens, labels, S))
    left = [without_finished(segment) for segment in whole]
    for model in (RMT(Decoder(decoder), 8), Mamba(MambaConfig(1000, 64, 2))):
        found = []
        for segments in (left, whole):
            _train(model, segments)
            found.append([p.grad for p in model.parameters()])
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
        a, b, ratio = compare(partial(_train, model, left), partial(_train, model, whole), rounds)
        what = f"2 layers of 64, 1 to {count} segments of {S}, batch {batch}; peer: all samples to the end"
        yield speed(f"samples that have ended, {type(model).__name__}", what, a, b, ratio, 1.5)


def _characters(count: int) -> list[Segment]:
    """One stream in so many segments of enwik8's length, every character a label."""
    ids = torch.randint(0, 204, (1, 128 * count), generator=torch.Generator().manual_seed(0))
    return [Segment(x, x, None) for x in ids.split(128, 1)]


def package(rounds: int) -> Iterator[Row]:
    """RMT of enwik8's size against the package recurrent-memory-transformer-pytorch; no rows if it is not installed.

    Its model is another one in detail (version 0.7.0: a gated MLP, a null key, a memory that is not causal), so that
    times are compared, not outputs. It has one residual stream, no second cache, and as many weights, to a part in
    fifty. It writes a memory after the last segment, too, which ours does only if there is a next one.
    """
    try:
        from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer
    except ModuleNotFoundError as error:
        if error.name != "recurrent_memory_transformer_pytorch":
            raise
        print("  not installed: pip install recurrent-memory-transformer-pytorch==0.7.0", file=sys.stderr)
        return
    torch.manual_seed(0)
    theirs = RecurrentMemoryTransformer(
        dim=512, num_tokens=204, depth=12, num_memory_tokens=10, seq_len=128, use_flash_attn=True,
        use_xl_memories=False, num_residual_streams=1,
    )  # fmt: skip
    ours, segments = RMT(Decoder(DecoderConfig(204, 512, 12, 8)), 10), _characters(3)
    weights = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert max(weights) < 1.02 * min(weights), weights

    def train_theirs() -> None:
        theirs.zero_grad(set_to_none=True)
        memory, losses = None, []
        for segment in segments:
            loss, memory, _ = theirs(segment.input_ids_BS, memory, labels=segment.labels_BS)
            losses.append(loss)
        torch.stack(losses).sum().backward()

    @torch.no_grad()
    def read_theirs() -> None:
        memory = None
        for segment in segments:
            _, memory, _ = theirs(segment.input_ids_BS, memory)

    @torch.no_grad()
    def read_ours() -> None:
        for _, hidden in read(ours, segments, ours.initial_state(1), len(segments)):
            ours.logits(hidden)

    name = "recurrent-memory-transformer-pytorch"
    what = f"12 layers of 512, {len(segments)} segments of 128, one stream; peer: {name} {version(name)}"
    for kind, mine, peer in (
        ("training", lambda: _train(ours, segments), train_theirs),
        ("reading", read_ours, read_theirs),
    ):
        a, b, ratio = compare(mine, peer, rounds)
        yield speed(f"RMT of enwik8's size, {kind}", what, a, b, ratio, 1.1)


def bf16(rounds: int) -> Iterator[Row]:
    """bf16 by autocast, against float32; no rows if the processor has no units for it."""
    if not multiplies_bf16():
        return

    def low(call: Callable[[], Any]) -> Any:
        with autocast(torch.device("cpu"), "bf16"):
            return call()

    model, segments = RMT(decoder_from_hf(_gpt2()), 16).eval(), _answer_batch(50_257, 128, 2)
    rounded = low(partial(_prefill, model, segments))
    assert (rounded.float() - _prefill(model, segments)).norm() < 0.02 * rounded.norm()
    config = TransformerXLConfig(
        vocab_size=204, d_model=512, n_layers=12, n_heads=8, d_head=64, d_ff=2048, dropout=0.0, memory_tokens=10
    )
    characters = partial(_replay, TransformerXL(config), [Read(segment, None) for segment in _characters(3)])
    what = "GPT-2 124M, 2 segments of 128, batch 1; peer: float32"
    for name, shape, call in (
        ("RMT prefill in bf16", what, partial(_prefill, model, segments)),
        ("RMT training in bf16", what, partial(_train, model, segments)),
        (
            "Transformer-XL with memory of enwik8's size, training in bf16",
            "12 layers of 512, BPTT-2, segment 128, one stream; peer: float32",
            characters,
        ),
    ):
        a, b, ratio = compare(partial(low, call), call, rounds)
        yield speed(name, shape, a, b, ratio, 2.0)
    small = RMT(Decoder(DecoderConfig(1000, 64, 2, 4, positions="rotary", conv_taps=6)), 8)
    call = partial(_train, small, _answer_batch(1000, 128, 4, batch=32))
    a, b, ratio = compare(partial(low, call), call, rounds)
    what = "2 layers of 64, 4 segments of 128, batch 32, answers only; peer: float32"
    row = speed("RMT of figure 5's small size, training in bf16", what, a, b, ratio, 1.0)
    yield replace(row, target="<= 1x: stays in float32", reached=ratio <= 1)


def host_time(rounds: int) -> Iterator[Row]:
    """Milliseconds a segment of a model so small that only the overhead is left: 12 layers of width 24, batch 1."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(64, 24, 12, 2, positions="rotary"))
    count = 64
    segments = _answer_batch(64, 16, count)
    for model, target in ((RMT(decoder, 4).eval(), 1.7), (ARMT(decoder, 4, 4, RELEASED).eval(), 1.4)):
        run = lambda model=model: _prefill(model, segments)  # noqa: E731
        run()
        ms = sorted(seconds(run) / count for _ in range(rounds))[rounds // 2] * 1e3
        name = type(model).__name__
        what = "12 layers, width 24, 64 segments of 16"
        yield Row(f"host time a segment, {name}", what, f"{ms:.2f} ms", "", None, f"<= {target} ms", ms <= target)


def wavefront(rounds: int) -> Iterator[Row]:
    """ARMT as a wavefront against the same model's loop, where the package takes it (training too) and where not."""
    for layers, width, length, count in ((12, 64, 32, 32), (4, 128, 16, 32), (4, 128, 1024, 8), (12, 512, 32, 16)):
        torch.manual_seed(0)
        model = ARMT(Decoder(DecoderConfig(64, width, layers, 4, positions="rotary")), 4, 16, RELEASED).eval()
        ids = [torch.randint(0, 64, (1, length)) for _ in range(count)]

        def diagonal(model: ARMT = model, ids: list[torch.Tensor] = ids) -> torch.Tensor:
            return list(model.forward_diagonal([(x, None) for x in ids], model.initial_state(1)))[-1]

        def loop(model: ARMT = model, ids: list[torch.Tensor] = ids) -> torch.Tensor:
            state = model.initial_state(1)
            for x in ids:
                hidden, state = model.step(x, state)
            return hidden

        taken = model.prefers_wavefront(1, length, count)
        case = f"wavefront where it is {'taken' if taken else 'not taken'}, {layers} layers of {width}"
        what = f"ARMT, {count} segments of {length}, batch 1; peer: the loop"
        with torch.no_grad():
            torch.testing.assert_close(diagonal(), loop(), rtol=1e-3, atol=1e-4)
            a, b, ratio = compare(diagonal, loop, rounds)
        row = speed(case, what, a, b, ratio, 1.0)
        yield row if taken else replace(row, target="<= 1.1x", reached=ratio <= 1.1)
        if taken:
            a, b, ratio = compare(_trained(diagonal), _trained(loop), rounds)
            yield speed(f"{case}, training", what, a, b, ratio, 1.0)


def _trained(read: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Reading, and the gradient back through all of it."""
    return lambda: read().sum().backward()


CHECKPOINTED = (8, 32)


def checkpointed(rounds: int) -> Iterator[Row]:
    """Answer-only training that keeps the memories alone and runs each segment again: peak memory by segments."""
    few, many = (in_new_process(f"checkpointed-{count}")["bytes"] for count in CHECKPOINTED)
    growth = (many / few - 1) / (CHECKPOINTED[1] - CHECKPOINTED[0])
    yield Row(
        "RMT training with recomputed segments: growth of the peak a segment",
        "4 layers of 256, segments of 256, batch 1; {1} segments, peer: {0}".format(*CHECKPOINTED),
        *(f"{many / 1e6:.0f} MB", f"{few / 1e6:.0f} MB", many / few, "<= 2%", growth <= 0.02),
    )  # fmt: skip


def _checkpointed(count: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = RMT(Decoder(DecoderConfig(1000, 256, 4, 4, positions="rotary")), 16)
    segments = _answer_batch(1000, 256, count)
    return {"bytes": growth_bytes(lambda: _train(model, segments, recompute=True))}


def samples(rounds: int) -> Iterator[Row]:
    """Assembling a sample of a million tokens, and tokenising, against doing it sentence by sentence."""
    from rmtlib.data.babi import simulate
    from rmtlib.data.babilong import SampleBuilder
    from rmtlib.data.books import synthetic_text
    from rmtlib.data.sources import fetch
    from rmtlib.data.text import Background, GPT2Tokenizer

    try:
        ours = GPT2Tokenizer.load()
        vocabulary, merges = fetch("gpt2-encoder"), fetch("gpt2-bpe")
    except RmtlibError as error:
        yield Row("sample assembly and tokenising", str(error), "", "", None, "", None)
        return
    peer = tokenizers.ByteLevelBPETokenizer(str(vocabulary), str(merges))
    text = " ".join(synthetic_text(0, 4000))
    same = ours.encode(text).tolist() == peer.encode(text).ids
    assert same, "the tokenisers disagree"
    a, b, ratio = compare(lambda: ours.encode(text), lambda: peer.encode(text), rounds)
    yield speed("tokenising", f"{len(ours.encode(text)):,} tokens", a, b, ratio, 5.0)
    with tempfile.TemporaryDirectory() as folder:
        background = Background.build([text] * 4, ours, Path(folder))
        builder = SampleBuilder(simulate("qa1", 50, 0, "test"), background, ours, stream="test", seed=0)
        builder.build(0, 1_000_000)
        count = iter(range(1, 10**6))

        def assemble() -> np.ndarray:
            sample = builder.build(next(count), 1_000_000)
            return np.asarray(sample.tokens[0 : len(sample.tokens)])

        a = sorted(seconds(assemble) for _ in range(rounds))[rounds // 2]
    b = seconds(lambda: naive.sentences_one_by_one(text, peer, 100_000)) * 10
    yield speed("sample assembly", "1M tokens (peer: 100k tokens, times 10)", a, b, b / a, 100.0)


STREAMS: dict[str, tuple[int, int, int]] = {  # tokens of a segment, segments until the first look and in all
    "rmt": (512, 32, 1000),
    "armt": (512, 32, 1000),
    "mamba": (1000, 100, 1000),
}


def _stream(name: str) -> dict[str, float]:
    """A long text through a small model, segment by segment: peak memory early and at the end."""
    torch.manual_seed(0)
    length, early, count = STREAMS[name]
    config = DecoderConfig(VOCABULARY, 64, 3, 2, positions="rotary")
    model: Any = {
        "rmt": lambda: RMT(Decoder(config), 8),
        "armt": lambda: ARMT(Decoder(config), 8, 16, RELEASED),
        "mamba": lambda: Mamba(MambaConfig(VOCABULARY, 64, 2, state_size=8)),
    }[name]()
    ids = torch.randint(0, VOCABULARY, (1, length))
    segments, peaks = (Segment(ids, ids, None) for _ in range(count)), []
    with torch.no_grad():
        for i, _ in enumerate(read(model.eval(), segments, model.initial_state(1), count), start=1):
            if i in (early, count):
                peaks.append(peak_bytes())
    return {"early": peaks[0], "late": peaks[1]}


def streams(rounds: int) -> Iterator[Row]:
    """Peak memory of reading a long text against that of its beginning, in processes of their own."""
    for name, (length, early, count) in STREAMS.items():
        measured, layers = in_new_process(f"stream-{name}"), 2 if name == "mamba" else 3
        yield memory(
            f"{'Mamba' if name == 'mamba' else name.upper()}, {length * count:,} tokens read: peak memory",
            f"{layers} layers of 64, segments of {length}; peer: after {length * early:,} tokens",
            *(measured["late"], measured["early"], 1.02),
        )


def mamba(rounds: int) -> Iterator[Row]:
    """A chunk of Mamba against Hugging Face's loop over tokens."""
    from rmtlib.models.mamba import mamba_from_hf

    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=4, state_size=32)
    theirs = transformers.MambaForCausalLM(config).eval()
    ours, ids = mamba_from_hf(theirs).eval(), torch.randint(0, VOCABULARY, (1, 512))

    def mine() -> torch.Tensor:
        with torch.no_grad():
            return ours.logits(ours.step(ids, ours.initial_state(1))[0])

    def hugging_face() -> torch.Tensor:
        with torch.no_grad():
            return theirs(ids).logits

    torch.testing.assert_close(mine(), hugging_face(), rtol=1e-3, atol=1e-3)
    a, b, ratio = compare(mine, hugging_face, rounds)
    what = "4 layers of 128, state 32, batch 1; peer: Hugging Face"
    yield speed("Mamba, 512 tokens", what, a, b, ratio, 1.0)

    @torch.no_grad()
    def one_by_one() -> torch.Tensor:
        state = ours.initial_state(1)
        for token in ids[:, :64].split(1, dim=1):
            hidden, state = ours.extend(state, token)
        return ours.logits(hidden)

    @torch.no_grad()
    def hugging_face_one_by_one() -> torch.Tensor:
        cache = None
        for token in ids[:, :64].split(1, dim=1):
            out = theirs(token, cache_params=cache, use_cache=True)
            cache = out.cache_params
        return out.logits

    torch.testing.assert_close(one_by_one(), hugging_face_one_by_one(), rtol=1e-3, atol=1e-3)
    a, b, ratio = compare(one_by_one, hugging_face_one_by_one, rounds)
    yield speed("Mamba, 64 tokens one by one", what, a, b, ratio, 1.1)

    batch = torch.randint(0, VOCABULARY, (8, 32))

    def train() -> Any:
        ours.zero_grad(set_to_none=True)
        ours.logits(ours.step(batch, ours.initial_state(8))[0]).logsumexp(-1).mean().backward()
        return ours.tokens.weight.grad

    def train_hugging_face() -> torch.Tensor:
        theirs.zero_grad(set_to_none=True)
        theirs(batch).logits.logsumexp(-1).mean().backward()
        return theirs.backbone.embeddings.weight.grad

    torch.testing.assert_close(train(), train_hugging_face(), rtol=1e-3, atol=1e-6)
    a, b, ratio = compare(train, train_hugging_face, rounds)
    what = "4 layers of 128, state 32, batch 8 of 32 tokens; peer: Hugging Face"
    yield speed("Mamba training", what, a, b, ratio, 2.0)


CASES: dict[str, Callable[[int], Iterator[Row]]] = {
    "update": update,
    "associative": associative,
    "last-layer": last_layer,
    "finished": finished,
    "host-time": host_time,
    "wavefront": wavefront,
    "checkpointed": checkpointed,
    "streams": streams,
    "samples": samples,
    "mamba": mamba,
    "rmt": rmt,
    "package": package,
    "bf16": bf16,
    "armt": armt,
}
