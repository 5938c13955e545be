"""Kernels as bytes: machine code at home, the source where the host is of another kind."""

from __future__ import annotations

import subprocess
import sys

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.backends.processes import fingerprint
from shmcompute.backends.processes.protocol import kernel_bytes
from shmcompute.errors import KernelSerializationError, KernelTypeError
from shmcompute.kernels import PackedOnce


@nb.njit
def double(x):
    for i in range(x.size):
        x[i] *= 2


LOAD = """
import sys, warnings, numpy as np, shmcompute as sc
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
kernel = sc.load_kernel(sys.stdin.buffer.read())
x = np.arange(3.0)
kernel(x)
print(x.tolist(), len(compiled) > 0)
"""


def load(packed):
    done = subprocess.run(
        [sys.executable, "-c", LOAD], input=packed, capture_output=True, timeout=120, check=False
    )
    return done.stdout.decode(), done.stderr.decode()


@pytest.mark.long
def test_machine_code_travels():
    out, error = load(sc.dump_kernel(double, np.zeros(1)))
    assert out == "[0.0, 2.0, 4.0] False\n", error


@pytest.mark.long
def test_a_host_of_another_kind_compiles_the_source(monkeypatch):
    monkeypatch.setattr(kernel_bytes, "fingerprint", lambda: (*fingerprint()[:-1], "+avx9"))
    monkeypatch.setattr(kernel_bytes, "_dumped", PackedOnce())
    out, error = load(sc.dump_kernel(double, np.zeros(1)))
    assert out == "[0.0, 2.0, 4.0] True\n", error
    assert "double was compiled by a host of another kind" in error
    assert "+avx9" in error


def test_what_is_loaded_again_is_the_same():
    packed = sc.dump_kernel(double, np.zeros(1))
    assert sc.load_kernel(packed) is sc.load_kernel(bytes(bytearray(packed)))


def test_ufuncs_and_python_functions_travel():
    assert sc.load_kernel(sc.dump_kernel(np.sqrt)) is np.sqrt
    factor = 3
    assert sc.load_kernel(sc.dump_kernel(lambda x: x * factor))(2) == 6


def test_what_does_not_travel_or_compile_is_refused():
    lock = __import__("threading").Lock()
    with pytest.raises(KernelSerializationError, match="can't be made bytes"):
        sc.dump_kernel(lambda: lock)
    with pytest.raises(KernelTypeError, match="double"):
        sc.dump_kernel(double, "text")
