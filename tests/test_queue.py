"""The queue: in which order it trains what is missing, how it stops, and how two of them share the work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_artifact import STEPS, Fake

from rmtlib.cli import main
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder, run_folder
from rmtlib.runs.job import Job
from rmtlib.runs.queue import missing, queue
from rmtlib.runs.records import load_record, record_path, write_record
from rmtlib.runs.scheduler import Room, run
from rmtlib.runs.spec import Cost, RunConfig
from rmtlib.runs.storage import Lock, write_json

TESTS = Path(__file__).parent


class Other(Fake):
    """A second artifact, so that a queue has something to choose from."""

    name = "other"

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        return RunConfig("other", row, scale, seed, {"steps": STEPS, "sizes": [1]})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty project folder, with the fake artifacts known here and to the workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    monkeypatch.setitem(ARTIFACTS, "other", "test_queue:Other")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.delenv("FAKE_ORDERS", raising=False)
    return tmp_path


def names(configs):
    return [f"{config.artifact} {config.row} {config.seed}" for config in configs]


def of(row, seed):
    return Fake().config(row, "small", seed)


def half_done(config):
    folder = RunFolder(run_folder(config))
    write_json(folder.path / "config.json", config.to_json())
    write_json(folder.path / "checkpoint.json", {"step": 5, "began_at": [0]})
    folder.progress("stage 1", 5, STEPS, tokens=500)


def start(*options, orders=""):
    return subprocess.Popen(
        [sys.executable, TESTS / "fake_artifact.py", "queue", "fake", "--scale", "small", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"FAKE_ORDERS": orders},
    )


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def at_work(config):
    path = run_folder(config) / "progress.json"
    return path.exists() and json.loads(path.read_text())["step"] >= 1


def test_half_done_runs_come_first_then_default_rows_seed_by_seed_then_the_others():
    half_done(of("base", 1))
    entries, done = missing([Fake(), Other()], "small")
    assert done == 0
    assert names(entry.config for entry in entries) == [
        "fake base 1",
        *("fake qa1 0", "other qa1 0", "fake qa1 1", "other qa1 1"),
        *("fake qa2 0", "fake base 0", "other qa2 0", "other base 0"),
        *("fake qa2 1", "other qa2 1", "other base 1"),
    ]
    assert entries[0].state == "partial" and entries[0].done == pytest.approx(0.25)


def test_a_record_in_runs_or_in_results_counts_as_done(folder):
    run(Fake(), select(Fake(), "small", 2, "qa1"), quiet=True)
    record = load_record(run_folder(of("qa1", 0)) / "record.json")
    write_record(record_path(record), record)
    for path in run_folder(of("qa1", 0)).iterdir():
        path.unlink()
    entries, done = missing([Fake()], "small")
    assert done == 2 and names(e.config for e in entries) == ["fake qa2 0", "fake base 0", "fake qa2 1", "fake base 1"]


def test_it_trains_all_that_is_missing_and_continues_what_is_half_done():
    half_done(of("base", 1))
    worked = queue([Fake(), Other()], "small", jobs=2, quiet=True)
    assert worked.error is None and worked.left == [] and len(worked.finished) == 12
    assert load_record(run_folder(of("base", 1)) / "record.json")["metrics"]["began_at"] == [0, 5]
    assert queue([Fake(), Other()], "small", quiet=True).lines() == ["0 finished now, 12 were done before, 0 left"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_stops_it_with_status_75_and_it_says_what_is_left(number):
    process = start("--jobs", "1", orders="slow")
    until(lambda: at_work(of("qa1", 0)))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 75, err
    assert out.splitlines()[0].startswith("0 finished now, 0 were done before, 6 left")
    assert out.splitlines()[1].startswith("left: fake qa1 small seed 0: partial")
    assert f"stopped by {number.name}" in err
    assert queue([Fake()], "small", quiet=True).error is None
    assert len(load_record(run_folder(of("qa1", 0)) / "record.json")["metrics"]["began_at"]) == 2


@pytest.mark.parametrize("command", ["queue", "run"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_while_it_prepares_stops_it_too(command, number, monkeypatch, capsys):
    """As when data are being fetched."""
    monkeypatch.setattr(Fake, "prepare", lambda *_: os.kill(os.getpid(), number))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have it ignored
    try:
        assert main([command, "fake", "--scale", "small"]) == 75
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "interrupted; the same command continues" in capsys.readouterr().err and not Path("runs").exists()


def test_the_time_budget_ends_it_the_same_way():
    process = start("--jobs", "2", "--time-budget", "2", "--json", orders="slow")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "time budget of 2 s used" in err
    left = json.loads(out)["left"]
    assert {run["state"] for run in left} <= {"partial", "to do"} and left[0]["row"] == "qa1" and len(left) == 6


def test_two_queues_share_the_work():
    first, second = start("--jobs", "1", orders="brief"), start("--jobs", "1", orders="brief")
    ends = [(*process.communicate(timeout=90), process.returncode) for process in (first, second)]
    assert {status for *_, status in ends} <= {0, 75}, ends
    configs = select(Fake(), "small", None, "all")
    records = [load_record(run_folder(config) / "record.json") for config in configs]
    assert all(record["metrics"]["began_at"] == [0] for record in records)
    assert all(int(out.split()[0]) > 0 for out, *_ in ends)


def test_a_run_that_another_command_has_is_left_to_it(monkeypatch):
    monkeypatch.setattr("rmtlib.runs.queue.PATIENCE", 0.3)
    lock = Lock(run_folder(of("qa1", 0)), "it")
    worked = queue([Fake()], "small", quiet=True)
    assert names(entry.config for entry in worked.left) == ["fake qa1 0"] and len(worked.finished) == 5
    assert "1 of the runs are being trained by other commands" in str(worked.error)
    lock.release()


def test_a_damaged_run_is_an_error_after_the_others(monkeypatch):
    write_json(run_folder(of("qa1", 0)) / "config.json", {"odd": 1})
    worked = queue([Fake()], "small", quiet=True)
    assert len(worked.finished) == 5 and [entry.state for entry in worked.left] == ["damaged"]
    assert type(worked.error) is RmtlibError and "is damaged" in str(worked.error)


def test_runs_are_packed_as_far_as_their_memory_allows():
    def job(gigabytes):
        return Job(of("qa1", 0), Path("."), None, Cost(1, 1.0, gigabytes * 2**30, 0), "fake_artifact:Fake")

    room = Room(3, memory_bytes=10 * 2**30)
    assert room.takes([], job(80))  # alone, whatever the estimate says
    assert room.takes([job(4)], job(6)) and not room.takes([job(5)], job(6))
    assert room.takes([job(1)] * 2, job(1)) and not room.takes([job(1)] * 3, job(1))


def test_memory_bounds_how_many_run_at_once(monkeypatch):
    monkeypatch.setenv("FAKE_ORDERS", "brief")
    monkeypatch.setattr("rmtlib.runs.queue._memory", lambda: 1.5 * 2**20)  # a run takes 2**20
    queue([Fake()], "small", 1, jobs=3, quiet=True)
    records = [load_record(run_folder(of(row, 0)) / "record.json") for row in ("qa1", "qa2", "base")]
    times = sorted(record["metrics"]["times"] for record in records)
    assert all(before[1] < after[0] for before, after in zip(times, times[1:], strict=False))
