"""Train and evaluate RMT on one BABILong task: the work of a Figure 5 run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from rmtlib.data import babi, books
from rmtlib.data.babilong import JOINS, Sample, SampleBuilder
from rmtlib.data.sources import cache_folder
from rmtlib.data.text import Background, Tokenizer, WordTokenizer
from rmtlib.evaluation.question_answering import answers_correct, recency_accuracy
from rmtlib.experiments.babilong.settings import PRETRAINED, Params, context_tokens, work
from rmtlib.models.backbones import load_backbone, load_tokenizer
from rmtlib.models.config import RMTConfig
from rmtlib.models.registry import build, size_of
from rmtlib.models.rmt import RMT
from rmtlib.runs.spec import Result
from rmtlib.runs.testing import TestSet, run_tests
from rmtlib.runs.training import default_device, train
from rmtlib.training.curriculum import draw_segments
from rmtlib.training.sources import CurriculumSource
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder

TEST_SEED = 42  # the papers fix the background of the test set, whatever the training seed


@dataclass(frozen=True)
class TaskData:
    """Builders of the three splits' samples, and where their texts come from."""

    train: SampleBuilder
    train_facts: SampleBuilder  # without background, for stages of the facts alone
    validation: SampleBuilder
    test: SampleBuilder
    provenance: list[dict[str, Any]]


def open_data(task: str, params: Params, progress: Callable[..., None] = lambda *_: None) -> TaskData:
    """Fetch, tokenise (once; the ids are kept in the cache) and wire up the data of a task."""
    questions, notes = {}, []
    for split in ("train", "validation", "test"):
        questions[split], note = babi.load_questions(task, split, prefer=params.questions)
        notes.append(note)
    texts = {}
    for split in questions:
        if params.background == "synthetic":
            numbers = {"train": 0, "validation": 1, "test": 2}
            texts[split] = [" ".join(books.synthetic_text(numbers[split], 1500))]
        else:
            loaded, more = books.load_books(split, params.background)
            texts[split] = [book.text for book in loaded]
            notes += more
    if params.tokenizer.startswith("word-"):
        words = [text for q in questions["train"] for text in (*q.facts, q.question, q.answer)]
        tokenizer: Tokenizer = WordTokenizer.build(words, texts["train"], int(params.tokenizer.removeprefix("word-")))
    else:
        tokenizer, more = load_tokenizer(params.tokenizer)
        notes += more
    home, lead = cache_folder() / "tokens", JOINS[params.join]
    builders = {}
    for split, seed in (("train", params.train.seed), ("validation", TEST_SEED), ("test", TEST_SEED)):
        report = partial(progress, f"tokenising the {split} books")
        breaks = params.join == "released"
        background = Background.build(texts[split], tokenizer, home, lead=lead, line_breaks=breaks, report=report)
        builders[split] = SampleBuilder(
            questions[split], background, tokenizer, stream=split, seed=seed, join=params.join
        )
    train = replace(builders["train"], every_question=params.every_question)
    return TaskData(
        train=train,
        train_facts=replace(train, background=None),
        validation=builders["validation"],
        test=builders["test"],
        provenance=[note for i, note in enumerate(notes) if note not in notes[:i]],
    )


def build_model(params: Params) -> tuple[RMT, list[dict[str, Any]]]:
    """The untrained model, and where pretrained weights come from; what is new depends on the seed alone."""
    decoder, weights, shape = None, [], params.backbone
    if isinstance(shape, str):
        decoder, note = load_backbone(shape)
        weights, shape = [note], decoder.config
    config = RMTConfig(shape, params.memory_tokens, params.memory_mask)  # type: ignore[arg-type]
    return build(config, seed=params.train.seed, decoder=decoder), weights


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory.

    Of a pretrained backbone, whose weights would have to be here, only the state's size is known.
    """
    if isinstance(params.backbone, str):
        return {"state_size": params.memory_tokens * PRETRAINED[params.backbone][1]}
    return size_of(RMTConfig(params.backbone, params.memory_tokens, params.memory_mask))  # type: ignore[arg-type]


def execute(task: str, params: Params, folder: "RunFolder") -> Result:
    """Train, then evaluate at every length; both continue from what the folder holds."""
    device, config, seed = default_device(), params.train, params.train.seed
    folder.progress("preparing data", 0, 1)
    data = open_data(task, params, folder.progress)
    model, weights = build_model(params)
    model.to(device)
    S, batch = config.segment_size, params.evaluation_batch

    def sample(stage: int, index: int) -> Sample:
        segments = draw_segments(config.stages[stage], seed, index)
        return (data.train if segments else data.train_facts).build(index, context_tokens(max(segments, 1), S))

    def validate(trained: Any, stage: int) -> float:
        length = context_tokens(max(config.stages[stage].segments, 1), S)
        held_out = partial(data.validation.build, context_tokens=length)
        count = min(params.validation_samples, len(data.validation.fitting(length)))
        return sum(answers_correct(trained, held_out, range(count), S, batch_size=batch, device=device)) / count

    trainer = train(model, CurriculumSource(config, sample), validate, folder, work(params))
    results, tokens = _evaluate(model, data.test, params, device, trainer.state.tokens, folder)
    return Result(
        metrics={
            "exact_match": results,
            "train_segments": max(stage.segments for stage in config.stages),
            "recency_accuracy": recency_accuracy(task, data.test.questions),
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
        },
        curves={name: trainer.curve(name) for name in ("loss", "validation")},
        data=data.provenance + weights,
        tokens=tokens,
        precision=config.precision,
        notes=trainer.state.notes,
        micro_batch=trainer.state.micro_batch,
    )


def _evaluate(
    model: RMT, test: SampleBuilder, params: Params, device: torch.device, tokens: int, folder: "RunFolder"
) -> tuple[list[dict[str, Any]], int]:
    """Exact match at every length; resumes where it was stopped."""
    S = params.train.segment_size

    def line(segments: int, count: int) -> TestSet:
        size = context_tokens(segments, S)
        sample = partial(test.build, context_tokens=size)

        def correct(indices: range) -> list[bool]:
            with autocast(device, params.train.precision):
                return answers_correct(model, sample, indices, S, batch_size=len(indices), device=device)

        label = f"{segments} segments ({size:,} tokens)"
        return TestSet(str(segments), label, min(count, len(test.fitting(size))), size, correct)

    tests = {int(segments): line(int(segments), count) for segments, count in params.test_samples.items()}
    measured, tokens = run_tests(list(tests.values()), params.evaluation_batch, folder, tokens, work(params))
    results = [
        {"segments": segments, "tokens": segments * S, **result}
        for segments, result in zip(tests, measured, strict=True)
    ]
    return results, tokens
