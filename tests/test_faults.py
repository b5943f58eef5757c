"""Faults of one line that would spoil results without an error: each test fails if its fault is put in."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_rmt import V, make

from rmtlib.data import babilong as babilong_data
from rmtlib.data.associative import PairTask
from rmtlib.data.books import Book
from rmtlib.data.streams import Stream, load_synthetic
from rmtlib.evaluation.language import likelihood
from rmtlib.experiments.babilong import run as babilong
from rmtlib.experiments.babilong.artifact import Figure5
from rmtlib.experiments.babilong.settings import Params
from rmtlib.experiments.capacity import run as capacity
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.language_modelling import run as language
from rmtlib.experiments.language_modelling.artifact import Enwik8
from rmtlib.experiments.registry import ARTIFACTS, get_artifact
from rmtlib.runs.folder import RunFolder
from rmtlib.runs.records import load_record
from rmtlib.runs.spec import PILOT, RunConfig
from rmtlib.segments import next_token_labels
from rmtlib.settings import from_dict
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.sources import CurriculumSource, StreamSource
from rmtlib.training.stream_config import StreamConfig
from rmtlib.training.trainer import Trainer

RESULTS = Path(__file__).parent.parent / "results"
SEED = 5  # of the runs; validation and test have seeds of their own


@pytest.fixture(autouse=True)
def no_files(monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))


# What is read when


def watch_training(monkeypatch, module) -> tuple[list[str], dict[str, set]]:
    """The phase in which a run is, and a set for each of the phases."""
    phase, train = ["before"], module.train

    def watched(*args: Any, **options: Any) -> Any:
        phase[0] = "training"
        trainer = train(*args, **options)
        phase[0] = "test"
        return trainer

    monkeypatch.setattr(module, "train", watched)
    return phase, defaultdict(set)


def test_babilong_is_selected_on_validation_and_tested_on_test_samples(monkeypatch, tmp_path):
    phase, seen = watch_training(monkeypatch, babilong)
    build = babilong_data.SampleBuilder.build

    def watched(self, *args: Any, **options: Any) -> Any:
        seen[phase[0]].add((self.stream, self.seed))
        return build(self, *args, **options)

    monkeypatch.setattr(babilong_data.SampleBuilder, "build", watched)
    Figure5().execute(Figure5().config("qa1", "smoke", SEED), RunFolder(tmp_path))
    assert seen == {"training": {("train", SEED), ("validation", 42)}, "test": {("test", 42)}}


def test_memory_capacity_is_trained_selected_and_tested_on_samples_of_their_own(monkeypatch, tmp_path):
    phase, seen = watch_training(monkeypatch, capacity)
    sample = PairTask.sample

    def watched(self, pairs: int, seed: int, split: Any, index: int) -> Any:
        seen[phase[0]].add((split, seed))
        return sample(self, pairs, seed, split, index)

    monkeypatch.setattr(PairTask, "sample", watched)
    MemoryCapacity().execute(MemoryCapacity().config("rmt-remember", "smoke", SEED), RunFolder(tmp_path))
    assert seen == {"training": {("train", SEED), ("validation", 42)}, "test": {("test", 42)}}


def test_language_models_are_selected_on_validation_and_tested_on_test_text(monkeypatch, tmp_path):
    phase, seen = watch_training(monkeypatch, language)
    corpus = load_synthetic("characters")

    def split_of(stream: Stream) -> str:
        splits = {name: getattr(corpus, name).ids for name in ("train", "validation", "test")}
        return next(name for name, ids in splits.items() if np.array_equal(ids[: len(stream)], stream.ids))

    def watched(model: Any, stream: Stream, *args: Any, **options: Any) -> Any:
        seen[phase[0]].add(split_of(stream))
        return likelihood(model, stream, *args, **options)

    class Watched(StreamSource):
        def __init__(self, config: StreamConfig, stream: Stream):
            super().__init__(config, stream)
            seen["trained"].add(split_of(stream))

    monkeypatch.setattr(language, "likelihood", watched)
    monkeypatch.setattr(language, "StreamSource", Watched)
    Enwik8().execute(Enwik8().config("baseline-seg128", "smoke", SEED), RunFolder(tmp_path))
    assert seen == {"trained": {"train"}, "training": {"validation"}, "test": {"test"}}


def test_the_background_of_every_split_is_made_of_its_own_books(monkeypatch):
    made, build = {}, babilong.Background.build

    def watched(texts: Any, *args: Any, **options: Any) -> Any:
        background = build(texts, *args, **options)
        made[id(background)] = texts
        return background

    def load_books(split: str, collection: str) -> tuple[list[Book], list]:
        return [Book(split, f"Here the {split} text begins, and it goes on for a dozen words or more. " * 40)], []

    monkeypatch.setattr(babilong.Background, "build", watched)
    monkeypatch.setattr(babilong.books, "load_books", load_books)
    settings = Figure5().config("qa1", "smoke", SEED).to_json()["params"]
    for background in ("synthetic", "baseten"):
        data = babilong.open_data("qa1", from_dict(Params, settings | {"background": background}))
        builders = {"train": data.train, "validation": data.validation, "test": data.test}
        texts = {split: made[id(builder.background)] for split, builder in builders.items()}
        if background == "baseten":
            assert all(f"the {split} text" in text[0] for split, text in texts.items())
        assert len({text[0] for text in texts.values()}) == 3


@pytest.mark.parametrize(
    ("module", "name", "artifact", "row"),
    [
        (babilong, "exact_match", Figure5(), "qa1"),
        (capacity, "answers_correct", MemoryCapacity(), "rmt-remember"),
        (language, "likelihood", Enwik8(), "baseline-seg128"),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_a_model_is_evaluated_in_eval_mode(module, name, artifact, row, monkeypatch, tmp_path):
    """Also if nothing is left to train: a run that was stopped while testing has a new model, in training mode."""
    config, evaluate, modes = artifact.config(row, "smoke", 0), getattr(module, name), []

    def watched(model: Any, *args: Any, **options: Any) -> Any:
        modes.append(model.training)
        return evaluate(model, *args, **options)

    monkeypatch.setattr(module, name, watched)
    artifact.execute(config, RunFolder(tmp_path))
    trained = len(modes)
    (tmp_path / "evaluation.json").unlink(missing_ok=True)
    artifact.execute(config, RunFolder(tmp_path))
    assert len(modes) > trained > 0 and not any(modes)


# What is learned from what was read


class Question:
    """A few tokens, of which the last two are to be predicted."""

    def __init__(self, index: int):
        self.tokens = np.random.default_rng(index).integers(0, V, 4 + 3 * index)
        self.labels = next_token_labels(self.tokens, np.arange(len(self.tokens)) >= len(self.tokens) - 2)


def test_the_loss_is_the_mean_over_labels_not_over_positions_or_padding():
    model, S, B = make(), 5, 3
    source = CurriculumSource(TrainConfig((Stage(1, 1, 1e-3),), S, B, 0), lambda stage, index: Question(index))
    total = torch.zeros((), dtype=torch.float64)
    for question in map(Question, range(B)):  # one at a time, without padding
        state = model.initial_state(1)
        ids, labels = torch.from_numpy(question.tokens)[None], torch.from_numpy(question.labels)[None]
        for ids_1S, labels_1S in zip(ids.split(S, 1), labels.split(S, 1), strict=True):
            hidden_1SD, state = model.step(ids_1S, state)
            total = total + model.nll(hidden_1SD[labels_1S >= 0], labels_1S[labels_1S >= 0]).sum()
    expected = total / (2 * B)
    gradients = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    assert source.backward(model, source.next_batch(0, 0, 0), B) == pytest.approx(expected.item())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def curriculum() -> CurriculumSource:
    config = TrainConfig((Stage(1, 9, 1e-2),), 5, 2, 0, evaluate_every=3)
    return CurriculumSource(config, lambda stage, index: Question(index % 4))


def on_a_stream() -> StreamSource:
    return StreamSource(StreamConfig(9, 5, 2, 1e-2, 0, bptt=1, evaluate_every=3), Stream(np.arange(200) % V, before=0))


@pytest.mark.parametrize("source", [curriculum, on_a_stream])
def test_the_best_weights_are_taken(source, tmp_path):
    """The second of three validations is the best one."""
    seen, scores = [], iter([0.5, 0.9, 0.1])

    def validate(model: Any, stage: int) -> float:
        seen.append({name: x.clone() for name, x in model.state_dict().items()})
        return next(scores)

    model = Trainer(make().float(), source(), tmp_path, validate).fit().model
    taken = [all(torch.equal(x, then[name]) for name, x in model.state_dict().items()) for then in seen]
    assert taken == [False, True, False]


# What the settings are


def rates(config: RunConfig) -> list[float]:
    """Of every stage; none of what trains nothing, as n-grams and a backbone that is only read."""
    params = config.to_json()["params"]
    train = next((found for name in ("train", "training", "tuning") if (found := params.get(name))), {"stages": []})
    train = train.get("train", train)  # attention maps have all settings of the run that they look into
    if "lr" in train:
        return [train["lr"]]
    # Older records have stages of (segments, steps, lr).
    return [stage["lr"] if isinstance(stage, dict) else stage[2] for stage in train["stages"]]


@pytest.mark.parametrize("artifact", [name for name in ARTIFACTS if (RESULTS / name).is_dir()])
def test_published_records_were_made_with_the_learning_rates_of_today(artifact, root: Path):
    paths = sorted((root / "results" / artifact).glob("*.json"))
    assert paths
    configs = {path: RunConfig.from_json(load_record(path)["config"]) for path in paths}
    for path, published in configs.items():
        if published.scale == PILOT:
            continue
        today = get_artifact(artifact).with_all_files(published.row, published.scale, published.seed)
        assert rates(published) == rates(today), path.name
