"""Machine code runs where Numba has loaded none of its registries: all that it calls is known."""

import pickle
import subprocess
import sys
from contextlib import suppress

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.system.elf import undefined_symbols

# Loads each kernel before anything is compiled, calls it, and says whether anything was compiled.
PROGRAM = """
import pickle, sys
import numpy as np
import shmcompute as sc
from numba.core import event
from numba.core.registry import cpu_target

class Told(event.Listener):
    def __init__(self): self.count = 0
    def on_start(self, event): self.count += 1
    def on_end(self, event): pass

told = Told()
event.register("numba:compile", told)
for packed, expected in pickle.load(sys.stdin.buffer):
    x = np.linspace(0.1, 1.0, 16).reshape(4, 4)
    try:
        sc.load_kernel(packed)(x)
    except ValueError as error:
        x[:] = float(str(error))
    np.testing.assert_array_equal(x, expected)
print(told.count)
"""


@nb.njit
def hashes(x):
    seen = {}
    for value in x.flat:
        seen[value] = value + 1.0
    names = {"a": 1.0, "bc": 2.0}
    x[:] = len(seen) + names["bc"] + seen[x[0, 0]]


@nb.njit
def algebra(x):
    x[:] = x @ x


@nb.njit
def draws(x):
    np.random.seed(3)
    for i in range(4):
        x[i] += np.random.normal()


@nb.njit
def allocates(x):
    y = np.empty(x.shape)
    for i in range(4):
        y[i] = np.exp(x[i]) ** 1.5 + np.floor(x[i])
    x[:] = y


@nb.njit
def raises(x):
    if x[0, 0] > 0:
        raise ValueError("2.5")


KERNELS = [hashes, algebra, draws, allocates, raises]


def _expected(kernel):
    x = np.linspace(0.1, 1.0, 16).reshape(4, 4)
    try:
        kernel(x)
    except ValueError as error:
        x[:] = float(str(error))
    return x


def _compiled(jobs, then=""):
    """How many functions a fresh process has compiled for them."""
    command = [sys.executable, "-c", f"{PROGRAM}{then}\n"]
    done = subprocess.run(command, input=pickle.dumps(jobs), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


@pytest.mark.long
def test_kernels_run_without_a_compiler():
    """Hash tables, BLAS, random numbers, memory, exceptions: the bits of this process."""
    sample = np.zeros((4, 4))
    jobs = [(sc.dump_kernel(kernel, sample), _expected(kernel)) for kernel in KERNELS]
    assert _compiled(jobs) == 0


@pytest.mark.long
def test_what_comes_as_source_is_compiled():
    """Numba then loads its registries itself."""
    fresh = nb.njit(algebra.py_func)
    jobs = [(sc.dump_kernel(draws, np.zeros((4, 4))), _expected(draws))]
    assert _compiled([*jobs, (sc.dump_kernel(fresh), _expected(algebra))]) > 0


@pytest.mark.long
def test_registries_are_loaded_for_code_that_calls_what_they_bring():
    """LLVM would end the process; what else there is need not wait for them."""
    known = [raises, algebra, draws, allocates]
    jobs = [(sc.dump_kernel(kernel, np.zeros((4, 4))), _expected(kernel)) for kernel in known]
    assert _compiled(jobs, "assert 'numba.np.npyimpl' not in sys.modules") == 0
    jobs = [(sc.dump_kernel(hashes, np.zeros((4, 4))), _expected(hashes))]
    assert _compiled(jobs, "assert 'numba.np.npyimpl' in sys.modules") == 0


@pytest.mark.parametrize(
    "code", [b"", b"MZ", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01\x01" + bytes(57)]
)
def test_what_is_no_whole_object_file_tells_nothing(code):
    with suppress(ValueError, IndexError):
        assert not undefined_symbols(code)
