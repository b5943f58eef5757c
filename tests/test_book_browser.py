"""The built book, most of it in a browser, opened from the file system: `make test-book` after `make book`.

Looks at the folder that RMTLIB_BOOK names, so that `make test` does not judge a book of other code; skipped without a
browser or a book.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from rmtlib.experiments.view import view_of
from rmtlib.report.values import values
from rmtlib.runs.records import find_records

ROOT = Path(__file__).parent.parent
BOOK = Path(os.environ.get("RMTLIB_BOOK", "no book"))
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
THEMES = ("light", "dark")
VIEWS = ((1440, "light"), (768, "dark"), (390, "light"))  # layout is the width's, colours are the theme's
TALLEST = 5000  # pixels of an artifact's page at 1440, with nothing unfolded
SMOKE = 800
OF_THE_THEMES = {"label-content-name-mismatch", "region"}  # of axe

pytestmark = pytest.mark.skipif(not (BOOK / "index.html").exists(), reason="opened by make test-book, after make book")


def names() -> list[str]:
    """A page of every template, and five records."""
    records = sorted(BOOK.glob("records/*.html"))
    some = records[:: max(1, len(records) // 5)][:5]
    pages = [
        "intro",
        "records",
        "speed",
        "stress",
        "protocol",
        "running",
        "memories",
        "negative-results",
        "method",
        "method-armt",
        "api",
        "search",
        "genindex",
    ]
    pages += [f"artifacts/{path.stem}" for path in sorted(BOOK.glob("artifacts/*.html"))]
    pages += ["api/models", "_generated/tutorial", "_generated/figure-5-notebook"]
    return [name for name in pages if (BOOK / f"{name}.html").exists()] + [f"records/{path.stem}" for path in some]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if BROWSER is None:
        pytest.skip("no Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Opens a page of the book; what it says on the console and what it asks of others is in `page.complaints`."""
    contexts = []

    def opened(name: str, width: int = 1440, theme: str = "light", query: str = ""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:")) else page.complaints.append(f"outside: {r.url}"),
        )
        page.goto(f"{(BOOK / name).resolve().as_uri()}.html{query}")
        if name != "index":  # which leads on to the front page
            page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        return page

    yield opened
    for context in contexts:
        context.close()


CUT = """() => [...document.querySelectorAll("article pre, article table, article figure.plot img")].filter(element => {
  if (!element.offsetParent || element.scrollWidth <= 0) return false;
  for (let box = element; box && box !== document.body; box = box.parentElement) {
    if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
  }
  return element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize(("width", "theme"), VIEWS)
def test_every_template_is_clean_at_every_width_and_in_both_themes(open_page, width, theme):
    for name in names():
        page = open_page(name, width, theme)
        assert page.complaints == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the window"
        assert page.evaluate(CUT) == [], name
        assert page.evaluate("document.documentElement.dataset.theme") == theme, name
        unset = "document.querySelectorAll('.math').length && !document.querySelector('mjx-container')"
        assert not page.evaluate(unset), f"{name}: its maths is not typeset"
        for image in page.query_selector_all("article img.only-light, article img.only-dark"):
            assert image.is_visible() == (f"only-{theme}" in image.get_attribute("class")) or not image.is_visible()
        page.context.close()


OF_EACH_KIND = ("intro", "records", "speed", "method", "api", "search", "artifacts/figure-5", "_generated/tutorial")


@pytest.mark.timeout(900)  # axe looks at everything in a page, several seconds long
@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_but_what_the_themes_themselves_have(open_page, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = {}
    for name in [name for name in names() if name in OF_EACH_KIND or name.startswith("records/")][:10]:
        page = open_page(name, theme=theme)
        if page.locator("p.explore button").count():
            explore(page)
        page.wait_for_function("document.getAnimations().every(each => each.playState !== 'running')")  # of colours
        for violation in axe.run(page).response["violations"]:
            if violation["id"] not in OF_THE_THEMES:
                found.setdefault(violation["id"], {})[name] = violation["nodes"][0]["html"][:200]
        page.context.close()
    assert found == {}


def test_the_first_page_is_the_front_page(open_page):
    page = open_page("index")
    page.wait_for_url("**/intro.html")
    assert page.locator("table.tally").is_visible() and page.locator("#table-claims").is_visible()


def test_numbers_are_those_of_the_records_and_lead_to_them():
    """In the tables and in the text of an artifact's page."""
    page = BeautifulSoup((BOOK / "artifacts" / "figure-5.html").read_text(encoding="utf-8"), "html.parser")
    published = find_records("figure-5", where=(ROOT / "results",))
    told = {value["text"] for value in values([view_of("figure-5", published=published)]).values()}
    said = {a.text for a in page.select("a.ours")}
    assert said and said <= told
    for chosen in ("table a", "a.ours"):
        links = {a["href"] for a in page.select(chosen) if a["href"].startswith("../records/")}
        assert links
        for link in links:
            record = BOOK / "records" / Path(link).name
            made = json.loads(record.with_suffix(".json").read_text(encoding="utf-8"))
            assert record.stem.endswith(made["run_id"])
            shown = BeautifulSoup(record.read_text(encoding="utf-8"), "html.parser")
            assert record.stem in shown.find("a", download=True)["href"]


def test_an_artifacts_notebook_is_shown_with_its_figure():
    page = BeautifulSoup((BOOK / "_generated" / "figure-5-notebook.html").read_text(encoding="utf-8"), "html.parser")
    assert page.select(".cell_output img[alt]")


def test_no_artifact_page_is_longer_than_can_be_read(open_page):
    heights = {}
    for path in sorted(BOOK.glob("artifacts/*.html")):
        page = open_page(f"artifacts/{path.stem}")
        smoke = page.locator('figure.plot img[alt*="smoke scale"]').count()  # `make book SCALE=smoke` adds a panel
        heights[path.stem] = page.evaluate("document.documentElement.scrollHeight") - (SMOKE if smoke else 0)
    assert {name: height for name, height in heights.items() if height > TALLEST} == {}


def test_search_finds_a_term_and_shows_where_it_stands(open_page):
    page = open_page("search", query="?q=transformer")
    page.wait_for_selector("#search-results li .context")
    excerpts = page.locator("#search-results li .context").all_inner_texts()
    assert any("transformer" in text.lower() for text in excerpts) and page.complaints == []


def rows_shown(page, table: str) -> list:
    return [row for row in page.query_selector_all(f"#{table} tbody tr") if row.is_visible()]


def test_the_scoreboard_filters_and_sorts(open_page):
    page = open_page("intro")
    every = len(page.query_selector_all("#table-claims tbody tr"))
    decided = rows_shown(page, "table-claims")
    assert 0 < len(decided) < every and {row.get_attribute("data-kind") for row in decided} == {"primary"}
    page.locator('[data-filter="kind"]').uncheck()
    assert len(rows_shown(page, "table-claims")) == every
    page.locator('[data-filter="paper"]').select_option("ARMT")
    shown = rows_shown(page, "table-claims")
    assert 0 < len(shown) < every and {row.get_attribute("data-paper") for row in shown} == {"ARMT"}
    page.locator('[data-filter="text"]').fill("no such words")
    assert rows_shown(page, "table-claims") == []
    assert page.locator('form[data-for="table-claims"] output').inner_text() == f"0 of {every} shown"
    page.locator('[data-filter="text"]').fill("")
    heading = page.locator("#table-claims thead button").nth(1)
    for direction in ("ascending", "descending"):
        heading.click()
        said = [row.query_selector("td:nth-child(2)").inner_text().lower() for row in rows_shown(page, "table-claims")]
        assert said == sorted(said, reverse=direction == "descending")
        assert page.locator(f'#table-claims th[aria-sort="{direction}"]').count() == 1


def test_a_phone_shows_the_scoreboard_as_cards_with_the_verdict_first(open_page):
    page = open_page("intro", width=390)
    card = rows_shown(page, "table-claims")[0]
    boxes = [cell.bounding_box() for cell in card.query_selector_all("td")]
    assert card.query_selector("td .verdict") and all(box["x"] == boxes[0]["x"] for box in boxes)
    assert all(a["y"] + a["height"] <= b["y"] + 1 for a, b in zip(boxes, boxes[1:], strict=False))


def test_records_are_found_and_lead_to_the_command_that_makes_them_again(open_page):
    page = open_page("records")
    if page.locator("#table-records tbody tr").count() == 0:
        pytest.skip("a book without records")
    name = page.locator("#table-records tbody tr").first.locator("td").first.inner_text()
    page.locator('[data-filter="text"]').fill(name)
    shown = rows_shown(page, "table-records")
    assert shown and all(name in row.inner_text() for row in shown)
    page.locator("#table-records tbody tr:visible td:nth-child(5) a").first.click()
    assert page.locator("pre").first.inner_text().splitlines()[1].startswith(f"rmtlib run {name} --scale ")
    assert page.locator("a[download]").count() == 1
    before = page.evaluate("document.documentElement.dataset.theme")
    page.locator("[data-switch-theme]").click()
    assert page.evaluate("document.documentElement.dataset.theme") != before and page.complaints == []


def explored() -> list[str]:
    """The pages whose figure can be explored."""
    return [p.stem for p in sorted(BOOK.glob("artifacts/*.html")) if " data-explore=" in p.read_text(encoding="utf-8")]


def explore(page):
    """Opens the page's figure; returns it."""
    page.locator("p.explore button").click()
    page.wait_for_selector("figure.exploring .chart .scatterlayer .trace")
    return page.locator("figure.exploring")


def lines(figure) -> list:
    return figure.locator(".scatterlayer .trace").all()


@pytest.mark.parametrize(("width", "theme"), VIEWS)
def test_figures_can_be_explored_and_the_static_ones_come_back(open_page, width, theme):
    assert "figure-5" in explored()
    for name in explored():
        page = open_page(f"artifacts/{name}", width, theme)
        assert page.locator("script[src*=plotly]").count() == 0, "plotly.js is loaded before it is asked for"
        figure = explore(page)
        assert page.locator("script[src*=plotly]").count() == 1
        assert not figure.locator(f"img.only-{theme}").is_visible() and page.complaints == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert not page.locator(".modebar-btn[data-title*='Share']").count(), "a button that sends the data elsewhere"
        assert page.locator("figure.plot figcaption").first.is_visible()
        figure.locator("[name=x-axis]").select_option("linear")
        figure.locator("[name=x-axis]").select_option("log")
        assert page.evaluate("document.querySelector('.chart').layout.xaxis.type") == "log"
        page.locator("p.explore button").click()
        assert page.locator(f"figure.plot img.only-{theme}").first.is_visible() and page.complaints == [], name
        assert page.locator("figure.plot figcaption").first.is_visible()
        page.context.close()


def test_hovering_shows_a_value_with_its_seed_and_choosing_hides_the_others(open_page):
    page = open_page("artifacts/figure-5")
    figure = explore(page)
    every = len(lines(figure))
    assert every > 1
    figure.locator("fieldset", has_text="Runs").locator("input").last.uncheck()  # the paper's values
    assert 0 < len(lines(figure)) < every
    for box in figure.locator("fieldset", has_text="Tasks").locator("input:not([value=qa1])").all():
        box.uncheck()
    for value in ("mean", "0"):
        figure.locator("fieldset", has_text="Seeds").locator(f"input[value='{value}']").set_checked(value == "0")
    (line,) = lines(figure)
    point = line.locator(".point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    said = page.locator(".hoverlayer .hovertext").first.text_content()
    assert said.startswith(("0.", "1.")) and "qa1" in said and "seed 0" in said and "n = " in said
    assert page.complaints == []


def test_another_theme_recolours_the_explored_figure(open_page):
    page = open_page("artifacts/memory-capacity")
    colour = "document.querySelector('.chart').data[0].line.color"
    explore(page)
    before = page.evaluate(colour)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{colour} !== {before!r}")


def test_a_link_into_a_folded_part_unfolds_it(open_page):
    page = open_page("intro")
    page.locator('[data-filter="kind"]').uncheck()
    described = page.locator('#table-claims tr[data-kind="described"] a').first
    target = described.get_attribute("href").partition("#")[2]
    described.click()
    page.locator(f"#{target}").wait_for(state="visible")
