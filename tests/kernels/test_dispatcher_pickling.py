"""Machine code of kernels: compiled once, run everywhere, and its failures are the kernel's own."""

from __future__ import annotations

import pickle
import threading

import kernels
import numba as nb
import numpy as np
import pytest
from numba.core import event

import shmcompute as sc
from shmcompute.kernels import dispatcher_pickling


def _fresh():
    """A kernel that nobody has compiled."""

    @nb.njit
    def kernel(x, a):
        for i in range(x.size):
            x[i] = x[i] * a + 1.0

    return kernel


def test_a_kernel_is_compiled_once_for_all_workers(process_pool):
    """By the caller. Workers load its machine code."""
    kernel = _fresh()
    before = process_pool.running.compilations()
    with sc.SharedArray(np.ones(10)) as arr, event.install_recorder("numba:compile") as recorder:
        sc.parallel_apply(kernel, arr, 3.0, pool=process_pool)
        np.testing.assert_array_equal(arr.array, 4.0)
    started = [what for _, what in recorder.buffer if what.is_start]
    assert len(started) == 1
    assert process_pool.running.compilations() == before


def test_threads_compile_once_too(pools):
    kernel = _fresh()
    with event.install_recorder("numba:compile") as recorder:
        sc.parallel_apply(kernel, np.ones(10), 3.0, pool=pools["threads"])
    assert len([what for _, what in recorder.buffer if what.is_start]) == 1


def test_a_kernel_that_is_compiled_anew_is_new_everywhere(process_pool):
    """Numba freezes globals when it compiles; `recompile()` takes what they are by then."""
    namespace = {"nb": nb, "GAIN": 2.0}
    source = "@nb.njit\ndef kernel(x):\n    for i in range(x.size):\n        x[i] = x[i] * GAIN\n"
    exec(source, namespace)
    kernel = namespace["kernel"]
    with sc.SharedArray(np.ones(4)) as arr:
        sc.parallel_apply(kernel, arr, pool=process_pool)
        namespace["GAIN"] = 10.0
        kernel.recompile()
        sc.parallel_apply(kernel, arr, pool=process_pool)
        np.testing.assert_array_equal(arr.array, 20.0)


def test_like_named_kernels_are_not_confused(process_pool):
    """Closures of one function have one name, and Numba finds code by names (numba#10486)."""

    def made(gain):
        @nb.njit
        def kernel(x):
            for i in range(x.size):
                x[i] = x[i] + gain

        return kernel

    with sc.SharedArray(np.zeros(4)) as arr:
        for gain in (1.0, 10.0, 100.0):
            sc.parallel_apply(made(gain), arr, pool=process_pool)
        np.testing.assert_array_equal(arr.array, 111.0)


def test_what_calls_python_goes_as_its_source(process_pool):
    """Machine code with addresses of this process in it does not travel."""

    @nb.njit
    def kernel(x):
        with nb.objmode():
            print(end="")
        for i in range(x.size):
            x[i] = 7.0

    with sc.SharedArray(np.zeros(4)) as arr:
        sc.parallel_apply(kernel, arr, pool=process_pool)
        np.testing.assert_array_equal(arr.array, 7.0)


def _halved(new, old):
    for i in range(new.size):
        new[i] = 0.5 * (old[i] + old[i + 2])


def _swept(kernel, pool):
    start = np.linspace(0.0, 8.0, 400) ** 2
    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        halo = sc.halo(old, 1)
        return sc.parallel_iterate(
            kernel, new[1:-1], halo, times=7, swap=(old, new), pool=pool
        ).array


def test_sweeps_go_on_where_only_source_travels(process_pool, pools, monkeypatch):
    """Workers compile it: sweeps within the workers have no other way."""
    monkeypatch.setattr(dispatcher_pickling, "_reduce_versions", lambda dispatcher: [])
    expected = _swept(nb.njit(_halved), pools["threads"])
    before = process_pool.running.compilations()
    assert np.array_equal(_swept(nb.njit(_halved), process_pool), expected)
    assert process_pool.running.compilations() > before


def test_code_travels_without_what_else_its_program_holds():
    """A function of `exec` has no module, so Numba would send its globals, and the builtins."""
    namespace = {"nb": nb, "lock": threading.Lock()}  # no lock can be pickled
    exec("@nb.njit\ndef kernel(x):\n    x[0] = 1.0\n", namespace)
    namespace["kernel"](np.ones(3))
    assert len(dispatcher_pickling._reduce_versions(namespace["kernel"])) == 1


def test_a_dispatcher_without_machine_code_pickles_as_it_would():
    kernel = _fresh()
    reduced = dispatcher_pickling.reduce_dispatcher(kernel)
    again = pickle.loads(pickle.dumps(reduced[1][1])) and reduced[0](*reduced[1])
    x = np.ones(3)
    again(x, 2.0)
    np.testing.assert_array_equal(x, 3.0)


@pytest.mark.long
def test_object_mode_finds_the_globals_of_the_script():
    """In the kernel itself, and in what it calls."""
    program = """
    import numba as nb, numpy as np, shmcompute as sc
    GAIN = np.full(1, 10.0)
    def amount(x):
        return GAIN[0] + x.size
    @nb.njit
    def inner(x):
        with nb.objmode(y="f8"):
            y = amount(x)
        return y
    @nb.njit
    def kernel(x):
        with nb.objmode(y="f8[::1]"):
            y = np.sort(x)[::-1].copy()
        x[:] = y + inner(x)
    with sc.Pool(1, start_method="forkserver") as pool, sc.SharedArray(np.arange(3.0)) as arr:
        sc.parallel_apply(kernel, arr, pool=pool)
        print(arr.array.tolist(), pool.submit(inner, arr.array).result())
    """
    assert kernels.run(program).stdout == "[15.0, 14.0, 13.0] 13.0\n"
