"""Types that all packages name."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]

# The words of `config` and `markers`, for type checkers; tests/test_typing.py compares them.
BackendName = Literal["processes", "threads", "serial", "auto", "dask"]
ScheduleName = Literal["static", "dynamic", "guided"]
StorageName = Literal["auto", "shm", "file", "array"]
StartMethodName = Literal["fork", "spawn", "forkserver"]
BoundaryName = Literal["edge", "reflect", "symmetric", "wrap"]
OrderName = Literal["K", "A", "C", "F"]
NewOrderName = Literal["C", "F"]  # of an array that is like no other
