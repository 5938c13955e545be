"""A cluster of two hosts, each a network namespace: one loses its link in the middle of a call.

Run in the namespace of the first host: ``cluster.py KIND THERE``, as root. Prints how long the
call took and may take, and whether the result had the right bits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import dask
import numba as nb
import numpy as np

import shmcompute as sc

TCP = 12  # seconds; Dask takes no fewer than 11
BLOCKS, LENGTH, WORK = 24, 1000, 0.25  # seconds a block
dask.config.set(
    {
        "distributed.comm.timeouts.tcp": f"{TCP}s",
        "distributed.comm.timeouts.connect": f"{TCP}s",
        "distributed.scheduler.worker-ttl": None,
    }
)


@nb.njit
def affine(x, first):
    for i in range(x.size):
        x[i] = x[i] * 3.0 + (first + i)


def slowly(x, first, work):
    time.sleep(work)
    affine(x, first)


def main(kind, there):
    """Start scheduler and workers; call; cut the link when some of it is done."""
    from distributed import Client

    env = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{TCP}s"}
    env["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] = f"{TCP}s"
    python = [sys.executable, "-m"]
    address = "tcp://10.83.7.1:8786"
    common = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = [*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny",
              "--no-dashboard"]  # fmt: skip
    started = [
        subprocess.Popen(
            [*python, "distributed.cli.dask_scheduler", "--host", "10.83.7.1", "--no-dashboard"],
            **common,
        ),
        subprocess.Popen([*worker, "--host", "10.83.7.1"], **common),
        subprocess.Popen(["ip", "netns", "exec", there, *worker, "--host", "10.83.7.2"], **common),
    ]
    try:
        with Client(address, timeout=30, set_as_default=True) as client:
            client.wait_for_workers(2, timeout=60)
            cut = threading.Timer(
                BLOCKS * WORK / 6,
                lambda: subprocess.run(["ip", "link", "set", "wire", "down"], check=True),
            )
            x = np.random.default_rng(0).random(BLOCKS * LENGTH)
            expected = x * 3.0 + np.arange(x.size)
            warm(client, kind, x.copy())
            cut.start()
            begin = time.monotonic()
            found = call(client, kind, x.copy())
            seconds = time.monotonic() - begin
            cut.join()
            print(seconds, TCP + BLOCKS * WORK + 5, int(np.array_equal(found, expected)))
            if kind == "zarr":  # on a file system that both see, where the other host goes on
                time.sleep(4 * WORK)
                print(int(np.array_equal(zarr_array()[...], expected)))
            sys.stdout.flush()
    finally:
        for process in started:
            process.kill()
            process.wait()
        os._exit(0)  # not to wait for the host that is gone


def warm(client, kind, x):
    call(client, kind, x, 0.0)


def call(client, kind, x, work=WORK):
    if kind == "applied":
        import dask.array as da

        return sc.applied(slowly, da.from_array(x, chunks=LENGTH), sc.offset, work).compute()
    with sc.Pool(backend="dask", client=client) as pool:
        if kind == "zarr":
            return in_place(pool, x, work)
        sc.parallel_apply(slowly, x, sc.offset, work, pool=pool, chunksize=LENGTH)
    return x


def in_place(pool, x, work):
    from shmcompute.chunked import zarr_arrays

    zarr_arrays.REGION = 1  # so that each chunk is a task
    array = zarr_array(x)
    sc.parallel_apply(slowly, array, sc.offset, work, pool=pool)
    return array[...]


def zarr_array(content=None):
    import zarr

    if content is not None:
        zarr.create_array("x", data=content, chunks=LENGTH, overwrite=True)
    return zarr.open_array("x")


if __name__ == "__main__":
    main(*sys.argv[1:])
