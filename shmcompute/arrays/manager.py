"""`SharedArrayManager`: a process that arrays live as long as, and a place to find them.

The standard library's manager is a process that others speak to. Ours also makes arrays and keeps
them by key. Only names go through it: who asks for an array maps it, and its data are shared. The
manager's process holds every array that it made or keeps, so none is taken for an orphan when its
user ends. It removes those that it made when it ends, also because its parent has died.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.managers import BaseProxy, SharedMemoryManager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from shmcompute.arrays.shared_array import Shape, SharedArray
from shmcompute.arrays.subclasses import refuse_subclass
from shmcompute.errors import ClosedError, SegmentExistsError, ShmComputeError
from shmcompute.typing import NewOrderName

_Server: Any = SharedMemoryManager._Server  # type: ignore[attr-defined]  # typeshed leaves it out


class _Directory:
    """The arrays of a manager, in the manager's process, where each caller has a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: dict[str, SharedArray] = {}  # by key
        self._own: dict[str, SharedArray] = {}  # by name

    def make(self, shape: Shape, dtype: DTypeLike, order: NewOrderName) -> SharedArray:
        """A new array of this process, so that it outlives who asked for it."""
        array = SharedArray.zeros(shape, dtype, order, storage="shm")
        with self._lock:
            self._own[array.name] = array
        return array

    def put(self, key: str, array: SharedArray) -> None:
        with self._lock:
            if key in self._arrays:
                raise SegmentExistsError(
                    f"the key {key!r} is taken in this manager: del manager.arrays[{key!r}] first, "
                    "or choose another one"
                )
            self._arrays[key] = array

    def get(self, key: str) -> SharedArray:
        with self._lock:
            if key not in self._arrays:
                raise KeyError(f"no array {key!r} in this manager; its keys: {[*self._arrays]}")
            return self._arrays[key]

    def drop(self, key: str) -> None:
        self.get(key)
        with self._lock:
            array = self._arrays.pop(key, None)
        if array is not None:
            self.discard(array.name)

    def discard(self, name: str) -> None:
        """End an array that has no key, if it was made here."""
        with self._lock:
            array = self._own.pop(name, None)
        if array is not None:
            array.close()

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._arrays)

    def end(self) -> None:
        with self._lock:
            self._arrays.clear()
            while self._own:
                self._own.popitem()[1].close()


class ArraysProxy(BaseProxy, MutableMapping[str, SharedArray]):
    """The arrays of a manager by key, from whatever process; see `SharedArrayManager`.

    It pickles, and so travels to processes that this one starts.
    """

    _exposed_ = ("make", "put", "get", "drop", "discard", "keys")

    def __getitem__(self, key: str) -> SharedArray:
        return self._asked("get", key)  # type: ignore[no-any-return]

    def __setitem__(self, key: str, array: SharedArray | ArrayLike) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key: expected a string, got {key!r} ({type(key).__name__})")
        if isinstance(array, SharedArray):
            self._asked("put", key, array)
        elif key in self:
            self._asked("put", key, None)  # which says that it is taken
        else:
            self._put_copy(key, self.copy_in(array))

    def _put_copy(self, key: str, copy: SharedArray) -> None:
        try:
            self._asked("put", key, copy)
        except SegmentExistsError:  # somebody was faster
            self._asked("discard", copy.name)
            raise

    def setdefault(self, key: str, default: Any = None) -> SharedArray:
        """The array of that key; if there is none, `default` is put there first."""
        with suppress(SegmentExistsError):
            self[key] = default
        return self[key]

    def __delitem__(self, key: str) -> None:
        self._asked("drop", key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._asked("keys"))

    def __len__(self) -> int:
        return len(self._asked("keys"))

    def zeros(self, shape: Shape, dtype: DTypeLike, order: NewOrderName = "C") -> SharedArray:
        """An array of zeros that the manager makes."""
        return self._asked("make", shape, np.dtype(dtype), order)  # type: ignore[no-any-return]

    def copy_in(self, data: ArrayLike | SharedArray, dtype: DTypeLike | None = None) -> SharedArray:
        """An array that the manager makes, with `data` in it."""
        refuse_subclass("data", data)
        source = np.asarray(data, dtype=dtype)
        array = self.zeros(source.shape, source.dtype, "F" if source.flags.fnc else "C")
        np.copyto(array.array, source)
        return array

    def _asked(self, method: str, *args: Any) -> Any:
        try:
            return self._callmethod(method, args)
        except ShmComputeError:
            raise
        except (OSError, EOFError) as error:
            raise ClosedError(
                f"the manager does not answer ({type(error).__name__}: {error}): it has been shut "
                "down, and its arrays with it"
            ) from error


class _ArrayServer(_Server):  # type: ignore[misc]  # its type is Any
    """The standard library's server of shared memory, with a directory."""

    def __init__(self, registry: dict[str, Any], *args: Any) -> None:
        self._directory = _Directory()
        how = (lambda: self._directory, ArraysProxy._exposed_, None, ArraysProxy)
        super().__init__({**registry, "_directory": how}, *args)
        if (parent := multiprocessing.parent_process()) is not None:
            watch = threading.Thread(target=self._outlive, args=(parent.sentinel,), daemon=True)
            watch.start()

    def shutdown(self, connection: Any) -> None:
        """End the arrays, then the server."""
        self._directory.end()
        super().shutdown(connection)

    def _outlive(self, sentinel: int) -> None:
        wait([sentinel])
        self._directory.end()
        self.shared_memory_context.unlink()
        os._exit(1)


class SharedArrayManager(SharedMemoryManager):
    """The standard library's `SharedMemoryManager`, which also makes arrays and keeps them by key.

    All that it made goes when it does: at the end of the ``with`` block, at ``shutdown()``, or when
    the process that started it dies. Views taken before stay valid.

    Parameters
    ----------
    address, authkey, ctx, ...
        As for `multiprocessing.managers.BaseManager`. With an address and a key, ``connect()``
        finds a manager that another program started.

    Attributes
    ----------
    arrays : ArraysProxy
        A mapping from strings to `SharedArray`, the same in all processes. An array is put there
        by its handle; anything else is copied into a new array of the manager's. A key that is
        taken is not replaced: that is a SegmentExistsError. Deleting a key ends an array that the
        manager made. It pickles: hand it to processes.

    Raises
    ------
    ClosedError
        From `arrays` and what it is asked, before the manager runs and after it has ended.
    SegmentExistsError
        For a key that is taken.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArrayManager() as manager:
    ...     manager.arrays["prices"] = np.arange(4.0)
    ...     sc.parallel_apply(np.square, manager.arrays["prices"])
    ...     print(manager.arrays["prices"].array)
    [0. 1. 4. 9.]
    """

    _Server = _ArrayServer
    _proxy: ArraysProxy | None = None

    @property
    def arrays(self) -> ArraysProxy:
        """Its arrays by key."""
        state = self._state  # type: ignore[attr-defined]  # typeshed leaves it out
        if state.value != 1:  # State.STARTED
            raise ClosedError(
                "this manager is not running: use it in a with block, or call start() or connect()"
            )
        if self._proxy is None:
            self._proxy = self._directory()  # type: ignore[attr-defined]  # registered below
        return self._proxy

    def zeros(
        self, shape: Shape, dtype: DTypeLike = float, order: NewOrderName = "C"
    ) -> SharedArray:
        """An array of zeros, which lives until the manager ends."""
        return self.arrays.zeros(shape, dtype, order)

    # The last of all, for it hides the type. Named as the standard library's SharedMemory() is.
    def SharedArray(  # noqa: N802
        self, data: ArrayLike, dtype: DTypeLike | None = None
    ) -> Any:
        """A `SharedArray` with `data` in it, which lives until the manager ends."""
        return self.arrays.copy_in(data, dtype)


SharedArrayManager.register("_directory", _Directory, ArraysProxy, ArraysProxy._exposed_)
