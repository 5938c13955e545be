"""Variants: what a decorator was told holds in threads and under ``debug=True``, too."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest
from numba.core.compiler import Compiler

import shmcompute as sc
from shmcompute.kernels.variants import bounded, nogil


class Doubling(Compiler):
    """Compiles another function: twice what the source says."""

    def compile_extra(self, func):
        return super().compile_extra(_in_object_mode if func is OBJECT_MODE.py_func else _doubled)


def _doubled(out, x):
    for i in range(x.shape[0]):
        out[i] = 2 * x[i].sum()


def _in_object_mode(out, x):
    with nb.objmode():
        out[:] = 2 * x.sum(axis=1)


@nb.njit(pipeline_class=Doubling)
def OBJECT_MODE(out, x):  # noqa: N802
    pass


def _sums(out, x):
    for i in range(x.shape[0]):
        acc = 0.0
        for j in range(x.shape[1]):
            acc += x[i, j]
        out[i] = acc


def _sum(x, out):
    acc = 0.0
    for value in x:
        acc += value
    out[0] = acc


ANYTHING = (nb.types.float64[:], nb.types.Array(nb.types.float64, 2, "C", readonly=True))
KINDS = {
    "locals": nb.njit(locals={"acc": nb.float32})(_sums),
    "locals, eager": nb.njit([ANYTHING], locals={"acc": nb.float32})(_sums),
    "pipeline_class": nb.njit(pipeline_class=Doubling)(_sums),
    "guvectorize": nb.guvectorize(
        [(nb.float64[:], nb.float64[:])], "(n)->()", locals={"acc": nb.float32}
    )(_sum),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_options_of_the_decorator_rule_on_every_backend(kind, pools):
    """As they do where it is called without us, bit for bit."""
    x, expected = np.random.default_rng(0).random((4, 1000)), np.zeros(4)
    kernel = KINDS[kind]
    kernel(*((x, expected) if kind == "guvectorize" else (expected, x)))
    with sc.SharedArray(x) as arr, sc.SharedArray.zeros(4) as out:
        for backend in ("serial", "threads", "forkserver"):
            for debug in (False, True):
                out.array[:] = 0
                sc.parallel_apply(kernel, out, sc.read(arr), pool=pools[backend], debug=debug)
                np.testing.assert_array_equal(out.array, expected)
        assert kind != "pipeline_class" or expected[0] > 600  # it was heeded


def test_a_pipeline_goes_along_where_a_worker_compiles_the_source(pools):
    """As for object mode, whose machine code does not travel."""
    with sc.SharedArray(np.ones((4, 3))) as arr, sc.SharedArray.zeros(4) as out:
        sc.parallel_apply(OBJECT_MODE, out, sc.read(arr), pool=pools["forkserver"])
        np.testing.assert_array_equal(out.array, 6)


@pytest.mark.parametrize(
    "options",
    [
        {"error_model": "numpy"},
        {"inline": "always"},
        {"boundscheck": False},
        {"fastmath": {"nnan", "contract"}},
        {"debug": True},
        {"forceobj": True},
        {"looplift": True, "forceobj": True},
        {"parallel": {"fusion": False}},
        {"no_cfunc_wrapper": True},
    ],
)
@pytest.mark.parametrize("variant", [nogil, bounded])
def test_a_variant_has_the_options_of_its_original(options, variant):
    kernel = nb.jit(**options)(_sums)
    changed = {"nogil", "parallel", "boundscheck"}
    mine, its = variant(kernel).targetoptions, kernel.targetoptions
    assert {k: v for k, v in mine.items() if k not in changed} == {
        k: v for k, v in its.items() if k not in changed
    }
    assert mine.get("nogil") or variant is bounded or "forceobj" in options
