"""`make_backend`: the backend of that name."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from shmcompute.backends.base import Backend
from shmcompute.tasks import Initializer

if TYPE_CHECKING:
    from shmcompute.backends.dask import Dask

# ruff: noqa: PLC0415  # each is imported for who uses it: together they take as long as all the rest


def backend_class(name: str) -> type[Backend]:
    """The class of that name, of which nothing is made or started."""
    if name == "serial":
        from shmcompute.backends.serial import Serial

        return Serial
    if name == "threads":
        from shmcompute.backends.threads import Threads

        return Threads
    if name == "dask":
        return _dask()
    from shmcompute.backends.processes import Processes

    return Processes


def _dask() -> type[Dask]:
    if importlib.util.find_spec("distributed") is None:
        raise ImportError(
            'backend="dask" needs Dask\'s distributed, which is not installed: '
            "pip install 'shmcompute[dask]'"
        )
    from shmcompute.backends.dask import Dask

    return Dask


def make_backend(
    name: str,
    workers: int,
    start_method: str,
    *,
    threads_per_worker: int,
    caller_runs: bool,
    pin: bool,
    initializer: Initializer | None = None,
    max_tasks: int | None = None,
    client: Any = None,
) -> Backend:
    """A new backend; see `Pool` for what the parameters mean."""
    if name == "serial":
        from shmcompute.backends.serial import Serial

        return Serial(initializer)
    if name == "threads":
        from shmcompute.backends.threads import Threads

        return Threads(workers, pin=pin, initializer=initializer)
    if name == "dask":
        return _dask()(workers, client, initializer=initializer)
    from shmcompute.backends.processes import start_server_ahead

    if workers > caller_runs:
        start_server_ahead(start_method)  # which takes longer than the rest of the imports
    from shmcompute.backends.processes import Processes

    return Processes(
        workers,
        start_method,
        threads=threads_per_worker,
        caller_runs=caller_runs,
        pin=pin,
        initializer=initializer,
        max_tasks=max_tasks,
    )
