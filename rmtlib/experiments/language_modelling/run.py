"""Train and evaluate one row of the language modelling tables."""

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from rmtlib.data.streams import CORPORA, Corpus
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.language import Likelihood, likelihood
from rmtlib.evaluation.ngrams import ngram_likelihood
from rmtlib.experiments.language_modelling.settings import NGramParams, Params, work
from rmtlib.models.registry import build, size_of
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.runs.training import default_device, train
from rmtlib.training.sources import StreamSource
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


def open_corpus(params: Params | NGramParams) -> Corpus:
    """The corpus, each split cut to the tokens that the run uses."""
    corpus = CORPORA[params.corpus]()
    if isinstance(params, Params) and corpus.vocab_size != params.model.vocab_size:
        raise RmtlibError(
            f"{params.corpus} has {corpus.vocab_size} symbols, the settings say {params.model.vocab_size}"
        )
    return replace(
        corpus,
        train=corpus.train.head(params.tokens.get("train")),
        validation=corpus.validation.head(params.tokens.get("validation")),
        test=corpus.test.head(params.tokens.get("test")),
    )


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory."""
    return size_of(params.model)


def value_of(likelihood: Likelihood, unit: str) -> float:
    """In the record's unit, "bpc" or "perplexity"."""
    return likelihood.bits if unit == "bpc" else likelihood.perplexity


def count(params: NGramParams, folder: "RunFolder", unit: str) -> Result:
    """Count the n-grams of the training text; score validation and test text, each as one stream."""
    folder.progress("counting", 0, 1)
    corpus = open_corpus(params)
    texts = (corpus.validation, corpus.test)
    validation, test = ngram_likelihood(corpus.train, corpus.vocab_size, params.order, *texts)
    metrics = {"unit": unit, "value": value_of(test, unit), "nats": test.nats, "tokens": test.tokens}
    metrics |= {"validation": value_of(validation, unit), "segment": params.order, "cache": 0, "memory_tokens": 0}
    return Result(
        metrics=metrics | {"state_size": 0},
        curves={"loss": [], "validation": []},
        data=corpus.provenance,
        tokens=len(corpus.train) + test.tokens,
        precision="float64",
        notes=[],
    )


def no_compiler(device: torch.device) -> str | None:
    """Why torch.compile does not work for this device, in a line, e.g. as no C compiler is here; None if it does."""
    try:
        torch.compile(torch.sinh)(torch.ones(8, device=device))
    except Exception as error:  # whatever the compiler's tools raise
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


def execute(params: Params, folder: "RunFolder", unit: str) -> Result:
    """Train, then evaluate the best weights on the test split.

    Args:
        unit: "bpc" or "perplexity": what the record's value is in.
    """
    device, config, parts = default_device(), params.train, work(params)
    folder.progress("preparing data", 0, 1)
    corpus = open_corpus(params)
    model = build(params.model, seed=config.seed).to(device)
    reader = model.with_cache(params.evaluation["cache"])  # longer than in training for the rows of segment 512
    if params.compile and device.type == "cuda":
        if (why := no_compiler(device)) is None:
            # code for each: the first segment, a growing and a full cache, two batch sizes, with and without gradient
            torch._dynamo.config.recompile_limit = 32
            torch._dynamo.config.suppress_errors = True  # a shape whose code cannot be made runs without
            model.compile_layers()
            reader.compile_layers()
        else:
            folder.note(f"the layers were not compiled, and are slower for it: {why}")
    measure = partial(
        likelihood,
        reader,
        segment_size=params.evaluation["segment"],
        columns=params.evaluation["columns"],
        device=device,
    )

    def validate(_: Any, stage: int) -> float:
        return -value_of(measure(corpus.validation), unit)

    trainer = train(model, StreamSource(config, corpus.train), validate, folder, parts)
    folder.progress("testing", 0, 1, done=share(parts, 1, 0.0), tokens=trainer.state.tokens)
    with autocast(device, config.precision):
        result = measure(corpus.test, should_stop=folder.should_stop)
    validation = [[step, -score] for _, step, score in trainer.curve("validation")]
    per_loss = 1 / math.log(2) if unit == "bpc" else 1.0
    return Result(
        metrics={
            "unit": unit,
            "value": value_of(result, unit),
            "nats": result.nats,
            "tokens": result.tokens,
            "validation": min(score for _, score in validation),
            "segment": config.segment_size,
            "cache": model.config.cache,
            "memory_tokens": model.config.memory_tokens,
            "state_size": model.state_size(),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        curves={
            "loss": [[step, loss * per_loss] for _, step, loss in trainer.curve("loss")],
            "validation": validation,
        },
        data=corpus.provenance,
        tokens=trainer.state.tokens + result.tokens,
        precision=config.precision,
        notes=trainer.state.notes,
        micro_batch=trainer.state.micro_batch,
    )
