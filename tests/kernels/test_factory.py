"""Kernels: what can be called, and what is found out before anything runs."""

from __future__ import annotations

import contextlib
import functools

import kernels
import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTypeError


@pytest.fixture
def arr():
    with sc.SharedArray(np.arange(1.0, 9.0)) as arr:
        yield arr


def _refused(arr, kind, match, kernel, *args, **keywords):
    before = arr.array.copy()
    for backend in ("serial", "threads", "processes"):
        with pytest.raises(kind, match=match):
            sc.parallel_apply(kernel, arr, *args, backend=backend, **keywords)
        np.testing.assert_array_equal(arr.array, before)


@pytest.mark.parametrize("kernel", [kernels.affine, kernels.affine_python, kernels.affine_eager])
@pytest.mark.parametrize("args", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_wrong_arity_is_found_before_dispatch(arr, kernel, args):
    _refused(arr, KernelTypeError, "affine", kernel, *args)


def test_wrong_types_are_found_before_dispatch(arr):
    _refused(arr, KernelTypeError, "does not compile", kernels.affine, "a", "b")
    _refused(arr, KernelTypeError, "no version for", kernels.affine_eager, 1.0, 1j)
    _refused(arr, KernelTypeError, "Numba does not know", kernels.affine, object(), 1.0)
    _refused(arr, KernelTypeError, "does not take", kernels.affine_ufunc_eager, "a", "b")


def test_an_eager_kernel_converts_as_numba_does(arr):
    sc.parallel_apply(kernels.affine_eager, arr, 3, 1)
    np.testing.assert_array_equal(arr.array, np.arange(1.0, 9.0) * 3 + 1)


def test_writing_what_is_read_only_does_not_compile(arr):
    with sc.SharedArray(np.zeros(8)) as out:
        _refused(out, KernelTypeError, "readonly", _writes_second, sc.read(arr))
        _refused(out, KernelTypeError, "readonly", _writes_second, sc.whole(arr))


@nb.njit
def _writes_second(x, y):
    y[0] = x[0]


def test_python_kernels_find_read_only_arrays_read_only(arr):
    def write(x, y):
        y[0] = 1

    with sc.SharedArray(np.zeros(8)) as out, pytest.raises(ValueError, match="read-only"):
        sc.parallel_apply(write, out, sc.read(arr))


def test_a_jitted_kernel_that_returns_is_refused_before_it_runs(arr):
    _refused(arr, TypeError, "must write in place", kernels.returns)


def test_a_python_kernel_that_returns_is_told(any_pool):
    with sc.SharedArray(np.zeros(3)) as arr, pytest.raises(TypeError, match="must write in place"):
        sc.parallel_apply(lambda x: x + 1, arr, pool=any_pool)


@pytest.mark.parametrize("kernel", [None, 7, "np.sqrt", (np.sqrt,), [None]])
def test_what_cannot_be_called_is_a_type_error(arr, kernel):
    _refused(arr, TypeError, "expected a callable", kernel)


def test_ufuncs_write_the_first_split_argument(any_pool):
    x, y = np.arange(1.0, 7.0), np.arange(6.0)
    with sc.SharedArray(x) as a, sc.SharedArray(y) as b, sc.SharedArray(np.zeros(6)) as out:
        sc.parallel_apply(np.add, a, sc.read(b), pool=any_pool)
        np.testing.assert_array_equal(a.array, x + y)
        sc.parallel_apply(np.hypot, out, sc.read(a), sc.read(b), pool=any_pool)
        np.testing.assert_array_equal(out.array, np.hypot(x + y, y))
        sc.parallel_apply(np.negative, sc.read(b), out, pool=any_pool)
        np.testing.assert_array_equal(out.array, -y)
        np.testing.assert_array_equal(b.array, y)
        sc.parallel_apply(np.multiply, 2.0, out, pool=any_pool)
        np.testing.assert_array_equal(out.array, -y * 2)
        sc.parallel_apply(
            np.modf,
            out,
            a,
            sc.read(np.sqrt(y)) if any_pool.backend == "serial" else sc.read(b),
            pool=any_pool,
        )


def test_a_ufunc_with_whole_tables_broadcasts(any_pool):
    table = np.arange(3.0)
    with sc.SharedArray(np.ones((5, 3))) as arr:
        sc.parallel_apply(np.multiply, arr, sc.whole(table), pool=any_pool)
        np.testing.assert_array_equal(arr.array, np.ones((5, 3)) * table)


def test_a_ufunc_that_does_not_fit_is_refused(arr):
    _refused(arr, KernelTypeError, "takes 2 inputs and 1 outputs", np.add)
    _refused(arr, KernelTypeError, "takes 1 inputs and 2 outputs", np.modf)
    _refused(arr, KernelTypeError, "affine_gufunc", kernels.affine_gufunc, "a", "b")
    with sc.SharedArray([1, 4, 9]) as ints:
        _refused(ints, KernelTypeError, "Cannot cast", np.sqrt)


def test_partials_of_partials_and_of_ufuncs(any_pool):
    nested = functools.partial(functools.partial(kernels.affine, b=1.0), a=3.0)
    with sc.SharedArray(np.arange(4.0)) as arr:
        sc.parallel_apply(nested, arr, pool=any_pool)
        np.testing.assert_array_equal(arr.array, np.arange(4.0) * 3 + 1)
        sc.parallel_apply(functools.partial(np.subtract, 10.0), arr, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 9 - np.arange(4.0) * 3)
        sc.parallel_apply(functools.partial(np.add, casting="unsafe"), arr, 1, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 10 - np.arange(4.0) * 3)


def test_a_partial_of_a_jitted_kernel_is_checked_too(arr):
    _refused(arr, KernelTypeError, "compile", functools.partial(kernels.affine, b="x"), 1.0)
    _refused(arr, KernelTypeError, "arguments", functools.partial(kernels.affine, b=1.0))


def test_threads_run_jitted_kernels_without_the_gil():
    """The variant is compiled once, and only where the kernel holds the GIL."""
    from shmcompute.kernels.variants import nogil

    variant = nogil(kernels.affine)
    assert variant.targetoptions["nogil"]
    assert nogil(kernels.affine) is variant
    assert nogil(kernels.affine_nogil) is kernels.affine_nogil
    assert not nogil(kernels.affine_prange).targetoptions["parallel"]


def test_an_object_mode_kernel_runs(any_pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        sc.parallel_apply(_object_mode, arr, pool=any_pool)
        np.testing.assert_array_equal(arr.array, np.arange(4.0) + 1)


@nb.jit(forceobj=True)
def _object_mode(x):
    x += 1


@pytest.mark.long
def test_dynamic_gufuncs_are_compiled_for_what_they_get(pools):
    """Numba's own take no ``out=(array,)``, and each type needs a loop of its own."""

    @nb.guvectorize("(n),()->(n),()")
    def scaled(x, k, out, total):
        total[0] = 0
        for i in range(x.shape[0]):
            out[i] = x[i] * k
            total[0] += x[i]

    for backend in ("serial", "threads", "forkserver"):
        for dtype in ("f8", "c16"):
            x = np.arange(12, dtype=dtype).reshape(4, 3)
            with (
                sc.SharedArray(x) as a,
                sc.SharedArray.zeros((4, 3), dtype) as out,
                sc.SharedArray.zeros(4, dtype) as total,
            ):
                factor = x.dtype.type(2)
                sc.parallel_apply(scaled, out, total, sc.read(a), factor, pool=pools[backend])
                np.testing.assert_array_equal(out.array, x * 2)
                np.testing.assert_array_equal(total.array, x.sum(axis=1))


def test_a_dynamic_gufunc_that_does_not_compile_is_refused(arr):
    @nb.guvectorize("(n)->(n)")
    def shout(x, out):
        out[:] = x.upper()

    _refused(arr, KernelTypeError, "shout", shout)


def test_a_gufunc_that_would_write_copies_is_refused():
    """NumPy converts what has no loop of its own, and drops what was written there."""

    @nb.guvectorize([(nb.float64[:], nb.float64[:])], "(n),(n)")
    def add_to(x, y):
        for i in range(x.shape[0]):
            x[i] += y[i]

    with sc.SharedArray(np.ones((4, 3))) as a, sc.SharedArray(np.ones((4, 3), "f4")) as b:
        sc.parallel_apply(add_to, a, sc.read(b), backend="threads")
        np.testing.assert_array_equal(a.array, 2)
        _refused(b, KernelTypeError, "copies", add_to, sc.read(a))


def test_a_dynamic_ufunc_compiles_another_loop_where_those_it_has_do_not_do(pools):
    @nb.vectorize
    def successor(x):
        return x + 1

    for dtype in ("f8", "c16"):
        with sc.SharedArray(np.ones(4, dtype)) as arr:
            sc.parallel_apply(successor, arr, pool=pools["threads"])
            np.testing.assert_array_equal(arr.array, 2)


def test_threads_enter_a_parallel_ufunc_one_at_a_time():
    """Numba's portable threading layer aborts the process when two do."""
    program = """
    import numba as nb, numpy as np, shmcompute as sc
    nb.config.THREADING_LAYER = "workqueue"
    @nb.vectorize(["f8(f8)"], target="parallel")
    def increment(x):
        return x + 1
    with sc.Pool(2, backend="threads") as pool, sc.SharedArray.zeros(20000) as arr:
        for _ in range(50):
            sc.parallel_apply(increment, arr, chunksize=500, pool=pool)
        print(arr.array.min(), arr.array.max())
    """
    assert kernels.run(program).stdout == "50.0 50.0\n"


def test_a_ufunc_matches_chunks_as_it_matches_whole_arrays(any_pool):
    """A vector beside a matrix would be a row of it or a column, as chunks are long."""
    table = np.arange(16.0).reshape(4, 4)
    with sc.SharedArray(table) as x, sc.SharedArray(np.zeros((4, 4))) as out:
        row = sc.SharedArray(np.arange(4.0))
        for args, words in (
            ((np.add, out, sc.read(x), sc.read(row)), "argument 2 .* is split along an"),
            ((np.add, out, sc.read(x), sc.read(x, axis=1)), "argument 2 .* is split along an"),
            ((np.add, out, sc.read(x), sc.whole(table)), r"argument 2 \(shape \(4, 4\)\) is whole"),
            ((np.add, out, sc.read(x), sc.whole(table[:2])), "is whole"),
            ((functools.partial(np.add, table[:2]), out, sc.read(x)), "argument 0 of its partial"),
        ):
            for size in (1, 2, 4):
                with pytest.raises(KernelTypeError, match=words):
                    sc.parallel_apply(*args, chunksize=size, pool=any_pool)
        for size in (1, 2, 4):
            for column, axis in ((row.array[:, None], 0), (row.array[None], 1)):
                read = sc.read(column, axis=axis)
                sc.parallel_apply(
                    np.add, out, sc.read(x), read, axis=axis, chunksize=size, pool=any_pool
                )
                np.testing.assert_array_equal(out.array, table + column)
            sc.parallel_apply(np.add, out, sc.read(x), sc.whole(row), pool=any_pool)
            np.testing.assert_array_equal(out.array, table + row.array)
        row.close()


def test_a_gufunc_matches_chunks_as_it_matches_whole_arrays(any_pool):
    one, many = np.arange(16.0).reshape(4, 4), np.arange(64.0).reshape(4, 4, 4)
    with contextlib.ExitStack() as opened:
        x, xs, out, outs = (opened.enter_context(sc.SharedArray(a)) for a in (one, many, one, many))
        for args, axis, want in (
            ((out, sc.read(x), sc.whole(one)), 0, one @ one),
            ((out, sc.whole(one), sc.read(x)), 1, one @ one),
            ((outs, sc.read(xs), sc.whole(one)), 0, many @ one),
            ((outs, sc.read(xs), sc.read(xs)), 0, many @ many),
            ((outs, sc.read(xs), sc.whole(one)), 1, many @ one),
        ):
            sc.parallel_apply(np.matmul, *args, axis=axis, chunksize=1, pool=any_pool)
            np.testing.assert_array_equal(args[0].array, want)
        for args, axis in (
            ((outs, sc.read(x, axis=0), sc.read(xs, axis=0)), 1),  # rows with matrices
            ((out, sc.read(x, axis=1), sc.read(x, axis=0)), 0),  # what is summed over
            ((outs, sc.read(xs), sc.whole(many)), 0),
        ):
            with pytest.raises(KernelTypeError, match="is split along an|is whole"):
                sc.parallel_apply(np.matmul, *args, axis=axis, chunksize=1, pool=any_pool)
