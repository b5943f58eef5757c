"""Train and evaluate one model on one associative-retrieval task: the work of a memory-capacity run."""

import json
from typing import TYPE_CHECKING, Any

import torch

from rmtlib.data.associative import FixedSet, PairSample, PairTask, draw_pairs
from rmtlib.data.sources import cache_folder
from rmtlib.evaluation.question_answering import count_right
from rmtlib.experiments.capacity.settings import ModelConfig, Params, work
from rmtlib.models.armt import ARMT, PRMT
from rmtlib.models.config import MambaConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.mamba import Mamba
from rmtlib.models.rmt import RMT
from rmtlib.models.size import size_of
from rmtlib.runs.progress import share
from rmtlib.runs.spec import Result
from rmtlib.runs.testing import Test, count_right_answers
from rmtlib.seeds import torch_seed
from rmtlib.training.curriculum import Stage
from rmtlib.training.loop import Trainer
from rmtlib.training.run import autocast

if TYPE_CHECKING:
    from rmtlib.runs.folder import RunFolder

TEST_SEED = 42  # validation and test samples are the same for all runs


def build_model(config: ModelConfig, seed: int) -> Any:
    """The untrained model; its weights depend on the seed alone."""
    torch.manual_seed(torch_seed(seed, "init"))
    if isinstance(config.backbone, MambaConfig):
        return Mamba(config.backbone)
    decoder = Decoder(config.backbone)
    if config.kind == "armt":
        return ARMT(decoder, config.memory_tokens, config.d_memory, config.rule, normalised=config.normalised)
    return {"rmt": RMT, "prmt": PRMT}[config.kind](decoder, config.memory_tokens)


def model_size(params: Params) -> dict[str, int]:
    """{"parameters", "state_size"} of the model itself, which this builds without memory."""
    return size_of(lambda: build_model(params.model, params.train.seed))


def execute(params: Params, folder: "RunFolder") -> Result:
    """Train, then test with every number of pairs; both continue from what the folder holds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, seed = params.train, params.train.seed
    folder.progress("preparing data", 0, 1)
    tasks = [PairTask(params.task, k, params.value_size) for k in params.key_sizes]  # type: ignore[arg-type]
    fixed = [] if params.train_samples is None else _fixed_sets(params, tasks)
    model = build_model(params.model, seed).to(device)

    parts = work(params)

    def progress(label: str, step: int, steps: int, **numbers: float) -> None:
        at = trainer.at
        done = share(parts, at.stage, at.step / config.stages[at.stage].steps)
        folder.progress(label, step, steps, done=done, **numbers)

    def pairs_of(stage: Stage, index: int) -> int:
        return draw_pairs(stage.segments, seed, index // config.batch_size) if params.vary_pairs else stage.segments

    def sample(stage: Stage, index: int) -> PairSample:
        place, pairs = trainer.at.stage, pairs_of(stage, index)
        if fixed:
            return fixed[place].sample(pairs, seed, index)
        return tasks[place].sample(pairs, seed, "train", index)

    def right(task: PairTask, pairs: int, split: Any, indices: range) -> int:
        held_out = lambda i: task.sample(pairs, TEST_SEED, split, i)  # noqa: E731
        return count_right(
            model, held_out, indices, task.segment_size, batch_size=params.evaluation_batch, device=device
        )

    def validate(_: torch.nn.Module, stage: Stage) -> float:
        samples = range(params.validation_samples)
        return right(tasks[trainer.at.stage], stage.segments, "validation", samples) / len(samples)

    trainer = Trainer(
        model,
        config,
        folder.path,
        sample,
        validate,
        progress,
        folder.should_stop,
        segment_sizes=params.segment_sizes,
        enough=params.enough,
        clip_value=params.clip_value,
    )
    trainer.fit()
    model.eval()
    task = tasks[-1]

    def test(pairs: int) -> Test:
        def count(indices: range) -> int:
            with autocast(device, config.precision):
                return right(task, pairs, "test", indices)

        return Test(str(pairs), f"{pairs} pairs", params.test_samples, (pairs + 1) * task.segment_size, count)

    tests = [test(pairs) for pairs in params.test_pairs]
    counts, tokens = count_right_answers(tests, params.evaluation_batch, folder, trainer.at.tokens, parts)
    log = [json.loads(line) for line in trainer.metrics_path.read_text().splitlines()]
    return Result(
        metrics={
            "exact_match": [
                {
                    "pairs": pairs,
                    "segments": pairs + 1,
                    "tokens": (pairs + 1) * task.segment_size,
                    "n": params.test_samples,
                    "correct": correct,
                }
                for pairs, correct in zip(params.test_pairs, counts, strict=True)
            ],
            "train_segments": params.train_pairs + 1,
            "values": task.values,
            "parameters": sum(p.numel() for p in model.parameters()),
            "state_size": model.state_size(),
            "train_tokens": trainer.at.tokens,
        },
        curves={
            "loss": [[line["stage"], line["step"], line["loss"]] for line in log if "loss" in line],
            "validation": [[line["stage"], line["step"], line["validation"]] for line in log if "validation" in line],
        },
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
        notes=trainer.at.notes,
    )


def _fixed_sets(params: Params, tasks: list[PairTask]) -> list[FixedSet]:
    """The files of all stages, made where they are not in the cache."""
    found, count, seed = [], params.train_samples, params.train.seed
    assert count is not None
    for stage, task in zip(params.train.stages, tasks, strict=True):
        name = f"{task.task}-k{task.key_size}-v{task.value_size}-n{stage.segments}-{count}-s{seed}.npy"
        path = cache_folder() / "associative" / name
        found.append(FixedSet.make(path, task, stage.segments, count, seed, "train"))
    return found
