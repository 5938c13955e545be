"""The code of the pages runs, and prints what stands there."""

import subprocess
import sys
from pathlib import Path

import pytest
import run_pages

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (ROOT / "docs").rglob("*.md")
    if not {"_build", "gallery"} & set(page.parts) and list(run_pages.blocks(page.read_text()))
)


@pytest.mark.long
def test_all_code_of_the_pages_runs(tmp_path):
    """One process for all of them: they are many, and small."""
    command = [sys.executable, "-W", "error", run_pages.__file__, *map(str, PAGES)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
    )
    assert done.stdout == ""
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_wrong_page_is_found(tmp_path):
    """What prints something else, what raises, and what is hidden is run; what is marked is not."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- run\nx = 1\n-->\n"
        "```pycon\n>>> x\n2\n```\n"
        "```python\nx / 0\n```\n"
        "<!-- not run: it would raise -->\n```python\nnever\n```\n"
        "<!-- needs no_such_module -->\n\n```python\nnever\n```\n"
    )
    wrong_value, raised = run_pages.run_page(page)
    assert "Expected:\n    2\nGot:\n    1" in wrong_value
    assert "ZeroDivisionError" in raised
    assert "line 9" in raised


def test_no_block_is_forgotten():
    """Each block of Python is in a form that is run: ``python`` or ``pycon``."""
    for page in PAGES:
        text = page.read_text()
        assert not [word for word in ("```py\n", "```python3\n", "```Python\n") if word in text]
