"""A program as a user types it; mypy --strict checks it, nothing runs it."""

from __future__ import annotations

from typing import Any

import numpy as np

import shmcompute as sc


def scale(x: np.ndarray[Any, np.dtype[np.float64]], factor: float) -> None:
    x *= factor


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
