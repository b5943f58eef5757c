"""The record of rehearsals: kept row by row, not repeated, refused if changed, shown with what is missing."""

import pytest
from fake_artifact import Fake

from rmtlib.cli import main
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.report.rehearsed import fragment
from rmtlib.runs import provenance, rehearsals
from rmtlib.runs.rehearsals import load, rehearse_and_keep, still_holds
from rmtlib.runs.storage import write_sealed

CLEAN = {"commit": "c" * 40, "dirty": False}


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    monkeypatch.setattr(provenance, "git_state", lambda: CLEAN)
    monkeypatch.setattr(rehearsals, "core_flops", lambda: 1e9)


@pytest.fixture
def quick(monkeypatch):
    """Rehearsals that start no process; the rows that were asked for."""
    asked = []

    def rehearse(artifact, configs):
        for config in configs:
            asked.append(config.row)
            yield {
                "row": config.row, "scale": config.scale, "outcome": "stopped and continued", "wall_s": 1.0,
                "peak_memory": 10**9, "parameters": 5, "precision": "bf16", "planned_memory": 10**9,
                "planned_flops": 4e8,
            }  # fmt: skip

    monkeypatch.setattr(rehearsals, "rehearse", rehearse)
    return asked


def configs(scale="gpu"):
    return [Fake().config(row.name, scale, seed) for row in Fake.rows for seed in (0, 1)]


def test_a_row_is_kept_as_soon_as_it_is_done_and_a_second_call_goes_on_there(tmp_path, quick):
    path, rows = tmp_path / "rehearsal.json", [row.name for row in Fake.rows]
    next(rehearse_and_keep(Fake(), configs(), path))
    assert [entry["row"] for entry in load(path)] == rows[:1]
    done = list(rehearse_and_keep(Fake(), configs(), path))
    assert [entry["row"] for entry in done] == rows[1:] and quick == rows
    entry = load(path)[0]
    assert entry["commit"] == CLEAN["commit"] and entry["hardware"]["cpu"] and entry["planned_s"] == 2.0
    assert list(rehearse_and_keep(Fake(), configs(), path)) == []
    assert len(list(rehearse_and_keep(Fake(), configs(), path, fresh=True))) == len(rows)
    own = next(config for config in configs() if config.row == entry["row"])
    assert still_holds(entry, own) and not still_holds(entry, Fake().config(own.row, own.scale, 1))


def test_a_row_that_failed_is_rehearsed_again(tmp_path, quick):
    path = tmp_path / "rehearsal.json"
    list(rehearse_and_keep(Fake(), configs(), path))
    rows = load(path)
    rows[0]["outcome"] = "ValueError: no"
    write_sealed(path, {"rows": rows})
    quick.clear()
    list(rehearse_and_keep(Fake(), configs(), path))
    assert quick == [rows[0]["row"]]


def test_a_row_is_rehearsed_on_a_cpu_and_on_a_gpu(tmp_path, quick, monkeypatch):
    path, row = tmp_path / "rehearsal.json", Fake.rows[0].name
    list(rehearse_and_keep(Fake(), configs()[:1], path))
    machine = provenance.hardware() | {"gpu": "Large <GPU>"}
    monkeypatch.setattr(provenance, "has_gpu", lambda: True)
    plain = rehearsals.rehearse
    monkeypatch.setattr(rehearsals, "rehearse", lambda *given: (x | {"hardware": machine} for x in plain(*given)))
    for _ in range(2):
        list(rehearse_and_keep(Fake(), configs()[:1], path))
    assert quick == [row, row] and [entry["planned_s"] for entry in load(path)] == [2.0, None]
    shown = fragment(path, [Fake()])
    assert f"<td>{len(Fake.rows)}</td><td>1</td><td>1</td><td>0</td><td>{len(Fake.rows) - 1}</td>" in shown
    assert "Large &lt;GPU&gt;" in shown and shown.count(f">{row}<") == 2


def test_uncommitted_code_and_a_changed_record_are_refused(tmp_path, quick, monkeypatch):
    path = tmp_path / "rehearsal.json"
    list(rehearse_and_keep(Fake(), configs(), path))
    path.write_text(path.read_text().replace("stopped and continued", "finished"))
    with pytest.raises(RmtlibError, match="changed after it was written .*: restore it from git"):
        load(path)
    monkeypatch.setattr(provenance, "git_state", lambda: CLEAN | {"dirty": True})
    with pytest.raises(RmtlibError, match="commit the changes in rmtlib"):
        next(rehearse_and_keep(Fake(), configs(), tmp_path / "other.json"))


def test_the_book_shows_what_was_rehearsed_what_failed_and_what_was_not(tmp_path, quick):
    path, first = tmp_path / "rehearsal.json", Fake.rows[0].name
    nothing = fragment(path, [Fake()])
    assert "nothing is claimed" in nothing and "<details" not in nothing
    list(rehearse_and_keep(Fake(), configs()[:2], path))
    shown = fragment(path, [Fake()])
    assert "built, trained, stopped with a checkpoint, continued, tested" in shown and "ccccccc" in shown
    assert shown.count("not rehearsed<") == 1 + len(Fake.rows) - 1  # the column's head, and the other rows
    assert f"<td>{len(Fake.rows)}</td><td>1</td><td>0</td><td>0</td><td>{len(Fake.rows) - 1}</td>" in shown
    rows = load(path)
    rows[0]["outcome"] = "backbone <cannot> be loaded"
    write_sealed(path, {"rows": rows})
    assert "backbone &lt;cannot&gt; be loaded" in fragment(path, [Fake()])
    rows[0] |= {"run_id": "0" * 12, "outcome": "finished"}
    write_sealed(path, {"rows": rows})
    assert "not rehearsed with these settings" in fragment(path, [Fake()]) and first in shown


def test_the_command_keeps_a_record_of_real_processes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in list(ARTIFACTS):
        monkeypatch.delitem(ARTIFACTS, name)
    monkeypatch.setitem(ARTIFACTS, "fake", "fake_artifact:Fake")
    command = ["rehearse", "all", "--scale", "small", "--rows", "qa1", "--record", "kept.json"]
    assert main(command) == 0
    (entry,) = load(tmp_path / "kept.json")
    assert (entry["artifact"], entry["row"], entry["outcome"]) == ("fake", "qa1", "stopped and continued")
    capsys.readouterr()
    assert main(command) == 0 and "nothing to rehearse" in capsys.readouterr().out
    assert main(["rehearse", "all"]) == 2
    assert "rehearse all needs a scale" in capsys.readouterr().err
