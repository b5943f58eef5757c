"""Train and evaluate one row of the language modelling tables."""

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from rmtlib.data.streams import CORPORA, Corpus
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.language import Likelihood, likelihood
from rmtlib.experiments.language_modelling.settings import Params, work
from rmtlib.models.size import size_of
from rmtlib.models.transformer_xl import TransformerXL
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.seeds import torch_seed
from rmtlib.training.run import autocast
from rmtlib.training.streams import StreamTrainer

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


def open_corpus(params: Params) -> Corpus:
    """The corpus, each split cut to the tokens that the run uses."""
    corpus = CORPORA[params.corpus]()
    if corpus.vocab_size != params.model.vocab_size:
        raise RmtlibError(
            f"{params.corpus} has {corpus.vocab_size} symbols, the settings say {params.model.vocab_size}"
        )
    return replace(
        corpus,
        train=corpus.train.head(params.tokens.get("train")),
        validation=corpus.validation.head(params.tokens.get("validation")),
        test=corpus.test.head(params.tokens.get("test")),
    )


def build_model(params: Params) -> TransformerXL:
    """The untrained model; its weights depend on the seed alone."""
    torch.manual_seed(torch_seed(params.train.seed, "init"))
    return TransformerXL(params.model)


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory."""
    return size_of(lambda: build_model(params))


def execute(params: Params, folder: "RunFolder", unit: str) -> Result:
    """Train, then evaluate the best weights on the test split.

    Args:
        unit: "bpc" or "perplexity": what the record's value is in.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = params.train
    folder.progress("preparing data", 0, 1)
    corpus = open_corpus(params)
    model = build_model(params).to(device)
    if params.compile and device == "cuda":
        # a graph each for the first segment, a growing and a full cache, both batch sizes, with and without gradient
        torch._dynamo.config.recompile_limit = 32
        model.step = torch.compile(model.step)  # type: ignore[method-assign]

    def measure(model: TransformerXL, split: str) -> Likelihood:
        trained = model.config
        model.config = replace(trained, cache=params.evaluation["cache"])
        try:
            return likelihood(
                model,
                getattr(corpus, split),
                params.evaluation["segment"],
                columns=params.evaluation["columns"],
                device=device,
                should_stop=folder.should_stop if split == "test" else lambda: False,
            )
        finally:
            model.config = trained

    def value(result: Likelihood) -> float:
        return result.bits if unit == "bpc" else result.perplexity

    parts = work(params)

    def progress(label: str, step: int, steps: int, **numbers: float) -> None:
        folder.progress(label, step, steps, done=share(parts, 0, step / steps), **numbers)

    trainer = StreamTrainer(
        model,
        config,
        folder.path,
        corpus.train,
        lambda model: -value(measure(model, "validation")),
        progress,
        folder.should_stop,
    ).fit()
    model.eval()
    folder.progress("testing", 0, 1, done=share(parts, 1, 0.0), tokens=trainer.at.tokens)
    with autocast(torch.device(device), config.precision):
        result = measure(model, "test")
    log = [json.loads(line) for line in trainer.metrics_path.read_text().splitlines()]
    validation = [[line["step"], -line["validation"]] for line in log if "validation" in line]
    per_loss = 1 / math.log(2) if unit == "bpc" else 1.0
    return Result(
        metrics={
            "unit": unit,
            "value": value(result),
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
            "loss": [[line["step"], line["loss"] * per_loss] for line in log if "loss" in line],
            "validation": validation,
        },
        data=corpus.provenance,
        tokens=trainer.at.tokens + result.tokens,
        precision=config.precision,
        notes=trainer.at.notes,
    )
