"""`sc.applied`: kernels on Dask's arrays, in both of its modes; NumPy is the oracle."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap

import leaks
import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTypeError

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
with leaks.kept():  # the threads of its scheduler
    da.ones(64, chunks=1).sum().compute()

RNG = np.random.default_rng(0)
X = RNG.integers(0, 100, 1000).astype(float)


@nb.njit
def affine(x, factor, first):
    for i in range(x.shape[0]):
        x[i] = x[i] * factor + (first + i)


def affine_python(x, factor, first):
    x[:] = x * factor + np.arange(first, first + len(x))


@nb.njit
def both(total, double, x):
    for i in range(x.size):
        total[i] = x[i] + 1
        double[i] = 2 * x[i]


@nb.njit
def window(new, old):
    for i in range(new.shape[0]):
        new[i] = old[i] + 2 * old[i + 1] + 4 * old[i + 3]


def window_of(padded):
    return padded[:-3] + 2 * padded[1:-2] + 4 * padded[3:]


def new_like(x, **more):
    return sc.write(da.empty_like(x, **more))


@pytest.mark.parametrize("chunks", [1000, 300, (1, 998, 1), 7])
@pytest.mark.parametrize("kernel", [affine, affine_python], ids=["jitted", "python"])
def test_a_kernel_in_place_becomes_a_new_array(kernel, chunks):
    x = da.from_array(X, chunks=chunks)
    new = sc.applied(kernel, x, 2.0, sc.offset)
    assert (new.dtype, new.shape, new.chunks) == (x.dtype, x.shape, x.chunks)
    np.testing.assert_array_equal(new.compute(), X * 2 + np.arange(1000))
    np.testing.assert_array_equal(x.compute(), X)


def test_a_ufunc_along_another_axis():
    m = RNG.random((6, 10))
    new = sc.applied(np.negative, sc.split(da.from_array(m, chunks=(-1, 4)), axis=1))
    np.testing.assert_array_equal(new.compute(), -m)


def test_several_outputs_of_their_own_dtypes():
    x = da.from_array(X, chunks=300)
    total, double = sc.applied(both, new_like(x), new_like(x, dtype=np.float32), sc.read(x))
    assert double.dtype == np.float32
    for found, expected in zip(dask.compute(total, double), (X + 1, X * 2), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("boundary", ["edge", "reflect", "symmetric", "wrap", 2.5, None])
@pytest.mark.parametrize(
    ("length", "chunks"), [(1000, 300), (10, (1, 2, 3, 4)), (7, 7), (13, 1), (9, (4, 4, 1))]
)
def test_a_halo_sees_what_numpys_pad_would(length, chunks, boundary):
    y = RNG.integers(0, 9, (length, 3)).astype(float)
    mode = {"mode": boundary} if isinstance(boundary, str) else {"constant_values": boundary or 0}
    padded = np.pad(y, ((1, 2), (0, 0)), **mode)
    x = da.from_array(y, chunks=(chunks, 3))
    seen = da.from_array(padded, chunks=(4, 3)) if boundary is None else x
    new = sc.applied(window, new_like(x), sc.halo(seen, (1, 2), boundary=boundary))
    np.testing.assert_array_equal(new.compute(), window_of(padded))


@pytest.mark.parametrize("depth", [0, (0, 2), (3, 0)])
def test_a_halo_on_one_side(depth):
    before, after = depth if isinstance(depth, tuple) else (depth, depth)

    def ends(new, old):
        new[:] = old[: len(new)] + 10 * old[len(old) - len(new) :]

    x = da.from_array(X, chunks=300)
    padded = np.pad(X, (before, after), mode="edge")
    new = sc.applied(ends, new_like(x), sc.halo(x, depth, boundary="edge"))
    np.testing.assert_array_equal(new.compute(), padded[:1000] + 10 * padded[before + after :])


def test_whole_arrays_of_both_kinds():
    def add(x, table, weights):
        x += table.sum() + weights[0]

    x, table = da.from_array(X, chunks=300), da.ones((4, 5), chunks=2)
    new = sc.applied(add, x, sc.whole(table), sc.whole(np.array([0.5])))
    np.testing.assert_array_equal(new.compute(), X + 20.5)


def test_a_chain_is_one_task_for_each_block():
    x = da.from_array(X, chunks=250)
    scratch = da.empty_like(x)
    new = sc.applied(
        [(np.square, sc.write(scratch), sc.read(x)), (affine, scratch, 3.0, sc.offset)]
    )
    np.testing.assert_array_equal(new.compute(), X**2 * 3 + np.arange(1000))


def test_what_is_written_first_is_not_computed():
    def fails(block):
        raise AssertionError("nobody needs this")

    x = da.from_array(X, chunks=300)
    never = x.map_blocks(fails, dtype=float, meta=np.empty(0))
    np.testing.assert_array_equal(
        sc.applied(np.negative, sc.write(never), sc.read(x)).compute(), -X
    )
    with pytest.raises(AssertionError, match="nobody needs this"):  # but here its content counts
        sc.applied(np.negative, sc.write(never), sc.read(never)).compute()


@pytest.mark.parametrize(
    "x",
    [da.ones(10, chunks=4), da.from_array(np.broadcast_to(np.ones(1), 10), chunks=4)],
    ids=["ones", "broadcast"],
)
def test_blocks_of_stride_0_and_read_only_ones_are_copied(x):
    kept = x.persist(scheduler="sync")
    np.testing.assert_array_equal(sc.applied(affine, kept, 2.0, sc.offset), 2 + np.arange(10))
    np.testing.assert_array_equal(kept, np.ones(10))


def test_empty_arrays():
    x = da.from_array(np.empty(0), chunks=4)
    assert sc.applied(affine, x, 2.0, sc.offset).compute().shape == (0,)


def test_xarrays_that_hold_one():
    xarray = pytest.importorskip("xarray")
    dataset = xarray.Dataset({"t": ("time", da.from_array(X, chunks=300))})
    new = dataset.t.copy(data=sc.applied(affine, dataset.t, 2.0, sc.offset))
    np.testing.assert_array_equal(new.values, X * 2 + np.arange(1000))
    mapped = xarray.apply_ufunc(
        lambda data: sc.applied(affine, data, 2.0, sc.offset), dataset.t, dask="allowed"
    )
    np.testing.assert_array_equal(mapped.values, X * 2 + np.arange(1000))


def test_a_kernel_is_compiled_once_and_errors_name_the_place():
    @nb.njit
    def checked(x, first):
        for i in range(x.size):
            if first + i == 777:
                raise ValueError("seven")

    x = da.from_array(X, chunks=300)
    with pytest.raises(ValueError, match="seven") as caught:
        sc.applied(checked, x, sc.offset).compute(scheduler="threads")
    assert any("block [600, 900)" in note for note in caught.value.__notes__)


def refused():
    x = da.from_array(X, chunks=300)
    square = da.ones((4, 4), chunks=2)
    return {
        "another axis": (lambda: sc.applied(affine, square, 1.0, sc.offset), "along axis 1, too"),
        "unlike edges": (lambda: sc.applied(np.add, x, da.ones(1000, chunks=100)), "same places"),
        "unknown sizes": (lambda: sc.applied(np.sqrt, x[x > 5]), "compute_chunk_sizes"),
        "nothing written": (lambda: sc.applied(np.sqrt, sc.read(x)), "nothing is written"),
        "a plain array": (lambda: sc.applied(np.add, x, X), "sc.whole"),
        "shared": (lambda: sc.applied(np.add, x, sc.shared(x)), "can be written by all"),
        "chunk": (lambda: sc.applied(np.add, x, sc.chunk), "shmcompute.chunk"),
        "rng": (lambda: sc.applied(np.add, x, sc.rng(0)), "one machine"),
        "per_chunk": (lambda: sc.applied(np.add, x, sc.per_chunk(())), "one machine"),
        "a halo of what is written": (
            lambda: sc.applied(window, x, sc.halo(x, (1, 2), boundary="edge")),
            "empty_like",
        ),
        "a wrong length": (lambda: sc.applied(window, x, sc.halo(da.ones(9), (1, 2))), "1003"),
        "an axis": (lambda: sc.applied(np.sqrt, x, axis=1), "out of range"),
        "no axis": (lambda: sc.applied(np.sqrt, x, axis="0"), "whole number"),
        "an option": (lambda: sc.applied(np.sqrt, x, n_jobs=2), "n_jobs"),
        "in place": (lambda: sc.parallel_apply(np.sqrt, x), "sc.applied"),
    }


@pytest.mark.parametrize("what", refused())
def test_what_is_refused_says_why(what):
    call, match = refused()[what]
    with pytest.raises((TypeError, ValueError), match=match):
        call()


def test_a_kernel_that_does_not_compile_is_refused_before_anything_runs():
    x = da.from_array(X, chunks=300)
    with pytest.raises(KernelTypeError, match="affine"):
        sc.applied(affine, x, "two", sc.offset)


def test_a_dtype_that_an_array_does_not_have_is_told():
    x = da.from_array(X, chunks=300)
    wrong = x.map_blocks(lambda block: block.astype("f4"), dtype=float, meta=np.empty(0))
    with pytest.raises(TypeError, match="told a wrong dtype"):
        sc.applied(np.sqrt, wrong).compute()


def test_a_graph_is_small_and_holds_the_machine_code_once():
    x = da.from_array(X, chunks=1)  # 1000 tasks
    new = sc.applied(affine, x, 2.0, sc.offset)
    one = len(pickle.dumps(sc.dump_kernel(affine, np.zeros(9), 2.0, 3)))
    size = len(pickle.dumps(dict(new.__dask_graph__())))
    assert size < 20 * one + 1000 * 2000


PROGRAM = """
import dask
dask.config.set({"array.query-planning": True})
import dask.array as da, numba as nb, numpy as np, shmcompute as sc
assert hasattr(da.Array, "expr")
@nb.njit
def affine(x, factor, first):
    for i in range(x.shape[0]):
        x[i] = x[i] * factor + (first + i)
@nb.njit
def both(a, b, x):
    for i in range(x.size):
        a[i] = x[i] + 1
        b[i] = 2 * x[i]
def smooth(new, old):
    new[:] = old[:-2] + old[2:]
X = np.arange(1000.0)
x = da.from_array(X, chunks=300)
assert np.array_equal(sc.applied(affine, x, 2.0, sc.offset).compute(), X * 3)
a, b = sc.applied(both, sc.write(da.empty_like(x)), sc.write(da.empty_like(x)), sc.read(x))
assert np.array_equal(a.compute(), X + 1) and np.array_equal(b.compute(), 2 * X)
for boundary in ("edge", "reflect", "symmetric", "wrap"):
    p = np.pad(X, 1, mode=boundary)
    new = sc.applied(smooth, sc.write(da.empty_like(x)), sc.halo(x, 1, boundary=boundary))
    assert np.array_equal(new.compute(), p[:-2] + p[2:]), boundary
print("equal")
"""


def test_with_array_expressions():
    """They are chosen before `dask.array` is imported, so in a program of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if "query-planning" in done.stderr and "Error" not in done.stderr:
        pytest.skip("this Dask has no array expressions")
    assert done.stdout == "equal\n", done.stderr
