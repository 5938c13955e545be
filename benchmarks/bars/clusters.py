"""Topics of arrays in blocks: Dask's and zarr's, on threads, on a cluster, on disk."""

import os
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.bars.turns import Outcome, ratio, turns

BLOCKS, ROUNDS = 16, 9
ELEMENTS = int(float(os.environ.get("SHMCOMPUTE_BENCH_DASK_MIB", "256")) * (1 << 20)) // 8
ZARR_MIB = int(os.environ.get("SHMCOMPUTE_BENCH_ZARR_MIB", "3072"))
MIB = 1 << 20
SIZE = f"{ELEMENTS * 8 // MIB} MiB in {BLOCKS} blocks"


@nb.njit(nogil=True)
def scale(new, old, shift):
    for i in range(new.size):
        new[i] = old[i] * 0.5 + shift


@nb.njit(nogil=True)
def smooth(new, old, shift):
    for i in range(new.size):
        new[i] = (old[i] + old[i + 1] + old[i + 2]) / 3 + shift


def _scaled(old, shift):
    new = np.empty_like(old)
    scale(new, old, shift)
    return new


def _smoothed(old, shift):
    new = np.empty(old.size - 2)
    smooth(new, old, shift)
    return new


def maps():
    """A kernel on each block, against `map_blocks`."""
    yield from _on_both("applied", {"applied": _applied, "map_blocks": _map_blocks})


def halos():
    """A kernel that sees beyond its block, against `map_overlap`."""
    ways = {"applied": _applied_with_halo, "map_overlap": _map_overlap}
    yield from _on_both("applied with halo", ways)


def _applied(x, shift):
    return sc.applied(scale, sc.write(_like(x)), sc.read(x), shift)


def _map_blocks(x, shift):
    return x.map_blocks(_scaled, shift, dtype=x.dtype, meta=x._meta)


def _applied_with_halo(x, shift):
    return sc.applied(smooth, sc.write(_like(x)), sc.halo(x, 1, boundary="edge"), shift)


def _map_overlap(x, shift):
    how = {"depth": 1, "boundary": "nearest", "trim": False, "meta": x._meta}
    return x.map_overlap(_smoothed, shift=shift, dtype=x.dtype, **how)


def _like(x):
    import dask.array as da  # it may be missing

    return da.empty_like(x)


def _on_both(name, ways):
    base = list(ways)[-1]
    for where, place in {"threads": _threads, "LocalCluster": _cluster}.items():
        what = f"{name}, {SIZE}, {where}"
        if missing := _missing("dask", "distributed"):
            yield Outcome(what, 1.1, why=missing)
            continue
        with place() as run:
            found = _compared(ways, run)
        yield ratio(what, found, "applied", base, 1.1)


def _compared(ways, run):
    """Seconds from building the graph until all blocks are there."""
    import dask.array as da  # it may be missing

    data = np.random.default_rng(0).random(ELEMENTS)
    x = run(da.from_array(data, chunks=ELEMENTS // BLOCKS))
    ours, theirs = (run(way(x, 0.0)) for way in ways.values())
    assert bool((ours == theirs).all().compute())
    del ours, theirs
    shifts = count(1.0)  # a cluster may still have the blocks of a graph that it has seen
    calls = {name: lambda way=way: _wait(run, way(x, next(shifts))) for name, way in ways.items()}
    return turns(calls, ROUNDS)


def _wait(run, array):
    run(array)  # and drop it


@contextmanager
def _threads():
    import dask  # it may be missing

    with dask.config.set(scheduler="threads", num_workers=2):
        yield lambda array: array.persist()


@contextmanager
def _cluster():
    from distributed import wait  # it may be missing

    from benchmarks.on_cluster import cluster

    with cluster():
        yield lambda array: wait(made := array.persist()) and made


def first_kernels():
    """Processor time of a kernel's first call, of client, scheduler and two workers."""
    for case, bar, what in (
        ("short", 0.7, "a kernel's first call on a cluster, CPU"),
        ("long", 0.5, "the same, 13 KB of source and 1000 tasks, CPU"),
    ):
        if missing := _missing("dask", "distributed"):
            yield Outcome(what, bar, why=missing)
            continue
        from benchmarks.on_cluster import cpu_seconds  # Dask may be missing

        yield Outcome(what, bar, [cpu_seconds("applied", case)], [cpu_seconds("by hand", case)])


def zarr_memory():
    """The most that a worker holds while arrays that are larger go from disk to disk."""
    ways = {"parallel_apply, 2 processes": _in_place, "applied, LocalCluster": _to_zarr}
    for name, way in ways.items():
        what = f"{ZARR_MIB} MiB zarr to zarr, {name}, each"
        if missing := _missing("dask", "distributed", "zarr"):
            yield Outcome(what, 300, unit=" MiB", why=missing)
            continue
        with tempfile.TemporaryDirectory(dir=os.environ.get("SHMCOMPUTE_BENCH_FOLDER")) as folder:
            yield Outcome(what, 300, [way(*_zarr_arrays(folder))], unit=" MiB")


def _zarr_arrays(folder):
    import zarr  # it may be missing

    shape, chunks = (ZARR_MIB * MIB // 8 // 1024, 1024), (1024, 1024)
    old, new = (
        zarr.create_array(f"{folder}/{name}", shape=shape, chunks=chunks, dtype="f8")
        for name in ("old", "new")
    )
    some = np.random.default_rng(0).integers(0, 1000, chunks).astype("f8")
    for start in range(0, shape[0], chunks[0]):
        old[start : start + chunks[0]] = some[: shape[0] - start] + start
    return old, new


@nb.njit(nogil=True)
def scale_rows(new, old):
    for i in range(new.shape[0]):
        for j in range(new.shape[1]):
            new[i, j] = old[i, j] * 0.5 + 1.0


def _in_place(old, new):
    with sc.Pool(2, backend="processes") as pool:
        sc.parallel_apply(scale_rows, sc.write(new), sc.read(old), pool=pool)
        found = _peak(pool.pids)
    _check(old, new)
    return found


def _to_zarr(old, new):
    import dask.array as da  # it may be missing

    from benchmarks.on_cluster import cluster

    with cluster() as client:
        x = da.from_zarr(old)  # a block for each of its chunks, of 8 MiB
        da.store(sc.applied(scale_rows, sc.write(da.empty_like(x)), sc.read(x)), new, lock=False)
        found = _peak(client.run(os.getpid).values())
    _check(old, new)
    return found


def _check(old, new):
    for rows in (slice(0, 1024), slice(-1024, None)):
        np.testing.assert_array_equal(new[rows], old[rows] * 0.5 + 1.0)


def _peak(pids):
    """MiB that the largest of these processes has held, as the system tells."""
    return max(_high_water(pid) for pid in pids) / 1024


def _high_water(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def _missing(*names):
    found = [name for name in names if find_spec(name) is None]
    return f"{found[0]} is not installed" if found else ""
