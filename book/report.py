"""The built book as one page to print, and as PDF if there is a Chromium: `python book/report.py` after a build.

Takes the pages in the order of the contents, without those of records. Links between them lead to their places in the
page; links to what is not in it become plain text, so that the PDF names no file of this machine.
"""

import html
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = (  # what only a screen has a use for
    "a.headerlink, .viewcode-link, form.filters, img.only-dark, script, .d-print-none, .toctree-wrapper, .files"
)
TYPESET_S = 120  # for the maths of the whole book

SHELL = """<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{root}/_static/pygments.css">
<link rel="stylesheet" href="{root}/_static/styles/theme.css">
<link rel="stylesheet" href="{root}/_static/styles/pydata-sphinx-theme.css">
<link rel="stylesheet" href="{root}/_static/styles/sphinx-book-theme.css">
<link rel="stylesheet" href="{root}/_static/mystnb.css">
<link rel="stylesheet" href="{root}/_static/book.css">
<link rel="stylesheet" href="{root}/_static/report.css">
<script>window.MathJax = {{options: {{processHtmlClass: "tex2jax_process|mathjax_process|math|output_area"}}}};</script>
<script defer src="{root}/_static/mathjax/tex-svg.js"></script>
<script defer src="{root}/_static/report.js"></script>
</head>
<body class="plain report"><main class="bd-content">
<nav aria-label="Contents"><h1>{title}</h1>{contents}</nav>
{articles}
</main></body>
</html>
"""


def pages(root: Path) -> Iterator[tuple[str, str]]:
    """("", caption) of each part and (address, title) of each page of the book in `root`, in its order."""
    soup = BeautifulSoup((root / "intro.html").read_text(encoding="utf-8"), "html.parser")
    for entry in soup.select("nav.bd-links p.caption, nav.bd-links a"):
        address, title = str(entry.get("href") or ""), entry.get_text(" ", strip=True)
        yield ("intro.html" if address == "#" else address), title


def place(address: str, anchor: str = "") -> str:
    """The id in the report of a page, or of a part of it."""
    name = address.removesuffix(".html").replace("/", "-")
    return f"{name}--{anchor}" if anchor else name


def article(root: Path, address: str, included: set[str], up: str) -> str:
    """A page's text with ids and addresses as the report needs them; `up` leads from the report to the book."""
    soup = BeautifulSoup((root / address).read_text(encoding="utf-8"), "html.parser")
    found = soup.find("article")
    assert isinstance(found, Tag), f"{address} has no article"
    for element in found.select(LEFT_OUT):
        element.decompose()
    for element in found.find_all("details"):
        element["open"] = ""
    for element in found.find_all(id=True):
        if not element.find_parent("svg"):
            element["id"] = place(address, str(element["id"]))
    for element in found.select("[tabindex]"):
        del element["tabindex"]
    for image in found.find_all("img", src=True):
        image["src"] = _resolved(address, str(image["src"]), up)
    for link in found.find_all("a", href=True):
        _link(link, address, included)
    found.name = "section"
    found["id"] = place(address)
    return str(found)


def _resolved(address: str, url: str, up: str) -> str:
    if urlsplit(url).scheme or url.startswith("//"):
        return url
    return f"{up}/{normpath(str(PurePosixPath(address).parent / url))}"


def _link(link: Tag, address: str, included: set[str]) -> None:
    url = urlsplit(str(link["href"]))
    if url.scheme or url.netloc:
        return
    target = normpath(str(PurePosixPath(address).parent / url.path)) if url.path else address
    if target in included:
        link["href"] = "#" + place(target, url.fragment)
    else:
        link.name = "span"
        del link["href"]


def report(root: Path) -> str:
    """The page, for a folder beside the book's."""
    listed = list(pages(root))
    included, up = {address for address, _ in listed if address}, f"../{root.name}"
    contents = "".join(
        f'<li><a href="#{place(address)}">{title}</a></li>' if address else f"</ul><p>{title}</p><ul>"
        for address, title in ((address, html.escape(title)) for address, title in listed)
    )
    articles = "\n".join(article(root, address, included, up) for address, _ in listed if address)
    title = listed[0][1]
    return SHELL.format(title=html.escape(title), root=up, contents=f"<ul>{contents}</ul>", articles=articles)


def to_pdf(browser: str, page: Path, target: Path) -> None:
    """Print the page; RuntimeError with the browser's last words if it leaves no PDF."""
    flags = ["--headless", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
    flags += ["--no-sandbox"] * (os.geteuid() == 0) + [f"--virtual-time-budget={TYPESET_S * 1000}"]
    command = [browser, *flags, f"--print-to-pdf={target}", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=5 * TYPESET_S)
    if done.returncode or not target.exists():
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])


def main() -> int:
    book = Path(__file__).parent / "_build"
    if not (book / "html" / "intro.html").exists():
        print("error: there is no built book: make book", file=sys.stderr)
        return 2
    page = book / "report" / "report.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text(report(book / "html"), encoding="utf-8")
    print(f"The report is {page.relative_to(book.parent.parent)}")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print("No PDF: there is no Chromium here (apt-get install chromium); print that page from a browser instead")
        return 0
    target = page.with_suffix(".pdf")
    target.unlink(missing_ok=True)
    try:
        to_pdf(browser, page, target)
    except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
        print(f"error: {browser} made no PDF ({' '.join(str(error).split())[:200]})", file=sys.stderr)
        return 2
    print(f"The PDF is {target.relative_to(book.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
