"""Another function of the standard library's, for one thread and for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]


@contextmanager
def patched(owner: Any, name: str, wrap: Callable[[Function], Function]) -> Iterator[None]:
    """Have this thread find ``wrap(real)`` under a name; other threads find what stands there.

    Who patches the same name in several threads at once does so under a lock.

    Parameters
    ----------
    owner : module or class
        Whose attribute it is.
    name : str
        That of a function, or of a method.
    wrap : callable
        Makes the replacement out of the function that stands there.
    """
    real, here = getattr(owner, name), threading.get_ident()
    replacement = wrap(real)

    def found(*args: Any, **keywords: Any) -> Any:
        function = replacement if threading.get_ident() == here else real
        return function(*args, **keywords)

    setattr(owner, name, found)
    try:
        yield
    finally:
        setattr(owner, name, real)
