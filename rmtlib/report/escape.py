"""Text of a record on its way to a page: shown as it is, never obeyed.

Records are checked before they are shown (`rmtlib.runs.schema`); this does not rely on it.
"""

import html
import re

ACTIVE = re.compile(r"[^\w\s.,;/%±+=-]")
"""What may mean something to Markdown or HTML; a numeric entity of it means nothing to either."""


def escape(text: str) -> str:
    """`text` inside an element or a quoted attribute.

    Its line breaks too: after an empty line a page of Markdown takes what follows for Markdown, not for HTML.
    """
    return "".join(c if c.isprintable() else f"&#{ord(c)};" for c in html.escape(text))


def in_markdown(text: str) -> str:
    """`text` inside a line of Markdown."""
    return ACTIVE.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))
