"""Kernels that are NumPy or Numba ufuncs, tried on a chunk of no elements before they run."""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.np.numpy_support import ufunc_find_matching_loop
from numba.np.ufunc.dufunc import DUFunc
from numba.np.ufunc.gufunc import GUFunc

from shmcompute.chunking import Arguments, Block, Chunk, Constant, Cut, WholeArray
from shmcompute.errors import KernelTypeError
from shmcompute.kernels.base import Kernel, Kinds, name_of, rewrap, unwrap
from shmcompute.kernels.captured import Captures
from shmcompute.kernels.native_plan import NeedsPython
from shmcompute.kernels.variants import bounded_gufunc
from shmcompute.system.compiling import call_compiler

_WORDS = ("first", "second")  # of the axes of a call
UFUNCS = (np.ufunc, DUFunc, GUFunc)


@dataclass(frozen=True, eq=False)
class UfuncKernel(Kernel):
    """A NumPy or Numba ufunc, called with ``out=`` the first split argument."""

    outputs: tuple[int, ...]  # positions of the arguments that are written
    inputs: tuple[int, ...]
    alone: bool = False  # whether no other thread may be in such a ufunc meanwhile

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        ufunc, partial_args, keywords = unwrap(self.function)
        args = arguments.sample()
        try:
            _resolve(ufunc, [*partial_args, *(args[i] for i in (*self.inputs, *self.outputs))])
        except (TypeError, ValueError, NumbaError) as error:
            raise KernelTypeError(
                f"ufunc {self.name} does not take these arguments: {error}"
            ) from error

        if self.outputs and not keywords.keys() & {"axis", "axes"}:
            self._check_broadcasting(arguments, partial_args)

    def _check_broadcasting(self, arguments: Arguments, partial_args: Sequence[Any]) -> None:
        """Refuse operands that NumPy would match otherwise in a chunk than in whole arrays.

        It matches shapes from their last axes on, and takes an axis of length 1 for all of another:
        a vector that is split goes along the rows of a matrix, or beside them, as chunks are long.
        """
        bound, out, cores = arguments.bound, self.outputs[0], _core_axes(self.function)
        held = [(f"argument {i} of its partial", Constant(x)) for i, x in enumerate(partial_args)]
        given = [(f"argument {i}", bound[i]) for i in (*self.inputs, *self.outputs)]
        operands = [*zip([*held, *given], cores, strict=True)]
        target: Any = bound[out]
        for along in range(len(arguments.lengths)):
            place = _place(target, cores[-len(self.outputs)], along)
            assert place is not None  # noqa: S101  # what is written is cut along all
            for (which, operand), core in operands:
                self._check_operand(which, operand, core, along, place, (out, target))

    def _check_operand(
        self,
        which: str,
        operand: Any,
        core: list[str],
        along: int,
        place: int | str,
        target: tuple[int, Any],
    ) -> None:
        """Refuse one that is not matched along an axis of the call with what is written."""
        own = _place(operand, core, along) if isinstance(operand, Cut) else None
        if isinstance(operand, Cut) and own is not None:
            if margin := _margin(operand, along):
                self._check_halo(which, operand.view.shape, margin, own, place)
            elif own != place:
                raise KernelTypeError(
                    f"ufunc {self.name}: {which} (shape {operand.view.shape}) is split along an "
                    f"axis that is not matched with the one along which argument {target[0]} "
                    f"(shape {target[1].view.shape}) is split, for NumPy matches from the last "
                    "axis on; give both as many dimensions, x[:, np.newaxis], and split the same"
                )
        elif (shape := _whole_shape(operand)) is not None and _spreads(shape, core, place):
            how, pair = "whole", ""
            if isinstance(operand, Block):
                how, pair = f"not split along the call's {_WORDS[along]} axis", ", axis=(0, 1)"
            raise KernelTypeError(
                f"ufunc {self.name}: {which} (shape {shape}) is {how}, so "
                "each chunk would be matched with all of it along the axis that is split; "
                f"pass sc.read(x{pair})"
            )

    def _check_halo(
        self, which: str, shape: tuple[int, ...], margin: int, own: int | str, place: int | str
    ) -> None:
        """Refuse a halo along an axis that NumPy matches with one that has none."""
        if isinstance(own, int) or isinstance(place, int) or own == place:
            raise KernelTypeError(
                f"ufunc {self.name}: {which} (shape {shape}) is seen with a halo, so it "
                f"is longer by {margin} than what it is matched with; pass shifted views, "
                "sc.read(x[:-2]) and sc.read(x[2:]), or call the ufunc in a kernel"
            )

    def __call__(self, args: list[Any]) -> None:
        with _lone if self.alone else nullcontext():
            self._call(args)

    def native(
        self, arguments: Arguments, chunks: Sequence[Chunk], kinds: Kinds | None = None
    ) -> NeedsPython:
        return NeedsPython("it is a ufunc, whose compiled loops are called by Python")

    def threaded(self) -> Kernel:
        return replace(self, alone=_starts_threads(unwrap(self.function)[0]))

    def _call(self, args: list[Any]) -> None:
        given = [args[i] for i in self.inputs]
        if self.outputs and _is_dynamic(unwrap(self.function)[0]):
            self.function(*given, *(args[i] for i in self.outputs))  # it does not know out=(...,)
        elif self.outputs:
            self.function(*given, out=tuple(args[i] for i in self.outputs))
        else:
            self.function(*given)  # a gufunc without outputs writes its arguments

    def captures(self) -> Captures:
        return Captures() if self.outputs else super().captures()  # it writes its outputs alone

    def bounded(self) -> Kernel:
        ufunc = unwrap(self.function)[0]
        if not isinstance(ufunc, GUFunc):
            return self
        return replace(self, function=rewrap(self.function, bounded_gufunc(ufunc)))


def _core_axes(function: Any) -> list[list[str]]:
    """Names of the axes of each operand that a gufunc sees as a whole; none for other ufuncs."""
    ufunc = unwrap(function)[0]
    if ufunc.signature is None:
        return [[] for _ in range(ufunc.nin + ufunc.nout)]
    groups = re.findall(r"\(([^)]*)\)", ufunc.signature)
    return [[axis.strip() for axis in group.split(",") if axis.strip()] for group in groups]


def _whole_shape(operand: Any) -> tuple[int, ...] | None:
    """The shape of an operand that each chunk gets as it is, or uncut along an axis of the call."""
    if isinstance(operand, (WholeArray, Block)):
        return np.shape(operand.view)
    return np.shape(operand.value) if isinstance(operand, Constant) else None


def _place(argument: Any, core: list[str], along: int) -> int | str | None:
    """Which axis is split: its name, or its number among those looped over, from the last.

    It is the one that is the call's first, or second. None: it is not split along that one.
    """
    core = _present(core, argument.view.ndim)
    own = argument.axes[along] if isinstance(argument, Block) else argument.axis
    if own is None:
        return None
    axis = own - argument.view.ndim
    return int(axis + len(core)) if -axis > len(core) else core[axis]


def _margin(argument: Cut, along: int) -> int:
    """How much more than its own a chunk sees along an axis of the call."""
    return argument.margins[along] if isinstance(argument, Block) else argument.margin


def _present(core: list[str], ndim: int) -> list[str]:
    """Without those that may be left out, if they are."""
    present = core if ndim >= len(core) else [axis for axis in core if not axis.endswith("?")]
    return [axis.rstrip("?") for axis in present]


def _spreads(shape: tuple[int, ...], core: list[str], place: int | str) -> bool:
    """Whether an operand that is whole has more than one element for the axis that is split."""
    if isinstance(place, str):
        return place in _present(core, len(shape))
    looped = shape[: len(shape) - len(_present(core, len(shape)))]
    return len(looped) >= -place and looped[place] != 1


_lone = threading.Lock()


def _starts_threads(ufunc: Any) -> bool:
    """Whether it may be one of Numba's with ``target="parallel"``.

    Numba's portable threading layer aborts the process when two threads enter it. Such a ufunc is
    one of NumPy's, but for an object that frees the machine code that it calls.
    """
    parts = gc.get_referents(ufunc) if type(ufunc) is np.ufunc else ()
    return any(type(part).__name__ == "_UFuncCleaner" for part in parts)


def _resolve(ufunc: Any, operands: list[Any]) -> None:
    """Raise if the ufunc has no loop for operands of these types, nor can compile one."""
    types = tuple(map(_type, operands))
    if _is_dynamic(ufunc):
        call_compiler(partial(_compile_loop, ufunc, operands))
    inner = getattr(ufunc, "ufunc", ufunc)  # Numba wraps its own
    try:
        found = inner.resolve_dtypes(types) if inner.types else None
    except TypeError:
        if not isinstance(ufunc, DUFunc) or getattr(ufunc, "_frozen", False):
            raise
        found = None
    if found is None:
        # Compiles one, as a call does that finds no loop: on arrays of no elements.
        empty = [np.empty(0, x.dtype) if isinstance(x, np.ndarray) else x for x in operands]
        call_compiler(partial(ufunc, *empty[: ufunc.nin], out=tuple(empty[ufunc.nin :])))
    elif not ufunc.nout and any(map(_is_converted, operands, found)):
        raise TypeError(
            f"it writes what it is given, and NumPy would give it copies, converted from "
            f"({_listed(types)}) to ({_listed(found)}), which are dropped; give it such arrays, or "
            "a signature for these"
        )


def _is_converted(operand: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a loop of this type would write a copy of an array."""
    return isinstance(operand, np.ndarray) and operand.flags.writeable and operand.dtype != dtype


def _listed(types: Sequence[Any]) -> str:
    return ", ".join(map(str, types))


def _is_dynamic(ufunc: Any) -> bool:
    """Whether it is a gufunc that Numba compiles when it is called."""
    return isinstance(ufunc, GUFunc) and ufunc.is_dynamic and not getattr(ufunc, "_frozen", False)


@global_compiler_lock
def _compile_loop(gufunc: Any, operands: list[Any]) -> None:
    """What the first call with such operands would do before it runs."""
    types = gufunc._get_ewise_dtypes(operands)
    if not (gufunc.types and ufunc_find_matching_loop(gufunc.ufunc, types)):
        if gufunc.find_ewise_function(types) == (None, None):
            gufunc.add(gufunc._get_function_type(*operands))
        gufunc.build_ufunc()


def _type(operand: Any) -> Any:
    """The type of an operand, as `ufunc.resolve_dtypes` takes it."""
    return operand.dtype if isinstance(operand, (np.ndarray, np.generic)) else type(operand)


def split_operands(
    ufunc: Any, partial_args: int, arguments: Arguments
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which arguments a ufunc writes, and which it reads beside its partial ones."""
    count = len(arguments.bound)
    nin = ufunc.nin - partial_args
    written = [i for i, arg in enumerate(arguments.bound) if isinstance(arg, Cut) and arg.writes]
    outputs = tuple(written[: ufunc.nout])
    separate = count == nin + ufunc.nout
    inputs = tuple(i for i in range(count) if not (separate and i in outputs))
    if len(outputs) < ufunc.nout or len(inputs) != nin:
        raise KernelTypeError(
            f"ufunc {name_of(ufunc)} takes {nin} inputs and {ufunc.nout} outputs, got {count} "
            f"arguments of which {len(written)} are split for writing; pass the inputs (the first "
            "split argument is then overwritten), or the outputs and the inputs"
        )
    return outputs, inputs
