"""Links that hold in the repository hold on the site: to pages, where there are any.

README, ARCHITECTURE and their like lie outside of ``docs/`` and are included by short pages; what
they link to is relative to themselves.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
INCLUDED = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)


def pages():
    """The page that shows each Markdown file of the repository."""
    found = {}
    for page in DOCS.rglob("*.md"):
        if "_build" not in page.parts:
            found[page] = page
            for name in INCLUDED.findall(page.read_text()):
                found[(page.parent / name).resolve()] = page
    return found


def relink(text, source, shown):
    """`text` of the file `source`, whose links are to hold on the site."""

    def link(match):
        label, path, anchor = match.groups()
        target = (source.parent / path).resolve()
        if target in shown:
            return f"[{label}](/{shown[target].relative_to(DOCS)}{anchor or ''})"
        elsewhere = target.exists() and not target.is_relative_to(DOCS)
        return label if elsewhere else match[0]  # of what is not found Sphinx warns

    return LINK.sub(link, text)


def relink_page(app, docname, content):
    content[0] = relink(content[0], Path(app.env.doc2path(docname)), app.repository_pages)


def relink_included(app, path, _docname, content):
    content[0] = relink(content[0], (app.srcdir / path).resolve(), app.repository_pages)


def setup(app):
    app.repository_pages = pages()
    app.connect("source-read", relink_page)
    app.connect("include-read", relink_included)
    return {"parallel_read_safe": False}
