"""The jobs: a kernel and the array that it is run on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks import kernels
from benchmarks.settings import ELEMENTS, PIECES, WORKERS


@dataclass(frozen=True)
class Job:
    """What all peers do, and what must come of it."""

    name: str
    shape: tuple[int, ...]
    kernel: Callable[..., Any]
    numpy: Callable[..., Any]
    expressions: tuple[str, ...] = ()  # for numexpr, one after the other
    uneven: bool = False  # the cost of an element rises with its index

    @cached_property
    def data(self):
        """The input; nobody writes it."""
        numbers = np.linspace(0.1, 0.9, int(np.prod(self.shape))).reshape(self.shape)
        if self.uneven:
            numbers[:, 0] = np.linspace(0, 2 * kernels.ROUNDS, len(numbers)).astype(int)
        return numbers

    @cached_property
    def expected(self):
        """What NumPy makes of it."""
        result = self.data.copy()
        self.numpy(result)
        return result

    @property
    def jitted(self):
        """Whether Numba compiles the kernel."""
        return hasattr(self.kernel, "py_func")

    @property
    def chunks(self):
        """A block a worker, as `parallel_apply` makes by default; more where work is uneven."""
        pieces = WORKERS * PIECES if self.uneven else WORKERS
        edges = [self.shape[0] * i // pieces for i in range(pieces + 1)]
        return [(start, stop) for start, stop in pairwise(edges) if start < stop]


def _jobs():
    part = max(64, ELEMENTS // 4)
    step = ("x * 3.7 * (1.0 - x)",)
    stream = (kernels.stream, kernels.stream_numpy, ("x * 0.5 + 1.0",))
    yield Job("dispatch", (1024,), *stream)
    yield Job("stream", (ELEMENTS,), *stream)
    yield Job("compute", (part,), kernels.compute, kernels.compute_numpy, step * kernels.ROUNDS)
    python = max(64, ELEMENTS // 256)
    yield Job("python kernel", (python,), kernels.python, kernels.compute_numpy)
    yield Job("skewed load", (part // 2, 2), kernels.skewed, kernels.skewed_numpy, uneven=True)


JOBS = {job.name: job for job in _jobs()}
