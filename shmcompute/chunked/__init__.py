"""Kernels on arrays that lie in blocks elsewhere: Dask's, xarray's that hold them, and zarr's."""

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shmcompute.apply import provide_elsewhere
from shmcompute.chunked.applied import applied
from shmcompute.chunked.new_versions import remove_all_left
from shmcompute.plans import calls_of

if TYPE_CHECKING:
    from shmcompute.chunked.block_call import BlockCall

__all__ = [
    "BlockCall",
    "applied",
    "kind_of_chunked",
    "remove_all_left",
    "results_of_blocks",
    "run_elsewhere",
]


def kind_of_chunked(args: Sequence[Any]) -> str | None:
    """Of which library one of the arguments is, marked or not, that lies in blocks."""
    for name, module in (("dask", "dask.array"), ("zarr", "zarr")):
        if module in sys.modules:
            wrap = importlib.import_module(f"{__name__}.{name}_arrays").wrap
            if any(wrap(getattr(arg, "value", arg)) is not None for arg in args):
                return name
    return None


def results_of_blocks(
    library: str, what: str, kernel: Any, args: tuple[Any, ...], axis: int, pool: Any
) -> Any:
    """What a kernel returns for each block: a `BlockResults`.

    Those of Dask's arrays are computed by the scheduler that Dask would take, others by the pool.
    """
    found = importlib.import_module(f"{__name__}.{library}_arrays")
    return found.results_of_blocks(what, kernel, args, axis, pool)


def run_elsewhere(
    kernel: Any, args: tuple[Any, ...], options: Any, pool: Any, timeout: Any, progress: Any
) -> bool:
    """Run a call on zarr arrays in place; False if there are none among the arguments."""
    given = [arg for _, *args in calls_of(kernel, args) for arg in args]
    if kind_of_chunked(given) != "zarr":
        return False
    from shmcompute.chunked.zarr_arrays import apply_in_place  # noqa: PLC0415  # it is loaded

    apply_in_place(kernel, args, options, pool, timeout, progress)
    return True


def __getattr__(name: str) -> Any:
    if name == "BlockCall":
        return importlib.import_module(f"{__name__}.block_call").BlockCall
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


provide_elsewhere(run_elsewhere)
