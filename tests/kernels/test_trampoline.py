"""Kernels called by machine code: what they see and raise is what they would if Python called."""

from __future__ import annotations

import ctypes

import kernels
import numba as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmcompute as sc
from shmcompute.chunking import ChunkCall, Setting, bind, find_places, place_in_memory
from shmcompute.kernels import trampoline
from shmcompute.kernels.native_plan import native_call


def test_an_exception_from_machine_code_is_the_kernels_own(any_pool):
    @nb.njit
    def kernel(x, start):
        if start > 4:
            raise ValueError("too far", start)

    with sc.SharedArray(np.zeros(8)) as arr:
        with pytest.raises(ValueError, match="too far") as caught:
            sc.parallel_apply(kernel, arr, sc.offset, chunksize=2, pool=any_pool)
        assert caught.value.args == ("too far", 6)
        assert any("in chunk [6, 8)" in note for note in caught.value.__notes__)
        sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 1.0)


def test_numbers_change_from_call_to_call_and_keep_their_types(any_pool):
    """A changed number is no new plan, and arrives exactly."""

    @nb.njit
    def kernel(x, a, b, c, d):
        for i in range(x.size):
            x[i] = a + b * 1j if d else c

    def python(x, a, b, c, d):
        assert (type(a), type(b), type(c), type(d)) == (int, float, complex, bool)
        x[:] = a + b * 1j if d else c

    for function in (kernel, python):
        with sc.SharedArray(np.zeros(4, complex)) as arr:
            for a, b, c, d in (
                (1, 2.0, 3j, True),
                (-(2**63), -0.0, 1 - 1j, True),
                (2**63 - 1, 1e308, complex(0.1, float("inf")), False),
            ):
                sc.parallel_apply(function, arr, a, b, c, d, pool=any_pool)
                np.testing.assert_array_equal(arr.array, a + b * 1j if d else c)


@pytest.mark.long
@settings(deadline=None)  # it compiles
@given(
    shape=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    data=st.data(),
)
def test_a_call_without_python_sees_what_python_sees(shape, data):
    """Any strides, any split axis, any part: the trampoline's view is NumPy's."""
    x = np.arange(float(np.prod(shape))).reshape(shape)
    steps = tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in shape)
    view = np.transpose(x[steps], data.draw(st.permutations(range(len(shape)))))
    axis = data.draw(st.integers(0, len(shape) - 1))
    length = view.shape[axis]
    start = data.draw(st.integers(0, length - 1))
    sums = np.zeros(length)
    arguments = bind([sums, sc.read(view, axis=axis)], Setting(0, shared=False))
    kernel = _summing(view.ndim, axis)
    chunk = (start, length)
    given = arguments.at(ChunkCall(*chunk))
    kernel(*given)  # compiles
    sums[:] = 0
    call = native_call(kernel, arguments, [chunk], {tuple(map(nb.typeof, given))})
    assert call is not None
    _run(call, arguments.views(), start, length)
    expected = np.moveaxis(view, axis, 0).reshape(length, -1).sum(1)
    expected[:start] = 0
    np.testing.assert_array_equal(sums, expected)


_kernels = {}


def _summing(ndim, axis):
    """Sums over all axes but one, whose elements are exact integers."""
    if (ndim, axis) not in _kernels:
        others = [f"for i{k} in range(x.shape[{k}])" for k in range(ndim)]
        index = ", ".join(f"i{k}" for k in range(ndim))
        lines = [f"{'    ' * (k + 1)}{loop}:" for k, loop in enumerate(others)]
        lines.append(f"{'    ' * (ndim + 1)}out[i{axis}] += x[{index}]")
        namespace = {}
        exec("def kernel(out, x):\n" + "\n".join(lines), namespace)
        _kernels[ndim, axis] = nb.njit(namespace["kernel"])
    return _kernels[ndim, axis]


def _run(call, views, start, stop):
    frame = np.frombuffer(find_places(views, place_in_memory).words, np.int64)
    failure, bases = np.zeros(1, np.int64), np.zeros(1, np.int64)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 9)(call.trampoline)
    code = function(
        call.block.ctypes.data,
        frame.ctypes.data,
        bases.ctypes.data,
        *(0, start, stop, 0, 0),
        failure.ctypes.data,
    )
    assert code == 0


@pytest.mark.parametrize(
    "value", [True, -5, 2**62, 0.1, 1 - 2j, np.float32(3), np.int8(-1), np.datetime64("2020", "s")]
)
def test_a_number_is_laid_out_as_numpy_does(value):
    laid = trampoline.scalar_bytes(value)
    assert len(laid) == trampoline.VALUE
    assert laid.startswith(np.asarray(value).tobytes())


@pytest.mark.parametrize("value", [2**63, "text", None, np.longdouble(1), [1]])
def test_what_is_no_number_is_not_laid_out(value):
    laid = trampoline.scalar_bytes(value)
    assert laid is None or np.asarray(value).nbytes <= trampoline.VALUE
