"""Train and evaluate one model on one BABILong task."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from rmtlib.data import babi, books
from rmtlib.data.babilong import JOINS, TEST_SEED, Sample, SampleBuilder
from rmtlib.data.babilong_prompts import NEW_TOKENS
from rmtlib.data.sources import cache_folder
from rmtlib.data.text import Background, Tokenizer, WordTokenizer
from rmtlib.errors import Stopped
from rmtlib.evaluation.question_answering import (
    answers_correct,
    answers_in_text,
    babilong_match,
    exact_match,
    recency_accuracy,
)
from rmtlib.evaluation.retrieval import MeanPooled, retrieve
from rmtlib.experiments.babilong.settings import Params, adapters, context_tokens, work
from rmtlib.models.backbones import load_backbone, load_hf, load_tokenizer
from rmtlib.models.interface import RecurrentModel
from rmtlib.models.lora import add_lora, keep_frozen_maps_in_bf16
from rmtlib.models.mamba import mamba_from_hf
from rmtlib.models.registry import build, size_of
from rmtlib.runs.spec import Result
from rmtlib.runs.testing import TestSet, run_tests
from rmtlib.runs.training import default_device, train
from rmtlib.training.curriculum import draw_segments
from rmtlib.training.sources import CurriculumSource
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder

AT_ONCE = 170_000_000
"""Tokens of a batch of tests: sixteen contexts of ten million take about as long as two. A stop is heard within it."""


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
    train = replace(builders["train"], every_question=params.every_question, tracked_questions=params.tracked_questions)
    if params.endless:
        first, note = babi.endless_questions(task)
        train = replace(train, questions=first, new_questions=partial(babi.new_questions, task))
        notes.append(note)
    return TaskData(
        train=train,
        train_facts=replace(train, background=None),
        validation=builders["validation"],
        test=builders["test"],
        provenance=[note for i, note in enumerate(notes) if note not in notes[:i]],
    )


def build_model(params: Params) -> tuple[RecurrentModel, list[dict[str, Any]]]:
    """The untrained model, and where pretrained weights come from; what is new depends on the seed alone."""
    if isinstance(params.backbone, str) and params.kind == "mamba":
        pretrained, note = load_hf(params.backbone)
        return mamba_from_hf(pretrained), [note]
    decoder, notes = None, []
    if isinstance(params.backbone, str):
        decoder, note = load_backbone(params.backbone)
        notes.append(note)
    model = build(params.model(decoder.config if decoder else params.backbone), seed=params.train.seed, decoder=decoder)
    if params.lora is not None:
        add_lora(model, params.lora)
        if params.train.precision == "bf16":
            keep_frozen_maps_in_bf16(model)
    return model, notes


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory.

    Of a pretrained backbone, whose weights would have to be here, only the state's size is known.
    """
    sizes = size_of(params.model(params.shape))
    if isinstance(params.backbone, str):
        return {"state_size": sizes["state_size"]}
    return sizes | {"parameters": sizes["parameters"] + adapters(params)}


def reader(params: Params, model: Any, tokenizer: Tokenizer) -> Callable[[Sample], Any]:
    """What makes of a sample what the model reads: the sample itself, or what retrieval leaves of it.

    Args:
        model: as it is before training; dense retrieval keeps a copy, so that samples do not depend on the training.
    """
    if params.kind not in ("rag", "rag-dense"):
        return lambda sample: sample
    ranking = MeanPooled(copy.deepcopy(model).eval()) if params.kind == "rag-dense" else None
    return lambda sample: retrieve(sample, tokenizer, params.train.segment_size, ranking)


def execute(task: str, params: Params, folder: "RunFolder") -> Result:
    """Train, then evaluate at every length; both continue from what the folder holds."""
    device, config, seed = default_device(), params.train, params.train.seed
    at_once = [params.read_at_once(stage.segments, training=True) for stage in config.stages]
    folder.progress("preparing data", 0, 1)
    data = open_data(task, params, folder.progress)
    made, weights = build_model(params)
    model: Any = made.to(device)  # type: ignore[attr-defined]
    S, batch = config.segment_size, params.evaluation_batch

    builder, as_read = data.train, reader(params, model, data.train.tokenizer)
    if params.kind in ("rag", "rag-dense"):  # an answer within the context could be retrieved
        builder = replace(builder, every_question=False, tracked_questions=0)

    def sample(stage: int, index: int) -> Any:
        segments = draw_segments(config.stages[stage], seed, index)
        if not segments:
            return data.train_facts.build(index, context_tokens(1, S))
        return as_read(builder.build(index, context_tokens(segments, S)))

    def validate(trained: Any, stage: int) -> float:
        segments = config.stages[stage].segments
        length = context_tokens(max(segments, 1), S)
        facts_alone = not segments and params.enough
        texts = replace(data.validation, background=None) if facts_alone else data.validation
        held_out = lambda i: as_read(texts.build(i, length))  # noqa: E731
        count = min(params.validation_samples, len(texts.fitting(length)))
        size = params.read_at_once(segments)
        return sum(answers_correct(trained, held_out, range(count), size, batch_size=batch, device=device)) / count

    enough = {"enough": params.enough} if params.enough else {}
    trainer = train(model, CurriculumSource(config, sample, at_once), validate, folder, work(params), **enough)
    results, scored, tokens = _evaluate(task, model, data.test, as_read, params, device, trainer.state.tokens, folder)
    return Result(
        metrics={
            "exact_match": results,
            "babilong_scorer": scored,
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
    task: str,
    model: RecurrentModel,
    test: SampleBuilder,
    as_read: Callable[[Sample], Any],
    params: Params,
    device: torch.device,
    tokens: int,
    folder: "RunFolder",
) -> tuple[list[dict[str, Any]], dict[str, Any], int]:
    """Exact match at every length, BABILong's own scorer at the training length; resumes where it was stopped."""
    S = params.train.segment_size

    def stop_if_asked() -> None:  # a batch of the longest contexts takes minutes
        if folder.should_stop():
            raise Stopped("stopped within a test; the batches before it are kept")

    def exactly(samples: list[Any], questions: list[babi.Question], at_once: int) -> list[bool]:
        return exact_match(model, samples, at_once, device=device, before_segment=stop_if_asked).tolist()

    def as_text(samples: list[Any], questions: list[babi.Question], at_once: int) -> list[bool]:
        said = answers_in_text(model, samples, at_once, test.tokenizer, NEW_TOKENS, device=device)  # type: ignore[arg-type]
        return [babilong_match(task, text, q.answer, q.question) for text, q in zip(said, questions, strict=True)]

    def test_set(name: str, segments: int, count: int, judge: Callable[..., list[bool]]) -> TestSet:
        size, at_once = context_tokens(max(segments, 1), S), params.read_at_once(segments)
        texts = test if segments else replace(test, background=None)

        def correct(indices: range) -> list[bool]:
            samples = [as_read(texts.build(i, size)) for i in indices]
            with autocast(device, params.train.precision):
                return judge(samples, [test.question_of(i, size) for i in indices], at_once)

        label = f"{segments} segments ({size:,} tokens)" if segments else "the facts alone"
        label += ", as text" if judge is as_text else ""
        return TestSet(name, label, min(count, len(test.fitting(size))), size, correct, AT_ONCE)

    counts = {int(segments): count for segments, count in params.test_samples.items()}
    tests = [test_set(str(segments), segments, count, exactly) for segments, count in counts.items()]
    again, some = params.scored_as_text
    tests.append(test_set("as text", again, some, as_text))
    measured, tokens = run_tests(tests, params.evaluation_batch, folder, tokens, work(params))
    *results, scored = (
        {"segments": segments, "tokens": segments * S, **result}
        for segments, result in zip([*counts, again], measured, strict=True)
    )
    return results, scored, tokens
