"""Kernels as bytes, for other processes and other hosts: machine code, and the source beside it.

Machine code runs where it was made only: on another CPU it may stop the process, with another C
library or Numba it may call what is not there. So it carries the fingerprint of its home, and where
that differs the source is compiled anew.
"""

from __future__ import annotations

import functools
import io
import pickle
import platform
import sys
import warnings
from collections.abc import Callable
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

from shmcompute.backends.processes.protocol.pickler import Pickler
from shmcompute.errors import KernelSerializationError, KernelTypeError, ShmComputeError
from shmcompute.kernels import PackedOnce, name_of, nogil, rewrap, unwrap

KEPT = 256  # kernels that a process has loaded


def dump_kernel(kernel: Any, *samples: Any) -> bytes:
    """A kernel as bytes that any process of any host may load.

    Parameters
    ----------
    kernel : callable
        A Numba dispatcher, a ufunc, any Python callable, or a `functools.partial` of one. A
        dispatcher goes as its variant that lets go of the GIL: its source, and the machine code of
        the versions that there are. What can't be imported elsewhere (``__main__``, lambdas,
        notebooks) goes by value.
    *samples
        What it is to be called with: compiled for first, if it is a dispatcher.

    Returns
    -------
    bytes
        A pickle: load it only where you would run the kernel's author's code.

    Raises
    ------
    KernelSerializationError
        If it can't be pickled.
    KernelTypeError
        If it does not compile for the samples.

    Examples
    --------
    >>> import numba as nb, numpy as np, shmcompute as sc
    >>> @nb.njit
    ... def double(x):
    ...     for i in range(x.size):
    ...         x[i] *= 2
    >>> packed = sc.dump_kernel(double, np.zeros(1))
    >>> x = np.arange(3.0)
    >>> sc.load_kernel(packed)(x)
    >>> print(x)
    [0. 2. 4.]
    """
    function, given, _ = unwrap(kernel)
    if isinstance(function, Dispatcher):
        function = nogil(function)
        kernel = rewrap(kernel, function)
        if samples:
            _compile(function, (*given, *samples))
    if not isinstance(kernel, Dispatcher):
        return _dump(kernel)
    return _dumped.of(kernel, lambda: _dump(kernel))


def _dump(kernel: Any) -> bytes:
    try:
        buffer = io.BytesIO()
        _KernelPickler(buffer).dump(kernel)
    except ShmComputeError:
        raise
    except Exception as error:  # pickling runs any code
        name = getattr(kernel, "name", None) or name_of(kernel)
        raise KernelSerializationError(
            f"kernel {name} can't be made bytes: {type(error).__name__}: {error}. Make what it "
            "refers to inside the kernel"
        ) from error
    return buffer.getvalue()


def load_kernel(packed: bytes) -> Callable[..., Any]:
    """The kernel that `dump_kernel` has made bytes of; the same one each time in a process.

    Parameters
    ----------
    packed : bytes

    Returns
    -------
    callable
        With its machine code, if that was made for such a host as this; else it compiles its
        source when it is called.

    Raises
    ------
    Exception
        What unpickling raises, such as an ImportError where a module of its is not installed.

    Warns
    -----
    RuntimeWarning
        If the source is compiled anew: another CPU, C library or Numba may round differently.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> print(sc.load_kernel(sc.dump_kernel(np.sqrt))(4.0))
    2.0
    """
    known = _loaded.pop(packed, None)
    if known is None:
        known = pickle.loads(packed)
        while len(_loaded) >= KEPT:
            _loaded.pop(next(iter(_loaded)), None)
    _loaded[packed] = known
    return known  # type: ignore[no-any-return]


_loaded: dict[bytes, Any] = {}  # the latest last
_dumped = PackedOnce()


@functools.cache
def fingerprint() -> tuple[str, ...]:
    """What is equal where one host's machine code runs on another: what made it, and the CPU."""
    cpu = cpu_target.target_context.codegen().magic_tuple()
    versions = f"Numba {numba.__version__}", f"llvmlite {llvmlite.__version__}"
    python = f"Python {sys.version_info[0]}.{sys.version_info[1]}", f"NumPy {np.__version__}"
    return *versions, *python, " ".join(platform.libc_ver()), *map(str, cpu)


class _KernelPickler(Pickler):
    """Sends machine code with the fingerprint of its home."""

    def reducer_override(self, value: Any) -> Any:
        reduced = super().reducer_override(value)
        if isinstance(value, Dispatcher) and isinstance(reduced, tuple) and len(reduced) == 2:
            rebuild, (kind, source, versions) = reduced
            return _rebuild, (fingerprint(), name_of(value), rebuild, kind, source, versions)
        return reduced


def _rebuild(home: tuple[str, ...], name: str, rebuild: Any, *sent: Any) -> Any:
    kind, source, versions = sent
    if home != fingerprint():
        versions = []
        there, here = (
            ", ".join(sorted({*one} - {*other}))
            for one, other in ((home, fingerprint()), (fingerprint(), home))
        )
        warnings.warn(
            f"kernel {name} was compiled by a host of another kind ({_short(there)}; here "
            f"{_short(here)}): its source is compiled anew, and the last bits of results may "
            "differ from that host's",
            RuntimeWarning,
            stacklevel=2,
        )
    return rebuild(kind, source, versions)


def _short(text: str) -> str:
    return text if len(text) < 160 else f"{text[:80]} ... {text[-80:]}"


def _compile(dispatcher: Any, samples: tuple[Any, ...]) -> None:
    from shmcompute.system.compiling import call_compiler  # noqa: PLC0415  # with samples only

    try:
        types = tuple(map(numba.typeof, samples))
        call_compiler(lambda: dispatcher.compile(types))
    except Exception as error:
        raise KernelTypeError(
            f"kernel {name_of(dispatcher)} does not compile for what it was given: {error}"
        ) from error
