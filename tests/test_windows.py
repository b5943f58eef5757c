"""Reading a text in windows: every token once, the plain loop's numbers, and memory that counts if it is decisive."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from rmtlib.data.streams import Stream
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.windows import plain_likelihood, window_likelihood, window_sample, windows_of
from rmtlib.models.armt import ARMT
from rmtlib.models.config import DecoderConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.rmt import RMT
from rmtlib.segments import IGNORE

V = 23


def stream(length: int, seed: int = 0) -> Stream:
    return Stream(np.random.default_rng(seed).integers(1, V, length).astype(np.uint16), 0)


def model(kind: str):
    torch.manual_seed(1)
    decoder = Decoder(DecoderConfig(V, 16, 2, n_heads=2, positions="rotary"))
    made = ARMT(decoder, 2, 4) if kind == "armt" else RMT(decoder, 3 * (kind == "rmt"))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.double().eval()


@pytest.mark.parametrize(("length", "window", "segment"), [(60, 20, 10), (61, 20, 10), (45, 24, 8), (30, 10, 10)])
@pytest.mark.parametrize("score", ["all", "last"])
def test_every_token_is_a_target_once_and_follows_its_context(length, window, segment, score):
    text = stream(length)
    seen = np.zeros(length, dtype=int)
    for each in windows_of(length, window, segment, score):
        sample = window_sample(text, each, score)
        assert len(sample.tokens) == each.stop - each.start <= window
        for offset, (token, label) in enumerate(zip(sample.tokens, sample.labels, strict=True)):
            at = each.start + offset
            assert token == (text.ids[at - 1] if at else text.before)
            if label != IGNORE:
                assert label == text.ids[at]
                seen[at] += 1
    assert (seen == 1).all()


def test_last_segments_have_as_much_history_as_fits():
    assert windows_of(50, 30, 10, "last") == [(0, 0, 10), (0, 10, 20), (0, 20, 30), (10, 30, 40), (20, 40, 50)]


def test_windows_that_stand_alone_leave_out_their_first_tokens():
    text = stream(50)
    samples = [window_sample(text, each, "inside") for each in windows_of(50, 20, 10, "inside")]
    targets = [label for sample in samples for label in sample.labels if label != IGNORE]
    assert targets == [x for i, x in enumerate(text.ids) if i % 20]
    assert [sample.tokens[0] for sample in samples] == [text.ids[i] for i in (0, 20, 40)]


@pytest.mark.parametrize("kind", ["rmt", "armt", "none"])
@pytest.mark.parametrize("score", ["all", "last", "inside"])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_give_the_plain_loops_nats(kind, score, batch):
    window, segment = (10, 10) if kind == "none" and score != "last" else (30, 10)
    made, text = model(kind), stream(95)
    found = window_likelihood(made, text, window=window, segment=segment, score=score, batch=batch)
    with torch.no_grad():
        assert found.nats == pytest.approx(plain_likelihood(made, text, window, segment, score), rel=1e-9)
    assert sum(nats for nats, _ in found.by_segment) == pytest.approx(found.nats)
    assert sum(count for _, count in found.by_segment) == found.tokens
    assert found.tokens == (95 if score != "inside" else 95 - len(found.window_nats))


@pytest.mark.parametrize("memory", ["off", "shuffled", "other"])
def test_another_memory_is_read_from_the_second_segment_on_whatever_the_batch(memory):
    made, text, other = model("rmt"), stream(120), stream(80, seed=5)
    own = window_likelihood(made, text, window=20, segment=10)
    found = [
        window_likelihood(made, text, window=20, segment=10, memory=memory, other=other, batch=batch)
        for batch in (1, 4)
    ]  # fmt: skip
    assert found[0].window_nats == pytest.approx(found[1].window_nats, rel=1e-9)
    assert found[0].by_segment[0] == pytest.approx(own.by_segment[0])
    assert found[0].by_segment[1][0] != pytest.approx(own.by_segment[1][0])


def test_shuffled_memory_is_what_the_window_half_the_text_away_wrote():
    made, text = model("rmt"), stream(80)
    found = window_likelihood(made, text, window=20, segment=10, memory="shuffled")
    sample, donor = (window_sample(text, windows_of(80, 20, 10, "all")[i], "all") for i in (0, 2))
    with torch.no_grad():
        _, state = made.step(torch.from_numpy(donor.tokens[:10])[None], made.initial_state(1))
        first, _ = made.step(torch.from_numpy(sample.tokens[:10])[None], made.initial_state(1))
        second, _ = made.step(torch.from_numpy(sample.tokens[10:])[None], state)
        nats = made.nll(torch.cat([first, second], 1)[0], torch.from_numpy(sample.labels)).sum().item()
    assert found.window_nats[0] == pytest.approx(nats, rel=1e-9)


class Copies(NamedTuple):
    memory_BMD: Tensor


class Copier:
    """Remembers the last token of a segment, and predicts it at every position of the next one."""

    def initial_state(self, batch):
        return Copies(torch.zeros(batch, 1, V))

    def step(self, input_ids_BS, state, lengths_B=None, *, write=True, rows_BN=None):
        hidden_BSV = state.memory_BMD.expand(-1, input_ids_BS.shape[1], -1) * 20
        written_B1V = torch.nn.functional.one_hot(input_ids_BS[:, -1:], V).float()
        if rows_BN is not None:
            hidden_BSV = hidden_BSV[:, : rows_BN.shape[1]]
        return hidden_BSV, Copies(written_B1V) if write else state

    def nll(self, hidden_ND, targets_N):
        return -hidden_ND.log_softmax(-1)[torch.arange(len(targets_N)), targets_N]


def test_where_memory_decides_all_other_memories_lose():
    """Segments come in pairs of one token each: the second can be told from memory alone."""
    tokens = np.random.default_rng(3).permutation(np.arange(1, V))[:12]
    text, other = Stream(tokens.repeat(8).astype(np.uint16), 0), Stream(np.full(96, 1, dtype=np.uint16), 0)
    nats = {
        memory: window_likelihood(Copier(), text, window=8, segment=4, memory=memory, other=other).by_segment[1]
        for memory in ("own", "off", "shuffled", "other")
    }
    assert nats["own"][0] / nats["own"][1] < 0.01
    assert nats["off"][0] / nats["off"][1] == pytest.approx(np.log(V))
    assert nats["shuffled"][0] > 5 * nats["off"][0] and nats["other"][0] > nats["off"][0]


def test_texts_that_are_too_short_are_one_line():
    made = model("rmt")
    with pytest.raises(RmtlibError, match="the text has 15 tokens, fewer than a window of 20: use a longer one"):
        window_likelihood(made, stream(15), window=20, segment=10)
    with pytest.raises(RmtlibError, match="cannot be shuffled among 1 windows of 20"):
        window_likelihood(made, stream(25), window=20, segment=10, memory="shuffled")
    with pytest.raises(RmtlibError, match="the text has 5 tokens"):
        window_likelihood(made, stream(40), window=20, segment=10, memory="other", other=stream(5))
    with pytest.raises(RmtlibError, match="needs the other text"):
        window_likelihood(made, stream(40), window=20, segment=10, memory="other")
