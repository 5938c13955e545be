"""`KnownCalls`: reductions like earlier ones, which need not be looked at again."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from shmcompute.algorithms.combine import Partials
from shmcompute.algorithms.storing import stored
from shmcompute.arrays import SharedArray, holder_of
from shmcompute.calls import call
from shmcompute.chunking import Values, chunk, per_chunk, shared
from shmcompute.plans import Options, arrays_of
from shmcompute.pool import Pool
from shmcompute.progress import Asked, Meter

KEPT = 64  # calls


class Request(Protocol):
    """What a reduction is called with, this time."""

    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def pool(self) -> Pool: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def progress(self) -> Asked: ...


class KnownCall(Protocol):
    """Does the work of a reduction that was looked at before."""

    def __call__(self, request: Request, values: Values) -> Partials:
        """The results of all chunks."""


@dataclass(frozen=True, eq=False)
class DirectCall:
    """Of one chunk, by the caller itself."""

    function: Any  # a dispatcher
    name: str
    length: int
    arguments: list[Any]
    values: tuple[tuple[int, int], ...]  # positions among the arguments, and among the numbers
    convert: Callable[[Any], Partials]

    def __call__(self, request: Request, values: Values) -> Partials:
        arguments = self.arguments
        if self.values:
            arguments = arguments.copy()
            for position, index in self.values:
                arguments[position] = values[index]
        if request.progress is None:
            return self._partials(arguments)
        with Meter(request.progress, 1, "chunk", self.name) as meter:
            partials = self._partials(arguments)
            meter.add(1)
        return partials

    def _partials(self, arguments: list[Any]) -> Partials:
        try:
            return self.convert(self.function(*arguments))
        except Exception as error:
            error.add_note(f"in chunk [0, {self.length}) of kernel {self.name}")
            raise


class StoringCall:
    """By workers, whose machine code writes the results into memory that is kept for the next call.

    Parameters
    ----------
    kernel : dispatcher, or a partial of one
        Of `storing`.
    dtype : dtype
        Of a chunk's result.
    chunks : int
        How many there are.
    options : Options
    """

    def __init__(self, kernel: Any, dtype: np.dtype[Any], chunks: int, options: Options) -> None:
        self._kernel = kernel
        self._dtype = dtype
        self._chunks = chunks
        self._options = options
        self._free: list[SharedArray] = []  # several where several threads have called at once
        self._pid = os.getpid()  # a forked child must not write what its parent does

    def __call__(self, request: Request, values: Values) -> Partials:
        if self._options.retries or self._options.debug or request.pool.running.copies:
            return self._with_own_rows(request)
        if self._pid != os.getpid():
            self._free, self._pid = [], os.getpid()
        try:
            outputs = self._free.pop()
        except IndexError:
            outputs = SharedArray.empty(self._chunks, self._dtype)
        try:
            self._run(request, chunk, shared(outputs))
            result = stored(outputs.array, self._dtype)
        except BaseException:
            outputs.close()
            raise
        self._free.append(outputs)
        return result

    def _with_own_rows(self, request: Request) -> Partials:
        """What no other chunk may reach can be looked at, and put back."""
        with self._run(request, 0, per_chunk(1, self._dtype)) as outputs:
            return stored(outputs.array, self._dtype)

    def _run(self, request: Request, place: Any, outputs: Any) -> Any:
        args = (*request.args, place, outputs)
        return call(
            self._kernel, args, self._options, request.pool, request.timeout, None, request.progress
        )


class KnownCalls:
    """The latest calls by what they were called with.

    They may hold views, and views keep memory mapped: so a call goes when an array of it is closed
    or collected, and refers to arrays by id, as a `PlanCache` does.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, tuple[KnownCall, Any, Any]] = {}

    def find(self, key: Hashable) -> KnownCall | None:
        """The call of that key, unless its kernel was recompiled since."""
        try:
            call, overloads, version = self._calls[key]
        except (KeyError, TypeError):  # unknown; or not hashable, which is refused elsewhere
            return None
        return call if _version(overloads) is version else None

    def keep(
        self, key: Hashable, call: KnownCall, overloads: Any, calls: list[tuple[Any, ...]]
    ) -> None:
        """Keep a call while its arrays are open and it is among the latest.

        One with a view of what is no open `SharedArray` is not kept: nobody would tell its end.
        """
        given = arrays_of(calls)
        holders = [holder for view in given.plain if (holder := holder_of(view)) is not None]
        if len(holders) < len(given.plain):
            return
        for oldest in list(self._calls)[: 1 - KEPT]:
            self._calls.pop(oldest, None)
        self._calls[key] = call, overloads, _version(overloads)
        for array in (*given.shared, *holders):
            array.when_closed(_forget, weakref.ref(self), key)


def _forget(calls: weakref.ref[KnownCalls], key: Hashable) -> None:
    if (alive := calls()) is not None:
        alive._calls.pop(key, None)


def _version(overloads: Any) -> Any:
    """The first version of a kernel, which ``recompile()`` replaces."""
    # Not overloads.values(): an OrderedDict's looks each key up, and hashes Numba's types for it.
    return next(iter(dict.values(overloads)), None)
