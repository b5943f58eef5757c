"""An artifact is added in one room: `toy_artifact/`, outside the package, gets everything that an artifact has.

No file of the package knows it; it is registered here by the one line that the registry would have.
"""

import csv
import json
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from rmtlib.book import executing, notebook_job, write_artifact
from rmtlib.cli import main
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.experiments.view import open_view, view_of
from rmtlib.report.scoreboard import scoreboard
from rmtlib.runs.records import find_records

TESTS = Path(__file__).parent
TOY = TESTS / "toy_artifact"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the toy artifact, trained at small scale by the command line."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("project")
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
        patch.setenv("RMTLIB_CACHE", str(folder / "cache"))
        for name in list(ARTIFACTS):
            patch.delitem(ARTIFACTS, name)
        patch.setitem(ARTIFACTS, "toy", "toy_artifact.artifact:Toy")
        (folder / "notebooks").mkdir()
        (folder / "notebooks" / "toy.ipynb").write_text((TOY / "toy.ipynb").read_text())
        assert main(["run", "toy", "--scale", "small"]) == 0
        yield folder


@pytest.fixture
def view(project):
    return view_of("toy", find_records("toy", where=("runs",)))


def test_runs_leave_sealed_records_and_are_planned(project, capsys):
    records = find_records("toy", where=("runs",))  # it checks every seal
    assert len(records) == 6 and {record["row"] for record in records} == {"slow", "fast"}
    assert main(["plan", "toy", "--scale", "small", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert len(planned["runs"]) == 6 and {run["state"] for run in planned["runs"]} == {"finished"}


def test_a_notebook_opens_what_was_trained_in_one_call(project, capsys):
    trained = open_view("toy", "small")
    assert len(trained.results.live) == 6 and "6 to train" not in capsys.readouterr().err
    here = open_view("toy", "small", 1, "fast", train=False)
    assert len(here.results.live) == 6  # all records of the scale
    assert open_view("toy", "small", published_only=True).results.records == []


def test_claims_are_judged_and_listed(view, project, capsys):
    verdict = view.verdicts()[0]
    assert (verdict.scale, verdict.outcome, verdict.effects[0].n) == ("small", "holds", (3, 3))
    assert main(["claims", "toy", "--json"]) == 0  # from published records, of which there are none
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["claim"], listed["verdict"], listed["scale"]) == ("fast-is-better", "not run", "small")
    assert "for 6 runs" in listed["cost"]


def test_figure_table_and_csv_show_the_records(view, tmp_path):
    view.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"toy.png", "toy.svg", "toy.csv", "summary.txt"}
    lines = list(csv.DictReader((tmp_path / "toy.csv").open()))
    assert len(lines) == 6 * 8 + 2 and {line["source"] for line in lines} == {"here", "paper"}
    fast = view.results.series()["small"]["fast"].last
    assert f"{fast.mean:.3f} ± {fast.std:.3f}" in view.tables() and f"fast {fast.mean:.3f}" in view.alt()
    assert [line.get_label() for line in view.draw().legends[0].get_lines()][:2] == ["slow", "fast"]


def test_the_page_has_all_its_parts(view, project):
    write_artifact(view, project / "book", project / "notebooks" / "toy.ipynb", project / "results")
    with executing([notebook_job("toy", project / "book", project / "notebooks", None)]):
        pass
    page = (TOY / "toy.md").read_text()
    for part in ("results", "details"):
        assert f"_generated/toy/{part}.md" in page
        page += (project / "book" / "toy" / f"{part}.md").read_text()
    for heading in (
        "## Ours beside the paper",
        "## Claims",
        "## Table",
        "## Differences from the paper",
        "## Run it, and go on",
        "<summary>What every scale takes</summary>",
        "<summary>Settings</summary>",
    ):
        assert heading in page
    soup = BeautifulSoup(page, "html.parser")
    assert soup.img["alt"].startswith("Error over steps") and soup.figcaption.text.startswith(
        "The fast row ends lower."
    )
    assert soup.select_one(".verdict.holds") and soup.select("a[href^='../records/fast-small-s0']")
    board = scoreboard([view])
    assert "toy.html#claim-" in board and 'data-verdict="holds"' in board
    executed = json.loads((project / "book" / "toy-notebook.ipynb").read_text())
    assert any("<img" in str(cell.get("outputs")) for cell in executed["cells"])
