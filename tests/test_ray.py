"""Runs on a Ray cluster of two machines, of which one is lost in the middle; skipped if Ray is not installed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmtlib.cli import main
from rmtlib.experiments.registry import get_artifact
from rmtlib.runs.artifact import select
from rmtlib.runs.folder import RunFolder, read_slices, run_folder
from rmtlib.runs.records import load_record
from rmtlib.runs.storage import is_locked

TESTS = Path(__file__).parent
ROWS = "armt-remember,rmt-remember"


def test_without_ray_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rmtlib.runs.executors.ray_cluster.find_spec", lambda name: None)
    assert main(["run", "memory-capacity", "--scale", "smoke", "--executor", "ray"]) == 2
    said = capsys.readouterr().err
    assert said == "error: --executor ray needs Ray, which is not installed: pip install 'rmtlib[cluster]'\n"
    assert not Path("runs").exists()


def test_an_address_goes_with_ray(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "memory-capacity", "--scale", "smoke", "--address", "auto"]) == 2
    assert "give --executor ray too" in capsys.readouterr().err


@pytest.fixture
def cluster():
    """Two machines with one CPU each, as processes of this one; the second can be lost."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'rmtlib[cluster]'")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    for _ in range(2):
        nodes = Cluster()
        try:
            nodes.add_node(**small, include_dashboard=False)
            nodes.second = nodes.add_node(**small)
            break
        except Exception as error:  # Ray raises nothing narrower; it gives its processes 15 seconds to start
            nodes.shutdown()
            if "timed out during startup" not in str(error):
                raise
    else:
        pytest.skip("this machine is too busy for Ray's processes to start in time")
    yield nodes
    nodes.shutdown()


@pytest.fixture
def start(cluster, tmp_path, monkeypatch):
    """Start `rmtlib run memory-capacity --executor ray`, as a user would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]))
    arguments = ["run", "memory-capacity", "--scale", "smoke", "--seeds", "1", "--rows", ROWS]

    def start():
        return subprocess.Popen(
            [sys.executable, TESTS / "held_capacity.py", *arguments, "--executor", "ray", "--address", cluster.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_ctrl_c_and_a_lost_machine_lose_no_run_and_none_is_trained_twice(cluster, start, tmp_path):
    """After Ctrl-C the same command continues; then one machine goes, and its run continues on the other."""
    artifact = get_artifact("memory-capacity")
    configs = select(artifact, "smoke", 1, ROWS)
    folders = [run_folder(config) for config in configs]

    hold = folders[0].parent / "hold"
    hold.parent.mkdir(parents=True)
    hold.touch()

    command = start()
    wait_for(lambda: all((folder / "held-1").exists() for folder in folders), command)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 75 and "stopped by Ctrl-C: 0 of 2 runs finished" in err, err
    assert "Ray: 2 machines, 2 CPUs" in err and str(tmp_path / "runs") in err
    assert all((folder / "checkpoint.json").exists() for folder in folders) and not any(map(is_locked, folders))
    assert [part["ended"] for folder in folders for part in read_slices(folder)] == ["stopped", "stopped"]

    command = start()
    wait_for(lambda: all((folder / "held-2").exists() for folder in folders), command)
    workers = {folder: json.loads((folder / "lock").read_text()) for folder in folders}
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    lost = [folder for folder in folders if _ancestor(workers[folder]["pid"], raylet)]
    assert len(lost) == 1
    cluster.remove_node(cluster.second, allow_graceful=False)
    for process in ("pid", "worker"):  # Ray's, then its child that trains: as if the power went
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[lost[0]][process], signal.SIGKILL)
    hold.unlink()
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, err

    ended = {folder: [part["ended"] for part in read_slices(folder)] for folder in folders}
    assert ended.pop(lost[0]) == ["stopped", "killed", "finished"]
    assert list(ended.values()) == [["stopped", "finished"]]
    for config, folder in zip(configs, folders, strict=True):
        whole = artifact.execute(config, RunFolder(tmp_path / "whole" / config.slug))
        record = load_record(folder / "record.json")
        assert record["metrics"] == whole.metrics and record["curves"] == whole.curves


def _ancestor(pid, ancestor):
    while pid > 1 and pid != ancestor:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return pid == ancestor


def test_tasks_of_the_cluster_share_a_runs_tests(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "memory-capacity", "--scale", "smoke", "--seeds", "1", "--rows", "rmt-remember"]
    assert main([*arguments, "--executor", "ray", "--address", cluster.address, "--shards", "2"]) == 0
    artifact = get_artifact("memory-capacity")
    (config,) = select(artifact, "smoke", 1, "rmt-remember")
    record = load_record(run_folder(config) / "record.json")
    whole = artifact.execute(config, RunFolder(tmp_path / "whole"))
    assert record["metrics"] == whole.metrics and not (run_folder(config) / "shards").exists()
