"""How the machine code of jitted kernels is called without Python.

A *trampoline* is a few instructions that read a kernel's arguments from words of memory, cut those
that are split, and call it. It depends only on the types and on what is split, so kernels of like
signatures share one; and it calls by address, so nothing of the kernel is compiled again. A
kernel that can't be called that way is called through its dispatcher.

The file is long because all that writes LLVM's instructions stands together: it knows Numba's
private parts.
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
# Where an argument comes from: ("part", axes), which of its own axes are the call's first and, if
# it has one, its second; ("window", axes), which is a part and some elements more; ("padded", 0),
# ("whole", 0) or ("row", 0), an array that the frame tells; ("fixed", 0) or ("scratch", 0), one
# that the block tells; ("scalar", 0), in the block; ("value", its index among the call's);
# ("start", 0), ("stop", 0) or ("number", 0), of the chunk; ("start_from", index), its start and one
# of the call's values.
Source = tuple[str, Any]

_I64, _I32 = ir.IntType(64), ir.IntType(32)

# A padded argument is told by a function of these types, `padding.pad`, at each call. In the block
# are its address and so many words.
PAD_TYPES: Types = (types.int64,) * 6
PAD_WORDS = 12
# In two dimensions they are two more: `padding_blocks.pad_block`.
PAD_BLOCK_TYPES: Types = (types.int64,) * 8
PAD_BLOCK_WORDS = 18

_numbers = itertools.count()
_libraries: list[Any] = []  # code is unmapped with its library, and is called by address alone


# To ask LLVM where code is costs more than a call.
_addresses: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def address_of(dispatcher: Dispatcher, argument_types: Types) -> tuple[Compiled, int] | str:
    """The version compiled for exactly these types, and the address of its code; else why not."""
    compiled: Compiled = dispatcher.overloads.get(argument_types)
    reason = _needs_python(dispatcher, compiled)
    if reason is not None:
        return reason
    library, name = compiled.library, compiled.fndesc.llvm_func_name
    code = _addresses.get(library)
    if code is None:
        try:
            code = call_compiler(lambda: library.get_pointer_to_function(name))
        except Exception as error:  # noqa: BLE001  # private parts: the dispatcher will do
            return f"Numba does not tell where its code is ({type(error).__name__}: {error})"
        _addresses[library] = code
    return (compiled, code) if code else "Numba does not tell where its code is"


def _needs_python(dispatcher: Dispatcher, compiled: Compiled | None) -> str | None:
    """Why a version can't be called but by its dispatcher."""
    if compiled is None:
        given = "; ".join(map(str, dispatcher.overloads))
        return (
            "it was compiled for other types, to which its dispatcher converts the arguments: "
            f"{given}"
        )
    if compiled.objectmode:
        return "it was compiled in object mode (forceobj=True), so it is run by Python"
    if compiled.lifted:
        return "a `with objmode` block, or a lifted loop, in it is run by Python"
    return None


def scalar_bytes(value: Any) -> bytes | None:
    """A scalar as machine code has it; None if it is no scalar, or too large."""
    if is_number(value):
        parts = (value.real, value.imag) if type(value) in COMPLEX else (value,)
        return struct.pack("<" + FORMATS[type(value)], *parts)
    if isinstance(value, np.generic) and value.nbytes <= VALUE and value.dtype.kind in "biufcmM":
        return value.tobytes().ljust(VALUE, b"\0")
    return None


@functools.lru_cache(maxsize=1024)
def make_trampoline(
    return_type: Any, argument_types: Types, sources: tuple[Source, ...], axes: int = 1
) -> int:
    """The address of a trampoline: a function ``i32 (block, frame, bases, values, start, ...)``.

    The first four are addresses. What follows are the chunk's start and stop along each axis of
    the call, its number, the worker's number, and the address `failure`. The frame holds the words
    of each array whose place a call tells: which of `bases` it is in, its offset there, shape and
    strides. In the block are the kernel's address and then, in turn, the words of each other
    argument: the item size of an array, and, where the frame tells nothing of it, its address,
    shape and strides; 16 bytes of a scalar.
    The result is 0, or the code of what was raised, whose description `failure` then points to.
    """

    def write(builder: Any) -> None:
        _Trampoline(builder).build(return_type, argument_types, sources)

    arguments = [_I64] * (7 + 2 * axes)
    return compile_function("trampoline", ir.FunctionType(_I32, arguments), write)


def compile_function(purpose: str, function_type: Any, write: Callable[[Any], None]) -> int:
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
        block, frame, self._bases, self._values, *chunk, self._failure = builder.function.args
        self._block, self._frame = _Words(builder, block), _Words(builder, frame)
        *edges, self._number, self._worker = chunk
        self._starts, self._stops = edges[::2], edges[1::2]
        self._of_chunk = {
            "start": self._index(self._starts),
            "stop": self._index(self._stops),
            "number": self._number,
        }

    def _index(self, along: list[Any]) -> Any:
        """A number, or in two dimensions a tuple of them."""
        return along[0] if len(along) == 1 else cgutils.pack_array(self._builder, along)

    def build(self, return_type: Any, argument_types: Types, sources: Sequence[Source]) -> None:
        builder, convention = self._builder, self._context.call_conv
        kind = convention.get_function_type(return_type, argument_types)
        kernel = builder.inttoptr(self._block.next(), kind.as_pointer())
        arguments = [self._argument(*pair) for pair in zip(argument_types, sources, strict=True)]
        status, _ = convention.call_function(
            builder, kernel, return_type, argument_types, arguments
        )
        failure = builder.inttoptr(self._failure, status.excinfoptr.type.as_pointer())
        builder.store(status.excinfoptr, failure)
        builder.ret(builder.select(status.is_ok, ir.Constant(_I32, 0), status.code))

    def _argument(self, kind: Any, source: Source) -> Any:
        what, number = source
        if what in self._of_chunk:
            return self._of_chunk[what]
        if what == "value":
            return self._scalar(kind, self._values, VALUE * number)
        if what == "start_from":
            base = self._scalar(kind, self._values, VALUE * number)
            return self._builder.add(self._of_chunk["start"], base)
        if what == "scalar":
            return self._scalar(kind, self._block.address, self._block.skip(VALUE))
        if what in ("fixed", "scratch"):
            return self._fixed_array(kind, is_row=what == "scratch")
        if what == "padded":
            return self._padded_array(kind)
        return self._framed_array(kind, what, number)

    def _scalar(self, kind: Any, base: Any, offset: int) -> Any:
        model = self._context.data_model_manager[kind]
        place = self._builder.add(base, ir.Constant(_I64, offset))
        pointer = self._builder.inttoptr(place, model.get_data_type().as_pointer())
        return model.load_from_data_pointer(self._builder, pointer)

    def _fixed_array(self, kind: Any, *, is_row: bool) -> Any:
        """An array that the block tells, or the worker's row of it."""
        builder, block = self._builder, self._block
        itemsize, data = block.next(), block.next()
        if is_row:
            data = builder.add(data, builder.mul(self._worker, block.next()))
        return self._array(kind, itemsize, data, block.several(kind.ndim), block.several(kind.ndim))

    def _framed_array(self, kind: Any, what: str, axes: Any) -> Any:
        """An array that the frame tells, or what the chunk sees of it."""
        builder, frame = self._builder, self._frame
        base, offset = frame.next(), frame.next()
        ndim = kind.ndim + (what == "row")
        shape, strides = frame.several(ndim), frame.several(ndim)
        data = builder.add(_Words(builder, self._bases).at(base), offset)
        cuts = zip(axes, self._starts, self._stops, strict=True) if axes else ()
        for axis, start, stop in cuts:
            margin = self._block.next() if what == "window" else None
            if axis is not None:
                data = builder.add(data, builder.mul(start, strides[axis]))
                width = builder.sub(stop, start)
                shape[axis] = width if margin is None else builder.add(width, margin)
        if what == "row":
            data = builder.add(data, builder.mul(self._number, strides.pop(0)))
            del shape[0]
        return self._array(kind, self._block.next(), data, shape, strides)

    def _padded_array(self, kind: Any) -> Any:
        """What a function says that a chunk sees of an array that the frame tells."""
        builder, block, frame = self._builder, self._block, self._frame
        several = len(self._starts) > 1
        pad_types = PAD_BLOCK_TYPES if several else PAD_TYPES
        count = PAD_BLOCK_WORDS if several else PAD_WORDS
        itemsize, function = block.next(), block.next()
        base, offset = frame.next(), frame.next()
        data = builder.add(_Words(builder, self._bases).at(base), offset)
        places = [
            builder.add(words.address, ir.Constant(_I64, words.skip(8 * count)))
            for words, count in ((block, count), (frame, 2 * kind.ndim))
        ]
        edges = itertools.chain.from_iterable(zip(self._starts, self._stops, strict=True))
        given = (data, *places, *edges, self._worker)
        convention = self._context.call_conv
        pad = convention.get_function_type(types.int64, pad_types).as_pointer()
        pointer = builder.inttoptr(function, pad)
        _, place = convention.call_function(builder, pointer, types.int64, pad_types, given)
        seen = _Words(builder, place)
        return self._array(
            kind, itemsize, seen.next(), seen.several(kind.ndim), seen.several(kind.ndim)
        )

    def _array(self, kind: Any, itemsize: Any, data: Any, shape: Any, strides: Any) -> Any:
        from numba.np import arrayobj  # noqa: PLC0415  # 20 ms, needed only to call a kernel

        array = self._context.make_array(kind)(self._context, self._builder)
        arrayobj.populate_array(
            array,
            data=self._builder.inttoptr(data, array.data.type),
            shape=shape,
            strides=strides,
            itemsize=itemsize,
            meminfo=None,
        )
        return array._getvalue()


class _Words:
    """Words at an address, which are read one after another."""

    def __init__(self, builder: Any, address: Any) -> None:
        self._builder = builder
        self.address = address
        self._read = 0

    def at(self, index: Any) -> Any:
        """The word of that index."""
        place = self._builder.add(self.address, self._builder.mul(index, ir.Constant(_I64, 8)))
        return self._builder.load(self._builder.inttoptr(place, _I64.as_pointer()))

    def next(self) -> Any:
        return self.at(ir.Constant(_I64, self.skip(8) // 8))

    def several(self, count: int) -> list[Any]:
        return [self.next() for _ in range(count)]

    def skip(self, size: int) -> int:
        """Pass so many bytes; the offset of the first."""
        self._read += size
        return self._read - size


def fixed_words(array: Array) -> list[int]:
    """What the block tells of an array."""
    return [array.itemsize, array.ctypes.data, *array.shape, *array.strides]


def scratch_words(rows: Array, row: Array) -> list[int]:
    """The same of the first of several rows, each of which another worker has."""
    return [row.itemsize, rows.ctypes.data, rows.strides[0], *row.shape, *row.strides]


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

    code = compile_function("raise", ir.FunctionType(object_pointer, [_I32, _I64]), write)
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int32, ctypes.c_int64)(code)
