"""The settings of a language modelling run, and what it costs. Light to import: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

from rmtlib.models.config import TransformerXLConfig
from rmtlib.models.size import transformer_xl_weights
from rmtlib.runs.cost import PROCESS_BYTES, activations, transformer_cost
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least, from_dict
from rmtlib.training.stream_config import StreamConfig


@dataclass(frozen=True)
class Params:
    """All that a run depends on.

    Attributes:
        corpus: a name of `data.streams.CORPORA`.
        tokens: how many tokens of each split are used, from its beginning; None: all.
        evaluation: {"segment", "cache", "columns"} of validation and test. Segment and cache are those of training
            but for the rows that were published otherwise.
        compile: fuse what a layer computes with torch.compile (on a GPU).
    """

    corpus: str
    tokens: Mapping[str, int | None]
    model: TransformerXLConfig
    train: StreamConfig
    evaluation: Mapping[str, int]
    compile: bool = False

    def __post_init__(self) -> None:
        _check_text(self.corpus, self.tokens)
        sizes, least = self.evaluation, {"segment": 1, "cache": 0, "columns": 1}
        if set(sizes) != set(least) or any(sizes[name] < least[name] for name in least):
            raise ValueError(f"evaluation is {dict(sizes)}; it must have a segment, a cache and columns")


@dataclass(frozen=True)
class NGramParams:
    """All that an n-gram row depends on: the text and its parts, as in `Params`, and n. Nothing in it is random."""

    corpus: str
    tokens: Mapping[str, int | None]
    order: int

    def __post_init__(self) -> None:
        _check_text(self.corpus, self.tokens)
        at_least(self, 1, "order")


def read_params(params: Mapping[str, Any]) -> Params | NGramParams:
    """A config's params. Raises RmtlibError on those of other code."""
    return from_dict(NGramParams, params) if "order" in params else from_dict(Params, params)


SPLIT_TOKENS = {
    "enwik8": {"train": 88_982_818, "validation": 4_945_742, "test": 4_943_417},
    "wikitext-2": {"train": 2_088_628, "validation": 217_646, "test": 245_569},
    "wikitext-103": {"train": 103_227_021, "validation": 217_646, "test": 245_569},
    "synthetic-characters": {"train": 75_923, "validation": 14_684, "test": 15_248},
    "synthetic-words": {"train": 10_933, "validation": 2_124, "test": 2_184},
}
VOCABULARIES = {
    "enwik8": 204,
    "wikitext-2": 33_278,
    "wikitext-103": 267_735,
    "synthetic-characters": 35,
    "synthetic-words": 847,
}


def _check_text(corpus: str, tokens: Mapping[str, int | None]) -> None:
    """ValueError unless it is a known corpus, of which so many tokens of each split can be used."""
    if corpus not in SPLIT_TOKENS:
        raise ValueError(f"corpus is {corpus!r}; it must be one of {', '.join(SPLIT_TOKENS)}")
    if set(tokens) - set(SPLIT_TOKENS[corpus]) or any(count is not None and count < 1 for count in tokens.values()):
        raise ValueError(f"tokens are {dict(tokens)}; they must count {', '.join(SPLIT_TOKENS[corpus])} from 1 up")


def _body(model: TransformerXLConfig) -> int:
    """Weights of the layers: query, key, value, position, out; perceptron."""
    return model.n_layers * (5 * model.d_model * model.n_heads * model.d_head + 2 * model.d_model * model.d_ff)


def _head(model: TransformerXLConfig) -> int:
    return (model.cutoffs[0] + len(model.cutoffs)) if model.cutoffs else model.vocab_size


def used_tokens(params: Params | NGramParams) -> dict[str, int]:
    """Tokens of every split that the run uses."""
    return {
        split: min(count, params.tokens.get(split) or count) for split, count in SPLIT_TOKENS[params.corpus].items()
    }


def work(params: Params) -> list[float]:
    """FLOP of training with its validations, then of the test."""
    m, train = params.model, params.train
    inner, body, head = m.n_heads * m.d_head, _body(m), _head(m)
    memory_positions = m.memory_tokens * (1 + m.recurrent)

    def per_token(segment: int, cache: int) -> float:
        new = segment + memory_positions
        keys = new + cache
        cached = m.n_layers * m.d_model * inner * (2 * cache + keys - new)  # keys, values and positions of the cache
        attention = m.n_layers * 3 * inner * new * keys  # content, position, mix
        return 2 * (body * new + cached + attention) / segment

    output = 2 * m.d_model * (head + 0.1 * (m.vocab_size - head))  # about a tenth of all words is in a tail
    trained = train.steps * train.batch_size * train.segment_size
    depth = train.bptt if train.replay != "none" else 0
    training = 3 * trained * ((depth + 1) * per_token(train.segment_size, m.cache) + output)
    validations, used = -(-train.steps // train.evaluate_every), used_tokens(params)
    reading = per_token(params.evaluation["segment"], params.evaluation["cache"]) + output
    return [training + reading * validations * used["validation"], reading * used["test"]]


def ngram_cost(params: NGramParams) -> Cost:
    """Of counting and scoring: for each n a sort of the text.

    Measured on enwik8: a comparison takes as long as 100 FLOP, a token 6 bytes for each n.
    """
    used = used_tokens(params)
    return Cost(
        tokens=used["train"] + used["test"],
        flops=100 * params.order * sum(used.values()) * log2(used["train"]),
        memory_bytes=int(PROCESS_BYTES + 6 * params.order * used["train"]),
        disk_bytes=0,
    )


def cost(params: Params | NGramParams) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic."""
    if isinstance(params, NGramParams):
        return ngram_cost(params)
    m, train = params.model, params.train
    new = train.segment_size + m.memory_tokens * (1 + m.recurrent)
    graph = activations(m.n_layers, m.d_model, new) + 6 * m.n_layers * m.n_heads * new * (new + m.cache)
    return transformer_cost(
        tokens=train.steps * train.batch_size * train.segment_size + used_tokens(params)["test"],
        work=work(params),
        weights=weights(params),
        kept=(train.bptt + 1) * train.batch_size * graph,
        precision=train.precision,
        float32_bytes=12 * train.batch_size * train.segment_size * _head(m),  # logits
    )


def weights(params: Params) -> int:
    """Of the whole model."""
    return transformer_xl_weights(params.model)
