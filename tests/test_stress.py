"""`make stress`: its table and record, and that its trials notice what is broken."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from rmtlib.data import sources
from rmtlib.errors import RmtlibError
from rmtlib.report import stress as report
from rmtlib.runs.records import Verification, write_record

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # stress/ is not installed

from stress import __main__ as command  # noqa: E402
from stress import damage, inputs, mirrors, trials  # noqa: E402

LINES = [
    {"what": "a blow", "lost": None},
    {"what": "another <blow>", "lost": "the record differs"},
    {"what": "a third", "lost": None},
]


# Table and record


def rows():
    return [
        command.row("kills", LINES, None) | {"seconds": 1},
        command.row("power-cuts", [{"not_run": "must be superuser"}], None) | {"seconds": 1},
        command.row("mirrors", LINES[:1], "its trials hung for 9 s") | {"seconds": 1},
    ]


def test_what_is_not_run_has_survived_nothing_and_a_hanging_fault_has_lost():
    assert list(map(report.cells, rows())) == [
        ("kills", "3", "2", "1"),
        ("power-cuts", "not run: must be superuser", "", ""),
        ("mirrors", "2", "1", "1"),
    ]
    assert rows()[0]["losses"] == ["trial 2, another <blow>: the record differs"]
    assert all(row["what"].endswith(".") and "\n" not in row["what"] for row in rows())


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A run of the command with faults that cost nothing, kept as a record."""
    made = iter(rows())
    monkeypatch.setattr(command, "FAULTS", {name: command.FAULTS[name] for name in ("kills", "power-cuts", "mirrors")})
    monkeypatch.setattr(command, "attempt", lambda name, seed, seconds: next(made))
    monkeypatch.setattr(command, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(command, "_dirty", lambda: False)
    assert command.main(["--record", "--seed", "7", "--out", str(tmp_path / "out")]) == 1  # as something was lost
    return tmp_path / "record.json"


def test_the_record_becomes_the_books_table(recorded, tmp_path):
    record = report.load(recorded)
    assert recorded.read_bytes() == (tmp_path / "out" / "stress.json").read_bytes()
    assert record["seed"] == 7 and record["rows"] == rows() and record["dirty"] is False
    text = report.fragment(recorded, tmp_path / "extra")
    assert (
        "another &lt;blow&gt;: the record differs" in text
        and "Not run: must be superuser</td><td>not run</td>" in text
        and "seed 7" in text
        and "`" not in text
    )
    assert json.loads((tmp_path / "extra" / "stress.json").read_text()) == record
    whole = {key: value for key, value in record.items() if key != "sha256"}
    write_record(recorded, whole | {"rows": [row | {"losses": []} for row in rows()]})
    assert "Nothing was lost" in report.fragment(recorded, tmp_path / "extra")
    assert "Not run" in report.fragment(tmp_path / "none.json", tmp_path / "extra")


def test_a_record_that_was_edited_is_refused(recorded):
    recorded.write_text(recorded.read_text().replace('"lost": 1', '"lost": 0'))
    with pytest.raises(RmtlibError, match="was changed after it was written"):
        report.load(recorded)
    recorded.write_text("{}")
    with pytest.raises(RmtlibError, match="not a record of make stress"):
        report.load(recorded)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--only", "kills,nonsense"], "unknown fault 'nonsense'"),
        (["--seconds", "0"], "must be above 0"),
        (["--record", "--only", "kills"], "leave out --only"),
    ],
)
def test_bad_arguments_are_an_error_in_one_line(capsys, arguments, what):
    assert command.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1 and what in said.err


def test_uncommitted_code_leaves_no_record(capsys, monkeypatch):
    monkeypatch.setattr(command, "_dirty", lambda: True)
    assert command.main(["--record"]) == 2
    assert "committed code" in capsys.readouterr().err


def test_a_seed_repeats_its_trials(tmp_path, capfd):
    said = []
    for _ in range(2):
        command.child("bad-settings", 3, 0.1, tmp_path)
        said.append(capfd.readouterr().out.splitlines()[:5])
    assert said[0] == said[1] and len({json.loads(line)["what"] for line in said[0]}) > 1


# Trials notice what is broken


def test_how_a_process_may_end():
    assert trials.Ended(0, "").complaint() is None
    assert trials.Ended(2, "starting\nerror: the disk is full\n").complaint() is None
    assert trials.Ended(75, "stopped").complaint(75) is None
    for ended in (
        trials.Ended(2, "Traceback ...\nerror: odd"),
        trials.Ended(2, "no line"),
        trials.Ended(1, "Traceback"),
        trials.Ended(75, "stopped"),
        trials.Ended(None, ""),
    ):
        assert ended.complaint()


def test_a_fork_is_killed_stopped_and_waited_for(tmp_path, monkeypatch):
    def stop_itself():
        os.kill(os.getpid(), signal.SIGSTOP)
        return 0

    seen = []
    assert trials.forked(lambda: os.write(1, b"said\n") and 3, tmp_path / "log") == trials.Ended(3, "said\n")
    assert trials.forked(stop_itself, tmp_path / "log", stopped=lambda: seen.append(1)).status == -signal.SIGKILL
    assert trials.forked(lambda: time.sleep(60) or 0, tmp_path / "log", kill_after=0.05).status == -signal.SIGKILL
    monkeypatch.setattr(trials, "SECONDS", 0.05)
    assert trials.forked(lambda: time.sleep(60) or 0, tmp_path / "log").status is None and seen == [1]


@pytest.mark.parametrize(
    ("status", "said", "fine"),
    [
        (2, "error: one line\n", True),
        (0, "usage: rmtlib\n", True),
        (0, "trained it\n", False),
        (2, "error: two\nlines\n", False),
        (2, "error: \x1b[31mred\n", False),
        (1, "Traceback\n", False),
        (None, "", False),
    ],
)
def test_how_a_bad_command_may_end(status, said, fine):
    assert (inputs._judged(status, said) is None) == fine


def test_a_record_that_verify_should_have_named_is_a_loss(tmp_path, monkeypatch):
    path = sorted((ROOT / "results").glob("memory-capacity/*.json"))[0]
    for seed in range(5):
        assert damage._record(random.Random(seed), path, tmp_path / str(seed)).lost is None
    monkeypatch.setattr(damage, "verify", lambda *_: Verification())
    lost = [damage._record(random.Random(seed), path, tmp_path / f"{seed}-blind").lost for seed in range(5)]
    assert "verify accepts it" in lost


def test_a_mirror_that_is_believed_is_a_loss(tmp_path, monkeypatch):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    monkeypatch.delenv("RMTLIB_DATA", raising=False)
    monkeypatch.delenv("RMTLIB_OFFLINE", raising=False)
    monkeypatch.setitem(sources.SOURCES, "thing", None)
    server = mirrors.Server()
    wrong = b"x" + mirrors.CONTENT[1:]
    server.files = {"/hostile": wrong, "/right": mirrors.CONTENT}
    try:
        assert mirrors._fetch(server, tmp_path, None, alone=True) is None
        assert mirrors._fetch(server, tmp_path, None, alone=False) is None
        shutil.rmtree(tmp_path / "things")
        monkeypatch.setattr(sources, "_complaint", lambda *_: None)
        assert mirrors._fetch(server, tmp_path, None, alone=True) == "a wrong file was accepted"
    finally:
        server.server.shutdown()
        server.server.server_close()


def test_stress_has_a_file_and_a_sentence_for_every_fault():
    for name in command.FAULTS:
        assert str(command.load(name).__doc__).strip().endswith(".")
