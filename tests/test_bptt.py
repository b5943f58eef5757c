"""BPTT-k for every model: two ways to one gradient, nothing beyond k segments; every model trains either way."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rmtlib.data.streams import Stream, train_segment
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.language import likelihood
from rmtlib.models.armt import ARMT
from rmtlib.models.config import RWKVConfig
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.interface import detach
from rmtlib.models.mamba import Mamba, MambaConfig
from rmtlib.models.prmt import PRMT
from rmtlib.models.rmt import RMT
from rmtlib.models.rwkv import RWKV
from rmtlib.models.transformer_xl import TransformerXL, TransformerXLConfig
from rmtlib.segments import IGNORE, Segment, next_token_labels
from rmtlib.training.bptt import Read, backward, replayed_loss
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.sources import CurriculumSource, StreamSource
from rmtlib.training.stream_config import StreamConfig
from rmtlib.training.trainer import Trainer

V, S, B = 23, 5, 2


def decoder() -> Decoder:
    return Decoder(DecoderConfig(V, 16, 2, 2, positions="rotary"))


def transformer_xl(**changes: Any) -> TransformerXL:
    return TransformerXL(TransformerXLConfig(V, 16, 2, 2, 8, 32, dropout=0.0, init_std=0.2, **changes))


MODELS: dict[str, Callable[[], Any]] = {
    "baseline": transformer_xl,
    "mt": lambda: transformer_xl(memory_tokens=2, recurrent=False),
    "trxl": lambda: transformer_xl(cache=4),
    "trxl-rmt": lambda: transformer_xl(cache=4, memory_tokens=2),
    "rmt-xl": lambda: transformer_xl(memory_tokens=2),
    "rmt": lambda: RMT(decoder(), 2),
    "armt": lambda: ARMT(decoder(), 2, 4),
    "prmt": lambda: PRMT(decoder(), 2),
    "mamba": lambda: Mamba(MambaConfig(V, 16, 2)),
    "rwkv": lambda: RWKV(RWKVConfig(V, 16, 2, head_width=4)),
}
RECURRENT = ("trxl-rmt", "rmt-xl", "rmt", "armt", "prmt", "mamba", "rwkv")


def make(name: str, seed: int = 0) -> Any:
    """Weights away from their start, at which ARMT writes nothing."""
    torch.manual_seed(seed)
    model = MODELS[name]().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def stream(length: int = 211) -> Stream:
    return Stream(np.random.default_rng(0).integers(0, V, length).astype(np.uint16), before=3)


def segments(count: int) -> list[Segment]:
    """Only the last one is labelled."""
    found = [train_segment(stream(), B, S, i) for i in range(count)]
    return [s._replace(labels_BS=torch.full_like(s.labels_BS, IGNORE)) for s in found[:-1]] + found[-1:]


def gradients(model: Any, run: Callable[[], Any]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    run()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_handing_gradients_back_and_replaying_from_the_stored_state_agree(name, k):
    """Five segments; with k = 4 the initial state is reached too."""
    model, read, state = make(name), [], None
    for segment in segments(5):
        read.append(Read(segment, state))
        with torch.no_grad():
            state = detach(model.step(segment.input_ids_BS, model.initial_state(B) if state is None else state)[1])
    replayed = gradients(model, lambda: replayed_loss(model, read[-(k + 1) :], "stored")[0].backward())
    handed = gradients(model, lambda: backward(model, segments(5), scale=1 / (B * S), bptt_segments=k))
    for parameter, gradient in handed.items():
        torch.testing.assert_close(gradient, replayed[parameter], rtol=1e-9, atol=1e-13, msg=parameter)
    assert sum(gradient.abs().sum() for gradient in handed.values()) > 0


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_gradient_reaches_exactly_k_segments_back(name, k):
    """Every segment is read with embeddings of its own."""
    model, probes = make(name), []
    tokens = model.decoder.tokens if hasattr(model, "decoder") else model.tokens

    def probe(module, inputs, output):
        probes.append(torch.zeros_like(output, requires_grad=True))
        return output + probes[-1]

    handle = tokens.register_forward_hook(probe)
    backward(model, segments(6), bptt_segments=k)
    handle.remove()
    reached = [probe.grad is not None and bool(probe.grad.abs().sum() > 0) for probe in probes]
    assert reached == [s >= 5 - k for s in range(6)]


class Sample:
    """Three segments of a sequence that goes on by one."""

    def __init__(self, index: int):
        self.tokens = (np.arange(3 * S) + index) % V
        self.labels = next_token_labels(self.tokens)


def by_curriculum() -> CurriculumSource:
    config = TrainConfig((Stage(3, 4, 3e-3), Stage(3, 4, 3e-3)), S, 4, 0, bptt_segments=1, evaluate_every=3)
    return CurriculumSource(config, lambda stage, index: Sample(index))


def on_a_stream(replay: str) -> StreamSource:
    """Five segments an epoch."""
    config = StreamConfig(8, S, B, 3e-3, 0, bptt=2, replay=replay, evaluate_every=3, log_every=1)  # type: ignore[arg-type]
    return StreamSource(config, Stream(np.arange(2 * S * 5) % V, before=0))


SOURCES = {"curriculum": by_curriculum, **{r: lambda r=r: on_a_stream(r) for r in ("stored", "newest", "none")}}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_by_curriculum_and_on_streams_and_continues_bitwise(name, source, tmp_path):
    def run(folder, seed=0, stop_after=10**9):
        asked = []
        validate = lambda model, stage: -likelihood(model, stream(60), S, columns=2).nats  # noqa: E731
        stop = lambda: asked.append(1) or len(asked) > stop_after  # noqa: E731
        return Trainer(make(name, seed).float(), SOURCES[source](), tmp_path / folder, validate, should_stop=stop).fit()

    if source == "newest" and name not in RECURRENT:
        with pytest.raises(RmtlibError, match="replay 'newest' needs a memory, this model passes on a cache alone"):
            run("refused")
        return
    whole = run("whole")
    for stop_after in (0, 2):
        with pytest.raises(Stopped):
            run("parts", stop_after=stop_after)
    parts = run("parts", seed=1)
    assert whole.state == parts.state
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "parts/metrics.jsonl").read_text()
    assert all(torch.equal(x, parts.model.state_dict()[key]) for key, x in whole.model.state_dict().items())
    assert any(not torch.equal(x, make(name).float().state_dict()[key]) for key, x in whole.model.state_dict().items())


def test_an_auxiliary_loss_that_a_model_lacks_is_refused():
    with pytest.raises(RmtlibError, match="RMT has no auxiliary loss: use auxiliary 0"):
        replayed_loss(make("rmt"), [Read(segments(1)[0], None)], "stored", auxiliary=0.1)
