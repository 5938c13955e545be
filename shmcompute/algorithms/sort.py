"""Sorting on all cores, in NumPy's order: `parallel_sort`, `parallel_argsort`, and `numpy.sort`.

An array of many rows is sorted by rows: NumPy sorts some of them in each worker. A long row is
sorted by all of them: numbers by `merge_sort`, other elements by `bucket_sort`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds, normalize_axis_index

from shmcompute.algorithms.bucket_sort import bucket_argsort, bucket_sort, bucketable
from shmcompute.algorithms.merge_sort import merge_sort, mergeable
from shmcompute.algorithms.parts import edges, fits, plain_array, run_parts, unwrapped, workers
from shmcompute.arrays import SharedArray, refuse_subclass
from shmcompute.typing import Array

ROW = 1 << 17  # elements of a row that is sorted by all; fewer NumPy sorts as quickly
ROWS = 16  # so many are sorted side by side, however long they are
SIZE = 1 << 16  # elements of an array whose rows are sorted side by side

Order = str | Sequence[str] | None


def parallel_sort(
    x: SharedArray | Array, *, axis: int = -1, kind: str | None = None, order: Order = None
) -> None:
    """Sort an array in place, on every core, into the order of `numpy.sort`.

    Parameters
    ----------
    x : SharedArray or ndarray
        Of any dtype and strides. If a handler of a signal raises meanwhile, as Ctrl-C does, each
        row is as it was, or sorted.
    axis : int
        Along which to sort.
    kind : {'quicksort', 'heapsort', 'mergesort', 'stable'}, optional
        As for `numpy.sort`: the latter two keep equal elements in their order.
    order : str or list of str, optional
        Fields of a structured array to compare, first to last.

    Raises
    ------
    TypeError, ValueError
        For a word or a field that is not known, and for an array that is read-only or has elements
        that share memory.

    Notes
    -----
    As much memory as `x` takes is needed meanwhile; where there is not as much, NumPy sorts. It
    sorts small arrays, too, and those whose order only it can tell: objects, structured elements,
    and, if the sort is not stable, elements that are equal but not the same, such as -0.0 and 0.0.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.array([3.0, np.nan, 1.0])) as arr:
    ...     sc.parallel_sort(arr)
    ...     print(arr.array)
    [ 1.  3. nan]
    """
    array = _checked("parallel_sort", x)
    axis = _checked_axis("parallel_sort", axis, array)
    _check_kind(array, kind, order)
    if not array.flags.writeable:
        raise ValueError("parallel_sort: x is read-only, and would be sorted in place; sort a copy")
    _check_distinct(array)
    _sort(array, array, axis, kind, order)


def parallel_argsort(
    x: SharedArray | Array, *, axis: int | None = -1, kind: str | None = None, order: Order = None
) -> Array:
    """The indices that would sort an array, found on every core; as `numpy.argsort` returns them.

    Parameters
    ----------
    x : SharedArray or ndarray
    axis : int, optional
        Along which to sort; None: as if it had one dimension.
    kind, order
        As for `parallel_sort`.

    Returns
    -------
    ndarray of int

    Raises
    ------
    TypeError, ValueError
        For what is no array, a word or a field that is not known.

    Notes
    -----
    If `kind` is not stable, the indices of equal elements are in any order: in a large array not in
    that of `numpy.argsort`, but in the same for any number of workers.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> print(sc.parallel_argsort(np.array([30, 10, 20])))
    [1 2 0]
    """
    array = _checked("parallel_argsort", x)
    if axis is None:
        array, axis = array.ravel(), 0
    axis = _checked_axis("parallel_argsort", axis, array)
    _check_kind(array, kind, order)
    return _argsort(array, axis, kind, order)


def sort(
    a: Any,
    axis: int | None = -1,
    kind: Any = None,
    order: Order = None,
    *,
    stable: bool | None = None,
) -> Any:
    """`numpy.sort`."""
    a = unwrapped(a)
    array = plain_array(a)
    if array is None or array.size < SIZE or (kind is not None and stable is not None):
        return np.sort(a, axis, kind, order, stable=stable)
    if axis is None:
        array, axis = array.ravel(), -1
    kind = "stable" if stable else kind
    axis = normalize_axis_index(axis, array.ndim)
    _check_kind(array, kind, order)
    out = np.empty_like(array)
    _sort(array, out, axis, kind, order)
    return out


def argsort(
    a: Any,
    axis: int | None = -1,
    kind: Any = None,
    order: Order = None,
    *,
    stable: bool | None = None,
) -> Any:
    """`numpy.argsort`."""
    a = unwrapped(a)
    array = plain_array(a)
    if array is None or array.size < SIZE or (kind is not None and stable is not None):
        return np.argsort(a, axis, kind, order, stable=stable)
    return parallel_argsort(array, axis=axis, kind="stable" if stable else kind, order=order)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {np.sort: sort, np.argsort: argsort}


def _checked(name: str, x: Any) -> Array:
    refuse_subclass(f"{name}: x", x)
    array = unwrapped(x)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: x: expected a SharedArray or an ndarray, got {type(x).__name__}")
    return np.asarray(array)


def _checked_axis(name: str, axis: Any, array: Array) -> int:
    try:
        return normalize_axis_index(axis, array.ndim)
    except TypeError:
        raise TypeError(f"{name}: axis: expected an int, got {axis!r}") from None


def _check_kind(array: Array, kind: Any, order: Any) -> None:
    """Raise what NumPy raises for these words, with those that it knows."""
    try:
        np.empty(0, array.dtype).sort(kind=kind)
    except (TypeError, ValueError) as error:
        raise type(error)(
            "kind: expected None, 'quicksort', 'heapsort', 'mergesort' or 'stable', got "
            f"{kind!r}: {error}"
        ) from None
    if order is not None:
        np.empty(0, array.dtype).sort(order=order)


def _check_distinct(array: Array) -> None:
    """Refuse a view in which several elements have the same memory."""
    if array.flags.forc or array.size < 2:
        return
    low, high = byte_bounds(array)
    if array.nbytes <= high - low:
        offsets = np.zeros(1, np.intp)
        for stride, size in zip(array.strides, array.shape, strict=True):
            offsets = np.add.outer(offsets, stride * np.arange(size)).ravel()
        offsets.sort()
        if (np.diff(offsets) >= array.itemsize).all():
            return
    raise ValueError(
        f"parallel_sort: x (shape {array.shape}, strides {array.strides}) has elements that share "
        "memory, so it can't be sorted in place; sort a copy"
    )


def _sort(source: Array, out: Array, axis: int, kind: Any, order: Order) -> None:
    """Sort into an array of the same shape, or into `source` itself."""
    if _by_rows(source, axis):

        def sort_rows(rows: Array, sorted_rows: Array) -> None:
            if source is not out:
                sorted_rows[...] = rows
            sorted_rows.sort(axis, kind=kind, order=order)

        _run_rows(sort_rows, axis, source, out)
        return
    for row in _rows(source.shape, axis):
        _sort_row(source[row], out[row], kind, order, in_place=source is out)


def _sort_row(source: Array, out: Array, kind: Any, order: Order, *, in_place: bool) -> None:
    stable = _is_stable(kind)
    dtype = source.dtype
    if source.size >= ROW and fits(source.size * (dtype.itemsize + 9)):
        if mergeable(dtype) and workers() > 1 and merge_sort(source, out, stable=stable):
            return
        if bucketable(dtype) and not mergeable(dtype) and (stable or _one_order(source)):
            bucket_sort(source, out, kind)
            return
    if not in_place:
        out[...] = source
    out.sort(kind=kind, order=order)


def _argsort(array: Array, axis: int, kind: Any, order: Order) -> Array:
    if _by_rows(array, axis):
        out = np.empty(array.shape, np.intp)

        def argsort_rows(rows: Array, indices: Array) -> None:
            indices[...] = np.argsort(rows, axis, kind=kind, order=order)

        _run_rows(argsort_rows, axis, array, out)
        return out
    rows = list(_rows(array.shape, axis))
    if len(rows) == 1 and array.ndim == 1:
        return _argsort_row(array, kind, order)
    out = np.empty(array.shape, np.intp)
    for row in rows:
        out[row] = _argsort_row(array[row], kind, order)
    return out


def _argsort_row(row: Array, kind: Any, order: Order) -> Array:
    if row.size >= SIZE and bucketable(row.dtype) and fits(row.size * (row.dtype.itemsize + 9)):
        return bucket_argsort(row, kind)
    return np.argsort(row, kind=kind, order=order)


def _is_stable(kind: Any) -> bool:
    return kind is not None and str(kind)[0].lower() in "ms"


def _one_order(array: Array) -> bool:
    """Whether elements that are equal have the same bits.

    Of floats and complex numbers not if there is a -0.0 or a NaN; of all else they have.
    """
    if array.dtype.kind not in "fc":
        return True
    numbers = array.astype(array.dtype.newbyteorder("="))
    floats = numbers.real.dtype
    numbers = numbers.view(floats)
    return not (np.isnan(numbers).any() or (np.signbit(numbers) & (numbers == 0)).any())


def _by_rows(array: Array, axis: int) -> bool:
    """Whether rows are sorted side by side; it depends on the array alone."""
    length = max(1, array.shape[axis])
    return (
        array.size >= SIZE
        and array.size > length
        and (length < ROW or array.size // length >= ROWS)
    )


def _rows(shape: tuple[int, ...], axis: int) -> Iterator[tuple[Any, ...]]:
    """Indices of all rows along an axis."""
    for index in np.ndindex(*shape[:axis], *shape[axis + 1 :]):
        yield (*index[:axis], slice(None), *index[axis:])


def _run_rows(function: Callable[[Array, Array], None], axis: int, *arrays: Array) -> None:
    """Call a function with parts of arrays of one shape, that hold whole rows."""
    shape = arrays[0].shape
    others = [number for number in range(len(shape)) if number != axis]
    along = max(others, key=lambda number: shape[number])
    bounds = edges(shape[along], min(shape[along], 4 * workers()))

    def part(number: int) -> None:
        place = (slice(None),) * along + (slice(bounds[number], bounds[number + 1]),)
        function(*(array[place] for array in arrays))

    run_parts(part, len(bounds) - 1)
