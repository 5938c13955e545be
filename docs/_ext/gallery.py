"""The gallery: a page for each example, with its picture and what it prints, and a page of cards.

Each example is run as it stands, in a process of its own; one that takes the name of a picture is
given one. A page is made anew when its example has changed.
"""

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
GALLERY = Path(__file__).parent.parent / "gallery"

PAGE = """# {title}

{text}
{picture}
```{{literalinclude}} ../../examples/{name}
:language: python
:start-at: "{start}"
```

It prints:

```text
{printed}
```
"""
CARD = """:::{{grid-item-card}} {title}
:link: {stem}
:link-type: doc
{image}
{first}
:::
"""
INDEX = """# Gallery

Whole programs of less than 60 lines, with what they print and draw. They lie in `examples/`, and
each is run by the tests. Other libraries' programs stand [beside ours](../coming_from.md).

::::{{grid}} 1 2 3 3
:gutter: 3

{cards}
::::

```{{toctree}}
:hidden:

{names}
```
"""


def told(example):
    """Title, first words and text of an example: its docstring."""
    head, _, text = ast.get_docstring(ast.parse(example.read_text())).partition("\n\n")
    title, _, rest = head.replace("\n", " ").rstrip(".").partition(": ")
    first = f"{rest[:1].upper()}{rest[1:]}." if rest else ""
    return title, first, text.replace("``", "`")


def run(example):
    """What it prints; its picture lies beside its page, if it draws one."""
    drawn = "sys.argv[1]" in example.read_text()
    picture = [str(GALLERY / f"{example.stem}.png")] if drawn else []
    done = subprocess.run(
        [sys.executable, str(example), *picture],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"MPLBACKEND": "agg"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{example.name} failed:\n{done.stderr}")
    return done.stdout.rstrip()


def write_page(example):
    page = GALLERY / f"{example.stem}.md"
    if page.exists() and page.stat().st_mtime > example.stat().st_mtime:
        return
    printed = run(example)
    title, first, text = told(example)
    drawn = (GALLERY / f"{example.stem}.png").exists()
    picture = f"\n![what it draws]({example.stem}.png)\n" if drawn else ""
    body = example.read_text().split('"""\n', 2)[1].strip().splitlines()[0]
    page.write_text(
        PAGE.format(
            title=title,
            text=f"{first}\n\n{text}",
            picture=picture,
            name=example.name,
            start=body,
            printed=printed,
        )
    )


def card(example):
    title, first, _ = told(example)
    drawn = (GALLERY / f"{example.stem}.png").exists()
    image = f":img-top: {example.stem}.png\n" if drawn else ""
    return CARD.format(title=title, stem=example.stem, image=image, first=first)


def build(_app):
    GALLERY.mkdir(exist_ok=True)
    examples = sorted(EXAMPLES.glob("*.py"))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write_page, examples))
    pictured = sorted(examples, key=lambda e: not (GALLERY / f"{e.stem}.png").exists())
    index = INDEX.format(
        cards="\n".join(map(card, pictured)), names="\n".join(e.stem for e in pictured)
    )
    (GALLERY / "index.md").write_text(index)


def setup(app):
    app.connect("builder-inited", build)
    return {"parallel_read_safe": True}
