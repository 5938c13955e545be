"""`NdarrayMethods`: attributes and methods that an object with an `array` has as ndarray has them.

Views and results are plain arrays, which need no closing. Methods take their parallel form where
there is one (see `parallel_forms`), and else are the array's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from shmcompute.arrays.numpy_protocols import NumpyProtocols, as_given, plain_within
from shmcompute.arrays.parallel_forms import call_parallel


def _method(name: str, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """The method of that name; `function`: NumPy's, if that is what has a parallel form."""
    wanted = getattr(np.ndarray, name) if function is None else function

    def method(self: NdarrayMethods, *args: Any, **kwargs: Any) -> Any:
        array = self.array
        values = [plain_within(value) for value in args]
        named = {key: plain_within(value) for key, value in kwargs.items()}
        result = call_parallel(wanted, (array, *values), named)
        if result is NotImplemented:
            result = getattr(array, name)(*values, **named)
        return as_given(result, (*args, kwargs.get("out"))) if args or kwargs else result

    return _named(method, name, f"As `numpy.ndarray.{name}`.")


def _named(method: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    method.__name__ = name
    method.__qualname__ = f"SharedArray.{name}"
    method.__doc__ = doc
    return method


class _Attribute:
    """An attribute of the array: to be read or, where ndarray's can be assigned to, `assigned`."""

    def __init__(self, *, assigned: bool = False) -> None:
        self._assigned = assigned

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = f"As `numpy.ndarray.{name}`."

    def __get__(self, instance: NdarrayMethods | None, owner: type | None = None) -> Any:
        return self if instance is None else getattr(instance.array, self._name)

    def __set__(self, instance: NdarrayMethods, value: Any) -> None:
        if not self._assigned:
            raise AttributeError(
                f"{self._name} of a {type(instance).__name__} can't be set", name=self._name
            )
        setattr(instance.array, self._name, plain_within(value))


class NdarrayMethods(NumpyProtocols):
    """An object that has the attributes and methods of its `array`."""

    __slots__ = ()
    __array_priority__ = 0.0  # as an ndarray's

    sum = _method("sum", np.sum)
    prod = _method("prod", np.prod)
    mean = _method("mean", np.mean)
    var = _method("var", np.var)
    std = _method("std", np.std)
    min = _method("min", np.min)
    max = _method("max", np.max)
    argmin = _method("argmin", np.argmin)
    argmax = _method("argmax", np.argmax)
    any = _method("any", np.any)
    all = _method("all", np.all)
    cumsum = _method("cumsum", np.cumsum)
    cumprod = _method("cumprod", np.cumprod)
    argsort = _method("argsort", np.argsort)
    searchsorted = _method("searchsorted", np.searchsorted)
    clip = _method("clip", np.clip)
    round = _method("round", np.round)
    # NumPy's functions of these names do something else.
    sort = _method("sort")
    fill = _method("fill")
    copy = _method("copy")
    astype = _method("astype")

    reshape = _method("reshape")
    ravel = _method("ravel")
    transpose = _method("transpose")
    swapaxes = _method("swapaxes")
    squeeze = _method("squeeze")
    view = _method("view")
    item = _method("item")
    tobytes = _method("tobytes")
    tolist = _method("tolist")
    tofile = _method("tofile")

    T = _Attribute()
    flags = _Attribute()
    strides = _Attribute()
    itemsize = _Attribute()
    data = _Attribute()
    ctypes = _Attribute()
    flat = _Attribute(assigned=True)
    real = _Attribute(assigned=True)
    imag = _Attribute(assigned=True)

    def ptp(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """As `numpy.ptp`."""
        return np.ptp(self, axis, out, keepdims)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """As `numpy.ndarray.__array_interface__`, for dtypes that it describes whole."""
        array = self.array
        if array.dtype.fields or not array.itemsize:
            # Padding, alignment and records are lost in a list of fields: NumPy is to take the
            # array itself, by ``__array__``.
            raise AttributeError(_advice(self, "__array_interface__"), name="__array_interface__")
        data = array.reshape(-1, order="A").view(np.uint8, Memory)
        return {**array.__array_interface__, "data": data}

    def __buffer__(self, flags: int) -> memoryview:
        """The buffer protocol, where Python asks for it (from 3.12 on)."""
        array = self.array
        view = memoryview(cast(Any, array))  # which is typed as a buffer from 3.12 on
        if _may_lose(array) and str(np.asarray(view).dtype) != str(array.dtype):
            view.release()
            raise BufferError(
                f"a buffer does not tell all of {array.dtype}, and NumPy, which asks for a buffer "
                "first, would lose it: use .array"
            )
        return view

    def __bytes__(self) -> bytes:
        return self.array.tobytes()

    def __format__(self, specification: str) -> str:
        if self.array.ndim and not specification:
            return str(self)
        return format(self.array, specification)

    if not TYPE_CHECKING:  # which would take it that any name is there

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(_advice(self, name), name=name, obj=self)


class Memory(np.ndarray[Any, Any]):
    """The bytes of an array, as ``__array_interface__["data"]``.

    There a pair of address and read-only flag is what all programs expect. But who takes no more
    than an address does not keep the memory, once the array is closed; a buffer is kept. So this
    one is a buffer, and reads as the pair.
    """

    def _pair(self) -> tuple[int, bool]:
        pair: tuple[int, bool] = super().__array_interface__["data"]
        return pair

    def __getitem__(self, key: Any) -> Any:
        return self._pair()[key]

    def __iter__(self) -> Any:
        return iter(self._pair())

    def __len__(self) -> int:
        return 2

    def __eq__(self, other: object) -> bool:
        return self._pair() == (other._pair() if isinstance(other, Memory) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self._pair())


def _may_lose(array: np.ndarray[Any, Any]) -> bool:
    """Whether the format of a buffer may tell less than the dtype."""
    return array.dtype.kind == "V" or not array.itemsize


def _advice(instance: NdarrayMethods, name: str) -> str:
    """What the error says of a name that is not there."""
    missing = f"{type(instance).__name__!r} object has no attribute {name!r}"
    if name not in vars(np.ndarray):
        return missing
    return f"{missing}; its ndarray has: use .array.{name}"
