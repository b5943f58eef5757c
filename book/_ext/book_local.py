"""What the book adds to Sphinx and its themes: no network, plain docstrings, roles for numbers, search."""

import html
import json
import re
from functools import cache
from pathlib import Path

from docutils import nodes

from rmtlib.runs.provenance import cores

BULLET = re.compile(r"([-*] |\d+\. )")
TOGGLE = '<summary aria-label="Show or hide the pages below"><span class="toctree-toggle"'
PARAMETERS = re.compile(
    r"<dl>\s*((?:<dd>(?:(?!</?d[ldt]>).)*</dd>\s*)+)</dl>", re.S
)  # of a signature over several lines
ARTICLE = re.compile(r"<article\b.*?</article>", re.S)
NO_TEXT = re.compile(r"<(script|style|template)\b.*?</\1>|<!--.*?-->|<[^>]*>", re.S)
CODE = re.compile(r"(``.+?``|`[^`]+`)")


def write_on_all_cores(app, env):
    """Write pages in as many processes as there are cores. (Not all extensions let pages be read so.)"""
    app.parallel = 1 + cores()  # Sphinx counts its own process, which writes none


def drop_thebe(app, pagename, templatename, context, doctree):
    """Remove the scripts of live code cells: they load from the network, and declare a constant twice."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(getattr(script, "filename", "") or "")
        and "THEBE_JS_URL" not in str((getattr(script, "attributes", None) or {}).get("body", ""))
    ]


def plain_docstring(app, what, name, obj, options, lines):
    """Docstrings are plain text: code spans and lists stay, drawings and aligned lines stand as they are.

    Without this a `*`, a `|` or an underscore at a word's end would be markup, and a shape table an error.
    """
    blocks, result = "\n".join(lines).strip("\n").split("\n\n"), []
    for block in (b for b in blocks if b.strip()):
        rows = block.splitlines()
        head, rest = rows[0], rows[1:]
        if re.match(r"(Args|Returns|Raises|Yields|Example|Examples|Note|Shapes):\s*$", head.strip()) and rest:
            result += [f"**{head.strip()[:-1]}**", "", *_verbatim(rest)]
        elif BULLET.match(head):
            indent = " " * len(BULLET.match(head).group())
            result += [row if BULLET.match(row) else indent + row.strip() for row in map(_escape, rows)]
            result.append("")
        elif any(row.startswith(" ") for row in rows):
            result += _verbatim(rows)
        else:
            result += [*(_escape(row) for row in rows), ""]
    lines[:] = result


def _verbatim(rows):
    margin = min((len(row) - len(row.lstrip()) for row in rows if row.strip()), default=0)
    return [".. code-block:: text", "", *("   " + row[margin:] for row in rows), ""]


def _escape(row):
    bullet = BULLET.match(row)
    start = bullet.end() if bullet else 0
    parts = CODE.split(row[start:])
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = part if part.startswith("``") else f"`{part}`"
        else:
            parts[i] = re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part)
    return re.sub("::$", ":", row[:start] + "".join(parts))  # the block below is set as code in any case


def mend_pages(app, error):
    """Names for the arrows of the side bar, and signatures that are no lists of definitions without terms."""
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            page = path.read_text(encoding="utf-8")
            mended = page.replace('<summary><span class="toctree-toggle"', TOGGLE)
            mended = PARAMETERS.sub(_parameters, mended)
            if mended != page:
                path.write_text(mended, encoding="utf-8")


def _parameters(found):
    lines = found.group(1).replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def skip_member(app, what, name, obj, skip, options):
    """Fields of named tuples have no text of their own; their class's signature shows them."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def paper_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """{paper}`96 %`: a value that a paper prints. The book's check lets numbers stand in prose only so."""
    return [nodes.inline(rawtext, text, classes=["paper"])], []


def ours_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """{ours}`enwik8/small/baseline-seg128`: our number, from the records, with a link to the first of them.

    "not run" if there is no record yet; an unknown name stops the build.
    """
    env = inliner.document.settings.env
    values = _values(env.app.srcdir)
    row = values.get("/".join(text.partition("@")[0].split("/")[:3]))
    found = row if row and not row["page"] else values.get(text)
    if found is None:
        message = inliner.reporter.error(
            f"no number is called {text!r}: <artifact>/<scale>/<row>[/<metric>][@<x>]", line=lineno
        )
        return [inliner.problematic(rawtext, rawtext, message)], [message]
    if not found["page"]:
        return [nodes.inline(rawtext, found["text"])], []
    up = "../" * env.docname.count("/")
    link = nodes.reference(rawtext, found["text"], refuri=up + found["page"], classes=["ours"], internal=True)
    link["reftitle"] = found["hint"]
    return [link], []


@cache
def _values(folder):
    """What `rmtlib.book` wrote for the role."""
    return json.loads((Path(folder) / "_generated" / "values.json").read_text(encoding="utf-8"))


def write_search_texts(app, error):
    """The text of every page in a script, for the excerpts of search results: no file:// page can fetch another."""
    if error is None and app.builder.format == "html":
        texts = {}
        for docname in app.env.found_docs:
            path = Path(app.outdir) / f"{docname}.html"
            if path.exists() and (found := ARTICLE.search(path.read_text(encoding="utf-8"))):
                text = html.unescape(NO_TEXT.sub(" ", found.group()))
                texts[docname] = " ".join(text.replace("¶", "").replace("#", "").split())
        script = f"const bookTexts = {json.dumps(texts, ensure_ascii=False, sort_keys=True)};\n"
        (Path(app.outdir) / "_static" / "search-texts.js").write_text(script, encoding="utf-8")


def search_texts_on_the_search_page(app, pagename, templatename, context, doctree):
    """Only the search page loads the texts."""
    if pagename == "search":
        app.add_js_file("search-texts.js", priority=100)


def setup(app):
    app.connect("env-updated", write_on_all_cores)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("build-finished", mend_pages)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("build-finished", write_search_texts)
    app.connect("html-page-context", search_texts_on_the_search_page)
    app.add_role("paper", paper_role)
    app.add_role("ours", ours_role)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
