"""Train and evaluate RMT on one BABILong task: the work of a Figure 5 run."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from rmtlib.data import babi, books
from rmtlib.data.babilong import JOINS, Sample, SampleBuilder
from rmtlib.data.sources import cache_folder
from rmtlib.data.text import Background, Tokenizer, WordTokenizer
from rmtlib.evaluation.question_answering import count_right, recency_accuracy
from rmtlib.experiments.babilong.settings import PRETRAINED, Params, context_tokens, work
from rmtlib.models.backbones import load_backbone, load_tokenizer
from rmtlib.models.decoder import Decoder
from rmtlib.models.rmt import RMT
from rmtlib.models.size import size_of
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.runs.testing import Test, count_right_answers
from rmtlib.seeds import torch_seed
from rmtlib.training.curriculum import Stage, draw_segments
from rmtlib.training.loop import Trainer
from rmtlib.training.run import autocast

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
            found, more = books.load_books(split, params.background)
            texts[split] = [book.text for book in found]
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
    torch.manual_seed(torch_seed(params.train.seed, "init"))
    if isinstance(params.backbone, str):
        decoder, note = load_backbone(params.backbone)
        notes = [note]
    else:
        decoder, notes = Decoder(params.backbone), []
    return RMT(decoder, params.memory_tokens, memory_mask=params.memory_mask), notes  # type: ignore[arg-type]


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory.

    Of a pretrained backbone, whose weights would have to be here, only the state's size is known.
    """
    if isinstance(params.backbone, str):
        return {"state_size": params.memory_tokens * PRETRAINED[params.backbone][1]}
    return size_of(lambda: build_model(params)[0])


def execute(task: str, params: Params, folder: "RunFolder") -> Result:
    """Train, then evaluate at every length; both continue from what the folder holds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, seed = params.train, params.train.seed
    folder.progress("preparing data", 0, 1)
    data = open_data(task, params, folder.progress)
    model, weights = build_model(params)
    model.to(device)
    S, batch = config.segment_size, params.evaluation_batch
    parts = work(params)

    def progress(label: str, step: int, steps: int, **numbers: float) -> None:
        at = trainer.at
        done = share(parts, at.stage, at.step / config.stages[at.stage].steps)
        folder.progress(label, step, steps, done=done, **numbers)

    def sample(stage: Stage, index: int) -> Sample:
        segments = draw_segments(stage, seed, index)
        return (data.train if segments else data.train_facts).build(index, context_tokens(max(segments, 1), S))

    def validate(trained: Any, stage: Stage) -> float:
        length = context_tokens(max(stage.segments, 1), S)
        held_out = lambda i: data.validation.build(i, length)  # noqa: E731
        count = min(params.validation_samples, len(data.validation.fitting(length)))
        return count_right(trained, held_out, range(count), S, batch_size=batch, device=device) / count

    trainer = Trainer(model, config, folder.path, sample, validate, progress, folder.should_stop)
    trainer.fit()
    model.eval()
    results, tokens = _evaluate(model, data.test, params, device, trainer.at.tokens, folder)
    log = [json.loads(line) for line in trainer.metrics_path.read_text().splitlines()]
    return Result(
        metrics={
            "exact_match": results,
            "train_segments": max(stage.segments for stage in config.stages),
            "recency_accuracy": recency_accuracy(task, data.test.questions),
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
        },
        curves={
            "loss": [[line["stage"], line["step"], line["loss"]] for line in log if "loss" in line],
            "validation": [[line["stage"], line["step"], line["validation"]] for line in log if "validation" in line],
        },
        data=data.provenance + weights,
        tokens=tokens,
        precision=config.precision,
        notes=trainer.at.notes,
    )


def _evaluate(
    model: RMT, test: SampleBuilder, params: Params, device: str, tokens: int, folder: "RunFolder"
) -> tuple[list[dict[str, int]], int]:
    """Exact match at every length; resumes where it was stopped."""
    S = params.train.segment_size

    def line(segments: int, count: int) -> Test:
        size = context_tokens(segments, S)
        sample = partial(test.build, context_tokens=size)

        def right(indices: range) -> int:
            with autocast(torch.device(device), params.train.precision):
                return count_right(model, sample, indices, S, batch_size=len(indices), device=device)

        label = f"{segments} segments ({size:,} tokens)"
        return Test(str(segments), label, min(count, len(test.fitting(size))), size, right)

    tests = {int(segments): line(int(segments), count) for segments, count in params.test_samples.items()}
    counts, tokens = count_right_answers(list(tests.values()), params.evaluation_batch, folder, tokens, work(params))
    results = [
        {"segments": segments, "tokens": segments * S, "n": each.samples, "correct": correct}
        for (segments, each), correct in zip(tests.items(), counts, strict=True)
    ]
    return results, tokens
