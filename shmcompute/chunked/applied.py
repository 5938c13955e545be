"""`applied`: the front door of calls on Dask's arrays."""

from __future__ import annotations

import importlib.util
from typing import Any, Never

from shmcompute import config
from shmcompute.system.tracebacks import shorten
from shmcompute.typing import ScheduleName


def applied(
    kernel: Any,
    *args: Any,
    axis: int = 0,
    chunksize: int | None = None,
    schedule: ScheduleName = "static",
    **unknown: Never,
) -> Any:
    """What `parallel_apply` would write, as new Dask arrays: as `sorted` is to `list.sort`.

    Nothing runs until these are computed. Each block is a task, on whichever scheduler computes it:
    threads, or the workers of a cluster. It calls the kernel on the block's chunks by the threads
    that its worker has. Blocks of the arrays that are passed are never changed.

    Parameters
    ----------
    kernel : callable, or list of them
        As for `parallel_apply`. A chain is one pass: one task for each block. A jitted kernel is
        compiled here, once; its machine code travels, and hosts of another kind compile its source.
    *args
        Dask arrays (or xarray's DataArrays that hold one) are split along `axis`; `split`, `read`,
        `write`, `whole` and `halo` say otherwise, and `offset` is where a chunk starts in the whole
        array. They must have the same blocks along their split axes, and one block along all other
        axes. The old content of what is passed in `write` is neither computed nor sent. All else
        is passed as it is.
    axis : int
        Along which arrays are split, unless they name their own.
    chunksize, schedule
        Of the chunks within a block, as for `parallel_apply`.
    **unknown
        There are no others.

    Returns
    -------
    dask.array.Array, or tuple of them
        One for each array that the kernel writes, in the order of the arguments.

    Raises
    ------
    TypeError, ValueError
        For arrays that are cut otherwise, for markers that depend on one machine's chunks (`chunk`,
        `rng`, `per_chunk`), for `shared`, for plain arrays, and if nothing is written.
    ImportError
        If Dask is not installed.
    KernelTypeError, KernelSerializationError
        If the kernel does not take such blocks, or does not travel.

    Examples
    --------
    >>> import dask.array as da, numpy as np, shmcompute as sc
    >>> def smooth(new, old):
    ...     new[:] = (old[:-2] + old[1:-1] + old[2:]) / 3
    >>> x = da.arange(6.0, chunks=3)
    >>> new = sc.applied(smooth, sc.write(da.empty_like(x)), sc.halo(x, 1, boundary="edge"))
    >>> print(new.compute().round(2))
    [0.33 1.   2.   3.   4.   4.67]
    """
    if unknown:
        config.refuse_unknown("applied", unknown)
    if importlib.util.find_spec("dask") is None:
        raise ImportError("sc.applied needs Dask: pip install 'shmcompute[dask]'")
    from shmcompute.chunked import dask_arrays  # noqa: PLC0415  # for who has Dask

    try:
        options = {"chunksize": chunksize, "schedule": schedule}
        return dask_arrays.apply_lazily(kernel, args, axis, options)
    except BaseException as error:
        shorten(error)
        raise
