"""How the machine code of jitted kernels is called without Python.

A *trampoline* is a few instructions that read a kernel's arguments from words of memory, cut those
that are split, and call it. It depends only on the types and on what is split, so kernels of like
signatures share one; and it calls by address, so nothing of the kernel is compiled again. A
kernel that can't be called that way is called through its dispatcher.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import struct
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

from shmcompute.chunking import COMPLEX, FORMATS, VALUE, is_number
from shmcompute.kernels.dispatcher_pickling import Compiled, refresh
from shmcompute.system.compiling import call_compiler
from shmcompute.typing import Array

Types = tuple[Any, ...]  # Numba's types
# Where an argument comes from: ("part", axis), ("array", 0), ("scratch", 0), ("row", 0) or
# ("scalar", 0), in the block; ("value", its index among the call's); ("start", 0), ("stop", 0) or
# ("number", 0), of the chunk.
Source = tuple[str, int]

_I64, _I32 = ir.IntType(64), ir.IntType(32)

_numbers = itertools.count()
_libraries: list[Any] = []  # code is unmapped with its library, and is called by address alone


# To ask LLVM where code is costs more than a call.
_addresses: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def address_of(dispatcher: Dispatcher, argument_types: Types) -> tuple[Compiled, int] | None:
    """The version compiled for exactly these types, and the address of its code."""
    compiled: Compiled = dispatcher.overloads.get(argument_types)
    if compiled is None or compiled.objectmode or compiled.lifted:
        return None
    library, name = compiled.library, compiled.fndesc.llvm_func_name
    code = _addresses.get(library)
    if code is None:
        try:
            code = call_compiler(lambda: library.get_pointer_to_function(name))
        except Exception:  # noqa: BLE001  # private parts: the dispatcher will do
            return None
        _addresses[library] = code
    return (compiled, code) if code else None


def scalar_bytes(value: Any) -> bytes | None:
    """A scalar as machine code has it; None if it is no scalar, or too large."""
    if is_number(value):
        parts = (value.real, value.imag) if type(value) in COMPLEX else (value,)
        return struct.pack("<" + FORMATS[type(value)], *parts)
    if isinstance(value, np.generic) and value.nbytes <= VALUE and value.dtype.kind in "biufcmM":
        return value.tobytes().ljust(VALUE, b"\0")
    return None


@functools.lru_cache(maxsize=1024)
def make_trampoline(return_type: Any, argument_types: Types, sources: tuple[Source, ...]) -> int:
    """The address of a trampoline: a function ``i32 (block, values, start, stop, ...)``.

    What follows are the chunk's number, the worker's, and `failure`, an address as `block` and
    `values` are. In the block are the kernel's address and then, in turn,
    the words of each argument: data, itemsize, shape and strides of an array, 16 bytes of a scalar.
    The result is 0, or the code of what was raised, whose description `failure` then points to.
    """

    def write(builder: Any) -> None:
        _Trampoline(builder).build(return_type, argument_types, sources)

    return _compile("trampoline", ir.FunctionType(_I32, [_I64] * 7), write)


def _compile(purpose: str, function_type: Any, write: Callable[[Any], None]) -> int:
    """The address of a function whose body `write` puts into the IR builder that it is given."""
    name = f"shmcompute.{purpose}.{os.getpid()}.{next(_numbers)}"

    def build() -> int:
        with global_compiler_lock:
            refresh()
            library = cpu_target.target_context.codegen().create_library(name)
            module = library.create_ir_module(name)
            function = ir.Function(module, function_type, name)
            write(ir.IRBuilder(function.append_basic_block()))
            library.add_ir_module(module)
            library.finalize()
            _libraries.append(library)
            return int(library.get_pointer_to_function(name))

    return call_compiler(build)


class _Trampoline:
    """Writes one trampoline."""

    def __init__(self, builder: Any) -> None:
        self._context = cpu_target.target_context
        self._builder = builder
        self._block, self._values, *chunk, self._failure = builder.function.args
        self._start, self._stop, self._number, self._worker = chunk
        self._of_chunk = {"start": self._start, "stop": self._stop, "number": self._number}
        self._at = 0  # words of the block that are read so far

    def build(self, return_type: Any, argument_types: Types, sources: Sequence[Source]) -> None:
        builder, convention = self._builder, self._context.call_conv
        kind = convention.get_function_type(return_type, argument_types)
        kernel = builder.inttoptr(self._word(), kind.as_pointer())
        arguments = [self._argument(*pair) for pair in zip(argument_types, sources, strict=True)]
        status, _ = convention.call_function(
            builder, kernel, return_type, argument_types, arguments
        )
        failure = builder.inttoptr(self._failure, status.excinfoptr.type.as_pointer())
        builder.store(status.excinfoptr, failure)
        builder.ret(builder.select(status.is_ok, ir.Constant(_I32, 0), status.code))

    def _word(self) -> Any:
        place = self._builder.add(self._block, ir.Constant(_I64, 8 * self._at))
        self._at += 1
        return self._builder.load(self._builder.inttoptr(place, _I64.as_pointer()))

    def _argument(self, kind: Any, source: Source) -> Any:
        what, number = source
        if what in self._of_chunk:
            return self._of_chunk[what]
        if what == "value":
            return self._scalar(kind, self._values, VALUE * number)
        if what == "scalar":
            self._at += VALUE // 8
            return self._scalar(kind, self._block, 8 * self._at - VALUE)
        row = {"scratch": self._worker, "row": self._number}.get(what)
        return self._array(kind, axis=number if what == "part" else None, row=row)

    def _scalar(self, kind: Any, base: Any, offset: int) -> Any:
        model = self._context.data_model_manager[kind]
        place = self._builder.add(base, ir.Constant(_I64, offset))
        pointer = self._builder.inttoptr(place, model.get_data_type().as_pointer())
        return model.load_from_data_pointer(self._builder, pointer)

    def _array(self, kind: Any, axis: int | None, row: Any) -> Any:
        from numba.np import arrayobj  # noqa: PLC0415  # 20 ms, needed only to call a kernel

        builder = self._builder
        data, itemsize = self._word(), self._word()
        if row is not None:
            data = builder.add(data, builder.mul(row, self._word()))
        shape = [self._word() for _ in range(kind.ndim)]
        strides = [self._word() for _ in range(kind.ndim)]
        if axis is not None:
            data = builder.add(data, builder.mul(self._start, strides[axis]))
            shape[axis] = builder.sub(self._stop, self._start)
        array = self._context.make_array(kind)(self._context, builder)
        arrayobj.populate_array(
            array,
            data=builder.inttoptr(data, array.data.type),
            shape=shape,
            strides=strides,
            itemsize=itemsize,
            meminfo=None,
        )
        return array._getvalue()


def array_words(array: Array) -> list[int]:
    """What a trampoline reads of an array."""
    return [array.ctypes.data, array.itemsize, *array.shape, *array.strides]


def row_words(rows: Array, row: Array) -> list[int]:
    """What it reads of the first of several rows, each of which another chunk or worker has."""
    return [rows.ctypes.data, row.itemsize, rows.strides[0], *row.shape, *row.strides]


def native_error(code: int, failure: int) -> BaseException:
    """The exception that a kernel left behind when it was called by a trampoline."""
    try:
        _raiser()(code, failure)
    except BaseException as error:  # noqa: BLE001  # it is the result
        own = error.__traceback__
        # Next comes the kernel's line, if Numba has noted it: that of a `raise`.
        return error.with_traceback(None if own is None else own.tb_next)
    return RuntimeError(f"a kernel failed with code {code}")


@functools.cache
def _raiser() -> Any:
    """A C function that raises it as Numba would where Python calls a kernel."""
    context = cpu_target.target_context
    object_pointer = cgutils.voidptr_t

    def write(builder: Any) -> None:
        code, failure = builder.function.args
        convention = context.call_conv
        failure_type = convention.get_function_type(types.none, ()).args[1].pointee
        pointer = builder.inttoptr(failure, failure_type)
        status = convention._get_return_status(builder, code, pointer)
        convention.raise_error(builder, context.get_python_api(builder), status)
        builder.ret(ir.Constant(object_pointer, None))

    code = _compile("raise", ir.FunctionType(object_pointer, [_I32, _I64]), write)
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int32, ctypes.c_int64)(code)
