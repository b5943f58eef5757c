"""Train and evaluate RMT on one BABILong task: the work of a Figure 5 run."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rmtlib.data import babi, books
from rmtlib.data.babilong import JOINS, Sample, SampleBuilder
from rmtlib.data.sources import cache_folder
from rmtlib.data.text import Background, Tokenizer, WordTokenizer
from rmtlib.errors import Stopped
from rmtlib.evaluation.question_answering import count_right, recency_accuracy
from rmtlib.experiments.babilong_params import Params, context_tokens
from rmtlib.experiments.spec import Result
from rmtlib.models.backbones import load_backbone, load_tokenizer
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.rmt import RMT
from rmtlib.seeds import torch_seed
from rmtlib.training.checkpoint import write_atomically
from rmtlib.training.curriculum import Stage, draw_segments
from rmtlib.training.loop import Trainer, autocast

if TYPE_CHECKING:
    from rmtlib.experiments.worker import RunFolder

TEST_SEED = 42  # the papers fix the background of the test set, whatever the training seed


@dataclass(frozen=True)
class TaskData:
    """Builders of the three splits' samples, and where their texts come from."""

    tokenizer: Tokenizer
    train: SampleBuilder
    train_facts: SampleBuilder  # without background, for stages of the facts alone
    validation: SampleBuilder
    test: SampleBuilder
    provenance: list[dict[str, Any]]


def open_data(task: str, params: Params, seed: int) -> TaskData:
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
        tokenizer = load_tokenizer(params.tokenizer)
    home, lead = cache_folder() / "tokens", JOINS[params.join]
    background = {split: Background.build(texts[split], tokenizer, home, lead=lead) for split in texts}

    def builder(split: str, root: int, every_question: bool = False, facts_only: bool = False) -> SampleBuilder:
        return SampleBuilder(
            questions[split],
            None if facts_only else background[split],
            tokenizer,
            stream=split,
            seed=root,
            join=params.join,
            every_question=every_question,
        )

    return TaskData(
        tokenizer,
        train=builder("train", seed, params.every_question),
        train_facts=builder("train", seed, params.every_question, facts_only=True),
        validation=builder("validation", TEST_SEED),
        test=builder("test", TEST_SEED),
        provenance=[note for i, note in enumerate(notes) if note not in notes[:i]],
    )


def build_model(params: Params, vocab_size: int, seed: int) -> RMT:
    """The untrained model; its new weights and its memory depend on the seed alone."""
    torch.manual_seed(torch_seed(seed, "init"))
    shape = dict(params.backbone)
    name = shape.pop("pretrained", None)
    decoder = load_backbone(name) if name else Decoder(DecoderConfig(vocab_size=vocab_size, **shape))
    return RMT(decoder, params.memory_tokens, memory_mask=params.memory_mask)  # type: ignore[arg-type]


def execute(task: str, params: Params, seed: int, folder: "RunFolder") -> Result:
    """Train, then evaluate at every length; both continue from what the folder holds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = params.train_config(seed)
    folder.progress("preparing data", 0, 1)
    data = open_data(task, params, seed)
    model = build_model(params, data.tokenizer.vocab_size, seed).to(device)
    S, batch = config.segment_size, params.evaluation_batch

    def sample(stage: Stage, index: int) -> Sample:
        segments = draw_segments(stage, seed, index)
        return (data.train if segments else data.train_facts).build(index, context_tokens(max(segments, 1), S))

    def validate(trained: Any, stage: Stage) -> float:
        length = context_tokens(max(stage.segments, 1), S)
        held_out = lambda i: data.validation.build(i, length)  # noqa: E731
        count = min(params.validation_samples, len(data.validation.fitting(length)))
        return count_right(trained, held_out, range(count), S, batch_size=batch, device=device) / count

    trainer = Trainer(model, config, folder.path, sample, validate, folder.progress, folder.should_stop).fit()
    for note in trainer.at.notes:
        folder.note(note)
    model.eval()
    lengths = [(int(segments), count) for segments, count in params.test_samples.items()]
    results, tokens = _evaluate(model, data, lengths, S, batch, config.precision, device, trainer.at.tokens, folder)
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
        data=data.provenance,
        tokens=tokens,
        precision=config.precision,
        notes=[],
    )


def _evaluate(
    model: RMT,
    data: TaskData,
    lengths: list[tuple[int, int]],
    segment_size: int,
    batch_size: int,
    precision: str,
    device: str,
    tokens: int,
    folder: "RunFolder",
) -> tuple[list[dict[str, int]], int]:
    """Exact match at every length. What is done is kept batch by batch in evaluation.json, so it resumes there."""
    path = folder.path / "evaluation.json"
    done: dict[str, list[int]] = json.loads(path.read_text()) if path.exists() else {}
    results = []
    for segments, count in lengths:
        size = context_tokens(segments, segment_size)
        count = min(count, len(data.test.fitting(size)))
        finished, right = done.get(str(segments), [0, 0])
        tokens += finished * size
        while finished < count:
            if folder.should_stop():
                raise Stopped(f"stopped while testing at {segments} segments; what is done is kept in {path}")
            last = min(finished + batch_size, count)
            with autocast(torch.device(device), precision):
                sample = lambda i: data.test.build(i, size)  # noqa: B023, E731 - called before `size` changes
                right += count_right(
                    model, sample, range(finished, last), segment_size, batch_size=batch_size, device=device
                )
            finished, tokens = last, tokens + (last - done.get(str(segments), [0])[0]) * size
            done[str(segments)] = [finished, right]
            write_atomically(path, json.dumps(done).encode())
            folder.progress(
                f"testing at {segments} segments ({size:,} tokens)",
                finished,
                count,
                accuracy=right / finished,
                tokens=tokens,
            )
        results.append({"segments": segments, "tokens": segments * segment_size, "n": count, "correct": right})
    return results, tokens
