"""`Ready`: a job that a peer can run at once."""

from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np


class Ready(NamedTuple):
    """An array for the caller to fill, and what does the job on it."""

    array: np.ndarray
    run: Callable[[], Any]


@contextmanager
def shared_memory(shape):
    """Shared memory made by hand: its name and the array in it."""
    memory = SharedMemory(create=True, size=int(np.prod(shape)) * 8)
    try:
        yield memory.name, np.ndarray(shape, buffer=memory.buf)
    finally:
        memory.close()
        memory.unlink()
