"""Read contexts of growing length with a drawn model, several times, and note what each takes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rmtlib.data import babi, books
from rmtlib.data.babilong import JOINS, TEST_SEED, Sample, SampleBuilder
from rmtlib.data.sources import cache_folder
from rmtlib.data.text import Background, Tokenizer, WordTokenizer
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.babilong_time.machine import Machine
from rmtlib.experiments.babilong_time.settings import Params, flops_per_token
from rmtlib.models.armt import ARMT
from rmtlib.models.backbones import load_tokenizer
from rmtlib.models.interface import RecurrentModel, State
from rmtlib.models.reading import read
from rmtlib.models.registry import build, size_of
from rmtlib.runs.spec import Result
from rmtlib.runs.training import default_device
from rmtlib.seeds import torch_seed
from rmtlib.segments import Segment, cut, segment_count
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder

TASK, JOIN = "qa1", "space"
SHOWN_ANSWERS = 8
SYNTHETIC_SENTENCES = 1500
VALUE_STD = 0.02  # of ARMT's values, which start as zeros: with these its memory holds something


def open_contexts(
    params: Params, progress: Callable[..., None] = lambda *_: None
) -> tuple[SampleBuilder, list[dict[str, Any]]]:
    """What builds the samples, and where their texts come from; the stories are simulated."""
    questions, note = babi.load_questions(TASK, "test", prefer="simulator")
    if params.background == "synthetic":
        texts, notes = [" ".join(books.synthetic_text(2, SYNTHETIC_SENTENCES))], [note]
    else:
        loaded, more = books.load_books("test", params.background)
        texts, notes = [book.text for book in loaded], [note, *more]
    if params.tokenizer.startswith("word-"):
        words = [text for q in questions for text in (*q.facts, q.question, q.answer)]
        tokenizer: Tokenizer = WordTokenizer.build(words, texts, int(params.tokenizer.removeprefix("word-")))
    else:
        tokenizer, more = load_tokenizer(params.tokenizer)
        notes += more
    report = partial(progress, "tokenising the test books")
    background = Background.build(texts, tokenizer, cache_folder() / "tokens", lead=JOINS[JOIN], report=report)
    int(background.ids.max())  # reads all of it: pages that come into memory later would look like growth
    return SampleBuilder(questions, background, tokenizer, stream="test", seed=TEST_SEED, join=JOIN), notes


def drawn_model(params: Params) -> Any:
    """The model with weights of the seed, in eval mode."""
    model = build(params.model, seed=params.seed)
    if isinstance(model, ARMT):
        torch.manual_seed(torch_seed(params.seed, "init", "values"))
        torch.nn.init.normal_(model.value_LDD, std=VALUE_STD)
    return model.eval()


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model, which this builds without memory."""
    return size_of(params.model)


@torch.no_grad()
def answer(
    model: RecurrentModel,
    samples: Sequence[Sample],
    segment_size: int,
    *,
    diagonally: bool,
    device: Any,
    before_segment: Callable[[], None] = lambda: None,
) -> tuple[list[int], State]:
    """The first token of each sample's answer, the likeliest at its place, and the state after the last segment."""
    segments = cut([s.tokens for s in samples], [s.labels for s in samples], segment_size)
    count = max(segment_count(len(s.tokens), segment_size) for s in samples)

    def on_device() -> Iterator[Segment]:
        for segment in segments:
            before_segment()
            yield segment.to(device)

    reading = read(model, on_device(), model.initial_state(len(samples)), count, diagonally=diagonally)
    first: dict[int, int] = {}
    while True:
        try:
            segment, hidden_BND = next(reading)
        except StopIteration as end:
            return [first[b] for b in range(len(samples))], end.value
        labelled = segment.labelled()
        if len(labelled.which_K):
            logits_KV = model.logits(labelled.select(hidden_BND))
            which_K = (labelled.which_K // hidden_BND.shape[1]).tolist()
            for b, token in zip(which_K, _likeliest(logits_KV), strict=True):
                first.setdefault(b, token)


def _likeliest(logits_KV: Tensor) -> list[int]:
    if not bool(logits_KV.isfinite().all()):
        raise RmtlibError("the model's scores are not finite: this is a fault of the package, or of the device")
    tokens: list[int] = logits_KV.argmax(-1).tolist()
    return tokens


def execute(params: Params, folder: "RunFolder", machine: Machine | None = None) -> Result:
    """Measure all lengths, shortest first, round after round. Stopped, it begins anew: its numbers are of one process.

    Raises:
        Stopped: asked to stop, between two segments.
    """
    if folder.peers.size > 1:
        raise RmtlibError("babilong-time measures one device: leave out --devices")
    machine = machine or Machine(default_device())
    folder.progress("preparing data", 0, 1)
    builder, data = open_contexts(params, folder.progress)
    model = drawn_model(params).to(machine.device)
    product_flops = machine.product_flops(params.precision)
    contexts: dict[int, dict[str, Any]] = {
        length: {"tokens": length, "samples": count, "wall_s": [], "cpu_s": [], "load": []}
        for length, count in zip(params.lengths, params.samples.values(), strict=True)
    }

    def hear_a_stop() -> None:
        if folder.should_stop():
            raise Stopped("stopped while it measured; the same command measures anew, in one process")

    reading = partial(_read, model, builder, params, machine, hear_a_stop)
    reading(params.lengths[0], params.batch)  # warms up
    done = 0
    for number in range(params.rounds):
        for length, found in contexts.items():
            found["load"].append(machine.load())
            began, cpu = machine.now(), machine.cpu()
            answers, state = reading(length, found["samples"])
            found["wall_s"].append(machine.now() - began)
            found["cpu_s"].append(machine.cpu() - cpu)
            if not number:  # later peaks are those of the longest context
                finite = all(bool(x.isfinite().all()) for x in state)
                found |= {"peak_bytes": machine.peak(), "answers": answers[:SHOWN_ANSWERS], "finite": finite}
            done += length * found["samples"]
            place = f"round {number + 1} of {params.rounds}, {length:,} tokens"
            folder.progress(place, done, params.tokens, done=done / params.tokens, tokens=done)
    return Result(
        metrics={
            "contexts": list(contexts.values()),
            "product_flops": product_flops,
            "flops_per_token": flops_per_token(params),
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
        },
        curves={},
        data=data,
        tokens=done,
        precision=params.precision,
        notes=[],
    )


def _read(
    model: Any,
    builder: SampleBuilder,
    params: Params,
    machine: Machine,
    before_segment: Callable[[], None],
    length: int,
    samples: int,
) -> tuple[list[int], State]:
    """Build and read so many samples, a batch at a time; their answers, and the last batch's state."""
    answers: list[int] = []
    state: State = None
    for first in range(0, samples, params.batch):
        batch = [builder.build(i, params.context(length)) for i in range(first, first + params.batch)]
        with autocast(machine.device, params.precision):
            given, state = answer(
                model,
                batch,
                params.segment_size,
                diagonally=params.reads == "wavefront",
                device=machine.device,
                before_segment=before_segment,
            )
        answers += given
    return answers, state
