"""Numba's compiler runs where no handler of a signal does, whoever of ours asks for it."""

from __future__ import annotations

import threading

import kernels
import pytest
from numba.core.compiler_lock import global_compiler_lock

from shmcompute.system.compiling import call_compiler

# Counts how often the main thread enters LLVM, or holds Numba's lock.
COUNTS = """
import functools, gc, sys
import numba, numpy as np, shmcompute as sc

gc.disable()  # destructors of what was compiled enter LLVM, too
entered = []

def notice(frame, event, _):
    path, name = frame.f_code.co_filename, frame.f_code.co_name
    if event == "call" and name == "__enter__" and path.endswith(("/ffi.py", "compiler_lock.py")):
        entered.append((path, frame.f_back.f_code.co_name, frame.f_back.f_lineno))

def counted(function, *args, **kwargs):
    sys.setprofile(notice)
    function(*args, **kwargs)
    sys.setprofile(None)

@numba.njit
def step(x, a):
    for i in range(x.size):
        x[i] += a

@numba.njit("void(f8[::1], f8)")
def eager(x, a):
    x += a

@numba.vectorize
def grown(x):
    return x + 1

@numba.njit
def fails(x):
    if x.size:
        raise ValueError("too much")
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "options", ['backend="threads"', "pool=pool", 'backend="serial", debug=True']
)
def test_a_call_does_not_compile_in_the_main_thread(options):
    done = kernels.run(
        COUNTS
        + """
with sc.Pool(2, caller_runs=True) as pool, sc.SharedArray(np.zeros(9)) as arr:
    options = eval(f"dict({sys.argv[1]})", globals())
    counted(sc.parallel_apply, step, arr, 2.0, **options)
    counted(sc.parallel_apply, eager, arr, 2.0, **options)
    counted(sc.parallel_apply, grown, arr, **options)
    counted(sc.parallel_apply, functools.partial(step, a=3.0), arr, **options)
    try:
        counted(sc.parallel_apply, fails, arr, **options)
    except ValueError:
        sys.setprofile(None)
    assert not entered, entered
    print(arr.array[0])
        """,
        options,
    )
    assert done.stdout == "8.0\n"


@pytest.mark.long
def test_queues_and_atomics_do_not_compile_in_the_main_thread():
    done = kernels.run(
        COUNTS
        + """
def use():
    with sc.ArrayQueue(2, "f4", slots=2) as queue, sc.SharedArray(np.zeros(2, "u2")) as arr:
        queue.put(np.ones(2, "f4"))
        sc.atomic_add(arr, 0, int(queue.get()[0]))
        print(arr.array)

counted(use)
assert not entered, entered
        """
    )
    assert done.stdout == "[1 0]\n"


def test_who_holds_the_compilers_lock_compiles_in_its_own_thread():
    """Another one would wait for that lock, and this one for the other."""
    with global_compiler_lock:
        assert call_compiler(threading.get_ident) == threading.get_ident()
    assert call_compiler(threading.get_ident) != threading.get_ident()


@pytest.mark.long
def test_a_module_may_compile_while_it_is_imported(tmp_path):
    """What Numba's cache loads imports the kernel's module, whose lock its importer has."""
    (tmp_path / "study.py").write_text(
        "import numba, numpy as np, shmcompute as sc\n"
        "@numba.njit(cache=True)\n"
        "def double(x):\n"
        "    x *= 2\n"
        "with sc.SharedArray(np.ones(4)) as arr:\n"
        '    sc.parallel_apply(double, arr, backend="threads")\n'
        "    print(arr.array.sum())\n"
    )
    for _ in range(2):  # compiled, then loaded
        program = "import sys; sys.path.insert(0, sys.argv[1]); import study"
        assert kernels.run(program, tmp_path).stdout == "8.0\n"
