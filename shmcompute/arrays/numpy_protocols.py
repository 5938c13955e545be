"""`NumpyProtocols`: what makes NumPy take an object for the array that it holds.

Whatever NumPy is asked to do with a `SharedArray` it does with the ndarray within, so that both
come to the same: its functions look at the type of what they are given, and do other things with
what is no ndarray. (`numpy.mean` would leave the sum in such an `out`.) Operators are ndarray's
own, for they do more than the ufunc of that name: ``x ** 0.5`` is a square root.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from shmcompute.arrays.parallel_forms import call_parallel
from shmcompute.typing import Array


class NumpyProtocols(NDArrayOperatorsMixin):
    """An object that acts as its `array` does."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # == compares elements, as for ndarray

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Have shuffling refused, of which NumPy only warns.

        It swaps the elements of what is no ndarray. Rows are views, so of two that are swapped one
        is lost, and elements come in another order than an ndarray's.
        """
        super().__init_subclass__(**keywords)
        message = f"you are shuffling a '{cls.__name__}' object"
        warnings.filterwarnings("error", message, UserWarning)

    @property
    def array(self) -> Array:
        """The array within."""
        raise NotImplementedError

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if dtype is not None and np.dtype(dtype).subdtype is not None:
            dtype = None  # whoever asks repeats the elements, as that dtype has it, himself
        return np.array(self.array, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [plain(value) for value in inputs]
        named = {name: plain_within(value) for name, value in kwargs.items()}
        result = NotImplemented if method == "__call__" else _in_parts(ufunc, method, arrays, named)
        if result is NotImplemented:
            result = getattr(ufunc, method)(*arrays, **named)
        given = kwargs.get("out", ())
        if type(result) is tuple:
            return tuple(as_given(part, given) for part in result)
        return as_given(result, given)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        named = {name: plain_within(value) for name, value in kwargs.items()}
        plain_args = [plain_within(value) for value in args]
        result = call_parallel(function, plain_args, named)
        if result is NotImplemented:
            result = function(*plain_args, **named)
        # `out` may stand among the others, but is never the first.
        return as_given(result, [*args[1:], kwargs.get("out")])

    def __contains__(self, value: object) -> bool:
        return plain(value) in self.array

    def __bool__(self) -> bool:
        return bool(self.array)

    def __int__(self) -> int:
        return int(self.array)

    def __float__(self) -> float:
        return float(self.array)

    def __complex__(self) -> complex:
        return complex(self.array)

    def __index__(self) -> int:
        return operator.index(self.array)

    def __len__(self) -> int:
        return len(self.array)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def plain(value: Any) -> Any:
    """The array that an object holds; anything else as it is."""
    return value.array if isinstance(value, NumpyProtocols) else value


def plain_within(value: Any) -> Any:
    """The same for what lists and tuples hold."""
    if type(value) in (list, tuple):
        return type(value)(map(plain_within, value))
    return plain(value)


def as_given(result: Any, given: Iterable[Any]) -> Any:
    """A result of NumPy's; if it is an array that was given as `out`, what held it."""
    for value in given:
        if isinstance(value, NumpyProtocols) and result is value.array:
            return value
    return result


def _in_parts(ufunc: np.ufunc, method: str, inputs: list[Any], named: dict[str, Any]) -> Any:
    """A ufunc's method by its parallel form. NumPy wraps a lone `out` in a tuple."""
    if "out" in named:
        named = {**named, "out": named["out"][0]}
    return call_parallel(getattr(ufunc, method), inputs, named)


def _binary(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: operate(self.array, plain(other))


def _reflected(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: operate(plain(other), self.array)


def _in_place(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: as_given(operate(self.array, plain(other)), (self,))


def _unary(operate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda self: operate(self.array)


def _take_operators() -> None:
    """Give the class the operators that its base names, as ndarray means them."""
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(NumpyProtocols, f"__{name}__", _binary(getattr(operator, name)))
    for name in ("neg", "pos", "abs", "invert"):
        setattr(NumpyProtocols, f"__{name}__", _unary(getattr(operator, name)))
    names = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or"
    for name in names.split():
        operate = divmod if name == "divmod" else getattr(operator, f"__{name}__")
        setattr(NumpyProtocols, f"__{name}__", _binary(operate))
        setattr(NumpyProtocols, f"__r{name}__", _reflected(operate))
        if name != "divmod":
            setattr(NumpyProtocols, f"__i{name}__", _in_place(getattr(operator, f"__i{name}__")))


_take_operators()
