"""Check the built book and its sources: `python book/check.py` after a build; exit status 1 and a line per problem.

In the HTML: dead links and anchors, missing files, anything loaded from outside, images without a description, pages
without exactly one top heading. In executed notebooks: errors, cells that did not run. In hand-written text (pages,
notebook sources, README): numbers that look like results. A result comes from a record, through a generated part; a
value that a paper prints is marked as such.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from rmtlib.runs.provenance import cores

Problem = tuple[str, str, str]  # file, what, where

LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}
LOADING_LINKS = {"stylesheet", "preload", "icon", "shortcut", "modulepreload"}
IMPORT = re.compile(r"""(?:@import\s+(?:url\()?|url\()\s*['"]?(https?:)?//""")

COLOURED = re.compile(r'<span class="[a-z]{1,2}\d?">([^<]*)</span>')  # a word of code: most of what there is to parse

# What is not running text of ours, or is a number of another kind.
IGNORED = (
    r"^---\n.*?\n---\n",
    r"^(`{3,}|~{3,}|:{3,}).*?^\1",  # code blocks and directives
    r"\$\$.*?\$\$",
    r"(?<!\\)\$[^$\n]+\$",
    r"<!--.*?-->",
    r'<span class="paper">.*?</span>',
    r"\{(?:paper|ours)\}`[^`]*`",
    r"``.+?``",
    r"`[^`]*`",
    r"\]\([^)]*\)",  # the target of a link
    r"https?://\S+",
    r"(?i:arxiv:?|sections?|§|versions?|python|appendix|debian|ubuntu|licen[cs]e|CC BY)\s*\d+(\.\d+)*",
    r"\d+\s?%\s+(?:(?:binomial|bootstrap|confidence|Wilson)\s+)?intervals?",
)
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)|\d(?:\.\d+)?\s?(?:%|\bper ?cent\b)")


def check_html(root: Path) -> Iterator[Problem]:
    """Problems of the built pages below `root`. Pages are read in as many processes as there are cores."""
    root = root.resolve()
    pages = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.relative_to(root).parts]
    if not pages:
        yield str(root), "no pages", "build the book first: make book"
    with ProcessPoolExecutor(cores()) as pool:
        read = dict(zip(pages, pool.map(read_page, pages, [root] * len(pages), chunksize=8), strict=True))
    for path, page in read.items():
        yield from page.problems
        for href in page.links:
            yield from _link(str(path.relative_to(root)), path, href, read)
    for path in sorted(root.rglob("*.css")):
        for found in IMPORT.finditer(path.read_text(encoding="utf-8", errors="replace")):
            yield str(path.relative_to(root)), "external load", found.group(0)


class Page(NamedTuple):
    """What the check needs of a page: its own problems, where its links lead, and its anchors."""

    problems: list[Problem]
    links: list[str]
    anchors: set[str]


def read_page(path: Path, root: Path) -> Page:
    """The page at `path` of the book at `root`."""
    page = BeautifulSoup(COLOURED.sub(r"\1", path.read_text(encoding="utf-8")), "html.parser")
    links = [str(link["href"]) for link in page.find_all("a", href=True)]
    anchors = {str(element["id"]) for element in page.find_all(id=True)}
    return Page([(str(path.relative_to(root)), *found) for found in _problems(page, path)], links, anchors)


def _problems(page: BeautifulSoup, path: Path) -> Iterator[tuple[str, str]]:
    for tag, attribute, url in _loaded(page):
        if urlsplit(url).scheme or url.startswith("//"):
            yield "external load", url
        elif not (path.parent / unquote(urlsplit(url).path)).exists():
            yield f"missing file of {tag} {attribute}", url
    for image in page.select("main img, article img"):
        alt = str(image.get("alt") or "").strip()
        if not alt or alt.startswith(("_images/", "../_images/")):
            yield "image without description", str(image.get("src"))[:80]
    for drawing in page.select("main svg, article svg"):
        labelled = drawing.get("aria-label") or drawing.find("title") or drawing.get("aria-hidden")
        if not labelled and not drawing.find_parent("mjx-container"):
            yield "drawing without title", str(drawing)[:80]
    headings = len(page.select("article h1"))
    redirect = page.find("meta", attrs={"http-equiv": re.compile("refresh", re.I)})
    if headings != 1 and not redirect and path.name not in ("genindex.html", "search.html", "py-modindex.html"):
        yield "top headings", str(headings)


def _loaded(page: BeautifulSoup) -> Iterator[tuple[str, str, str]]:
    for tag, attribute in LOADING.items():
        for element in page.find_all(tag):
            assert isinstance(element, Tag)
            url = str(element.get(attribute) or "")
            relation = element.get("rel") or ()
            if url and not url.startswith("data:") and (tag != "link" or set(relation) & LOADING_LINKS):
                yield tag, attribute, url


def _link(name: str, path: Path, href: str, pages: Mapping[Path, Page]) -> Iterator[Problem]:
    url = urlsplit(href)
    if url.scheme or url.netloc:
        return
    target = (path.parent / unquote(url.path)).resolve() if url.path else path
    if not target.exists():
        yield name, "dead link", href
    elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
        yield name, "dead anchor", href


def check_notebook(path: Path) -> Iterator[Problem]:
    """Problems of an executed notebook."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if "papermill-error-cell-tag" in cell["metadata"].get("tags", []):
            yield path.name, "failed", f"cell {number}"
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip():
            if any(output["output_type"] == "error" for output in cell["outputs"]):
                yield path.name, "error output", f"cell {number}"
            if cell["execution_count"] is None:
                yield path.name, "not executed", f"cell {number}"


def check_text(name: str, text: str) -> Iterator[Problem]:
    """Numbers in hand-written Markdown that look like results: decimals and percentages."""
    for pattern in IGNORED:
        text = re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.S | re.M)
    for number, line in enumerate(text.splitlines(), start=1):
        for found in NUMBER.finditer(line):
            yield name, "hand-typed number", f"{found.group(0)} (line {number}): {line.strip()[:70]}"


def sources(project: Path) -> Iterator[tuple[str, str]]:
    """Every hand-written text: name and Markdown."""
    pages = [path for pattern in ("*.md", "[!_]*/*.md") for path in sorted((project / "book").glob(pattern))]
    for path in [project / "README.md", *pages]:
        yield str(path.relative_to(project)), path.read_text(encoding="utf-8")
    for path in sorted((project / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        yield str(path.relative_to(project)), text


def main() -> int:
    book = Path(__file__).resolve().parent
    problems = list(check_html(book / "_build" / "html"))
    for path in sorted((book / "_generated").glob("*.ipynb")):
        problems += check_notebook(path)
    for name, text in sources(book.parent):
        problems += check_text(name, text)
    for problem in problems:
        print("book: " + ": ".join(problem), file=sys.stderr)
    if problems:
        print(f"error: the book has {len(problems)} problems, listed above", file=sys.stderr)
    else:
        print("Checked: links, anchors, loads from outside, descriptions, headings, notebooks, hand-typed numbers.")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
