"""The small pretrained decoder: trained once, whole or absent, the same however often it was interrupted."""

import fcntl
import os
from dataclasses import replace

import pytest
import torch

from rmtlib.data.sources import cache_folder
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.evaluation.language import Likelihood
from rmtlib.experiments.small_decoder import SMALL_DECODERS
from rmtlib.runs import pretrained
from rmtlib.runs.pretrained import pretrained_decoder
from rmtlib.training.trainer import Trainer

SMOKE = SMALL_DECODERS["smoke"]
CONFIG = replace(SMOKE, train=replace(SMOKE.train, steps=8, evaluate_every=4, warmup=1))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))


def home():
    (folder,) = (cache_folder() / "pretrained").iterdir()
    return folder


def test_the_first_call_trains_and_the_second_reads(monkeypatch):
    said = []
    first = pretrained_decoder(CONFIG, lambda label, step, steps, **_: said.append((label, step)))
    assert said[-1] == ("pretraining the small decoder", 8) and first.tokens == 8 * 4 * 64
    assert first.curves["validation"][-1][1] < first.curves["loss"][0][1]
    monkeypatch.setattr("rmtlib.runs.pretrained._train", lambda *_: pytest.fail("trained again"))
    second = pretrained_decoder(CONFIG)
    assert second.provenance == first.provenance and second.curves == first.curves
    for name, x in first.decoder.state_dict().items():
        assert torch.equal(x, second.decoder.state_dict()[name])
    files = sorted(path.name for path in home().iterdir())
    assert files == ["about.json", "decoder.safetensors", "lock", "metrics.jsonl"]


def test_it_is_trained_and_validated_where_runs_are(monkeypatch):
    seen = []

    def fit(self):
        seen.append(self.device.type)
        self.validate(self.model, 0)
        raise Stopped("seen enough")

    def likelihood(*_, device, **__):
        seen.append(device.type)
        return Likelihood(1.0, 1)

    monkeypatch.setattr(pretrained, "default_device", lambda: torch.device("meta"))
    monkeypatch.setattr(pretrained, "likelihood", likelihood)
    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(Stopped):
        pretrained_decoder(CONFIG)
    assert seen == ["meta", "meta"]


def test_other_settings_are_another_decoder():
    first = pretrained_decoder(CONFIG).provenance["sha256"]
    assert pretrained_decoder(replace(CONFIG, train=replace(CONFIG.train, seed=1))).provenance["sha256"] != first
    assert len(list((cache_folder() / "pretrained").iterdir())) == 2


def test_interrupted_training_gives_the_same_weights(monkeypatch, tmp_path):
    whole = pretrained_decoder(CONFIG).provenance["sha256"]
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "other"))
    for _ in range(2):
        asked = iter([False] * 3 + [True] * 9)
        with pytest.raises(Stopped):
            pretrained_decoder(CONFIG, should_stop=lambda asked=asked: next(asked))
        assert not (home() / "about.json").exists()
    assert pretrained_decoder(CONFIG).provenance["sha256"] == whole


def test_damaged_weights_are_one_line():
    pretrained_decoder(CONFIG)
    path = home() / "decoder.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"1234")
    with pytest.raises(RmtlibError, match="is damaged .*delete this folder, and it is trained anew"):
        pretrained_decoder(CONFIG)


def test_a_tokeniser_that_does_not_match_is_one_line():
    with pytest.raises(RmtlibError, match="has 290 entries, the decoder's settings say 300"):
        pretrained_decoder(replace(CONFIG, tokenizer="bpe-290-synthetic"))
    with pytest.raises(ValueError, match="bptt must be 0"):
        replace(CONFIG, train=replace(CONFIG.train, bptt=1))


def test_another_process_that_trains_it_is_waited_for_until_asked_to_stop():
    pretrained_decoder(CONFIG)
    file = os.open(home() / "lock", os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    said = []
    with pytest.raises(Stopped, match="while another run trained"):
        pretrained_decoder(CONFIG, lambda label, *_, **__: said.append(label), lambda: True)
    assert said == ["waiting for the small decoder, which another run trains"]
    os.close(file)
    assert pretrained_decoder(CONFIG).tokens
