"""The job array for Slurm: its directives, and what its elements do when they are run and signalled as Slurm would."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_artifact import Fake

from rmtlib.cli import main
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.runs.artifact import select
from rmtlib.runs.executors.node import host_bytes
from rmtlib.runs.folder import run_folder
from rmtlib.runs.records import load_record
from rmtlib.runs.scheduler import run
from rmtlib.runs.spec import Cost
from rmtlib.runs.storage import Lock

TESTS = Path(__file__).parent
GRAMMAR = {  # sbatch(1)
    "job-name": r"[\w-]+",
    "array": r"\d+-\d+(%\d+)?",
    "ntasks": r"\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]",
    "signal": r"([RB]+:)?(USR1|\d+)(@\d+)?",
    "requeue": r"",
    "open-mode": r"append|truncate",
    "output": r"'/.* .*%A_%a\.out'",  # quoted, as it has a space
    "chdir": r"'/.* .*'",
    "gres": r"gpu:\d+",
    "time": r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2}",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A project folder with a space in its name and the fake artifact, and an scontrol that notes how it was called."""
    project = tmp_path / "my project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.delenv("FAKE_ORDERS", raising=False)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path / "scontrol.log"))}\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def write(*options, capsys):
    assert main(["run", "fake", "--executor", "slurm", *options]) == 0
    said = capsys.readouterr().out
    script = shlex.split(re.search(r"sbatch (.*)", said)[1])[0]
    lines = Path(script).read_text().splitlines()
    directives = dict(re.fullmatch(r"#SBATCH --([\w-]+)=?(.*)", line).groups() for line in lines if "#SBATCH" in line)
    return said, Path(script), directives


def begin(script, index, orders=""):
    """An element of the array, as Slurm starts it."""
    task = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": str(index), "FAKE_ORDERS": orders}
    return subprocess.Popen(["bash", script], env=os.environ | task, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--scale", "small"], {"array": "0-1", "mem": "2M", "signal": "B:USR1@60", "requeue": ""}),
        (["--scale", "small", "--jobs", "3", "--seeds", "5"], {"array": "0-4%3"}),
        (["--scale", "gpu", "--time-budget", "5400"], {"gres": "gpu:1", "time": "90"}),
    ],
)
def test_every_directive_is_in_the_grammar_of_sbatch(options, expected, capsys):
    said, script, directives = write(*options, capsys=capsys)
    for name, value in directives.items():
        assert re.fullmatch(GRAMMAR[name], value), f"--{name}={value}"
    assert expected.items() <= directives.items()
    assert ("gres" in directives) == ("gpu" in options) and ("time" in directives) == ("--time-budget" in options)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    last = max(i for i, line in enumerate(script.read_text().splitlines()) if line.startswith("#SBATCH"))
    assert not any(line and line[0] != "#" for line in script.read_text().splitlines()[:last])  # sbatch stops there
    assert f"each with 1 CPU, {directives['mem']}B of memory" in said


def test_a_run_on_a_gpu_asks_for_the_memory_of_its_process_alone():
    cost = Cost(tokens=1, flops=1.0, memory_bytes=60 * 10**9, disk_bytes=4 * 10**9, weights=10**8)
    assert host_bytes("medium", cost) == 60 * 10**9 and host_bytes("gpu", cost) == 11_200_000_000
    assert host_bytes("paper", replace(cost, memory_bytes=10**9)) == 10**9
    assert host_bytes("paper", replace(cost, weights=7 * 10**9)) == 60 * 10**9  # it is loaded through main memory


def test_only_what_is_not_finished_is_in_the_array(capsys):
    configs = select(Fake(), "small", 3)
    run(Fake(), configs[:1], quiet=True)
    _, script, directives = write("--scale", "small", "--seeds", "3", capsys=capsys)
    assert directives["array"] == "0-1" and configs[0].slug not in script.read_text()
    run(Fake(), configs, quiet=True)
    assert main(["run", "fake", "--executor", "slurm", "--scale", "small", "--seeds", "3"]) == 0
    assert "nothing to submit" in capsys.readouterr().out


def test_an_element_trains_its_run_and_nothing_if_it_is_finished(folder, capsys):
    _, script, _ = write("--scale", "small", capsys=capsys)
    for _ in range(2):
        assert begin(script, 1).wait() == 0
    config = select(Fake(), "small")[1]
    assert load_record(run_folder(config) / "record.json")["metrics"]["began_at"] == [0]
    assert not (folder / "scontrol.log").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_usr1_writes_a_checkpoint_and_requeues_and_scancel_only_the_first(number, folder, capsys):
    _, script, _ = write("--scale", "small", capsys=capsys)
    config = select(Fake(), "small")[0]
    progress = run_folder(config) / "progress.json"
    process = begin(script, 0, "slow")
    deadline = time.monotonic() + 60
    while not (progress.exists() and json.loads(progress.read_text())["step"] >= 1):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 75
    calls = (folder / "scontrol.log").read_text() if (folder / "scontrol.log").exists() else ""
    assert calls == ("requeue 17_0\n" if number == signal.SIGUSR1 else "")
    assert begin(script, 0).wait() == 0
    first, second = load_record(run_folder(config) / "record.json")["metrics"]["began_at"]
    assert first == 0 and second >= 1


def test_a_node_that_does_not_see_the_folder_says_so(capsys):
    _, script, _ = write("--scale", "small", capsys=capsys)
    script.write_text(script.read_text().replace(run_folder(select(Fake(), "small")[0]).name, "elsewhere"))
    process = begin(script, 0)
    assert "does not see" in process.communicate()[1] and process.returncode == 2


def test_an_element_waits_for_the_lock_of_a_lost_node(capsys):
    _, script, _ = write("--scale", "small", capsys=capsys)
    config = select(Fake(), "small")[0]
    lock = Lock(run_folder(config), "it")
    process = begin(script, 0)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1.5)
    lock.release()
    assert process.wait() == 0 and (run_folder(config) / "record.json").exists()
