"""The default pools: those of calls that name none."""

from __future__ import annotations

import os
import threading

from shmcompute import config
from shmcompute.pool import Pool, possible_backend, start_seconds, worker_count
from shmcompute.storage import segment_cache
from shmcompute.typing import BackendName

# By the backend that was asked for; "" where neither argument nor environment asks.
default_pools: dict[str, Pool] = {}
_making = threading.RLock()  # reentrant, for handlers of signals


class _DefaultPool(Pool):
    """Once it is closed, by whomever, it is a default pool no more."""

    def _close(self) -> None:
        super()._close()
        for asked in [asked for asked, pool in default_pools.items() if pool is self]:
            del default_pools[asked]


def default_pool(backend: str | None = None) -> Pool:
    """The pool that calls without one share, made at first use, anew in a forked child."""
    asked = backend or config.setting("BACKEND") or ""
    with _making:
        pool = default_pools.get(asked)
        if pool is None:
            name, _ = default_backend(backend)
            same = (pool for pool in default_pools.values() if pool.backend == name)
            pool = next(same, None) or _DefaultPool(backend=name)
            if pool.records is not None:
                pool.chooses_among(default_pool, _start_seconds)
            default_pools[asked] = pool
        return pool


def default_backend(backend: str | None = None) -> tuple[BackendName, str]:
    """The backend of the pool that calls without one get which name this backend, and why."""
    possible = possible_backend()
    name = config.chosen("backend", backend, "BACKEND", config.CHOICES, possible)
    if backend is not None:
        return name, "backend= names it"
    if config.setting("BACKEND") is not None:
        return name, f"SHMCOMPUTE_BACKEND={name} names it"
    daemonic = "this process is daemonic, and so has no worker processes of its own"
    return name, "it is the default" if possible == "processes" else daemonic


def default_workers(backend: str) -> int:
    """How many workers a pool of that backend has that does not say."""
    return 1 if backend == "serial" else worker_count(None)


def _start_seconds(kind: str) -> float:
    """What the first call of a kind waits for, where default pools are used."""
    running = any(pool.backend == kind for pool in list(default_pools.values()))
    return 0.0 if running and kind == "processes" else start_seconds(kind)


def shutdown() -> None:
    """End the default pools, and give back memory that is kept for new arrays.

    It waits for calls and tasks that run. The next call without a pool makes another one. A program
    that ends does it by itself.

    Examples
    --------
    >>> import shmcompute as sc
    >>> sc.shutdown()
    """
    with _making:
        pools = set(default_pools.values())
        default_pools.clear()
    for pool in pools:
        pool.close()
    segment_cache.release()


def _after_fork() -> None:
    """A child makes its own."""
    global _making
    _making = threading.RLock()
    default_pools.clear()


os.register_at_fork(after_in_child=_after_fork)
