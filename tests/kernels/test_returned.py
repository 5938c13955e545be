"""What kernels may return: nothing, or what they were given."""

from __future__ import annotations

import functools

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTypeError


@nb.njit
def _the_same(x):
    x *= 2
    return x


@nb.njit
def _its_output(x):
    return np.multiply(x, 2, x)


@nb.njit
def _on_either_way(x):
    if x[0] > 100:
        return x
    x += 1
    return x[:]


@nb.njit
def _what_another_returns(x):
    return x, _the_same(x)


OWN = [
    _the_same,
    _its_output,
    _on_either_way,
    _what_another_returns,
    nb.njit("f8[::1](f8[::1])")(_the_same.py_func),
    nb.jit(forceobj=True)(lambda x: np.multiply(x, 2, out=x)),
    lambda x: np.multiply(x, 2, out=x),
    lambda x: np.add(x, 1, out=x[:]),
    lambda x: np.clip(x, 2, 3, out=x),
]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["serial", "threads", "forkserver"])
def test_a_kernel_may_return_what_it_was_given(backend, pools):
    for kernel in OWN:
        for debug in (False, True):
            with sc.SharedArray(np.ones(6)) as arr:
                sc.parallel_apply(kernel, arr, pool=pools[backend], debug=debug)
                np.testing.assert_array_equal(arr.array, 2)


def test_it_may_return_what_its_partial_brings(any_pool):
    def add(total, x):
        return np.add(total, x.sum(), out=total)

    with sc.SharedArray(np.ones(6)) as arr, sc.SharedArray.zeros(1) as total:
        sc.parallel_apply(functools.partial(add, total.array), arr, chunksize=6, pool=any_pool)
        assert total[0] == 6


def _made(body):
    namespace = {"np": np}
    exec(f"def kernel(x):\n    x *= 2\n    {body}\n", namespace)
    return nb.njit(namespace["kernel"])


@pytest.mark.parametrize(
    "body",
    [
        "return x * 2",
        "return -x",
        "return np.sqrt(x)",
        "return x.copy()",
        "return np.zeros_like(x)",
        "return x.sum()",
        "return x > 1",
        "return x, x + 1",
        "return x.astype(np.float32)",
        "y = x + 1; y[0] = 0; return y",
        "return x if x[0] else x + 1",
    ],
)
def test_a_jitted_kernel_that_returns_an_array_of_its_own_making_is_refused_first(body):
    """Before the array is changed."""
    with sc.SharedArray(np.ones(6)) as arr:
        with pytest.raises(KernelTypeError, match="own making"):
            sc.parallel_apply(_made(body), arr, backend="threads")
        np.testing.assert_array_equal(arr.array, 1)


@nb.njit
def _sorted(x):
    return np.sort(x)


@pytest.mark.long
@pytest.mark.parametrize(
    "kernel", [lambda x: x + 1, lambda x: 3, lambda x: (), lambda x: (x, 1), _sorted]
)
def test_what_only_running_it_tells_is_refused_all_the_same(kernel, any_pool):
    with sc.SharedArray(np.ones(6)) as arr, pytest.raises(KernelTypeError, match="in place"):
        sc.parallel_apply(kernel, arr, pool=any_pool)
