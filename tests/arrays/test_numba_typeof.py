"""Numba functions take a SharedArray wherever they take an array."""

from __future__ import annotations

import kernels
import numba as nb
import numpy as np
import pytest

import shmcompute as sc


@nb.njit
def scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@nb.njit
def look(x):
    return x.sum(), x[1:3], x.shape, x


def test_a_jitted_function_writes_in_place():
    with sc.SharedArray(np.arange(5.0)) as arr:
        scale(arr, 2.0)
        np.testing.assert_array_equal(arr.array, np.arange(5.0) * 2)


def test_it_is_an_array_inside():
    with sc.SharedArray(np.arange(5.0)) as arr:
        total, part, shape, same = look(arr)
        assert (total, shape) == (10.0, (5,))
        np.testing.assert_array_equal(part, [1, 2])
        assert isinstance(same, np.ndarray)
        assert np.shares_memory(same, arr.array)


def test_its_type_is_that_of_the_array():
    source = np.asfortranarray(np.zeros((2, 3), "c8"))
    with sc.SharedArray(source) as arr:
        found, plain = nb.typeof(arr), nb.typeof(source)
        assert (found.dtype, found.ndim, found.layout) == (plain.dtype, plain.ndim, plain.layout)


def test_jitted_functions_pass_it_on():
    @nb.njit
    def outer(x):
        scale(x, 3.0)

    with sc.SharedArray(np.ones(3)) as arr:
        outer(arr)
        np.testing.assert_array_equal(arr.array, np.full(3, 3.0))


def test_a_closed_one_is_refused():
    arr = sc.SharedArray(np.ones(3))
    arr.close()
    with pytest.raises(sc.errors.ClosedError):
        scale(arr, 2.0)


def test_as_a_global_it_is_refused():
    """Numba would freeze its content; the error says what to do instead, for kernels too."""
    program = """
    import numba as nb, numpy as np, shmcompute as sc
    table = sc.SharedArray(np.arange(5.0))
    @nb.njit
    def add(x):
        for i in range(x.size):
            x[i] += table[i]
    @nb.njit
    def through_another(x):
        add(x)
    @nb.vectorize
    def elementwise(x):
        return x + table[0]
    try:
        add(np.zeros(5))
    except nb.core.errors.TypingError as error:
        print("Pass it as an argument" in str(error))
    for kernel in (add, through_another, elementwise):
        try:
            sc.parallel_apply(kernel, np.zeros(5), backend="threads")
        except sc.errors.KernelTypeError as error:
            print("sc.whole(x)" in str(error))
    """
    assert kernels.run(program).stdout == "True\n" * 4
