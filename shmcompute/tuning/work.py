"""`Work`: what is known of a call before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shmcompute.chunking import ChunkNumber, OutputRow, bytes_of
from shmcompute.kernels import Kernel, NumbaKernel, UfuncKernel
from shmcompute.plans import Link, Options


class Work(NamedTuple):
    """What a call is to do.

    Parameters
    ----------
    kind : {'native', 'ufunc', 'python'}
        Machine code, which needs no Python; NumPy's loops, which let go of the GIL; or any callable
        of Python, which may hold it.
    nbytes : int
        Of all that is split.
    parts : int
        How many workers may share it.
    numbered : bool
        Whether it sees into how many chunks it is cut, which is one for each worker.
    """

    kind: str
    nbytes: int
    parts: int
    numbered: bool = False


def work_of(links: Sequence[Link], options: Options, workers: int) -> Work:
    """What a call of these kernels is to do."""
    length = links[0].arguments.length
    kinds = {_kind(link.kernel) for link in links}
    kind = next(kind for kind in ("python", "ufunc", "native") if kind in kinds)
    bound = [argument for link in links for argument in link.arguments.bound]
    counts = any(isinstance(argument, (ChunkNumber, OutputRow)) for argument in bound)
    by_workers = options.chunksize is None or options.schedule == "guided"
    nbytes = bytes_of([link.arguments for link in links])
    return Work(kind, nbytes, max(1, min(workers, length)), counts and by_workers and workers > 1)


def _kind(kernel: Kernel) -> str:
    if isinstance(kernel, NumbaKernel):
        return "python" if kernel.dispatcher.targetoptions.get("forceobj") else "native"
    return "ufunc" if isinstance(kernel, UfuncKernel) else "python"
