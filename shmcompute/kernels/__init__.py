"""Kernels: callables for chunks, and how machine code calls those that are jitted."""

from shmcompute.kernels.base import Kernel, Kinds, name_of, rewrap, unwrap
from shmcompute.kernels.captured import Captured, Captures
from shmcompute.kernels.dispatcher_pickling import (
    Compilations,
    PackedOnce,
    own_symbols,
    reduce_dispatcher,
    refresh,
    why_source,
)
from shmcompute.kernels.factory import kernel
from shmcompute.kernels.jitted import NumbaKernel, fingerprints
from shmcompute.kernels.native_plan import (
    NativeCall,
    NativePlan,
    NeedsPython,
    make_native_plan,
)
from shmcompute.kernels.trampoline import make_trampoline, native_error
from shmcompute.kernels.ufunc import UfuncKernel
from shmcompute.kernels.variants import dispatchers_of, nogil, original_of

__all__ = [
    "Captured",
    "Captures",
    "Compilations",
    "Kernel",
    "Kinds",
    "NativeCall",
    "NativePlan",
    "NeedsPython",
    "NumbaKernel",
    "PackedOnce",
    "UfuncKernel",
    "dispatchers_of",
    "fingerprints",
    "kernel",
    "make_native_plan",
    "make_trampoline",
    "measured",  # imported where it is needed
    "name_of",
    "native_error",
    "nogil",
    "original_of",
    "own_symbols",
    "reduce_dispatcher",
    "refresh",
    "rewrap",
    "sweeping",  # imported where it is needed
    "unwrap",
    "why_source",
]
