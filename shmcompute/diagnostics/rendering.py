"""Headings and texts as they are printed, and as notebooks show them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from html import escape

WIDTH = 100
_COLUMN = 12

Lines = Iterable[tuple[str, str]]


def as_text(headline: str, lines: Lines, advice: Iterable[str]) -> str:
    """Plain text, wrapped."""
    told = [_wrapped(f"  {heading:<{_COLUMN - 2}}", text) for heading, text in lines]
    return "\n".join([_wrapped("", headline), *told, *(_wrapped("! ", text) for text in advice)])


def _wrapped(first: str, text: str) -> str:
    rest = " " * max(len(first), 2)
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False
    )


def as_html(headline: str, lines: Lines, advice: Iterable[str]) -> str:
    """A table, and a list of the advice."""
    rows = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{escape(heading)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for heading, text in lines
    )
    items = "".join(f"<li>{escape(text)}</li>" for text in advice)
    listed = f"<ul>{items}</ul>" if items else ""
    return f"<div><b>{escape(headline)}</b><table>{rows}</table>{listed}</div>"
