"""The settings of every row of babilong-time at every scale: the models of Figure 5, in their sizes there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rmtlib.experiments.babilong.scales import settings as figure_5
from rmtlib.experiments.babilong_table.scales import with_model
from rmtlib.experiments.babilong_time.rows import LENGTHS, PAPER_SAMPLES, split
from rmtlib.experiments.babilong_time.settings import Params
from rmtlib.models.config import RWKVConfig

PAPER_ARMT_TOKENS = 10  # memory tokens of the papers' ARMT, whose RMT has 16
SHORT = 32 * 1024  # a round reads as many samples of a shorter context as have so many tokens together
LONG = {"10M": 10 * 1024**2, "50M": 50 * 1024**2}


@dataclass(frozen=True)
class Reading:
    """What a scale reads.

    Attributes:
        of: the scale of Figure 5 that has the models.
        lengths: tokens of contexts.
        longer: those that the rows "-long" read besides, in one round.
        rounds: of the rows that read one sample at a time.
        batch, batch_rounds: of the rows "-batch".
        samples: of every length of a round; None: as `SHORT` has it.
        background: None: that of Figure 5.
    """

    of: str
    lengths: tuple[int, ...]
    longer: tuple[int, ...]
    rounds: int = 3
    batch: int = 4
    batch_rounds: int = 3
    samples: int | None = None
    background: str | None = None


READINGS: Mapping[str, Reading] = {
    "smoke": Reading("smoke", (256, 1024, 4096), (16_384,), rounds=2, batch=2, batch_rounds=1, samples=1),
    "small": Reading("small", tuple(LENGTHS.values())[:3], (LENGTHS["1M"],)),
    "medium": Reading("medium", tuple(LENGTHS.values()), (LONG["10M"],), rounds=2, batch_rounds=1),
    "gpu": Reading("paper", tuple(LENGTHS.values()), tuple(LONG.values()), batch=16, background="baseten"),
    "paper": Reading(
        "paper",
        tuple(LENGTHS.values()),
        tuple(LONG.values()),
        rounds=1,
        batch=16,
        batch_rounds=1,
        samples=PAPER_SAMPLES,
    ),
}


def settings(row: str, scale: str, seed: int) -> Params:
    """All that a run depends on."""
    name, way = split(row)
    kind, _, how = name.partition("-")
    reading = READINGS[scale]
    base = figure_5("qa1", reading.of, seed)
    theirs = with_model(base, kind)
    if kind == "armt" and reading.of == "paper":
        theirs = replace(theirs, memory_tokens=PAPER_ARMT_TOKENS)
    assert not isinstance(theirs.shape, RWKVConfig)  # not timed
    batch, rounds, lengths, samples = 1, reading.rounds, reading.lengths, reading.samples
    if way == "-batch":
        batch, rounds = reading.batch, reading.batch_rounds
    if way == "-long":
        rounds, lengths, samples = 1, lengths + reading.longer, 1 if scale == "smoke" else None
    some: Any = {"kind": kind, "reads": how or "loop", "memory_mask": theirs.memory_mask}
    return Params(
        **some,
        shape=theirs.shape,
        memory_tokens=theirs.memory_tokens,
        d_memory=theirs.d_memory,
        segment_size=base.train.segment_size,
        precision=base.train.precision,
        tokenizer=base.tokenizer,
        background=reading.background or base.background,
        batch=batch,
        samples={str(length): _samples(length, batch, samples) for length in lengths},
        rounds=rounds,
        seed=seed,
    )


def _samples(length: int, batch: int, given: int | None) -> int:
    """Whole batches of a context."""
    wanted = given or max(1, SHORT // length)
    return -(-wanted // batch) * batch
