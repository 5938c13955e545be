"""`threads`: the common threads pool, of another number of workers for a while."""

from contextlib import contextmanager

import shmcompute as sc
from shmcompute.default_pools import default_pools


@contextmanager
def threads(count):
    """The common threads are so many."""
    before = default_pools.pop("threads", None)
    try:
        with sc.Pool(count, backend="threads") as default_pools["threads"]:
            yield
    finally:
        default_pools.pop("threads", None)
        if before is not None:
            default_pools["threads"] = before
