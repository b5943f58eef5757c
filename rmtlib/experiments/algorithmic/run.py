"""Train one model on one task and test the answers that it generates."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rmtlib.errors import Stopped
from rmtlib.evaluation.answers import all_answers, counts
from rmtlib.evaluation.counted import DECODINGS, Decoding
from rmtlib.experiments.algorithmic.settings import AnswerParams, work
from rmtlib.experiments.algorithmic.source import HELD_OUT_SEED, TaskSource
from rmtlib.models.registry import build, size_of
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.runs.training import default_device, train
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder


def model_size(params: AnswerParams) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory."""
    return size_of(params.model)


def execute(
    params: AnswerParams,
    folder: "RunFolder",
    count: Callable[[Tensor, Decoding], dict[str, Any]] = lambda right_BA, decoding: counts(right_BA),
) -> Result:
    """Train in stages, then test the last stage's task in all decodings.

    Args:
        count: what the record keeps of which positions of each answer are right (B, A).
    """
    device, config, parts = default_device(), params.train, work(params)
    folder.progress("preparing", 0, 1)
    model, source = build(params.model, seed=config.seed).to(device), TaskSource(params)

    def validate(_: Any, stage: int) -> float:
        task, size = source.tasks[stage], source.segment_sizes[stage]
        right_BA = all_answers(
            model,
            lambda index: task.sample("validation", index, HELD_OUT_SEED),
            params.validation_samples,
            size,
            "forced",
            batch_size=params.evaluation_batch,
            device=device,
        )
        return right_BA.double().mean().item()

    trainer = train(model, source, validate, folder, parts, enough=params.enough)
    task, size, tested = source.tasks[-1], source.segment_sizes[-1], {}
    for number, decoding in enumerate(DECODINGS):

        def before_batch(done: int, number: int = number, decoding: str = decoding) -> None:
            if folder.should_stop():
                raise Stopped(f"stopped while testing ({decoding}); the same command tests again, the training is kept")
            part = (number + done / params.test_samples) / len(DECODINGS)
            tokens = trainer.state.tokens
            done_share = share(parts, len(parts) - 1, part)
            folder.progress(f"testing ({decoding})", done, params.test_samples, done=done_share, tokens=tokens)

        with autocast(device, config.precision):
            right_BA = all_answers(
                model,
                lambda index: task.sample("test", index, HELD_OUT_SEED),
                params.test_samples,
                size,
                decoding,
                batch_size=params.evaluation_batch,
                device=device,
                before_batch=before_batch,
            )
        tested[decoding] = count(right_BA, decoding)
    validation = trainer.curve("validation")
    return Result(
        metrics={
            "test": tested,
            "segments": params.segments,
            "segment_size": size,
            "answer_size": task.answer_size,
            "chance": task.chance,
            "validation": max(score for stage, _, score in validation if stage == source.stages),
            "stage_steps": [
                max((int(step) for at, step, _ in validation if at == stage + 1), default=0)
                for stage in range(source.stages)
            ],
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
            "train_tokens": trainer.state.tokens,
        },
        curves={"loss": trainer.curve("loss"), "validation": validation},
        data=[
            {
                "name": f"algorithmic-{task.name}",
                "sha256": None,
                "licence": "none: random symbols",
                "source": "simulator",
            }
        ],
        tokens=trainer.state.tokens + len(DECODINGS) * params.test_samples * task.length,
        precision=config.precision,
        notes=trainer.state.notes,
    )
