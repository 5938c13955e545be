"""Making, attaching and passing on segments, of whichever kind.

A kind of storage is a module with ``create(layout, name)``, and a handle with ``map()``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from errno import EMFILE

from shmcompute import events
from shmcompute.config import STORAGES, chosen, one_of
from shmcompute.errors import SegmentExistsError, StorageError
from shmcompute.storage import mp_array, npy_file, reaper, segment_cache, shm
from shmcompute.storage.layout import Layout
from shmcompute.storage.segment import Handle, Segment, mapped
from shmcompute.system import limits
from shmcompute.typing import Array

_CREATE: dict[str, Callable[[Layout, str | None], tuple[Segment, Array]]] = {
    "shm": shm.create,
    "file": npy_file.create,
    "array": mp_array.create,
}
_reaped_by: int | None = None  # the process that has looked for orphans
_warned = False


def create(
    layout: Layout, storage: str | None = None, name: str | None = None
) -> tuple[Segment, Array]:
    """A new segment of the kind asked for, or that the environment or the host suggests."""
    if storage not in (None, "auto"):
        kind = one_of("storage", storage, STORAGES)
    else:  # the environment can't name a path
        kind = chosen("storage", None, "STORAGE", ("auto", "shm", "array"), "auto")
    _reap_once()
    if kind != "auto":
        return _create(kind, layout, name)
    try:
        return _create("shm", layout, name)
    except SegmentExistsError:
        raise
    except StorageError as error:
        return _fall_back(layout, name, error)


def _create(kind: str, layout: Layout, name: str | None) -> tuple[Segment, Array]:
    with _as_storage_error(f'make a segment, storage="{kind}"'):
        try:
            return _CREATE[kind](layout, name)
        except SegmentExistsError:
            raise
        except (StorageError, OSError):
            if not segment_cache.release():
                raise
        return _CREATE[kind](layout, name)  # memory and descriptors that were kept may be enough


@contextmanager
def _as_storage_error(doing: str) -> Iterator[None]:
    """What the operating system refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        hint = ", or close arrays" if error.errno == EMFILE else ""
        raise StorageError(f"can't {doing}: {limits.described(error)}{hint}") from error


def _fall_back(layout: Layout, name: str | None, error: StorageError) -> tuple[Segment, Array]:
    global _warned
    result = _create("array", layout, name)
    events.tell("storage_fallback", storage="array", error=str(error))
    if not _warned:
        _warned = True
        warnings.warn(
            f'storage="array" is used in place of "shm": {error}. Such arrays are as fast, but '
            "can't be attached by name. (Said once; choose a storage to decide yourself.)",
            RuntimeWarning,
            stacklevel=5,
        )
    return result


def _reap_once() -> None:
    """The first creation in a process removes what dead ones left behind."""
    global _reaped_by
    if _reaped_by != os.getpid():
        _reaped_by = os.getpid()
        reaper.reap()


def attach(name: str) -> tuple[Segment, Array]:
    """The shared-memory segment of that name, mapped here once however often it is asked for."""
    with _as_storage_error(f"attach to {name!r}"):
        return map_handle(shm.find(name))


def open_file(path: str | os.PathLike[str], mode: str) -> tuple[Segment, Array]:
    """The ``.npy`` at that path, mapped here once for each mode."""
    with _as_storage_error(f"open {os.fspath(path)!r}"):
        return map_handle(npy_file.find(path, mode))


def map_handle(handle: Handle) -> tuple[Segment, Array]:
    """The segment that a handle names; the mapping there is, if there is one."""
    segment = mapped(handle)
    with _as_storage_error(f"map {handle.name!r}"):
        return (_existing_mapping(segment) if segment is not None else None) or handle.map()


def give(handles: Iterable[Handle]) -> None:
    """Leave these segments, which this process owns, to another one that is about to adopt them."""
    for handle in handles:
        segment = mapped(handle)
        if segment is not None:
            segment.give()


def adopt(handle: Handle) -> Array:
    """Map the segment that a handle names, and own it: its maker has given it to this process."""
    segment, array = map_handle(handle)
    with _as_storage_error(f"take over {handle.name!r}"):
        handle.adopt(segment, array)
    return array


def _existing_mapping(segment: Segment) -> tuple[Segment, Array] | None:
    array = segment.array()
    return None if array is None else (segment, array)
