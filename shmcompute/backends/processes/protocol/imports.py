"""`Imports`: from where the parent imports, and what it has loaded again; its workers follow.

A function of a module travels by its name. A worker that has imported the module keeps what it has,
as any process does. So when the parent loads a module again (`importlib.reload`, IPython's
autoreload, another import of what was taken out of `sys.modules`), workers do the same, in the same
order, before they call anything that comes later.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import NamedTuple, Protocol


class Imports(NamedTuple):
    """What a process imports from, and has loaded again."""

    path: tuple[str, ...]  # its sys.path
    reloads: tuple[tuple[str, int], ...]  # names of modules with growing numbers, the latest last
    writes_bytecode: bool

    @classmethod
    def current(cls) -> Imports:
        """Those of this process."""
        # In one step: another thread may be importing.
        return cls(tuple(sys.path), tuple(_finder.reloads.items()), not sys.dont_write_bytecode)

    def follow(self) -> bool:
        """Import from there, and load again what was loaded again; whether anything was."""
        if sys.path != (folders := list(self.path)):
            sys.path[:] = folders
        sys.dont_write_bytecode = not self.writes_bytecode
        importlib.invalidate_caches()
        new = [(name, number) for name, number in self.reloads if number > _finder.followed]
        for name, _ in new:
            _reload(name)
        _finder.followed = max((number for _, number in new), default=_finder.followed)
        return bool(new)


class Keeper(Protocol):
    """Keeps what a reload may make stale."""

    def expire(self) -> None:
        """Take what workers hold for stale."""


class _ReloadFinder:
    """Finds no module, but sees each that is looked for: also one that is loaded again."""

    def __init__(self) -> None:
        self.reloads: dict[str, int] = {}
        self.followed = 0  # the latest that this process has followed
        self.keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
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
            for keeper in list(self.keepers):
                keeper.expire()


_finder = _ReloadFinder()


def watch_reloads(keeper: Keeper) -> None:
    """Have `keeper` told of each reload from now on."""
    _finder.keepers.add(keeper)
    _finder.install()


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
    """A worker that was forked has what its parent had loaded by then, and no pool of its own."""
    _finder.followed = max(_finder.reloads.values(), default=0)
    _finder.keepers.clear()


def _reload(name: str) -> None:
    module = sys.modules.get(name)
    if module is not None:
        try:
            importlib.reload(module)
        except BaseException:  # noqa: BLE001  # it runs any code; who needs the module will hear why
            sys.modules.pop(name, None)
