"""A program as a user types it; mypy --strict and pyright check it, nothing runs it.

Lines that end in ``type: ignore`` are wrong, and a checker must say so: one that does not makes
the ignoring itself an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import shmcompute as sc

Floats = NDArray[np.float64]


def scale(x: Floats, factor: float) -> None:
    x *= factor


def total(x: sc.SharedArray[np.float64], start: int = 0) -> float:
    return float(x[start:].sum())


def main() -> None:
    with sc.SharedArray(np.arange(10.0), dtype="f4", order="F", storage="auto") as arr:
        sc.parallel_apply(scale, arr, 2.0, chunksize=3, schedule="dynamic", timeout=1.5)
        sc.parallel_apply(scale, sc.split(arr, axis=0), sc.offset)
        sc.parallel_apply(np.add, arr, sc.read(arr.array), axis=-1, backend="threads")
        step: sc.apply.BoundPlan = sc.plan(scale, arr[2:5], 2.0, debug=True)
        step()
        told = sc.explain(scale, arr, 2.0, backend="threads", chunksize=3)
        reason: str | None = told.reason
        print(told, reason, step.explain().topics, [advice.remedy for advice in told.advice])
        name: str = arr.name
        shape: tuple[int, ...] = arr.shape
        size: int = arr.size
        total: np.ndarray[Any, Any] = arr.array
        print(name, shape, size, total, arr.owner, arr.closed)
    with sc.Pool(2, start_method="spawn", caller_runs=False) as pool:
        pids: list[int] = pool.ready(10).pids
        print(pids, pool.workers)
    try:
        sc.SharedArray.attach("nothing").close()
    except sc.errors.SegmentNotFoundError as error:
        print(error)
    except (sc.errors.OutOfBoundsError, sc.errors.ReadOnlyError) as error:
        print(error)
    except sc.errors.WorkerLostError as error:
        code: int | None = error.exitcode
        chunks: list[tuple[int, int]] = error.chunks
        print(code, chunks)
    sc.shutdown()


def dtypes(ints: NDArray[np.int32], anything: sc.SharedArray) -> None:
    """The dtype is known from what is copied, or from the dtype that is asked for."""
    assert_type(sc.SharedArray(ints), sc.SharedArray[np.int32])
    assert_type(sc.SharedArray(ints).array, NDArray[np.int32])
    assert_type(sc.SharedArray(ints).dtype, np.dtype[np.int32])
    assert_type(sc.SharedArray([1, 2], dtype=np.float32), sc.SharedArray[np.float32])
    assert_type(sc.SharedArray(sc.SharedArray(ints)), sc.SharedArray[np.int32])
    assert_type(sc.SharedArray.zeros(3), sc.SharedArray[np.float64])
    assert_type(sc.SharedArray.empty((2, 3), np.int8), sc.SharedArray[np.int8])
    assert_type(sc.SharedArray.full(3, 7, np.uint8).array, NDArray[np.uint8])
    assert_type(sc.SharedArray.zeros(3, "i4"), sc.SharedArray[Any])
    assert_type(anything.array, NDArray[Any])
    scale(sc.SharedArray.zeros(3).array, 2.0)
    scale(sc.SharedArray(ints).array, 2.0)  # type: ignore[arg-type]
    wrong: sc.SharedArray[np.int8] = sc.SharedArray.zeros(3)  # type: ignore[assignment]
    print(wrong)


def words(x: sc.SharedArray[np.float64]) -> None:
    """A word that is unknown, or a number where a word is expected."""
    sc.parallel_apply(scale, x, 2.0, schedule="dynamik")  # type: ignore[arg-type]
    sc.parallel_apply(scale, x, 2.0, backend="process")  # type: ignore[arg-type]
    sc.plan(scale, x, 2.0, schedule=1)  # type: ignore[arg-type]
    sc.parallel_for(print, 0, 3, backend="thread")  # type: ignore[arg-type]
    sc.halo(x, 1, boundary="periodic")  # type: ignore[arg-type]
    sc.halo(x, (1, 2), boundary="wrap")
    sc.halo(x, 1, boundary=0.5)
    sc.SharedArray([1], order="D")  # type: ignore[call-overload]
    sc.SharedArray.zeros(3, order="K")  # type: ignore[call-overload]
    sc.SharedArray([1], storage="disk")  # type: ignore[call-overload]
    sc.Pool(start_method="thread")  # type: ignore[arg-type]
    sc.Pool(backend="ray")  # type: ignore[arg-type]


def habits(x: sc.SharedArray[np.float64]) -> None:
    """What other libraries call it."""
    sc.Pool(n_jobs=2)  # type: ignore[arg-type]
    sc.Pool(max_workers=2)  # type: ignore[arg-type]
    sc.parallel_apply(scale, x, 2.0, n_jobs=2)  # type: ignore[arg-type]


def tasks(pool: sc.Pool, x: sc.SharedArray[np.float64]) -> None:
    """A task has its function's parameters, and its future the function's result."""
    assert_type(pool.submit(total, x), Future[float])
    assert_type(pool.submit(total, x, start=2), Future[float])
    assert_type(pool.starmap(total, [(x, 1)]), list[float])
    print(sum(pool.imap(total, [x, x])))
    pool.submit(total)  # type: ignore[call-arg]
    pool.submit(total, x, begin=2)  # type: ignore[call-arg]
    pool.submit(total, x, "2")  # type: ignore[arg-type]
    pool.imap(total, ["x"])  # type: ignore[arg-type]
    step = sc.plan(scale, x, 2.0)
    step.submit().result(timeout=1)
    step.chunks = ()  # type: ignore[misc]
