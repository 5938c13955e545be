"""What goes to workers of a Dask cluster as one of its tasks, and what they do with it.

A task returns its failure as a result: Dask would run again what raises, or take a kernel's
`SystemExit` for the end of the worker.
"""

from __future__ import annotations

import io
import os
import pickle
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from shmcompute.backends.processes import load_kernel
from shmcompute.backends.processes.protocol import exception_pickling, pickling
from shmcompute.backends.processes.protocol.messages import Failure, Result
from shmcompute.backends.processes.protocol.pickler import Pickler
from shmcompute.errors import KernelSerializationError, ShmComputeError
from shmcompute.storage import give
from shmcompute.system.call_context import CallContext
from shmcompute.system.context import nesting
from shmcompute.tasks import refusal
from shmcompute.typing import Array


@dataclass(frozen=True)
class Made:
    """An array that a task makes: scratch, or what is written without being read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def array(self) -> Array:
        return np.zeros(self.shape, self.dtype)


@dataclass(frozen=True)
class At:
    """An argument that is one of the arrays of a task."""

    index: int


class First(NamedTuple):
    """A pool's initializer as a task has it: each worker calls it before anything of the pool's."""

    pool: str
    name: str
    call: bytes


class _ByValue(Pickler):
    """Sends what arrays hold, also those that look into a segment: workers may be elsewhere.

    A `SharedArray` goes as its handle, which is good on this host.
    """

    def reducer_override(self, value: Any) -> Any:
        return NotImplemented if type(value) is np.ndarray else super().reducer_override(value)


def pack(value: Any, what: Callable[[], str]) -> bytes:
    """Anything as bytes.

    Raises
    ------
    KernelSerializationError
        If it can't be pickled.
    """
    buffer = io.BytesIO()
    try:
        _ByValue(buffer).dump(value)
    except ShmComputeError:
        raise
    except Exception as error:  # pickling runs any code
        raise KernelSerializationError(
            f"{what()} can't be sent to the workers of a cluster: {type(error).__name__}: {error}. "
            'Make what it refers to inside the kernel, or choose backend="threads"'
        ) from error
    return buffer.getvalue()


def run_chunk(
    first: First | None,
    kernels: Sequence[bytes],
    packed: bytes,
    arrays: Sequence[Any],
    returned: Sequence[int],
) -> list[Array] | Failure:
    """Call the kernels on copies of a chunk; what they have written."""
    try:
        _initialize(first)
        links, context = _unpacked(packed)
        own = list(_own(arrays, set(returned)))
        _call_all(kernels, links, own, context)
        return [own[index] for index in returned]
    except BaseException as error:  # noqa: BLE001  # a kernel's sys.exit() is its own, too
        return exception_pickling.pack_error(None, error)


def _call_all(
    kernels: Sequence[bytes], links: Sequence[Any], own: Sequence[Array], context: CallContext
) -> None:
    nesting.depth += 1
    try:
        for kernel, arguments in zip(map(load_kernel, kernels), links, strict=True):
            context.run(kernel, [_argument(one, own) for one in arguments])
    finally:
        nesting.depth -= 1


def run_task(first: First | None, packed: bytes) -> Result | Failure:
    """Call a function; what it returned, as bytes."""
    try:
        _initialize(first)
        function, args, keywords, context = _unpacked(packed)
        result = pickling.pack_result(context.run(function, *args, **keywords), function)
        give(result.given)
        return result
    except BaseException as error:  # noqa: BLE001  # sys.exit() in a task, too
        return exception_pickling.pack_error(None, error)


def _unpacked(packed: bytes) -> tuple[Any, ...]:
    try:
        found: tuple[Any, ...] = pickle.loads(packed)
        return found
    except ShmComputeError:
        raise
    except BaseException as error:  # unpickling runs any code
        raise KernelSerializationError(
            f"a worker of the cluster can't unpack this task: {type(error).__name__}: {error}. "
            "What it imports must be importable there too; it has not run"
        ) from error


_initialized: set[str] = set()  # the pools whose initializer this process has called
_initializing = threading.Lock()


def _initialize(first: First | None) -> None:
    """Call a pool's initializer, if this process has not; a failure is tried again."""
    if first is None or first.pool in _initialized:
        return
    with _initializing:
        if first.pool in _initialized:
            return
        try:
            function, args = _unpacked(first.call)
            function(*args)
        except (Exception, SystemExit) as error:
            raise refusal(
                first.name, f"worker {os.getpid()} of {platform.node()}", error
            ) from error
        _initialized.add(first.pool)


def _own(arrays: Sequence[Any], written: set[int]) -> Iterator[Array]:
    for index, array in enumerate(arrays):
        if isinstance(array, Made):
            yield array.array()
        elif index in written:
            yield np.array(array, order="K")  # what came may be others', or read-only
        else:
            view = array.view()
            view.flags.writeable = False
            yield view


def _argument(one: Any, own: Sequence[Array]) -> Any:
    if isinstance(one, At):
        return own[one.index]
    return one.array() if isinstance(one, Made) else one
