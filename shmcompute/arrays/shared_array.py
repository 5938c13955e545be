"""`SharedArray`: a typed, owned view of a segment that speaks NumPy.

The file is long because it is one class, whose methods are documented for users.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from shmcompute import config, storage
from shmcompute.arrays.content import is_hashed
from shmcompute.arrays.element_swaps import refuse_swap
from shmcompute.arrays.lock import ArrayLock
from shmcompute.arrays.ndarray_methods import NdarrayMethods
from shmcompute.arrays.numpy_protocols import plain
from shmcompute.arrays.subclasses import refuse_subclass
from shmcompute.errors import ClosedError, StorageError
from shmcompute.storage import Handle, Segment, locate
from shmcompute.typing import Array, NewOrderName, OrderName, StorageName

if TYPE_CHECKING:  # a default, which `typing` has from Python 3.13 on: bare, of any dtype
    from typing_extensions import TypeVar

    S_co = TypeVar("S_co", bound=np.generic, default=Any, covariant=True)
else:
    from typing import TypeVar

    S_co = TypeVar("S_co", covariant=True)
D = TypeVar("D", bound=np.generic)
Shape = SupportsIndex | Iterable[SupportsIndex]


class SharedArray(NdarrayMethods, Generic[S_co]):
    """A NumPy array that other processes work on in place.

    Copies `data` into shared memory once. The process that made it owns it: leaving the ``with``
    block, ``close()``, garbage collection or the end of the program remove it.

    Parameters
    ----------
    data : array_like
        What to copy in.
    dtype : dtype_like, optional
        Any dtype that owns no Python objects; that of `data` by default.
    order : {'K', 'C', 'F', 'A'}
        Memory order, as in `numpy.array`. ``'K'`` and ``'A'`` keep Fortran order where `data` has
        it; any other arrangement becomes C order, since a segment's header knows these two.
    name : str or path, optional
        Name of the segment (at most 30 characters), or the path of a ``"file"``. Random by default.
    storage : {'auto', 'shm', 'file', 'array'}
        Kind of segment. ``'auto'`` takes ``SHMCOMPUTE_STORAGE``, else shared memory, else, with a
        warning that says why, ``'array'``.

    Attributes
    ----------
    array : ndarray
        The array itself, no copy. Views of it stay valid after ``close()``.
    name, storage : str
        What the segment is called, and its kind.
    shape, dtype, ndim, size, nbytes
        As of `array`.
    owner : bool
        Whether this process made the segment and so is the one that removes it.
    closed : bool
        Whether ``close()`` was called.

    Raises
    ------
    TypeError
        For a dtype that holds Python objects, and for a subclass of ndarray whose meaning would be
        lost (a mask, a unit, a matrix), before anything is allocated.
    ValueError
        For a bad shape, name, order or storage.
    StorageFullError
        If there is no room for it.
    SegmentExistsError
        If the name is taken.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.arange(4.0)) as arr:
    ...     arr += 1
    ...     print(arr[1:3], arr.owner)
    [2. 3.] True
    """

    __slots__ = ("__weakref__", "_array", "_dependents", "_owned", "_segment")

    _array: Array | None
    _segment: Segment
    _owned: bool
    _dependents: list[weakref.finalize[..., Any]]

    @overload
    def __init__(
        self: SharedArray[D],
        data: SharedArray[D] | NDArray[D],
        *,
        dtype: None = None,
        order: OrderName = "K",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> None: ...
    @overload
    def __init__(
        self: SharedArray[D],
        data: ArrayLike | SharedArray,
        *,
        dtype: type[D] | np.dtype[D],
        order: OrderName = "K",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> None: ...
    @overload
    def __init__(
        self,
        data: ArrayLike | SharedArray,
        *,
        dtype: DTypeLike | None = None,
        order: OrderName = "K",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> None: ...
    def __init__(
        self,
        data: ArrayLike | SharedArray,
        *,
        dtype: DTypeLike | None = None,
        order: OrderName = "K",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> None:
        self._array = None  # so that a failure below leaves something that can be dropped
        self._dependents = []
        refuse_subclass("data", data)
        source = plain(data)
        if not isinstance(source, np.ndarray) or _asks_elements(dtype):
            source, dtype = np.asarray(source, dtype=dtype), None
        wanted = source.dtype if dtype is None else dtype
        created = _created(source.shape, wanted, _order(order, source), name, storage)
        self._segment, self._array, self._owned = *created, True
        self._segment.holder = weakref.ref(self)
        self._fill(source)

    def _fill(self, values: Any) -> None:
        try:
            np.copyto(self.array, values, casting="unsafe")
        except BaseException:
            self._segment.unlink()  # not when the traceback is dropped, but now; a file, too
            self.close()
            raise

    @classmethod
    def _of(cls, segment: Segment, array: Array, *, owned: bool) -> Self:
        self = cls.__new__(cls)
        self._segment, self._array, self._owned = segment, array, owned
        self._dependents = []
        segment.holder = weakref.ref(self)
        return self

    @overload
    @classmethod
    def empty(
        cls,
        shape: Shape,
        dtype: type[np.float64] = ...,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[np.float64]: ...
    @overload
    @classmethod
    def empty(
        cls,
        shape: Shape,
        dtype: type[D] | np.dtype[D],
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[D]: ...
    @overload
    @classmethod
    def empty(
        cls,
        shape: Shape,
        dtype: DTypeLike,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> Self: ...
    @classmethod
    def empty(
        cls,
        shape: Shape,
        dtype: DTypeLike = float,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[Any]:
        """A new array whose memory is reserved, not written.

        It may read as what an array of yours left there that was closed before.

        Parameters
        ----------
        shape : int or tuple of int
        dtype : dtype_like
        order : {'C', 'F'}
        name, storage
            As for `SharedArray`.

        Returns
        -------
        SharedArray

        Raises
        ------
        TypeError, ValueError, StorageFullError, SegmentExistsError
            As `SharedArray`.
        """
        return cls._of(*_created(shape, dtype, order, name, storage), owned=True)

    @overload
    @classmethod
    def zeros(
        cls,
        shape: Shape,
        dtype: type[np.float64] = ...,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[np.float64]: ...
    @overload
    @classmethod
    def zeros(
        cls,
        shape: Shape,
        dtype: type[D] | np.dtype[D],
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[D]: ...
    @overload
    @classmethod
    def zeros(
        cls,
        shape: Shape,
        dtype: DTypeLike,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> Self: ...
    @classmethod
    def zeros(
        cls,
        shape: Shape,
        dtype: DTypeLike = float,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[Any]:
        """A new array of zeros: see `SharedArray.empty` for its parameters.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.SharedArray.zeros((2, 2), "i4") as arr:
        ...     print(arr.shape, arr.dtype, arr.any())
        (2, 2) int32 False
        """
        self = cls.empty(shape, dtype, order, name, storage)
        self._segment.clear()
        return self

    @overload
    @classmethod
    def full(
        cls,
        shape: Shape,
        fill_value: Any,
        dtype: type[D] | np.dtype[D],
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[D]: ...
    @overload
    @classmethod
    def full(
        cls,
        shape: Shape,
        fill_value: Any,
        dtype: DTypeLike | None = None,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> Self: ...
    @classmethod
    def full(
        cls,
        shape: Shape,
        fill_value: Any,
        dtype: DTypeLike | None = None,
        order: NewOrderName = "C",
        name: str | os.PathLike[str] | None = None,
        storage: StorageName = "auto",
    ) -> SharedArray[Any]:
        """A new array that holds `fill_value` everywhere.

        Parameters
        ----------
        shape, order, name, storage
            As for `SharedArray.empty`.
        fill_value : scalar or array_like
            What it holds, broadcast to its shape.
        dtype : dtype_like, optional
            That of `fill_value` by default.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.SharedArray.full(3, 7) as arr:
        ...     print(arr.array)
        [7 7 7]
        """
        refuse_subclass("fill_value", fill_value)
        wanted = np.asarray(fill_value).dtype if dtype is None else dtype
        self = cls.empty(shape, wanted, order, name, storage)
        self._fill(fill_value)
        return self

    @classmethod
    def attach(cls, name: str) -> Self:
        """Map the shared-memory array of that name, made by any process of this user.

        Shape, dtype and order come from the segment. An attacher never removes it.

        Parameters
        ----------
        name : str
            The `name` of an array.

        Returns
        -------
        SharedArray
            The same memory; `owner` is False.

        Raises
        ------
        SegmentNotFoundError
            If there is none of that name.
        SegmentFormatError
            If what has that name is no whole segment of ours.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.SharedArray(np.arange(3.0), storage="shm") as arr:
        ...     with sc.SharedArray.attach(arr.name) as same:
        ...         same += 1
        ...     print(arr.array)
        [1. 2. 3.]
        """
        return cls._of(*storage.attach(name), owned=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str], mode: str = "r+") -> Self:
        """Map a ``.npy`` file; what kernels write lands in it.

        Parameters
        ----------
        path : str or path
            A file that `numpy.save` or ``SharedArray(..., storage="file")`` wrote.
        mode : {'r+', 'r'}
            Read and write, or read only.

        Returns
        -------
        SharedArray

        Raises
        ------
        SegmentNotFoundError
            If there is no such file.
        SegmentFormatError
            If it is no whole ``.npy`` file of a dtype without Python objects.
        """
        return cls._of(*storage.open_file(path, mode), owned=False)

    @property
    def array(self) -> NDArray[S_co]:
        """The array itself, no copy."""
        if self._array is None:
            raise ClosedError(
                "this SharedArray is closed; take what you need of `array` before close(), or "
                "keep a view: views stay valid"
            )
        return self._array

    @property
    def segment(self) -> Segment:
        """The segment behind it."""
        return self._segment

    @property
    def name(self) -> str:
        """What the segment is called: for a ``"file"``, its path."""
        return self._segment.handle.name

    @property
    def storage(self) -> str:
        """The kind of segment: ``"shm"``, ``"file"`` or ``"array"``."""
        return self._segment.handle.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its dimensions."""
        return self._segment.layout.shape

    @property
    def dtype(self) -> np.dtype[S_co]:
        """Type of its elements."""
        return self._segment.layout.dtype

    @property
    def ndim(self) -> int:
        """Number of its dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of its elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self._segment.layout.nbytes

    @property
    def owner(self) -> bool:
        """Whether this process made the segment and so is the one that removes it."""
        return self._owned and self._segment.owner

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._array is None

    def close(self) -> None:
        """Let go of the array; the owner also removes its name. Views stay valid. Idempotent.

        Memory goes back at once, or with the last view; some of it is kept for the next arrays
        (``SHMCOMPUTE_WARM_BYTES``) until `shutdown`. A ``"file"`` stays: see ``unlink()``.
        """
        if self._array is None:
            return
        if self.owner:
            self._segment.end()
        self._array = None
        while self._dependents:
            self._dependents.pop()()

    def when_closed(self, callback: Callable[..., Any], *args: Any) -> None:
        """Have ``callback(*args)`` called when this array is closed or dropped, once."""
        dependent = weakref.finalize(self, callback, *args)
        dependent.atexit = False
        self._dependents.append(dependent)

    def lock(self, timeout: float | None = None) -> ArrayLock:
        """A lock for who wants the array for himself, among threads and processes.

        The kernel drops it when its holder dies, however it dies; whoever is next is told.
        Nobody is kept from an array by it who does not ask for it. For one element there is
        `atomic_add`, which is much faster.

        Parameters
        ----------
        timeout : float, optional
            Seconds that ``with`` waits at most.

        Returns
        -------
        ArrayLock
            For ``with``, or for its own ``acquire`` and ``release``. Nothing is held yet.

        Raises
        ------
        LockTimeoutError
            From ``with``: somebody else held it for that long.
        LockError
            From ``with``: this thread holds it already. It is no `threading.RLock`.
        ClosedError, SegmentNotFoundError
            From ``with``: its owner has closed the array.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.SharedArray(np.zeros(3)) as arr:
        ...     with arr.lock(timeout=5) as state:
        ...         if state.abandoned:  # the last holder died: it may be half written
        ...             arr[:] = 0
        ...         arr += 1
        ...     print(arr.array)
        [1. 1. 1.]
        """
        self.array  # noqa: B018  # a closed array is not locked
        return ArrayLock(self._segment, timeout)

    def unlink(self) -> None:
        """Remove the name, or the file; only the owner may. Idempotent."""
        if not self.owner:
            raise StorageError(
                f"{self.name!r} was made by another process or only opened here; "
                "only its owner removes it"
            )
        self._segment.unlink()

    def __enter__(self) -> Self:
        self.array  # noqa: B018  # a closed array is not entered again
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"SharedArray(name={self.name!r}, shape={self.shape}, dtype={str(self.dtype)!r}, "
            f"storage={self.storage!r}, owner={self.owner}, closed={self.closed})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        self.array  # noqa: B018  # closed: say so here, not in the process that receives it
        if is_hashed():
            return np.asarray, (self.array,)
        self._segment.check()
        own = getattr(self, "__dict__", None)  # of a subclass
        return _attached, (self._segment.handle, type(self)), own or None

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token  # noqa: PLC0415  # dask asks, so it is there

        return normalize_token(self.array)

    def __copy__(self) -> Self:
        """A new array with the same content, as of an ndarray; what pickles is the same array."""
        # A path of its own it has not.
        kind: Any = self.storage if self.storage != "file" else "auto"
        order: NewOrderName = "F" if self._segment.layout.fortran else "C"
        copy: Self = self.empty(self.shape, self.dtype, order, storage=kind)
        copy._fill(self.array)
        if hasattr(self, "__dict__"):  # of a subclass
            vars(copy).update(vars(self))
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = memo[id(self)] = self.__copy__()
        if hasattr(self, "__dict__"):
            vars(copy).update(deepcopy(vars(self), memo))
        return copy

    def __getitem__(self, key: Any) -> Any:
        return self.array[plain(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, (np.ndarray, np.void)) and value.base is not None:
            refuse_swap(self.array, value)
        self.array[plain(key)] = plain(value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)


def _created(
    shape: Shape,
    dtype: DTypeLike,
    order: str,
    name: str | os.PathLike[str] | None,
    kind: str,
) -> tuple[Segment, Array]:
    return storage.create(storage.Layout.of(shape, dtype, order), kind, name)  # type: ignore[arg-type]


def _asks_elements(dtype: DTypeLike | None) -> bool:
    """Whether a dtype lacks a length or a unit, which it takes from what is converted."""
    if dtype is None:
        return False
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.kind in "mM":
        return np.datetime_data(kind)[0] == "generic"
    return not kind.itemsize or kind.subdtype is not None


def _order(order: str, source: Array) -> str:
    config.one_of("order", order, config.ORDERS)
    if order in config.NEW_ORDERS:
        return order
    return "F" if source.flags.f_contiguous and not source.flags.c_contiguous else "C"


def receive(handle: Handle) -> SharedArray:
    """An array that its maker has given to this process, which adopts it first."""
    return SharedArray._of(*storage.map_handle(handle), owned=True)


def _attached(handle: Handle, kind: type[SharedArray] = SharedArray) -> SharedArray:
    return kind._of(*storage.map_handle(handle), owned=False)


def holder_of(view: Array) -> SharedArray | None:
    """The open `SharedArray` that a view looks into, the latest if there are several."""
    place = locate(view)
    holder = None if place is None or place[0].holder is None else place[0].holder()
    return None if holder is None or holder.closed else holder
