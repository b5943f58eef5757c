"""The book: its check finds what it is for, its sources are clean, its parts are written from records and from none."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import fakes
import nbformat
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from rmtlib.book import build, executing
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.experiments.view import view_of
from rmtlib.kept import Job
from rmtlib.notebooks import read_parameters
from rmtlib.report import pages
from rmtlib.report.costs import cost_of
from rmtlib.report.escape import in_markdown
from rmtlib.report.measurements import slug
from rmtlib.report.record_pages import write_records
from rmtlib.report.scoreboard import scoreboard
from rmtlib.report.values import values

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("book_check", ROOT / "book" / "check.py")
check = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # by name, as its processes look for it
spec.loader.exec_module(check)

# The check of the HTML

GOOD = """<html><head><link rel="stylesheet" href="_static/a.css"><script src="_static/a.js"></script></head>
<body><main>
<article><h1 id="top">A</h1><img src="a.png" alt="what it shows"><a href="b.html#part">b</a>
<a href="https://arxiv.org">a link may lead outside</a><svg role="img"><title>drawing</title></svg>
</article></main></body></html>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "a.js").write_text("")
    (tmp_path / "_static" / "a.css").write_text("body { background: url(../a.png) }")
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.html").write_text("<main><article><h1>B</h1><p id='part'></p></article></main>")

    def problems(page: str) -> list[str]:
        (tmp_path / "a.html").write_text(page)
        return [what for _, what, _ in check.check_html(tmp_path)]

    return problems


def test_a_good_page_has_no_problems(site):
    assert site(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('href="b.html#part"', 'href="c.html"', "dead link"),
        ('href="b.html#part"', 'href="b.html#gone"', "dead anchor"),
        ('href="b.html#part"', 'href="#gone"', "dead anchor"),
        ('src="_static/a.js"', 'src="https://cdn.example/a.js"', "external load"),
        ('src="_static/a.js"', 'src="//cdn.example/a.js"', "external load"),
        ('src="_static/a.js"', 'src="_static/b.js"', "missing file of script src"),
        ('href="_static/a.css"', 'href="http://example/a.css"', "external load"),
        ('src="a.png"', 'src="https://example/a.png"', "external load"),
        ('alt="what it shows"', "", "image without description"),
        ('alt="what it shows"', 'alt="  "', "image without description"),
        ('alt="what it shows"', 'alt="_images/a.png"', "image without description"),
        ("<title>drawing</title>", "", "drawing without title"),
        ("</h1>", "</h1><h1>again</h1>", "top headings"),
        ("h1", "h2", "top headings"),
    ],
)
def test_the_check_finds(site, old, new, problem):
    assert old in GOOD
    assert site(GOOD.replace(old, new)) == [problem]


def test_the_check_finds_styles_from_outside_and_an_empty_build(site, tmp_path):
    (tmp_path / "_static" / "a.css").write_text('@import url("https://fonts.example/a.css");')
    assert site(GOOD) == ["external load"]
    (tmp_path / "empty").mkdir()
    assert [what for _, what, _ in check.check_html(tmp_path / "empty")] == ["no pages"]


def test_the_check_finds_errors_in_notebooks(tmp_path):
    cell = nbformat.v4.new_code_cell("1 / 0", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])]
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("2"), nbformat.v4.new_code_cell("")])
    path = tmp_path / "a.ipynb"
    nbformat.write(notebook, path)
    assert [what for _, what, _ in check.check_notebook(path)] == ["error output", "not executed"]


@pytest.mark.parametrize("good", [True, False])
def test_the_command_lists_problems_and_fails(tmp_path, good):
    html = tmp_path / "book" / "_build" / "html"
    html.mkdir(parents=True)
    shutil.copy(ROOT / "book" / "check.py", tmp_path / "book")
    (tmp_path / "README.md").write_text("What it is." if good else "It reaches 0.99.")
    (html / "a.html").write_text(f"<article><h1>A</h1><a href='{'a' if good else 'b'}.html'>a</a></article>")
    done = subprocess.run([sys.executable, tmp_path / "book" / "check.py"], capture_output=True, text=True)
    assert done.returncode == (not good)
    if not good:
        assert done.stderr.splitlines() == [
            "book: a.html: dead link: b.html",
            "book: README.md: hand-typed number: 0.99 (line 1): It reaches 0.99.",
            "error: the book has 2 problems, listed above",
        ]


# The check of the text


@pytest.mark.parametrize(
    "text",
    [
        "RMT reaches 0.96 here.",
        "It is right in 96 % of cases.",
        "It is right in 96% of cases.",
        "A gain of 3.5 points.",
        "- 12 per cent",
        "| qa1 | 0.83 |",
        "*0.5*",
    ],
)
def test_hand_typed_results_are_found(text):
    assert [what for _, what, _ in check.check_text("a", text)] == ["hand-typed number"]


@pytest.mark.parametrize(
    "text",
    [
        "Trained with 32 segments of 512 tokens, three seeds, Figure 5, qa1.",
        "The paper has {paper}`96.5 %` there.",
        'The paper has <span class="paper">96.5 %</span> there.',
        "`lr=0.5` and ``0.5``",
        "```\n0.5\n```",
        "```{code} python\n:x: 0.5\n0.96\n```\n",
        "$0.5 x$ and $$\n0.5\n$$",
        "[text](https://example.org/1.25) and https://example.org/0.5",
        "see section 3.3, arXiv 2207.06881, Python 3.11, version 1.0.4",
        "a 95 % interval, the 95 % bootstrap interval",
        "version v2.x of rotary-emb1.5b",
    ],
)
def test_other_numbers_are_not(text):
    assert list(check.check_text("a", text)) == []


def test_every_page_and_notebook_source_and_the_readme_are_clean():
    names = [name for name, _ in check.sources(ROOT)]
    assert {
        "README.md",
        "book/intro.md",
        "book/artifacts/figure-5.md",
        "book/api/models.md",
        "notebooks/figure-5.ipynb",
    } <= set(names)
    assert [problem for name, text in check.sources(ROOT) for problem in check.check_text(name, text)] == []


def test_the_references_examples_run():
    page = (ROOT / "book" / "api.md").read_text()
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec("\n".join(blocks), names)
    assert len(blocks) == 3 and names["loss"].item() > 0 and names["longer"].shape[1] == 84
    assert names["hidden"].shape == (1, 16, 32) and 3 < names["stored"] < 4 and names["sample"].tokens.shape == (36,)


def test_the_tests_that_the_page_on_released_code_names_exist():
    page = (ROOT / "book" / "released-code.md").read_text()
    named = re.findall(r"`(test_\w+\.py)`: `(test_\w+)`", page)
    assert len(named) > 10
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file} has no {name}"


# Notebooks as they are stored


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_clean(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert len(cell.source.splitlines()) <= 20, "a cell's work belongs into rmtlib"
    if path.stem not in ARTIFACTS:
        return
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == tags.count("differences") == 1
    assert {"SCALE", "SEEDS", "TASKS", "ROWS", "PRECISION", "TRAIN", "PUBLISHED_ONLY", "OUT"} <= set(
        read_parameters(path)
    )


def test_every_artifact_has_notebook_page_and_parts():
    assert {path.stem for path in NOTEBOOKS} == {*ARTIFACTS, "tutorial", "explore"}
    for name in ARTIFACTS:
        page = (ROOT / "book" / "artifacts" / f"{name}.md").read_text()
        for part in ("results", "details"):
            assert f"_generated/{name}/{part}.md" in page


# Generated parts


def soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def test_without_records_all_parts_say_so_and_what_they_would_cost(tmp_path):
    view = view_of("figure-5")
    assert "not run" in scoreboard([view])
    assert "Not run" in write_records([view], tmp_path)
    assert "not run" in view.claims()
    rows = {row.th.text: row.text for row in soup(pages.scales_table(view, tmp_path).to_html()).select("tbody tr")}
    assert set(rows) == {"small", "medium", "gpu", "paper"}  # smoke is no result
    for text in rows.values():
        assert "not run" in text and "tokens" in text and "memory" in text
    assert soup(pages.figure_fragment(view, tmp_path)).img["alt"]
    assert view.summary() and "small" not in view.tables()


def test_every_record_has_a_page_its_file_and_a_place_in_the_index(tmp_path):
    live, published = fakes.seeds("qa1", (0.1, 0.2)), fakes.seeds("qa2", (0.3,))
    published[0]["notes"] = ["stopped <twice> & resumed"]
    index = soup(write_records([view_of("figure-5", live, published)], tmp_path / "records"))
    assert len(index.select("tbody tr")) == 2  # a line for both seeds of qa1
    for record in [*live, *published]:
        name = slug(record)
        assert index.find("a", href=f"records/{name}.html").text == f"s{record['seed']}"
        assert json.loads((tmp_path / "records" / f"{name}.json").read_text()) == record
        page = soup((tmp_path / "records" / f"{name}.html").read_text())
        assert f"{record['metrics']['exact_match'][-1]['correct'] / 500:.4f}" in page.text
        again = f"rmtlib run figure-5 --scale small --rows '{record['row']}' --seeds {record['seed'] + 1}"
        assert again in page.pre.text and record["git"]["commit"] in page.pre.text
        assert page.find("a", download=True)["href"] == f"{name}.json"
        assert page.svg.title.text == "loss from 2 to 1 over 200 steps"
        assert ("a run of this machine" in page.text) == (record["row"] == "qa1")
    assert page.find("twice") is None and "stopped <twice> & resumed" in page.text


def test_numbers_of_hand_written_text_are_those_of_the_records():
    found = values([view_of("figure-5", published=fakes.seeds("qa1", (0.02, 0.10, 0.18)))])
    assert found["figure-5/small/qa1"]["text"] == "0.97 ± 0.00"  # at 4 segments, the longest trained
    assert found["figure-5/small/qa1@1024"]["text"] == "0.87 ± 0.08"  # one doubling beyond
    assert found["figure-5/small/qa1"]["page"].startswith("records/qa1-small-s0-")
    assert found["figure-5/gpu/qa2"] == {"text": "not run", "hint": "", "page": ""}
    assert "figure-5/small/qa9" not in found and "figure-5/huge/qa1" not in found


HOSTILE = (
    "\n\n<script>alert(1)</script>\n\n# A heading\n\n```{literalinclude} /etc/passwd\n```\n\n![x](https://x.y/z.png)"
)


def test_no_text_of_a_record_is_obeyed(tmp_path):
    """Not even of one that no check has seen: neither as HTML nor as Markdown, in whose pages the HTML stands."""
    record = fakes.record(params={"questions": HOSTILE, HOSTILE: 1}, unread={HOSTILE: HOSTILE})
    record |= {"notes": [HOSTILE], "precision": HOSTILE, "packages": {HOSTILE: HOSTILE}, "finished": HOSTILE}
    record["data"] = [{"name": HOSTILE, "source": HOSTILE, "sha256": HOSTILE}]
    record["git"] = {"commit": HOSTILE, "dirty": False}
    record["hardware"] = {"cpu": HOSTILE}
    view = view_of("figure-5", published=[record])
    shown = write_records([view], tmp_path) + pages.settings_fragment(view) + view.tables() + view.claims()
    kinds = [token.type for token in MarkdownIt("commonmark").parse(shown)]
    assert not {"heading_open", "fence", "code_block", "image"} & set(kinds)
    inline = [token.content for token in MarkdownIt("commonmark").parse(shown) if token.type == "inline"]
    assert not any("script" in text or "literalinclude" in text for text in inline)
    page = soup(shown)
    assert "alert(1)" in page.text and not page.select("script, img")
    page = soup(next(tmp_path.glob("*.html")).read_text())
    assert "alert(1)" in page.text and not page.select("img")
    assert all(script["src"] == "../_static/book.js" and not script.text for script in page.select("script"))


def test_text_in_a_line_of_markdown_is_no_markdown():
    (paragraph, inline, _) = MarkdownIt("commonmark").parse(in_markdown(HOSTILE + " *a* `b` [c](d) $x$ {paper}`e`"))
    assert paragraph.type == "paragraph_open" and {child.type for child in inline.children} <= {"text", "text_special"}
    assert "![x](https://x.y/z.png)" in "".join(child.content for child in inline.children)


def test_pages_use_the_escape_that_also_knows_markdown():
    for path in sorted((ROOT / "rmtlib").rglob("*.py")):
        if path.name != "escape.py":
            assert not re.search(r"^(from html import|import html\b)", path.read_text(), re.MULTILINE), path


def test_a_record_that_verify_refuses_stops_the_book(tmp_path):
    """A sealed record, so that only `verify` notices."""
    record = fakes.record(n=None) | {"hardware": {}}
    fakes.publish(tmp_path / "results", [record])
    with pytest.raises(RmtlibError, match="the book shows only what `rmtlib verify` accepts: .*hardware is {}"):
        build(tmp_path / "out", ROOT / "notebooks", tmp_path / "runs", tmp_path / "results", *[tmp_path / "none"] * 2)
    assert not (tmp_path / "out").exists()
    folder = tmp_path / "runs" / "figure-5" / slug(record)
    fakes.publish(tmp_path / "elsewhere", [record])
    folder.mkdir(parents=True)
    shutil.copy(next((tmp_path / "elsewhere").rglob("*.json")), folder / "record.json")
    with pytest.raises(RmtlibError, match="the record of qa1-small-s0-.* has impossible numbers .hardware is"):
        build(
            tmp_path / "out", ROOT / "notebooks", tmp_path / "runs", tmp_path / "no", *[tmp_path / "none"] * 2, "small"
        )


def test_settings_come_from_the_configs():
    view = view_of("figure-5")
    rows = {
        row.th.text: [td.text for td in row.select("td")]
        for row in soup(pages.settings_fragment(view)).select("tbody tr")
    }
    expected = [view.artifact.config("qa1", s, 0).params["memory_tokens"] for s in view.artifact.scales]
    assert rows["memory_tokens"] == [str(value) for value in expected]


def test_pages_do_not_depend_on_the_files_of_the_machine(monkeypatch, tmp_path):
    for view in (
        view_of("figure-5"),
        view_of("figure-5", published=[fakes.record(params={"questions": "simulator", "earlier": 1})]),
    ):
        shown = []
        for state in ("absent", "cached"):
            monkeypatch.setattr("rmtlib.data.sources.state", lambda name, state=state: state)
            shown.append(
                pages.settings_fragment(view)
                + cost_of(view.artifact, view.results.records, "gpu", product(["qa1", "qa2"], range(3)), tmp_path)
            )
        assert shown[0] == shown[1] and "<td>gpt2</td>" in shown[0].replace(' class="prose"', "")
    row = next(tr for tr in soup(shown[0]).select("tr") if tr.th.text == "questions")
    assert [td.text for td in row.select("td")] == ["simulator", "simulator", "files", "files", "files"]


def test_saving_leaves_figure_table_and_summary(tmp_path):
    said = view_of("figure-5", fakes.seeds("qa1", (0.05, 0.1, 0.15))).save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"figure-5.png", "figure-5.svg", "figure-5.csv", "summary.txt"}
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert all(name in summary for name in ("figure-5.png", "figure-5.svg", "figure-5.csv", "figure-5.ipynb"))
    assert str(tmp_path / "out" / "figure-5.png") in said


# Writing the pages stops


def test_a_record_that_was_edited_stops_the_pages_in_one_line(tmp_path):
    for folder in ("book", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("_build", "_generated"))
    fakes.publish(tmp_path / "results", fakes.seeds("qa2", (0.3,), n=None))  # as many samples as the settings say
    path = next((tmp_path / "results" / "figure-5").glob("qa2*.json"))
    good = path.read_text()
    path.write_text(re.sub(r'"correct": \d+', '"correct": 7', good, count=1))
    assert path.read_text() != good
    command = [sys.executable, "-m", "rmtlib.book", "--out", "elsewhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1 and path.name in done.stderr


def test_a_notebook_that_fails_stops_the_pages_in_one_line(tmp_path):
    bad, good = tmp_path / "bad.ipynb", tmp_path / "good.ipynb"
    for path, source in ((bad, "1 / 0"), (good, "1 + 1")):
        tagged = nbformat.v4.new_code_cell("A: int = 1", metadata={"tags": ["parameters"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[tagged, nbformat.v4.new_code_cell(source)]), path)
    with pytest.raises(RmtlibError, match=r"bad.ipynb, cell 2: ZeroDivisionError"):
        with executing([Job(path, tmp_path / "out" / path.name) for path in (good, bad)]):
            pass
    assert nbformat.read(tmp_path / "out" / "good.ipynb", 4).cells[1].outputs
