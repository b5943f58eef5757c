"""Tests of a run that several processes share: the outcomes are those of one, a killed one's part is done again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_artifact import Fake

from rmtlib.cli import main
from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.capacity import run as capacity
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.runs import shards, testing
from rmtlib.runs.artifact import reference, select
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.records import load_record
from rmtlib.runs.scheduler import run
from rmtlib.runs.storage import write_json, write_sealed
from rmtlib.runs.testing import TOKENS_BETWEEN_STOPS, TestSet, batches

ROOT = Path(__file__).parent.parent


def two_tests(taken: list[str], samples: int = 23) -> list[testing.TestSet]:
    """Two tests whose outcomes depend on test and sample; `taken` gets what was computed."""

    def test(name: str, factor: int) -> testing.TestSet:
        def correct(indices: range) -> list[bool]:
            taken.append(f"{name}-{indices.start}-{indices.stop}")
            return [i * factor % 7 < 3 for i in indices]

        return testing.TestSet(name, f"test {name}", samples, 10, correct)

    return [test("a", 3), test("b", 5)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(testing, "fingerprint", lambda folder: "w" * 64)
    return RunFolder(tmp_path / "run")


def shared(folder: RunFolder) -> RunFolder:
    folder.shards.mkdir(exist_ok=True)
    return folder


def measure(folder: RunFolder, taken: list[str]) -> tuple:
    return testing.run_tests(two_tests(taken), 4, folder, 100, [1.0, 1.0])


def test_batches_of_long_samples_hold_fewer():
    def sizes(tokens, **more):
        return [batch.samples for batch in batches(TestSet("a", "a", 20, tokens, lambda indices: [], **more), 16, 1)]

    assert sizes(1000) == [16, 3] and sizes(10**9) == [1] * 19
    assert sizes(TOKENS_BETWEEN_STOPS // 4) == [4] * 4 + [3]
    assert sizes(10_000_000, at_once=160_000_000) == [16, 3]


def test_shards_give_what_one_process_gives_also_of_a_part_that_was_done_before(folder, tmp_path, monkeypatch):
    whole, alone = measure(RunFolder(tmp_path / "whole"), alone_took := []), alone_took
    assert measure(shared(folder), taken := []) == whole and sorted(taken) == sorted(alone) and len(taken) == 12
    assert not folder.shards.exists()  # all of it is in evaluation.json now
    assert measure(folder, again := []) == whole and again == []
    (folder.path / "evaluation.json").unlink()
    folder._stop = False
    stops = iter([False, False, False, True])
    monkeypatch.setattr(folder, "should_stop", lambda: next(stops))
    with pytest.raises(Stopped):
        measure(folder, [])  # alone, stopped after three batches
    monkeypatch.setattr(folder, "should_stop", lambda: False)
    assert measure(shared(folder), rest := []) == whole and len(rest) == 9


def test_only_what_is_missing_damaged_or_of_other_weights_is_done_again(folder, tmp_path):
    whole = measure(RunFolder(tmp_path / "whole"), [])
    shared(folder)
    helper = RunFolder(tmp_path / "helper")
    helper.shards, helper.helps = folder.shards, True
    with pytest.raises(testing.PeerDone):
        measure(helper, [])
    assert len(list(folder.shards.glob("*.json"))) == 12
    (folder.shards / "a-4-8.json").unlink()
    (folder.shards / "a-8-12.json").write_text("{broken")
    write_sealed(folder.shards / "b-0-4.json", {"weights": "other", "outcomes": "0000"})
    write_sealed(folder.shards / "b-4-8.json", {"weights": "w" * 64, "outcomes": "00"})
    path = folder.shards / "b-8-12.json"
    path.write_text(path.read_text().replace('"outcomes": "', '"outcomes": "1').replace('1",', '",', 1))
    assert measure(folder, taken := []) == whole
    assert sorted(taken) == ["a-4-8", "a-8-12", "b-0-4", "b-4-8", "b-8-12"]


def test_the_shard_of_a_killed_process_is_waited_for_and_done_again(folder, tmp_path):
    whole = measure(RunFolder(tmp_path / "whole"), [])
    shared(folder)
    pid = os.fork()
    if not pid:  # holds a shard and never ends
        with shards._claimed(folder.shards / "a-0-4.lock") as mine:
            (folder.path / "held").write_text(str(mine))
            time.sleep(60)
        os._exit(1)
    while not (folder.path / "held").exists() or not (folder.path / "held").read_text():
        time.sleep(0.01)
    taken: list[str] = []
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == 12 + 5:  # all others are done, and it has been asked for a while
            assert "a-0-4" not in taken and len(taken) == 11
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return False

    folder.should_stop = should_stop  # type: ignore[method-assign]
    assert measure(folder, taken) == whole and taken[-1] == "a-0-4"


def test_helpers_test_a_trained_run_and_leave_the_record_to_its_worker(tmp_path, monkeypatch):
    """With the real model: a process loads the checkpoint, does all shards, and the worker does none."""
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    artifact = MemoryCapacity()
    (config,) = select(artifact, "smoke", 1, "rmt-remember")
    path = tmp_path / "run"
    whole = artifact.execute(config, RunFolder(path))
    write_json(path / "config.json", config.to_json())
    (path / "evaluation.json").unlink()
    (path / "shards").mkdir()
    monkeypatch.setattr(shards, "read_config", lambda folder: config)  # a folder of another name
    script = (
        "import sys; from pathlib import Path; from rmtlib.runs import shards; from rmtlib.runs.spec import RunConfig;"
        "import json, os; path = Path(sys.argv[1]);"
        "shards.read_config = lambda folder: RunConfig.from_json(json.loads((path / 'config.json').read_text()));"
        "sys.exit(shards.help_test(path, sys.argv[2], os.getppid()))"
    )
    before = {file: file.read_bytes() for file in path.glob("*") if file.is_file()}
    command = [sys.executable, "-c", script, path, reference(artifact)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, timeout=120).returncode == 0
    assert {file: file.read_bytes() for file in path.glob("*") if file.is_file()} == before
    monkeypatch.setattr(capacity, "answers_correct", lambda *_, **__: pytest.fail("the worker tests again"))
    shared_result = artifact.execute(config, RunFolder(path))
    assert shared_result.metrics == whole.metrics and shared_result.tokens == whole.tokens


def test_a_command_shares_tests_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    artifact = MemoryCapacity()
    configs = select(artifact, "smoke", 1, "rmt-remember")
    (record,) = run(artifact, configs, quiet=True, shards=2)
    folder = run_folder(configs[0])
    assert not (folder / "shards").exists() and record == load_record(folder / "record.json")
    whole = artifact.execute(configs[0], RunFolder(tmp_path / "whole"))
    assert record["metrics"] == whole.metrics and record["tokens"] == whole.tokens
    assert any("shared by several processes" in note for note in record["notes"])


def test_what_cannot_be_shared_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RmtlibError, match="the tests of fake cannot be shared: leave out --shards 2"):
        run(Fake(), [Fake().config("qa1", "smoke", 0)], quiet=True, shards=2)
    arguments = ["run", "memory-capacity", "--scale", "smoke", "--executor", "slurm", "--shards", "2"]
    assert main(arguments) == 2 and "leave out --shards" in capsys.readouterr().err
    assert not Path("runs").exists()
