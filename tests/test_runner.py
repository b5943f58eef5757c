"""The runner: what it trains, how it stops and continues, and what becomes of it when something dies."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from fake_artifact import STEPS, Fake

from rmtlib.errors import RmtlibError, Stopped
from rmtlib.experiments.babilong.settings import Params, work
from rmtlib.experiments.registry import ARTIFACTS, get_artifact
from rmtlib.runs import job, provenance, scheduler, storage, worker
from rmtlib.runs import progress as progress_module
from rmtlib.runs.artifact import select
from rmtlib.runs.display import Lines, Terminal
from rmtlib.runs.folder import RunFolder, read_progress, read_slices, run_folder
from rmtlib.runs.gpus import Gpus
from rmtlib.runs.plan import run_state
from rmtlib.runs.progress import Eta, amount, describe, duration, makespan, share, size, time_left
from rmtlib.runs.records import load_record
from rmtlib.runs.spec import Cost
from rmtlib.runs.storage import Lock, is_locked, write_json, write_sealed
from rmtlib.settings import from_dict

TESTS = Path(__file__).parent
PYTHONPATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])  # this checkout, wherever another is installed


@pytest.fixture(autouse=True)
def fake(tmp_path, monkeypatch):
    """An empty project folder, and the fake artifact, known here and to the workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("FAKE_ORDERS", raising=False)
    return tmp_path


@pytest.fixture
def orders(monkeypatch):
    return lambda text: monkeypatch.setenv("FAKE_ORDERS", text)


def configs(seeds=2):
    return select(Fake(), "small", seeds)


def run(chosen, **options):
    return scheduler.run(Fake(), chosen, **options)


def test_several_gpus_share_the_runs(monkeypatch):
    monkeypatch.setattr(provenance, "gpu_ids", lambda: ["5", "7"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert scheduler.default_jobs() == 2
    assert [r["metrics"]["gpus"] for r in run(configs(4), jobs=4, quiet=True)] == ["5", "7", "5", "7"]
    gpus = Gpus(["5", "7", "8"])
    assert [gpus.take(2), gpus.take(1), gpus.take(2)] == [("5", "7"), ("8",), ("5", "7")]
    gpus.give_back(("5", "7"), 2)
    gpus.give_back(("7",), 1)
    assert gpus.take(1) == ("7",) and len(gpus.take(9)) == 3
    assert Gpus(["0"]).take(1) == ()  # nothing to choose: the worker sees what the command sees
    gpus = Gpus(["5", "7"])
    assert [gpus.take(1, helpers=1), gpus.take(1, helpers=1)] == [("5", "7"), ("7", "5")]  # each trains on its own


def test_those_that_help_to_test_have_other_gpus(monkeypatch, fake):
    started = []
    monkeypatch.setattr(job, "start_helper", lambda folder, artifact, gpus: started.append(gpus))
    monkeypatch.setattr(job, "start_worker", lambda folder, artifact, lock, devices, gpus: started.append(gpus))
    (config,) = configs(1)
    helped = job.Job(
        config, fake, object(), Fake().cost(config), "any", devices=1, shards=4, visible_gpus=("5", "7", "8")
    )
    helped.start()
    for number in range(1, 4):
        helped.start_helper(number)
    assert started == [("5",), ("7",), ("8",), ("5",)]


class Command:
    """`rmtlib run fake` as a user starts it: a process group of its own, like a terminal's job."""

    def __init__(self, *options, orders=""):
        self.process = subprocess.Popen(
            [sys.executable, TESTS / "fake_artifact.py", "run", "fake", "--scale", "small", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"FAKE_ORDERS": orders},
        )

    def wait_for_step(self, step, seeds=1):
        until(lambda: all(now_at(config) >= step for config in configs(seeds)))

    def end(self, timeout=60):
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def now_at(config):
    path = run_folder(config) / "progress.json"
    return json.loads(path.read_text())["step"] if path.exists() else 0


# Training and reusing


def test_runs_are_trained_once_and_come_in_the_order_asked_for():
    asked = list(reversed(configs()))
    records = run(asked, quiet=True)
    assert [record["run_id"] for record in records] == [config.id for config in asked]
    assert all(record["metrics"]["began_at"] == [0] and record["tokens"] == 100 * STEPS for record in records)
    before = [(run_folder(config) / "worker.log").stat().st_mtime_ns for config in asked]
    assert run(asked + asked[:1], quiet=True) == records + records[:1]
    assert [(run_folder(config) / "worker.log").stat().st_mtime_ns for config in asked] == before


def test_only_what_is_missing_is_trained():
    first = run(configs(1), quiet=True)
    both = run(configs(2), quiet=True)
    assert both[:1] == first
    assert both[1]["seed"] == 1


def test_a_record_carries_its_provenance():
    (record,) = run(configs(1), quiet=True)
    assert record == load_record(run_folder(configs(1)[0]) / "record.json")
    assert record["notes"] == ["noted once", "a note"]
    assert record["modules_sha256"] == provenance.modules_sha256()
    assert record["git"] == provenance.git_state()
    assert record["hardware"]["cores"] == provenance.cores()
    assert 2**22 < record["peak_memory_bytes"] < 2**29
    assert 0 < record["wall_s"] < 20


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_runs_at_once_as_asked_for(orders, jobs):
    orders("brief")
    times = sorted(record["metrics"]["times"] for record in run(configs(2), jobs=jobs, quiet=True))
    assert (times[1][0] < times[0][1]) == (jobs == 2)


@pytest.mark.parametrize("bad", [{"jobs": 0}, {"time_budget": 0}, {"time_budget": -1}])
def test_impossible_options_are_refused(bad):
    with pytest.raises(RmtlibError):
        run(configs(1), quiet=True, **bad)


def test_fresh_starts_over():
    (first,) = run(configs(1), quiet=True)
    folder = run_folder(configs(1)[0])
    (folder / "deep").mkdir()
    (folder / "deep" / "checkpoint").write_text("old")
    (second,) = run(configs(1), fresh=True, quiet=True)
    assert second["finished"] >= first["finished"] and second["metrics"]["times"] != first["metrics"]["times"]
    assert second["metrics"]["began_at"] == [0]
    assert not (folder / "deep").exists()


def test_numbers_that_are_not_finite_do_not_cost_the_run(orders):
    orders("nan")
    (record,) = run(configs(1), quiet=True)
    assert record["metrics"]["loss"] is None
    assert any("NaN" in note for note in record["notes"])


def test_workers_use_one_thread_and_the_parents_package(monkeypatch):
    seen = {}
    monkeypatch.setattr(job.subprocess, "Popen", lambda command, **more: seen.update(more, command=command) or 1 / 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(ZeroDivisionError):
        run(configs(1), quiet=True)
    assert seen["env"]["OMP_NUM_THREADS"] == "1"
    assert seen["env"]["PYTHONPATH"] == os.pathsep.join([str(provenance.PACKAGE.parent), PYTHONPATH])
    assert not is_locked(run_folder(configs(1)[0]))


# Stopping and continuing


def test_the_time_budget_stops_with_checkpoints_and_the_next_call_continues(orders):
    orders("slow")
    started = time.monotonic()
    with pytest.raises(Stopped, match=r"time budget of 5 s used: 0 of 2 runs finished; the same command continues"):
        run(configs(), time_budget=5, quiet=True)
    # stopped at a step's end, not killed
    assert time.monotonic() - started < 25
    orders("")
    records = run(configs(), quiet=True)
    for record in records:
        assert record["metrics"]["began_at"][0] == 0 and 0 < record["metrics"]["began_at"][1] < STEPS
        assert any("2 slices" in note for note in record["notes"])
        assert record["notes"].count("noted once") == 1
        assert record["wall_s"] > 0.6  # both slices


def test_a_run_that_would_go_on_under_other_code_is_said(orders, monkeypatch, capsys):
    orders("slow")
    with pytest.raises(Stopped):
        run(configs()[:1], time_budget=3)
    orders("")
    assert "the code has changed" not in capsys.readouterr().err
    monkeypatch.setattr(provenance, "modules_sha256", lambda: "0" * 64)
    run(configs()[:1])
    assert "note: the code has changed since qa1 seed 0 began (1 run of 1 that continue)" in capsys.readouterr().err


def test_waiting_runs_do_not_start_after_the_time_budget(orders):
    orders("slow")
    with pytest.raises(Stopped):
        run(configs(), jobs=1, time_budget=1, quiet=True)
    assert not (run_folder(configs()[1]) / "worker.log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_with_checkpoints_and_the_same_command_continues(number):
    if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as under nohup, and so in all that is started from here")
    command = Command(orders="slow")
    command.wait_for_step(2, seeds=2)
    os.killpg(command.process.pid, number)
    status, out, err = command.end()
    assert status == 75
    assert "the same command continues" in err.splitlines()[-1]
    assert "Traceback" not in err and out == ""
    for config in configs():
        assert not is_locked(run_folder(config))
        assert json.loads((run_folder(config) / "checkpoint.json").read_text())["step"] >= 2
        assert read_slices(run_folder(config))[-1]["ended"] == "stopped"
    status, out, err = Command().end()
    assert status == 0
    assert "2 to train (2 continue from their checkpoints)" in err
    assert out.startswith("2 fakes\n")


def test_a_second_interrupt_ends_runs_that_do_not_stop():
    command = Command("--seeds", "1", orders="deaf")
    command.wait_for_step(6)
    os.killpg(command.process.pid, signal.SIGINT)
    time.sleep(0.4)
    assert command.process.poll() is None
    os.killpg(command.process.pid, signal.SIGINT)
    status, _, err = command.end(timeout=30)
    assert status == 75
    assert "the same command continues" in err
    assert run(configs(1), quiet=True)[0]["metrics"]["began_at"][-1] == 5  # from the last checkpoint


def test_fresh_deletes_nothing_when_another_command_trains_one_of_the_runs():
    first, second = configs()
    run([first, second], quiet=True)
    lock = Lock(run_folder(second), second.title, waiting=lambda line: None)
    try:
        with pytest.raises(RmtlibError):
            run([first, second], quiet=True, fresh=True)
    finally:
        lock.release()
    assert (run_folder(first) / "record.json").exists()


def test_stopping_a_fresh_run_says_how_to_continue(orders):
    orders("slow")
    with pytest.raises(Stopped, match="the same command without --fresh"):
        run(configs(1), time_budget=1.0, fresh=True, quiet=True)


def test_signal_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run(configs(1), quiet=True)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


# Accidents


def test_a_killed_worker_is_reported_and_the_others_finish(orders):
    orders("killed not-seed-0")
    with pytest.raises(RmtlibError) as error:
        run(configs(), quiet=True)
    message = str(error.value)
    assert "\n" not in message
    assert "fake qa1 small seed 1" in message and "SIGKILL" in message and "memory" in message
    assert "1 of 2 runs are finished, the same command continues" in message
    orders("")
    records = run(configs(), quiet=True)
    assert records[0]["metrics"]["began_at"] == [0]
    assert records[1]["metrics"]["began_at"] == [0, 5]  # from the checkpoint before its death


def test_a_killed_workers_time_is_counted(orders):
    orders("slow killed")
    with pytest.raises(RmtlibError):
        run(configs(1), quiet=True)
    orders("")
    (record,) = run(configs(1), quiet=True)
    assert record["wall_s"] > 0.55  # four steps of 0.15 s before the fifth


def test_a_workers_exception_is_told_in_its_own_words(orders):
    orders("raise not-seed-1")
    with pytest.raises(RmtlibError, match="exit code 1, its last words: 'ValueError: something odd'") as error:
        run(configs(), quiet=True)
    log = run_folder(configs()[0]) / "worker.log"
    assert str(log.relative_to(Path.cwd()) if log.is_absolute() else log) in str(error.value)
    assert "Traceback" in log.read_text()


def test_a_workers_mistake_of_the_user_is_passed_on_as_it_is(orders):
    orders("error")
    with pytest.raises(RmtlibError, match="fake qa1 small seed 0: no data here: bring some; 1 more failed"):
        run(configs(), quiet=True)


def test_a_full_disk_at_the_record_loses_nothing(orders):
    orders("full")
    with pytest.raises(RmtlibError, match="cannot write .*record.json .*the same command continues"):
        run(configs(1), quiet=True)
    folder = run_folder(configs(1)[0])
    assert not (folder / "record.json").exists()
    assert not list(folder.glob("*.partial"))
    orders("")
    assert run(configs(1), quiet=True)[0]["metrics"]["began_at"] == [0, 5]


def test_a_killed_command_leaves_no_worker_behind():
    command = Command("--seeds", "1", orders="long")
    folder = run_folder(configs(1)[0])
    until((folder / "checkpoint.json").exists)  # its step takes two seconds now
    os.kill(command.process.pid, signal.SIGKILL)
    command.end()
    assert is_locked(folder)  # by the worker, which has not noticed yet
    status, _, err = Command("--seeds", "1").end()  # waits for it
    assert status == 0
    assert "waiting for the worker of a killed command" in err
    began = load_record(folder / "record.json")["metrics"]["began_at"]
    assert len(began) == 2 and began[1] >= 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_killed_during_preparation_takes_its_worker_with_it(number):
    """The whole process group of the command, to which the worker does not belong."""
    command = Command("--seeds", "1", orders="preparing")
    folder = run_folder(configs(1)[0])
    command.wait_for_step(1)
    os.killpg(command.process.pid, number)
    status, _, err = command.end(timeout=30)
    assert status == (-number if number == signal.SIGKILL else 75), err
    until(lambda: not is_locked(folder), 10)
    assert run(configs(1), quiet=True)[0]["metrics"]["began_at"] == [0]


def test_a_worker_without_its_command_is_ended_even_if_it_does_not_listen(monkeypatch):
    sent = []
    monkeypatch.setattr(worker, "ORPHAN_SECONDS", 0.01)
    monkeypatch.setattr(worker.os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(worker.os, "killpg", lambda group, number: sent.append((group, number)))
    worker._end_with(os.getppid() + 1)
    assert sent == [(os.getpid(), signal.SIGTERM), (0, signal.SIGKILL)]


def test_two_commands_never_train_the_same_run():
    command = Command("--seeds", "2", "--jobs", "1", orders="slow")
    command.wait_for_step(1)
    for config in configs(2):  # also the one that still waits
        with pytest.raises(
            RmtlibError, match=f"is being trained by process {command.process.pid}: wait for it"
        ) as error:
            run([config], quiet=True)
        assert "\n" not in str(error.value)
    with pytest.raises(RmtlibError, match="is being trained"):
        run(configs(1), fresh=True, quiet=True)
    assert (run_folder(configs(1)[0]) / "config.json").exists()
    command.process.send_signal(signal.SIGINT)
    assert command.end()[0] == 75


SLICE = """[{"started": "2026-01-01", "ended": null, "wall_s": %s, "peak_memory": {"host": 1, "gpu": null},
"git": {"commit": null, "dirty": false}, "modules_sha256": "", "packages": {}, "hardware": null}]"""


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", '{"a": 1}'), ("slices.json", "{}"), ("slices.json", "[1]"),
     ("slices.json", SLICE % '"long"'), ("notes.json", "{}"),
     ("notes.json", "[1]"), ("evaluation.json", "{"), ("readings.json", '{"weights": "a", "sha256": "b"}')],
)  # fmt: skip
def test_a_damaged_file_is_reported_with_its_path_before_anything_starts(orders, name, content):
    orders("killed")
    with pytest.raises(RmtlibError):
        run(configs(1), quiet=True)
    orders("")
    folder = run_folder(configs(1)[0])
    log = (folder / "worker.log").read_text()
    (folder / name).write_text(content)
    with pytest.raises(RmtlibError, match=re.escape(str(folder / name))) as error:
        run(configs(1), quiet=True)
    assert "delete" in str(error.value) and "\n" not in str(error.value)
    assert (folder / "worker.log").read_text() == log
    if name != "config.json":  # do what it says
        (folder / name).unlink()
        assert run(configs(1), quiet=True)[0]["metrics"]["began_at"] == [0, 5]
    else:
        assert run(configs(1), fresh=True, quiet=True)[0]["metrics"]["began_at"] == [0]


PLACE = '{"stage": "a", "step": 1, "steps": 2, "slice_wall_s": 1, "time": %s, "loss": %s}'


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"a": 1}', "[" * 10**5, PLACE % ("NaN", 1), PLACE % (1, "Infinity"), PLACE % (1, "1e999"),
     PLACE % (1, "9" * 400), PLACE % ('"1"', 1), PLACE % (1, '1, "tokens": "7"')],
)  # fmt: skip
def test_a_damaged_progress_is_no_progress_and_refuses_no_run(orders, content):
    orders("killed")
    with pytest.raises(RmtlibError):
        run(configs(1), quiet=True)
    orders("")
    path = run_folder(configs(1)[0]) / "progress.json"
    path.write_text(content)
    assert read_progress(path.parent) is None
    assert run_state(configs(1)[0])["state"] == "to do"
    assert run(configs(1), quiet=True)[0]["metrics"]["began_at"] == [0, 5]


def test_a_log_that_cannot_be_written_is_said(orders):
    """The worker's own last words would have gone there."""
    folder = run_folder(configs(1)[0])
    folder.mkdir(parents=True)
    (folder / "worker.log").symlink_to("/dev/full")
    orders("error")
    with pytest.raises(RmtlibError, match=r"the disk is full: cannot write .*worker.log; free some space"):
        run(configs(1), quiet=True)


@pytest.mark.parametrize("call", ["open", "pwrite"])
def test_a_full_disk_is_not_called_a_bad_one(monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, call, full)
    if call == "open":
        with pytest.raises(RmtlibError, match="the disk is full: cannot write .*lock; free some space"):
            run(configs(1), quiet=True)
    else:  # who holds the lock is then not said to others, no more
        Lock(run_folder(configs(1)[0]), "a run").release()


def test_a_record_edited_by_hand_is_not_taken_for_a_result():
    run(configs(1), quiet=True)
    path = run_folder(configs(1)[0]) / "record.json"
    path.write_text(path.read_text().replace('"loss": 0.5', '"loss": 0.1'))
    with pytest.raises(RmtlibError, match="changed after it was written.*delete this file"):
        run(configs(1), quiet=True)
    path.unlink()  # do what it says
    assert run(configs(1), quiet=True)[0]["metrics"]["loss"] == 0.5


def test_a_record_says_what_it_was_made_from(orders):
    orders("killed")
    with pytest.raises(RmtlibError):
        run(configs(1), quiet=True)
    orders("")
    folder = run_folder(configs(1)[0])
    write_sealed(folder / "evaluation.json", {"weights": "a"})
    (record,) = run(configs(1), quiet=True)
    names = {"config.json", "slices.json", "notes.json", "checkpoint.json", "evaluation.json"}
    assert record["inputs"] == {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}
    assert record["hardware"]["threads"] is None and record["micro_batch"] == 4  # this one runs without torch


def test_another_runs_config_in_a_folder_is_noticed():
    first, second = configs(2)
    write_json(run_folder(first) / "config.json", second.to_json())
    with pytest.raises(RmtlibError, match="config.json was changed"):
        run([first], quiet=True)


def test_a_folder_that_cannot_be_made_is_a_clear_error():
    Path("runs").write_text("a file")
    with pytest.raises(RmtlibError, match="cannot write runs/fake"):
        run(configs(1), quiet=True)


# What users see


def test_plain_lines_tell_the_story():
    status, out, err = Command("--time-budget", "2.5", orders="slow").end()
    assert status == 75
    lines = err.splitlines()
    assert lines[0] == "fake at scale small: 2 runs, 2 to train, 2 at once; kept in runs/fake/"
    assert "Ctrl-C" in lines[1]
    state = next(line for line in lines if line.startswith("[0:0"))
    assert re.match(r"\[0:0\d\] fake: 0 of 2 runs finished", state)
    assert "qa1 seed 0: " in state and "qa1 seed 1: " in state
    assert out == ""


def test_only_runs_with_a_checkpoint_are_said_to_continue(orders, capsys):
    orders("killed")
    with pytest.raises(RmtlibError):
        run(configs(1))
    orders("")
    RunFolder(run_folder(configs(2)[1])).progress("preparing data", 0, 1)  # got no further
    run(configs(2))
    assert "2 runs, 2 to train (1 continues from its checkpoint), 2 at once" in capsys.readouterr().err


def test_records_by_other_code_are_pointed_out(capsys, monkeypatch):
    run(configs(1), quiet=True)
    run(configs(1))
    assert "another version" not in capsys.readouterr().err
    monkeypatch.setattr(provenance, "modules_sha256", lambda: "0" * 64)
    run(configs(1))
    assert "1 of 1 run made by another version" in capsys.readouterr().err


def test_progress_is_written_whole_and_seldom(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    writes = []
    monkeypatch.setattr("rmtlib.runs.folder.write_json", lambda path, value, **_: writes.append(value))
    for step in range(1000):
        folder.progress("one", step, 1000, loss=float("nan"))
    folder.progress("two", 0, 10)
    assert [each["stage"] for each in writes] == ["one", "two"]
    assert writes[0]["loss"] is None


def test_a_full_disk_does_not_stop_progress(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    folder.progress("one", 1, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_stops_when_its_parent_is_gone(tmp_path):
    assert not RunFolder(tmp_path).should_stop()
    assert not RunFolder(tmp_path, parent=os.getppid()).should_stop()
    assert RunFolder(tmp_path, parent=os.getppid() + 1).should_stop()
    folder = RunFolder(tmp_path)
    folder.request_stop()
    assert folder.should_stop()


def cost(tokens):
    return Cost(tokens=tokens, flops=1000.0 * tokens, memory_bytes=0, disk_bytes=0)


def seen(tokens, started, samples, **more):
    eta = Eta(cost(tokens), started)
    for at, done in samples:
        eta.see({"stage": "a", "step": 1, "steps": 2, "time": at, "tokens": done, **more})
    return eta


def test_time_left_of_a_run_is_that_of_its_present_speed():
    eta = seen(1000, 100.0, [(110.0, 100), (120.0, 200)])
    assert eta.whole == pytest.approx(100.0)
    assert eta.left(120.0) == pytest.approx(80.0)
    assert eta.left(130.0) == pytest.approx(70.0)
    assert eta.tokens_per_s == pytest.approx(10.0)
    slower = seen(1000, 100.0, [(110.0, 100), (120.0, 200), (220.0, 300), (320.0, 400)])
    assert slower.left(320.0) > 500  # the fast start is forgotten


def test_what_an_earlier_worker_said_is_no_speed():
    assert seen(1000, 100.0, [(50.0, 100), (60.0, 200), (110.0, 300)]).whole is None
    assert seen(1000, 100.0, [(50.0, 100)]).done == 0.1


def test_preparing_data_after_a_resume_is_no_speed_and_loses_nothing(tmp_path):
    folder = tmp_path / "run"
    RunFolder(folder).progress("stage 1", 1, 2, done=0.4, tokens=400)
    again = RunFolder(folder)
    again.progress("preparing data", 0, 1)
    assert (told := read_progress(folder))["done"] == 0.4 and told["stage"] == "preparing data"
    again.progress("stage 2", 1, 2, done=0.38, tokens=380)  # the checkpoint was a little older
    assert read_progress(folder)["done"] == 0.38
    samples = [(110.0, 400), (160.0, 400), (170.0, 380), (180.0, 400), (190.0, 420)]
    assert seen(1000, 100.0, samples).whole == pytest.approx(500.0)


@pytest.mark.parametrize(
    "artifact, row",
    [
        ("figure-5", "qa1"),
        ("babilong-time", "rmt"),
        ("enwik8", "baseline-seg128"),
        ("memory-capacity", "rmt-remember"),
        ("algorithmic", "reverse-2-rmt-24"),
        ("attention-maps", "copy-3-trxl-24"),
        ("lm-segments", "rmt"),
        ("quadratic", "rmt-6"),
    ],
)
def test_runs_say_how_much_of_their_work_is_done(artifact, row, tmp_path, monkeypatch):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    said = []
    monkeypatch.setattr(RunFolder, "progress", lambda self, *place, **numbers: said.append(numbers.get("done")))
    found = get_artifact(artifact)
    found.execute(found.config(row, "smoke", 0), RunFolder(tmp_path / "run"))
    steps = [done for done in said if done is not None]
    assert steps == sorted(steps) and 0 < steps[0] < 0.2 and 0.8 < steps[-1] <= 1.0


def test_work_is_in_parts_and_facts_alone_are_cheap():
    assert share([1.0, 2.0, 5.0], 1, 0.5) == 0.25 and share([1.0, 1.0], 2, 0.0) == 1.0
    parts = work(from_dict(Params, get_artifact("figure-5").config("qa1", "small", 0).params))
    assert 0.01 < share(parts, 0, 1.0) < 0.1


def test_done_goes_before_tokens():
    eta = seen(1000, 0.0, [(1.0, 0), (11.0, 0)], done=0.5)
    assert eta.done == 0.5


def test_time_left_of_a_command_counts_those_that_wait():
    running = [seen(1000, 0.0, [(10.0, 100), (20.0, 200)]), seen(1000, 0.0, [(10.0, 500), (20.0, 600)])]
    assert time_left(running, [], [], 2, 20.0) == pytest.approx(80.0)
    assert time_left(running, [2e6], [], 2, 20.0) == pytest.approx(40.0 + 200.0)  # in the place that frees first
    assert time_left([], [1e6, 1e6], [1e-4], 1, 0.0) == pytest.approx(200.0)
    assert time_left([Eta(cost(1000), 0.0)], [1e6], [], 1, 0.0) is None


def test_makespan_fills_the_free_places():
    assert makespan([], [3.0, 3.0, 3.0], 2) == 6.0
    assert makespan([5.0], [1.0, 1.0], 2) == 5.0
    assert makespan([], [], 2) == 0.0


def test_words():
    assert [duration(s) for s in (0.4, 59, 60, 3599, 3600, 7800, 90000)] == [
        "0 s", "59 s", "1 min", "1 h", "1 h", "2 h 10 min", "1 day 1 h",
    ]  # fmt: skip
    assert [amount(n) for n in (0, 950, 35_200, 999_900, 1.25e9)] == ["0", "950", "35.2k", "1M", "1.25G"]
    assert [size(n) for n in (10, 1536, 5 * 2**30, 2**45)] == ["10 B", "1.5 kB", "5.0 GB", "32 TB"]
    state = {
        "stage": "training",
        "step": 3,
        "steps": 9,
        "loss": 0.4123,
        "tokens": 5,
        "time": 1.0,
        "slice_wall_s": 1.0,
    }
    assert describe(state, 35_200, 90.0) == "training, step 3 of 9, loss 0.412, 35.2k tokens/s, 2 min left"
    assert describe(None, None, None) == "starting"


def test_a_terminal_shows_one_block_that_is_redrawn(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda *args, **kwargs: os.terminal_size((20, 24)))
    stream = io.StringIO()
    display = Terminal(stream)
    display.update(["a" * 50, "total"])
    display.update(["b", "total"])
    display.line("done with b")
    display.update(["c"])
    display.close()
    assert stream.getvalue() == (
        "aaaaaaaaaaaaaaaa...\ntotal\n"
        + "\x1b[2A\x1b[Jb\ntotal\n"
        + "\x1b[2A\x1b[Jdone with b\n"
        + "c\n"
        + "\x1b[1A\x1b[J"
    )


def test_a_log_gets_whole_lines():
    stream = io.StringIO()
    display = Lines(stream)
    display.line("start")
    display.update(["run a", "run b", "total"])
    display.close()
    assert stream.getvalue() == "start\n[0:00] total | run a | run b\n"


def test_speed_is_that_of_a_window(monkeypatch):
    monkeypatch.setattr(progress_module, "WINDOW", 5.0)
    eta = seen(1000, 0.0, [(float(at), 10 * at) for at in range(1, 30)] + [(40.0, 1000)])
    assert len(eta._samples) <= 7
