"""`make report`: the built book as one page, with its links, pictures and folded parts as paper needs them."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("book_report", ROOT / "book" / "report.py")
printed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(printed)

NAV = """<nav class="bd-links"><a class="internal" href="#">The book</a><p class="caption">Results</p>
<a class="internal" href="artifacts/a.html">A &amp; more</a></nav>"""
INTRO = f"""<html><body>{NAV}<article class="bd-article"><section id="top"><h1>The book<a class="headerlink"
href="#top">#</a></h1><p><a href="artifacts/a.html#part">part</a> <a href="artifacts/a.html">page</a>
<a href="records/r.html">s0</a> <a href="https://arxiv.org">outside</a></p></section></article></body></html>"""
PAGE = """<html><body><article><section id="top"><h1>A</h1><form class="filters"><output></output></form>
<figure class="plot" data-explore="a"><img class="only-light" src="../figures/a.svg" alt="a"><img class="only-dark"
src="../figures/a-dark.svg" alt="a"><figcaption>See. <span class="files"><a href="../figures/a.csv">CSV</a></span>
</figcaption></figure><details id="part"><summary>More</summary><table id="t"><tr><td>folded</td></tr></table></details>
<a href="#part">above</a> <a href="../intro.html#top">start</a><svg><title>d</title><path id="d"/><use href="#d"/></svg>
<script>alert(1)</script></section></article></body></html>"""


@pytest.fixture
def site(tmp_path):
    """A built book of two pages, beside which a report is written."""
    root = tmp_path / "book" / "_build" / "html"
    (root / "artifacts").mkdir(parents=True)
    (root / "_static").mkdir()
    shutil.copy(ROOT / "book" / "report.py", tmp_path / "book")
    for name in ("book.css", "report.css", "report.js"):
        shutil.copy(ROOT / "book" / "assets" / name, root / "_static")
    (root / "intro.html").write_text(INTRO)
    (root / "artifacts" / "a.html").write_text(PAGE)
    return root


def test_all_pages_are_there_in_order_with_the_contents_first(site):
    page = BeautifulSoup(printed.report(site), "html.parser")
    assert [h.get_text(strip=True) for h in page.find_all("h1")] == ["The book", "The book", "A"]
    assert [a.text for a in page.select("nav a")] == ["The book", "A & more"] and page.nav.p.text == "Results"
    ids = [element["id"] for element in page.find_all(id=True)]
    assert len(ids) == len(set(ids))


def test_links_between_pages_lead_to_their_places_and_others_are_text(site):
    page = BeautifulSoup(printed.report(site), "html.parser")
    for link in page.find_all("a", href=True):
        assert link["href"] == "https://arxiv.org" or page.find(id=link["href"].removeprefix("#")), link
    assert page.find("a", string="part")["href"] == "#artifacts-a--part" == page.find("a", string="above")["href"]
    assert page.find("a", string="s0") is None and "s0" in page.text


def test_what_folds_is_open_and_what_needs_a_screen_is_left_out(site):
    page = BeautifulSoup(printed.report(site), "html.parser")
    assert all(fold.has_attr("open") for fold in page.find_all("details")) and page.find("details")
    assert not page.select("form, .headerlink, img.only-dark, main script, .files")
    (image,) = page.find_all("img")
    assert image["src"] == "../html/figures/a.svg" and image["alt"] == "a"
    assert page.svg.path["id"] == "d"  # what a drawing refers to keeps its name


def test_without_a_browser_there_is_the_page_and_a_line_that_says_so(site, monkeypatch, capsys):
    monkeypatch.setattr(printed, "__file__", str(site.parent.parent / "report.py"))
    monkeypatch.setattr(printed, "BROWSERS", ())
    assert printed.main() == 0 and (site.parent / "report" / "report.html").exists()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "The report is book/_build/report/report.html" and "No PDF: there is no Chromium" in said[1]
    assert len(said) == 2
    shutil.rmtree(site)
    assert printed.main() == 2 and capsys.readouterr().err == "error: there is no built book: make book\n"


def test_a_browser_that_fails_is_an_error_in_one_line(site, monkeypatch, capsys):
    monkeypatch.setattr(printed, "__file__", str(site.parent.parent / "report.py"))
    monkeypatch.setattr(printed, "BROWSERS", ("false",))
    assert printed.main() == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (site.parent / "report" / "report.pdf").exists()


@pytest.mark.skipif(not any(map(shutil.which, printed.BROWSERS)), reason="no Chromium: apt-get install chromium")
def test_the_pdf_names_no_file_of_this_machine(site, monkeypatch):
    monkeypatch.setattr(printed, "__file__", str(site.parent.parent / "report.py"))
    assert printed.main() == 0
    data = (site.parent / "report" / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF") and b"file:" not in data and b"https://arxiv.org" in data
