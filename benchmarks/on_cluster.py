"""``python -m benchmarks.on_cluster WAY CASE``: what a kernel's first call takes.

Processor time, user and system, of client, scheduler and workers of a fresh cluster, from the call
until its result is there.
"""

import subprocess
import sys
from contextlib import contextmanager

import dask
import dask.array as da
import numba as nb
import numpy as np
import psutil
from distributed import Client, LocalCluster, wait

import shmcompute as sc
from benchmarks.settings import ENVIRONMENT

# Lines of the kernel's loop, and blocks: one like those of tutorials, and one of 13 KB source.
CASES = {"short": (1, 16), "middle": (40, 16), "long": (330, 1000)}
BLOCK = 1000


def cpu_seconds(way, case):
    """Of a first call, in processes of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.on_cluster", way, case]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def kernel_of(lines):
    """A kernel whose loop has so many lines of some 38 characters."""
    steps = "".join(f"        x = 0.5 * (x + {i / 7:.6f}) - 1e-3 * x\n" for i in range(lines))
    text = f"def kernel(new, old):\n    for i in range(new.size):\n        x = old[i]\n{steps}"
    names = {}
    exec(text + "        new[i] = x\n", names)  # our own text
    return names["kernel"]


def by_hand(kernel, x):
    """What one would write without us; `meta` spares Dask to call it to find out."""
    jitted = nb.njit(nogil=True)(kernel)

    def on_block(old):
        new = np.empty_like(old)
        jitted(new, old)
        return new

    return da.map_blocks(on_block, x, dtype=x.dtype, meta=np.empty(0, x.dtype))


def by_applied(kernel, x):
    """What one writes with us."""
    return sc.applied(nb.njit(kernel), sc.write(da.empty_like(x)), sc.read(x))


WAYS = {"by hand": by_hand, "applied": by_applied}


def _measure(way, case):
    lines, blocks = CASES[case]
    kernel = kernel_of(lines)
    with cluster():
        x = da.full(blocks * BLOCK, 0.5, chunks=BLOCK).persist()
        wait(x)
        before = _taken()
        new = WAYS[way](kernel, x).persist()
        wait(new)
        taken = _taken() - before
        assert float(new[0].compute()) == float(new[-1].compute())
    return taken


@contextmanager
def cluster():
    """A client of two workers of one thread each."""
    with (
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as workers,
        Client(workers) as client,
    ):
        client.wait_for_workers(2)
        yield client


def _taken():
    """Seconds that this process and those that it has started have used."""
    who = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in who)


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
