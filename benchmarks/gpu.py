"""The cases of `python -m benchmarks --gpu`: models of the papers' sizes on one GPU, in bf16 by autocast.

Times are those of the GPU, from before a call's first kernel until after its last one.
"""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks import cases, naive
from benchmarks.measure import Row
from rmtlib.experiments.language_modelling.rows import table_row
from rmtlib.experiments.language_modelling.scales import settings
from rmtlib.models.armt import ARMT
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.reading import read
from rmtlib.models.registry import build
from rmtlib.models.rmt import RMT
from rmtlib.models.transformer_xl import TransformerXL
from rmtlib.segments import Segment
from rmtlib.training.bptt import Read, accumulate, replayed_loss
from rmtlib.training.captured import WARM_UPS, Captured

HOW = "bf16 by autocast unless said, time on the GPU"
SEGMENT = 512


def seconds(call: Callable[[], object], rounds: int) -> float:
    """The median time of a call on the GPU, after some to warm up."""
    times = []
    for i in range(WARM_UPS + 1 + rounds):  # the next one records
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if i > WARM_UPS:
            times.append(start.elapsed_time(end) / 1e3)
    return median(times)


def measure_product() -> float:
    """FLOP/s of a bf16 matrix product: the floor of the rows."""
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    return 2 * 8192**3 / seconds(lambda: a @ a, 5)


def _row(case: str, what: str, tokens: int, times: tuple[float, float | None], least: float, flops: float) -> Row:
    """Tokens a second, ours and the peer's; `least`: what is to be reached; `flops`: of a token."""
    ours, peer = times
    rate = lambda s: f"{tokens / s / 1e6:.3g}M tokens/s"  # noqa: E731
    floor = flops * tokens / cases.CORE_FLOPS / ours
    ratio = None if peer is None else peer / ours
    reached = tokens / ours >= least
    other = "" if peer is None else rate(peer)
    return Row(case, what, rate(ours), other, ratio, f">= {least / 1e6:g}M tokens/s", reached, f"{floor:.0%}")


def _models(kind: str) -> tuple[Any, Any]:
    """Ours and the peer, with the same weights."""
    hf = cases._gpt2()
    if kind == "rmt":
        ours: Any = RMT(decoder_from_hf(hf), 16)
        return ours.cuda().eval(), naive.NaiveRMT(hf, ours.memory_MD).cuda()
    ours = ARMT(decoder_from_hf(hf), 10, 64, cases.RELEASED)
    torch.nn.init.normal_(ours.value_LDD, std=0.02)
    return ours.cuda().eval(), naive.NaiveARMT(hf, hf.transformer.h, ours).cuda()


def _segments(batch: int, count: int) -> list[Segment]:
    return [s.to("cuda") for s in cases._answer_batch(50_257, SEGMENT, count, batch)]


def _prefill(model: Any, segments: list[Segment], diagonally: bool) -> torch.Tensor:
    state = model.initial_state(len(segments[0].input_ids_BS))
    *_, (_, hidden) = read(model, segments, state, len(segments), diagonally=diagonally)
    return model.logits(hidden[:, -1])


def _agree(ours: torch.Tensor, peer: torch.Tensor) -> None:
    wrong = (ours.float() - peer.float()).norm() / peer.float().norm()
    assert wrong < 0.05, f"the peers differ by {wrong:.1%}, which is more than bf16's rounding"


@torch.no_grad()
def reading(rounds: int) -> Iterator[Row]:
    """Reading with RMT and ARMT on GPT-2's architecture, with drawn weights."""
    for kind, ways in (("rmt", (False,)), ("armt", (False, True))):
        ours, peer = _models(kind)
        for batch, count, least in ((1, 32, 0.7e6 if kind == "rmt" else 1.2e6), (16, 16, 1.4e6)):
            segments = _segments(batch, count)
            theirs = lambda peer=peer, segments=segments: peer([s.input_ids_BS for s in segments])[:, -1]  # noqa: E731
            with torch.autocast("cuda", torch.bfloat16):
                _agree(_prefill(ours, segments[-2:], False), peer([s.input_ids_BS for s in segments[-2:]])[:, -2])
                slow = seconds(theirs, rounds)
                for diagonally in ways:
                    mine = partial(_prefill, ours, segments, diagonally)
                    way = "" if len(ways) == 1 else ", wavefront" if diagonally else ", loop"
                    what = f"GPT-2 124M, {count} segments of {SEGMENT}, batch {batch}"
                    name = f"{kind.upper()} reading{way}, batch {batch}"
                    yield _row(name, what, batch * count * SEGMENT, (seconds(mine, rounds), slow), least, 191e6)


def training(rounds: int) -> Iterator[Row]:
    """Training RMT on GPT-2's architecture, answers after 32 segments: as a CUDA graph, and with segments run again."""
    ours, peer = _models("rmt")
    segments, few = _segments(4, 32), _segments(4, 8)

    def theirs() -> None:
        peer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = peer([s.input_ids_BS for s in few], [s.labels_BS for s in few])
        loss.backward()

    slow = seconds(theirs, rounds) * 4
    what = f"GPT-2 124M, 32 segments of {SEGMENT}, batch 4; peer keeps all, 8 segments, times 4"
    graph = Captured(ours, partial(accumulate, ours, scale=1 / 3))
    again = partial(accumulate, ours, scale=1 / 3, recompute=True)
    ways: tuple[tuple[str, Callable[..., Any], float], ...] = (
        ("", graph, 573e6),
        (" with recomputed segments", again, 765e6),
    )
    for way, accumulated, flops in ways:

        def mine(accumulated: Callable[..., Any] = accumulated) -> None:
            ours.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                accumulated(segments)

        yield _row(f"RMT training{way}", what, 4 * 32 * SEGMENT, (seconds(mine, rounds), slow), 0.35e6, flops)


def enwik8(rounds: int) -> Iterator[Row]:
    """A step of RMT with BPTT-2 at the published size of enwik8, without its update."""
    params: Any = settings("enwik8", table_row("enwik8", "rmt-10-bptt-2-seg128"), "paper", 0)
    model, what = build(params.model, seed=0), "12 layers of 512, segment 128, 10 memory tokens, batch 22"
    assert isinstance(model, TransformerXL)
    model = model.cuda().train()
    recent = [Read(Segment(x, x, None).to("cuda"), None) for x in torch.randint(0, 204, (3, 22, 128))]

    def add(recent: list[Read]) -> torch.Tensor:
        loss, mean, _ = replayed_loss(model, recent, "stored")
        loss.backward()
        return mean

    graph = Captured(model, add)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            graph(recent)

    took = seconds(step, rounds)
    share = 882e6 * 22 * 128 / cases.CORE_FLOPS / took
    row = f"{took * 1e3:.3g} ms", "", None, "<= 12 ms", took <= 0.012, f"{share:.0%}"
    yield Row("enwik8, a step of BPTT-2", what, *row)


def associative(rounds: int) -> Iterator[Row]:
    """A step of the paper's small ARMT through 51 segments, batch 512, without its update; float32, as published."""
    ours, segments, make_peer = cases._associative(cases.AR_PAIRS, 512)
    peer, segments = make_peer().cuda(), [s.to("cuda") for s in segments]
    ours = ours.cuda()
    graph = Captured(ours, partial(accumulate, ours, scale=1 / 3))

    def mine() -> None:
        ours.zero_grad(set_to_none=True)
        graph(segments)

    fast = seconds(mine, rounds)
    what, target = "4 layers of 128, 51 segments, batch 512, float32", ("<= 60 ms", fast <= 0.06)
    try:
        slow = seconds(lambda: cases._train_naive(peer, segments), rounds)
        theirs: tuple[str, float | None] = f"{slow * 1e3:.3g} ms", slow / fast
    except torch.cuda.OutOfMemoryError:
        theirs = "out of memory", None
    yield Row("associative ARMT, a step", what, f"{fast * 1e3:.3g} ms", *theirs, *target)


CASES: dict[str, Callable[[int], Iterator[Row]]] = {
    "reading": reading,
    "training": training,
    "enwik8": enwik8,
    "associative": associative,
}
