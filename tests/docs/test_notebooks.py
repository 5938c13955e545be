"""The notebooks run from top to bottom, and come to what is stored in them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


# In a process of its own, since Jupyter's client leaves an event loop.
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=100).execute()
nbformat.write(notebook, sys.argv[2])
"""


def cells(path):
    return json.loads(path.read_text())["cells"]


def told(cell):
    """What a cell shows, in a form that does not depend on versions of matplotlib."""
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            yield output["name"], "".join(output["text"])
        else:
            data = output["data"]
            yield sorted(data), None if "image/png" in data else "".join(data["text/plain"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_what_is_stored(path, tmp_path):
    """Each cell says and shows what a reader of the site sees; nothing is said on stderr."""
    for library in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(library)
    result = tmp_path / path.name
    command = [sys.executable, "-c", RUN, str(path), str(result)]
    subprocess.run(command, check=True, timeout=120)
    for cell, expected in zip(cells(result), cells(path), strict=True):
        assert list(told(cell)) == list(told(expected)), cell["source"]


def test_each_is_in_the_toctree():
    text = (FOLDER.parent / "notebooks.md").read_text()
    assert [path.stem for path in NOTEBOOKS] == sorted(
        line.split("/")[1] for line in text.splitlines() if line.startswith("notebooks/")
    )
