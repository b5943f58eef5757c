"""Figure 5 of the BABILong paper: RMT's accuracy on five tasks against context length, over training seeds.

One row per bAbI task, one run per task and seed: train with the curriculum, then evaluate by exact match from one
segment to far beyond the training length.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from rmtlib.data import sources
from rmtlib.data.babi import TASKS, available_questions
from rmtlib.errors import RmtlibError
from rmtlib.experiments.babilong.settings import Params, cost
from rmtlib.models.config import DecoderConfig
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.checks import check_exact_match, differs
from rmtlib.runs.spec import Cost, Result, Row, RunConfig
from rmtlib.settings import from_dict, to_params
from rmtlib.training.curriculum import Stage, TrainConfig

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

LABELS = {
    "qa1": "qa1: single supporting fact",
    "qa2": "qa2: two supporting facts",
    "qa3": "qa3: three supporting facts",
    "qa4": "qa4: two-argument relations",
    "qa5": "qa5: three-argument relations",
}
LENGTHS = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "512k", "1M", "10M")
PAPER = {  # BABILong paper, Table 4, column RMT (fine-tuned GPT-2), in per cent
    "qa1": (100, 100, 100, 100, 100, 100, 99, 96, 94, 87, 84, 66),
    "qa2": (100, 100, 99, 98, 97, 94, 82, 59, 39, 25, 22, 19),
    "qa3": (97, 94, 88, 81, 73, 66, 55, 55, 36, 25, 22, 21),
    "qa4": (100, 94, 87, 83, 80, 75, 64, 51, 38, 26, 24, 20),
    "qa5": (100, 100, 99, 99, 99, 94, 90, 89, 86, 69, 63, 44),
}
SOURCE = "BABILong (Kuratov et al. 2024), Table 4, RMT; trained on up to 16k tokens"


def _stages(segments: Sequence[int], steps: Sequence[int], lr: float) -> tuple[Stage, ...]:
    return tuple(Stage(n, count, lr) for n, count in zip(segments, steps, strict=True))


def _small(task: str, seed: int) -> Params:
    """Two layers from scratch, word level. Longer segments where one question's facts need them.

    qa2 does not leave the plateau of answering by recency with these steps, so qa3, whose segments are dearer, gets
    far fewer and a smaller test.
    """
    steps = {"qa2": (1000, 200, 400, 600), "qa3": (150, 50, 50, 50), "qa4": (800, 200, 400, 600)}
    steps |= {"qa1": (200, 200, 400, 600), "qa5": (400, 200, 400, 600)}
    tests = (200, 100, 50) if task == "qa3" else (500, 250, 250)
    return Params(
        backbone=DecoderConfig(vocab_size=1000, d_model=64, n_layers=2, n_heads=4, positions="rotary", conv_taps=6),
        memory_tokens=8,
        memory_mask="causal",
        tokenizer="word-1000",
        questions="auto",
        background="baseten",
        join="space",
        every_question=True,
        train=TrainConfig(
            stages=_stages((0, 1, 2, 4), steps[task], 3e-3),
            segment_size={"qa1": 128, "qa2": 256, "qa3": 512, "qa4": 128, "qa5": 256}[task],
            batch_size=32,
            seed=seed,
            horizon=1.0,
            beta2=0.99,
            evaluate_every=100,
            patience=100,
        ),
        validation_samples=200,
        test_samples={str(n): tests[0 if n < 16 else 1 if n < 32 else 2] for n in (1, 2, 4, 8, 16, 32, 64)},
        evaluation_batch=50,
    )


def _smoke(task: str, seed: int) -> Params:
    small = _small(task, seed)
    assert isinstance(small.backbone, DecoderConfig)
    return replace(
        small,
        backbone=replace(small.backbone, vocab_size=600, d_model=32),
        memory_tokens=4,
        tokenizer="word-600",
        questions="simulator",
        background="synthetic",
        train=replace(
            small.train, stages=_stages((0, 2), (10, 10), 3e-3), segment_size=64, batch_size=8, evaluate_every=10
        ),
        validation_samples=16,
        test_samples={"1": 32, "2": 32, "4": 32},
        evaluation_batch=16,
    )


def _gpu(task: str, seed: int) -> Params:
    """SmolLM2 fine-tuned with the papers' curriculum in a few thousand steps less."""
    return Params(
        backbone="smollm2",
        memory_tokens=16,
        memory_mask="causal",
        tokenizer="smollm2",
        questions="auto",
        background="baseten",
        join="space",
        every_question=False,
        train=TrainConfig(
            stages=_stages((1, 2, 4, 8, 16, 32), (200,) * 6, 5e-5),
            segment_size=512,
            batch_size=32,
            seed=seed,
            precision="bf16",
            recompute=True,
            evaluate_every=50,
            patience=6,
        ),
        validation_samples=100,
        test_samples={str(2**n): 200 if n < 8 else 20 for n in range(1, 12)} | {"19532": 4},
        evaluation_batch=64,
    )


def _gpu_from_scratch(task: str, seed: int) -> Params:
    """Where SmolLM2's weights are not at hand: the recipe of the small scale, eight layers deep."""
    gpu = _gpu(task, seed)
    return replace(
        gpu,
        backbone=DecoderConfig(vocab_size=50_257, d_model=512, n_layers=8, n_heads=8, positions="rotary", conv_taps=6),
        tokenizer="gpt2",
        every_question=True,
        train=replace(
            gpu.train,
            stages=_stages((0, 1, 2, 4, 8, 16, 32), (2000, 500, 500, 400, 300, 200, 200), 5e-4),
            horizon=1.0,
            beta2=0.99,
            evaluate_every=100,
            patience=100,
        ),
    )


def _paper(task: str, seed: int) -> Params:
    """Appendix C with the steps and rates of the released scripts: they validate twenty times a stage."""
    iterations, rate = (10_000 if task in ("qa2", "qa4") else 5_000), (3e-5 if task == "qa3" else 1e-5)
    first = {"qa1": 2000, "qa2": 2000, "qa3": 10_000, "qa4": 5000, "qa5": 5000}[task]
    lengths = ((1, first), *((n, iterations) for n in (2, 4, 6, 8, 16, 32)))
    return Params(
        backbone="gpt2",
        memory_tokens=16,
        memory_mask="causal",
        tokenizer="gpt2",
        questions="files",
        background="pg19",
        join="released",
        every_question=False,
        train=TrainConfig(
            stages=tuple(Stage(n, steps, rate, evaluate_every=steps // 20) for n, steps in lengths),
            segment_size=512,
            batch_size=64,
            seed=seed,
            warmup=0.2 if task == "qa3" else 0.1,
            precision="bf16",
            recompute=True,
        ),
        validation_samples=1000,
        test_samples={str(2**n): 1000 for n in range(1, 12)} | {"19532": 100},
        evaluation_batch=64,
    )


def _params(row: str, scale: str, seed: int) -> Params:
    return {"smoke": _smoke, "small": _small, "gpu": _gpu, "paper": _paper}[scale](row, seed)


def _stories(records: list[dict[str, Any]], row: str) -> str:
    """ "bAbI's files", "the simulator", or both, as the records of a row say."""
    simulated = {
        any(each["source"] == "simulator" for each in record["data"]) for record in records if record["row"] == row
    }
    return " and ".join(("the simulator" if each else "bAbI's files") for each in sorted(simulated))


class Figure5(Artifact):
    """BABILong Figure 5: RMT performance on five BABILong tasks varies between training seeds."""

    name = "figure-5"
    title = "RMT on five BABILong tasks, over training seeds"
    rows = tuple(
        Row(task, LABELS[task], task, {k: v / 100 for k, v in zip(LENGTHS, PAPER[task], strict=True)}, SOURCE)
        for task in TASKS
    )

    def default_rows(self, scale: str) -> tuple[str, ...]:
        return ("qa1",) if scale in ("smoke", "small") else TASKS

    def default_seeds(self, scale: str) -> int:
        return 1 if scale == "smoke" else 3

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch what runs of these rows can use, where it can be had; `config` then sees what is there."""
        if scale == "smoke":
            return
        for row in rows:
            if available_questions(row) == "simulator":
                print(
                    f"bAbI's files of {row} cannot be had here: its stories come from the simulator, and the results "
                    "compare with those on the files in kind, not to the digit",
                    file=sys.stderr,
                )
        if scale != "paper":
            sources.fetch("books-baseten")
        if scale == "gpu":
            try:
                sources.fetch("smollm2-135m-instruct")
            except RmtlibError:
                sources.fetch("gpt2-encoder")
                sources.fetch("gpt2-bpe")

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config. What depends on the files of this machine is decided here, without the network."""
        params = _params(row, scale, seed)
        if params.backbone == "smollm2" and sources.state("smollm2-135m-instruct") == "absent":
            params = _gpu_from_scratch(row, seed)
        if params.questions == "auto":
            params = replace(params, questions=available_questions(row, fetch=False))
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        params = _params(row, scale, seed)
        if params.questions == "auto":
            params = replace(params, questions="files")
        return RunConfig(self.name, row, scale, seed, to_params(params))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.babilong.run import execute

        return execute(config.row, from_dict(Params, config.params), folder)

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.babilong.run import model_size

        if why := check_exact_match(metrics, curves):
            return why
        params = from_dict(Params, config.params)
        points = {str(point["segments"]): point for point in metrics["exact_match"]}
        if list(points) != list(params.test_samples):
            return f"exact_match is not of the settings' {', '.join(params.test_samples)} segments"
        for segments, point in points.items():
            if why := differs(point, {"tokens": int(segments) * params.train.segment_size}, f"at {segments} segments "):
                return why
            if point["n"] > params.test_samples[segments]:  # fewer where few questions' facts fit into the context
                return f"at {segments} segments n is {point['n']}, the settings give {params.test_samples[segments]}"
        expected = {"train_segments": max(stage.segments for stage in params.train.stages)}
        return differs(metrics, expected) or differs(metrics, model_size(params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """For each task the mean accuracy within and beyond the training length, and what the recency reader has."""
        lines = []
        for row in self.rows:
            runs = [record["metrics"] for record in records if record["row"] == row.name]
            if not runs:
                continue
            trained = max(run["train_segments"] for run in runs)
            curves = [{p["segments"]: p["correct"] / p["n"] for p in run["exact_match"]} for run in runs]
            lengths = sorted(set.intersection(*(set(curve) for curve in curves)))
            inside, last = ([n for n in lengths if n <= trained] or lengths[:1])[-1], lengths[-1]
            near, far = ([curve[n] for curve in curves] for n in (inside, last))
            lines += [
                f"{row.name}: exact match {mean(near):.2f} at {inside} segments, the longest trained on "
                f"({len(runs)} {'seed' if len(runs) == 1 else 'seeds'}, from {min(near):.2f} to {max(near):.2f})",
                f"{row.name}: exact match {mean(far):.2f} at {last} segments (from {min(far):.2f} to {max(far):.2f})",
                f"{row.name}: naming the most recent answer alone would give {runs[0]['recency_accuracy']:.2f}; "
                f"stories from {_stories(records, row.name)}",
            ]
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.babilong.report import report

        return report()
