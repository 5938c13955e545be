"""The jobs: a kernel and the array that it is run on."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks import kernels

# Of the largest array; others are in proportion. 64 is more than most caches hold, 1 a smoke run.
MIB = float(os.environ.get("SHMCOMPUTE_BENCH_MIB", "64"))
ELEMENTS = int(MIB * (1 << 20)) // 8


@dataclass(frozen=True)
class Job:
    """What all peers do, and what must come of it."""

    name: str
    shape: tuple[int, ...]
    numpy: Callable[..., Any]
    kernel: Callable[..., Any]  # what shmcompute and the pools of the standard library run
    prange: Callable[..., Any] | None = None  # None where Numba has no part

    @cached_property
    def data(self):
        """The input; nobody writes it."""
        return _numbers(self.shape)

    @cached_property
    def expected(self):
        """What NumPy makes of it."""
        result = self.data.copy()
        self.numpy(result)
        return result

    @property
    def sample(self):
        """As little input as there is, to compile the kernel with."""
        return _numbers((1, *self.shape[1:]))


def _numbers(shape):
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape)


def _jobs():
    part = max(1, ELEMENTS // 4)
    stream = (kernels.stream_numpy, kernels.stream, kernels.stream_prange)
    compute = (kernels.compute_numpy, kernels.compute, kernels.compute_prange)
    frames = (max(1, part // 1024), 32, 32)
    yield Job("stream", (ELEMENTS,), *stream)
    yield Job("compute", (part,), *compute)
    yield Job("dispatch", (1024,), *stream)
    yield Job("python kernel", frames, kernels.normalise, kernels.normalise)


JOBS = {job.name: job for job in _jobs()}
