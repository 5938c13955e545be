"""The package law: imports go downwards, and into another package only through its face.

ARCHITECTURE.md has the table of packages, top floor first. A package's face is its ``__all__``.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

import shmcompute

ROOT = Path(shmcompute.__file__).parent
TABLE = (ROOT.parent / "ARCHITECTURE.md").read_text().partition("## The packages")[2]
ROWS = [
    re.findall(r"`(\w+)/?`", row.split("|")[1])
    for row in TABLE.split("\n##")[0].splitlines()
    if "|" in row
]
FLOORS = {name: -number for number, row in enumerate(ROWS) for name in row}


def _name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def _imports(name):
    """What a module imports of ours, anywhere in its text: ``package.module.name``."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            home = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            found = [f"{home}{alias.name}" for alias in node.names]
            yield from (name for name in found if name.split(".")[0] == "shmcompute")


def _face(package):
    tree = ast.parse(MODULES[package].read_text())
    faces = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    return ast.literal_eval(faces[0]) if faces else []


@pytest.mark.parametrize("name", MODULES)
def test_a_package_imports_only_those_below_it_and_through_their_face(name):
    for found in _imports(name):
        parts = found.split(".")
        own, other = (*name.split("."), "")[1], parts[1]
        if name not in ("shmcompute", "shmcompute.__main__") and other not in (own, "__version__"):
            assert FLOORS[other] <= FLOORS[own], f"{name} imports {found}: upwards"
        for depth in range(2, len(parts)):
            package = ".".join(parts[:depth])
            if package in PACKAGES and not f"{name}.".startswith(f"{package}."):
                assert parts[depth] in _face(package), f"{name} imports {found}: not in the face"


def _module(found):
    return found if found in MODULES else found.rpartition(".")[0]


def test_there_are_no_circles():
    graph = {name: {_module(found) for found in _imports(name)} - {name} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_kernel_is_called_in_one_place():
    """`run_chunk` is where every backend calls a kernel, if machine code does not."""
    callers = [name for name, path in MODULES.items() if "link.kernel(" in path.read_text()]
    assert callers == ["shmcompute.plans.plan"]


def test_a_long_file_says_why():
    for name, path in MODULES.items():
        text = path.read_text()
        if len(text.splitlines()) > 300:
            head = ast.get_docstring(ast.parse(text)) or ""
            assert "The file is long because" in " ".join(head.split()), name


def test_a_class_name_stands_once():
    names = [
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert not {name for name in names if names.count(name) > 1}


def _body_lines(function):
    """How long a function is, without its docstring."""
    first = function.body[ast.get_docstring(function) is not None :]
    return first[-1].end_lineno - first[0].lineno + 1 if first else 0


def test_functions_are_short():
    lines = {
        f"{name}.{node.name}": _body_lines(node)
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > 35} == {}
    assert median(lines.values()) <= 5
