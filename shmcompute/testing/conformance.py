"""What every backend on every storage must do: one check a promise, bit-equal to NumPy.

A new backend or storage is ready when `check_all` passes for it.

The file is long because a promise is a function, and there are many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest import TestCase

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shmcompute.algorithms import parallel_reduce, parallel_scan
from shmcompute.apply import parallel_apply, plan
from shmcompute.arrays import SharedArray
from shmcompute.chunking import chunk, halo, offset, per_chunk, read, rng, scratch, whole
from shmcompute.chunking import shared as shared_by_all
from shmcompute.errors import ClosedError, OutOfBoundsError
from shmcompute.loops import parallel_for
from shmcompute.pool import Pool
from shmcompute.testing import kernels

Keywords = Mapping[str, Any]


def check_all(pool: Pool, keywords: Keywords) -> None:
    """Run every check.

    Parameters
    ----------
    pool : Pool
        The backend to check; it stays usable.
    keywords : mapping
        Keywords of `SharedArray` that choose the storage. Each is looked up anew for each array, so
        that a mapping may give every file a name of its own.

    Raises
    ------
    AssertionError
        If a promise is broken.

    Examples
    --------
    >>> import shmcompute as sc
    >>> from shmcompute.testing import check_all
    >>> with sc.Pool(1, backend="serial") as pool:
    ...     check_all(pool, {"storage": "array"})
    """
    for check in CHECKS:
        check(pool, keywords)


def shared(data: ArrayLike, keywords: Keywords) -> SharedArray:
    """A `SharedArray` of the storage that is checked."""
    return SharedArray(data, **{key: keywords[key] for key in keywords})


_raises = TestCase().assertRaises


def check_kernels(pool: Pool, keywords: Keywords) -> None:
    """Every kind of kernel gives the same result."""
    for kernel in (
        kernels.affine,
        kernels.affine_nogil,
        kernels.affine_eager,
        kernels.affine_prange,
        kernels.affine_ufunc,
        kernels.affine_ufunc_eager,
        kernels.affine_gufunc,
        kernels.affine_python,
        kernels.Affine(),
    ):
        source = np.linspace(-1, 1, 1001)
        with shared(source, keywords) as arr:
            parallel_apply(kernel, arr, 3.0, 1.0, pool=pool)
            np.testing.assert_array_equal(arr.array, kernels.expected(source), str(kernel))


def check_partials(pool: Pool, keywords: Keywords) -> None:
    """A partial is what it calls."""
    for kernel in (kernels.affine_partial, kernels.affine_numba_partial):
        with shared(np.arange(10.0), keywords) as arr:
            parallel_apply(kernel, arr, 3.0, pool=pool)
            np.testing.assert_array_equal(arr.array, kernels.expected(np.arange(10.0)))


def check_schedules(pool: Pool, keywords: Keywords) -> None:
    """Each element is visited once, whatever the schedule, chunksize and length."""
    for length in (1, 2, 7, 100):
        for schedule in ("static", "dynamic", "guided"):
            for chunksize in (None, 1, 3, 1000):
                with shared(np.zeros(length), keywords) as arr:
                    parallel_apply(
                        kernels.add_offset,
                        arr,
                        offset,
                        schedule=schedule,
                        chunksize=chunksize,
                        pool=pool,
                    )
                    np.testing.assert_array_equal(arr.array, np.arange(length))


def check_access(pool: Pool, keywords: Keywords) -> None:
    """Several arrays, cut, read and whole, along axes of their own."""
    x, table = np.arange(12.0), np.arange(3.0)
    with (
        shared(np.zeros(12), keywords) as out,
        shared(x, keywords) as inputs,
        shared(table, keywords) as weights,
    ):
        parallel_apply(kernels.weigh, out, read(inputs), whole(weights), chunksize=5, pool=pool)
        np.testing.assert_array_equal(out.array, x * table.sum())
        np.testing.assert_array_equal(inputs.array, x)


def check_shared_whole(pool: Pool, keywords: Keywords) -> None:
    """All chunks write one array; a loop over numbers splits none."""
    targets = np.random.default_rng(0).permutation(100)
    with shared(targets, keywords) as places, shared(np.zeros(100), keywords) as out:
        parallel_apply(kernels.scatter, read(places), shared_by_all(out), offset, pool=pool)
        np.testing.assert_array_equal(out.array[targets], np.arange(100))
        for kernel in (kernels.fill_range, kernels.fill_range_python):
            for start, stop in ((0, 100), (7, 9), (5, 5), (9, 3), (-2, 0)):
                expected = out.array.copy()
                parallel_for(kernel, start, stop, shared_by_all(out), np.float32(0.5), pool=pool)
                for i in range(start, stop):
                    expected[i] = 0.5
                np.testing.assert_array_equal(out.array, expected)


def check_outputs(pool: Pool, keywords: Keywords) -> None:
    """Each chunk writes its own row of what the call makes, whoever runs it."""
    source = np.arange(100.0)
    for kernel in (kernels.sums, kernels.sums_python):
        for schedule in ("static", "dynamic", "guided"):
            for more in ({}, {"retries": 1}, {"debug": True}):
                with (
                    shared(source, keywords) as arr,
                    _outputs(kernel, arr, pool=pool, schedule=schedule, **more) as out,
                ):
                    np.testing.assert_equal(out.array[:, 0].sum(), source.sum())
                    np.testing.assert_array_equal(out.array[:, 1], np.arange(len(out)))


def _outputs(kernel: Any, arr: SharedArray, **options: Any) -> SharedArray:
    made = parallel_apply(
        kernel, read(arr), per_chunk(2), chunk, scratch(100), chunksize=9, **options
    )
    assert isinstance(made, SharedArray)  # noqa: S101  # for the type checker
    return made


def check_halos(pool: Pool, keywords: Keywords) -> None:
    """Chunks see what `numpy.pad` makes of an array as it is at each run, the ends included."""
    for rows in (1, 5, 600):
        source = np.linspace(-1, 1, 7 * rows).reshape(rows, 7)
        for kernel in (kernels.difference, kernels.difference_python):
            for boundary in ("edge", "reflect", "symmetric", "wrap", 0.5):
                with shared(source, keywords) as x, shared(source, keywords) as out:
                    step = plan(kernel, out, halo(x, (1, 2), boundary=boundary), pool=pool)
                    for _ in range(2):
                        step()
                        _check_difference(out.array, x.array, boundary)
                        x.array[:] += 1


def _check_difference(out: NDArray[Any], x: NDArray[Any], boundary: Any) -> None:
    given: dict[str, Any] = {"mode": boundary}
    if not isinstance(boundary, str):
        given = {"constant_values": boundary}
    padded = np.pad(x, ((1, 2), (0, 0)), **given)
    np.testing.assert_array_equal(out, padded[3:] - padded[:-3] + padded[1:-2], str(boundary))


def check_halo_options(pool: Pool, keywords: Keywords) -> None:
    """It is the same under any schedule, with retries and under debug; without a boundary, too."""
    source = np.linspace(-1, 1, 7 * 43).reshape(43, 7)
    some: list[dict[str, Any]] = [{"schedule": "static", "chunksize": 5}, {"schedule": "dynamic"}]
    some += [{"schedule": "guided"}, {"retries": 1}, {"debug": True}]
    for options in some:
        for kernel in (kernels.difference, kernels.difference_python):
            _check_both(kernel, source, pool, keywords, options)


def _check_both(
    kernel: Any, source: NDArray[Any], pool: Pool, keywords: Keywords, options: dict[str, Any]
) -> None:
    with shared(source, keywords) as x, shared(np.zeros(source.shape), keywords) as out:
        parallel_apply(kernel, out, halo(x, (1, 2), boundary="wrap"), pool=pool, **options)
        _check_difference(out.array, x.array, "wrap")
        inner = out.array[1:-2].copy()
        out.array[:] = 0
        parallel_apply(kernel, out.array[1:-2], halo(x, (1, 2)), pool=pool, **options)
        np.testing.assert_array_equal(out.array[1:-2], inner)


def check_random(pool: Pool, keywords: Keywords) -> None:
    """The same seed gives the numbers that NumPy's own generators do, whoever runs a chunk."""
    children = np.random.SeedSequence(42).spawn(4)
    drawn = np.concatenate([np.random.default_rng(child).random(25) for child in children])
    for kernel in (kernels.draw, kernels.draw_python):
        for schedule in ("static", "dynamic", "guided"):
            with shared(np.zeros(100), keywords) as arr:
                parallel_apply(kernel, arr, rng(42), schedule=schedule, chunksize=25, pool=pool)
                np.testing.assert_array_equal(arr.array, drawn)


def check_reductions(pool: Pool, keywords: Keywords) -> None:
    """Results of chunks are combined in one order; prefix sums of whole numbers are NumPy's."""
    source = np.random.default_rng(0).integers(0, 1000, 2000)
    expected = source.min(), source.max(), source.sum()
    with shared(source, keywords) as arr:
        for kernel in (kernels.extremes, kernels.extremes_python):
            for chunksize in (None, 300):
                combine = np.minimum, np.maximum, np.add
                found = parallel_reduce(
                    kernel, read(arr), combine=combine, chunksize=chunksize, pool=pool
                )
                np.testing.assert_equal(found, expected)
        parallel_scan(np.add, arr, pool=pool)
        np.testing.assert_array_equal(arr.array, np.cumsum(source))


def check_axes(pool: Pool, keywords: Keywords) -> None:
    """Any axis, counted from either end, of arrays in C and F order."""
    for order in ("C", "F"):
        for axis in (0, 1, 2, -1):
            source = np.arange(24.0).reshape(2, 3, 4)
            with shared(np.asarray(source, order=order), keywords) as arr:
                parallel_apply(kernels.affine_python, arr, 3.0, 1.0, axis=axis, pool=pool)
                np.testing.assert_array_equal(arr.array, kernels.expected(source))


def check_views(pool: Pool, keywords: Keywords) -> None:
    """Views are worked on in place, and nothing around them is touched."""
    for cut in (np.s_[10:20], np.s_[::2], np.s_[::-1], np.s_[50:10:-3], np.s_[5:5]):
        source = np.arange(60.0)
        with shared(source, keywords) as arr:
            parallel_apply(kernels.affine, arr[cut], 3.0, 1.0, pool=pool)
            source[cut] = kernels.expected(source[cut])
            np.testing.assert_array_equal(arr.array, source, str(cut))
    square = np.arange(36.0).reshape(6, 6)
    with shared(square, keywords) as arr:
        parallel_apply(kernels.affine_python, arr.array.T[1:3], 3.0, 1.0, pool=pool)
        square.T[1:3] = kernels.expected(square.T[1:3])
        np.testing.assert_array_equal(arr.array, square)


def check_dtypes(pool: Pool, keywords: Keywords) -> None:
    """NumPy's own arithmetic, chunk by chunk, on every numeric dtype and byte order."""
    for code in "?bBhHiIlLqQefdgFDG":
        for dtype in (np.dtype(code).newbyteorder("<"), np.dtype(code).newbyteorder(">")):
            source = np.arange(50).astype(dtype)
            with shared(source, keywords) as arr:
                parallel_apply(np.add, arr, source.dtype.type(1), pool=pool)
                np.testing.assert_array_equal(arr.array, source + source.dtype.type(1))
                np.testing.assert_equal(arr.array.dtype, dtype)
    times = np.arange(10).astype("M8[s]")
    with shared(times, keywords) as arr:
        parallel_apply(np.add, arr, np.timedelta64(5, "s"), pool=pool)
        np.testing.assert_array_equal(arr.array, times + np.timedelta64(5, "s"))
    with shared(np.zeros(6, [("a", "i4"), ("b", "f8", (2,))]), keywords) as arr:
        parallel_apply(_set_fields, arr, offset, chunksize=2, pool=pool)
        np.testing.assert_array_equal(arr["a"], [0, 0, 2, 2, 4, 4])
        np.testing.assert_array_equal(arr["b"], np.ones((6, 2)))


def _set_fields(x: NDArray[Any], start: int) -> None:
    x["a"] = start
    x["b"] = 1


def check_empty(pool: Pool, keywords: Keywords) -> None:
    """An axis of no elements is no work; other axes may have none."""
    for shape in ((0,), (0, 3), (3, 0)):
        with shared(np.zeros(shape), keywords) as arr:
            parallel_apply(kernels.affine_python, arr, 3.0, 1.0, pool=pool)
            np.testing.assert_equal(arr.shape, shape)


def check_errors(pool: Pool, keywords: Keywords) -> None:
    """A kernel's exception keeps its type, names the chunk, and leaves the pool usable."""
    with shared(np.arange(8.0), keywords) as arr:
        for kernel, kind in ((kernels.divide, ZeroDivisionError), (kernels.fails, ValueError)):
            with _raises(kind) as caught:
                parallel_apply(kernel, arr, chunksize=4, pool=pool)
            notes = caught.exception.__notes__
            np.testing.assert_equal(["in chunk [" in note for note in notes].count(True) > 0, True)
        parallel_apply(kernels.affine, arr, 3.0, 1.0, pool=pool)
        np.testing.assert_array_equal(arr.array, kernels.expected(np.arange(8.0)))


def check_debug(pool: Pool, keywords: Keywords) -> None:
    """Under debug results are the same; a write outside of a part is found, and touches nothing."""
    source = np.linspace(-1, 1, 1001)
    for kernel in (kernels.affine, kernels.affine_gufunc, kernels.affine_python):
        with shared(source, keywords) as arr:
            for view in (arr, arr[::-2]):
                parallel_apply(kernel, view, 3.0, 1.0, pool=pool, debug=True)
            expected = kernels.expected(source)
            expected[::-2] = kernels.expected(expected[::-2])
            np.testing.assert_array_equal(arr.array, expected, str(kernel))
    with shared(source, keywords) as arr:
        with _raises(OutOfBoundsError):
            parallel_apply(kernels.spill, arr[10:20], pool=pool, debug=True)
        np.testing.assert_array_equal(arr.array, source)


def check_plan(pool: Pool, keywords: Keywords) -> None:
    """A plan can be run again and again, and refuses to when its array is closed."""
    with shared(np.zeros(9), keywords) as arr:
        step = plan(kernels.affine, arr, 1.0, 2.0, pool=pool)
        for _ in range(5):
            step()
        np.testing.assert_array_equal(arr.array, np.full(9, 10.0))
    with _raises(ClosedError):
        step()


CHECKS: list[Callable[[Pool, Keywords], None]] = [
    value
    for name, value in list(globals().items())
    if name.startswith("check_") and name != "check_all"
]
