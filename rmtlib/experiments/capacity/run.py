"""Train and evaluate one model on one associative-retrieval task: the work of a memory-capacity run."""

from typing import TYPE_CHECKING, Any

from rmtlib.data.associative import FixedSet, PairSample, PairTask, draw_pairs
from rmtlib.data.sources import cache_folder
from rmtlib.evaluation.question_answering import answers_correct
from rmtlib.experiments.capacity.settings import Params, work
from rmtlib.models.registry import build, size_of
from rmtlib.runs.spec import Result
from rmtlib.runs.testing import TestSet, run_tests
from rmtlib.runs.training import default_device, train
from rmtlib.training.sources import CurriculumSource
from rmtlib.training.trainer import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder

TEST_SEED = 42  # validation and test samples are the same for all runs


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory."""
    return size_of(params.model.model())


def execute(params: Params, folder: "RunFolder") -> Result:
    """Train, then test with every number of pairs; both continue from what the folder holds."""
    device, config, seed = default_device(), params.train, params.train.seed
    folder.progress("preparing data", 0, 1)
    tasks = [PairTask(params.task, k, params.value_size) for k in params.key_sizes]  # type: ignore[arg-type]
    fixed = [] if params.train_samples is None else _fixed_sets(params, tasks)
    model, parts = build(params.model.model(), seed=seed).to(device), work(params)

    def sample(stage: int, index: int) -> PairSample:
        pairs = config.stages[stage].segments
        if params.vary_pairs:
            pairs = draw_pairs(pairs, seed, index // config.batch_size)
        return fixed[stage].sample(pairs, seed, index) if fixed else tasks[stage].sample(pairs, seed, "train", index)

    def correct(task: PairTask, pairs: int, split: Any, indices: range) -> list[bool]:
        held_out = lambda i: task.sample(pairs, TEST_SEED, split, i)  # noqa: E731
        return answers_correct(
            model, held_out, indices, task.segment_size, batch_size=params.evaluation_batch, device=device
        )

    def validate(_: Any, stage: int) -> float:
        samples = range(params.validation_samples)
        return sum(correct(tasks[stage], config.stages[stage].segments, "validation", samples)) / len(samples)

    source = CurriculumSource(config, sample, params.segment_sizes, counts="pairs")
    trainer = train(model, source, validate, folder, parts, enough=params.enough, clip_value=params.clip_value)
    task = tasks[-1]

    def test_set(pairs: int) -> TestSet:
        def outcomes(indices: range) -> list[bool]:
            with autocast(device, config.precision):
                return correct(task, pairs, "test", indices)

        return TestSet(str(pairs), f"{pairs} pairs", params.test_samples, (pairs + 1) * task.segment_size, outcomes)

    tests = [test_set(pairs) for pairs in params.test_pairs]
    results, tokens = run_tests(tests, params.evaluation_batch, folder, trainer.state.tokens, parts)
    return Result(
        metrics={
            "exact_match": [
                {
                    "pairs": pairs,
                    "segments": pairs + 1,
                    "tokens": (pairs + 1) * task.segment_size,
                    **result,
                }
                for pairs, result in zip(params.test_pairs, results, strict=True)
            ],
            "train_segments": params.train_pairs + 1,
            "values": task.values,
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
            "train_tokens": trainer.state.tokens,
        },
        curves={name: trainer.curve(name) for name in ("loss", "validation")},
        data=[
            {
                "name": f"associative-{params.task}",
                "sha256": None,
                "licence": "none: random symbols",
                "source": "simulator",
            }
        ],
        tokens=tokens,
        precision=config.precision,
        notes=trainer.state.notes,
        micro_batch=trainer.state.micro_batch,
    )


def _fixed_sets(params: Params, tasks: list[PairTask]) -> list[FixedSet]:
    """The sets of all stages, made if they are not in the cache."""
    files, count, seed = [], params.train_samples, params.train.seed
    assert count is not None
    for stage, task in zip(params.train.stages, tasks, strict=True):
        name = f"{task.task}-k{task.key_size}-v{task.value_size}-n{stage.segments}-{count}-s{seed}"
        files.append(FixedSet.make(cache_folder() / "associative" / name, task, stage.segments, count, seed, "train"))
    return files
