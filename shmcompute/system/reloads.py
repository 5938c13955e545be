"""Modules that a program loads again: its workers do the same.

A function of a module travels by its name. A worker that has imported the module keeps what it has,
as any process does. So when the parent loads a module again (`importlib.reload`, IPython's
autoreload, another import of what was taken out of `sys.modules`), workers do so, in the
same order, before they call anything that comes later.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType


class _ReloadFinder:
    """Finds no module, but sees each that is looked for: also one that is loaded again."""

    def __init__(self) -> None:
        self.reloads: dict[str, int] = {}
        self.followed = 0  # the latest that this process has followed
        self._known: set[str] = set()  # modules that there were
        self._sought = ""

    def install(self) -> None:
        if self not in sys.meta_path:
            self._known |= set(sys.modules)
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if self._sought in sys.modules:
            self._known.add(self._sought)
        self._sought = name
        if target is not None or (name in self._known and name not in sys.modules):
            self.reloads[name] = max((self.reloads.pop(name, 0), *self.reloads.values())) + 1


_finder = _ReloadFinder()


def watch() -> None:
    """Note each reload from now on."""
    _finder.install()


def noted() -> tuple[tuple[str, int], ...]:
    """Names of the modules that were loaded again, with growing numbers, the latest last."""
    return tuple(_finder.reloads.items())  # in one step: another thread may be importing


def follow(reloads: Iterable[tuple[str, int]]) -> bool:
    """Load again what another process has; whether there was anything new."""
    new = [(name, number) for name, number in reloads if number > _finder.followed]
    for name, number in new:
        _reload(name)
        _finder.followed = number
    return bool(new)


_named: dict[tuple[str, str], tuple[FunctionType, int]] = {}


def renamed(function: FunctionType) -> bool:
    """Whether its name, as workers know it, means another function that was sent before.

    A name is set anew by a decorator that is put around later, by a patch, by code that is executed
    in the module again; nothing of that a worker can follow.
    """
    module = function.__module__
    if module is None or "<locals>" in function.__qualname__:  # it goes by value
        return False
    loaded = _finder.reloads.get(module, 0)
    first, when = _named.setdefault((module, function.__qualname__), (function, loaded))
    if when != loaded:
        _named[module, function.__qualname__] = function, loaded
        return False
    return first is not function


def enter_worker() -> None:
    """A worker that was forked has what its parent had loaded by then."""
    _finder.followed = max(_finder.reloads.values(), default=0)


def _reload(name: str) -> None:
    module = sys.modules.get(name)
    if module is not None:
        try:
            importlib.reload(module)
        except BaseException:  # noqa: BLE001  # it runs any code; who needs the module will hear why
            sys.modules.pop(name, None)
