"""The law of layers: a module imports only lower floors, or its own without a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shmcompute

ROOT = Path(shmcompute.__file__).parent
FLOORS = {
    "shmcompute.storage": 0,
    "shmcompute.errors": 0,
    "shmcompute.config": 0,
    "shmcompute.cores": 0,
    "shmcompute.holding": 0,
    "shmcompute.gate": 0,
    "shmcompute.words": 0,
    "shmcompute.lock": 1,
    "shmcompute.slots": 1,
    "shmcompute.turnstile": 1,
    "shmcompute.lease": 1,
    "shmcompute.array_queue": 2,
    "shmcompute.array": 1,
    "shmcompute.views": 1,
    "shmcompute.partition": 1,
    "shmcompute.access": 2,
    "shmcompute.arguments": 2,
    "shmcompute.overlap": 2,
    "shmcompute.atomic": 2,
    "shmcompute.atomic_code": 1,
    "shmcompute.machine": 2,
    "shmcompute.trampoline": 2,
    "shmcompute.frame": 2,
    "shmcompute.twin": 2,
    "shmcompute.kernel": 2,
    "shmcompute.numba_boxing": 1,
    "shmcompute.numba_array": 2,
    "shmcompute.journal": 2,
    "shmcompute.guard": 2,
    "shmcompute.manager": 2,
    "shmcompute.plan": 3,
    "shmcompute.call": 3,
    "shmcompute.backends": 4,
    "shmcompute.executor": 5,
    "shmcompute.results": 5,
    "shmcompute.recent": 5,
    "shmcompute.hints": 5,
    "shmcompute.pool": 5,
    "shmcompute.apply": 6,
    "shmcompute.cli": 7,
    "shmcompute.demo": 7,
    "shmcompute.trials": 7,
    "shmcompute.__main__": 7,
    "shmcompute": 7,
}


def _name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _floor(module):
    while module not in FLOORS:
        module = module.rpartition(".")[0]
    return FLOORS[module]


def _imports(path):
    """Modules of ours that a module imports, anywhere in its text."""
    yield from _imports_in(ast.parse(path.read_text()), path.name)


def _imports_in(tree, file="?"):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the floor"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in whole]
        else:
            continue
        yield from (name for name in names if name in MODULES)


GRAPH = {name: set(_imports(path)) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_no_higher_floor(name):
    for imported in GRAPH[name]:
        assert _floor(imported) <= _floor(name), f"{name} imports {imported}, a floor above it"


def test_only_the_top_floor_is_reached_through_the_package():
    """`import shmcompute` inside the package would be a circle through __init__."""
    for name, imported in GRAPH.items():
        if _floor(name) < 7:
            assert "shmcompute" not in imported, name


def test_there_are_no_circles():
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            path.append(name)
            for imported in GRAPH[name]:
                visit(imported)
            path.pop()
            done.add(name)

    for name in GRAPH:
        visit(name)


def test_an_import_inside_a_function_hides_no_circle():
    """It may save time for those who do not need it, but only from a lower floor."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for imported in _imports_in(node):
                    if imported in MODULES:
                        assert _floor(imported) < _floor(name), f"{name}.{node.name}: {imported}"


def test_a_kernel_is_called_in_one_place():
    """`run_chunk` is where every backend calls a kernel, if machine code does not."""
    callers = [name for name, path in MODULES.items() if ".kernel(" in path.read_text()]
    assert callers == ["shmcompute.plan"]
