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

from shmcompute.typing import Array

# To shuffle, NumPy swaps the elements of what is no ndarray. Rows are views, so of two rows that
# are swapped one is lost, and elements come in another order than an ndarray's. It only warns.
warnings.filterwarnings("error", "you are shuffling a 'SharedArray' object", UserWarning)


class NumpyProtocols(NDArrayOperatorsMixin):
    """An object that acts as its `array` does."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # == compares elements, as for ndarray

    @property
    def array(self) -> Array:
        """The array within."""
        raise NotImplementedError

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if dtype is not None and np.dtype(dtype).subdtype is not None:
            dtype = None  # whoever asks repeats the elements, as that dtype has it, himself
        return np.array(self.array, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain_kwargs = {name: plain_within(value) for name, value in kwargs.items()}
        result = getattr(ufunc, method)(*map(plain, inputs), **plain_kwargs)
        given = kwargs.get("out", ())
        if type(result) is tuple:
            return tuple(_as_given(part, given) for part in result)
        return _as_given(result, given)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        named = {name: plain_within(value) for name, value in kwargs.items()}
        result = function(*map(plain_within, args), **named)
        # `out` may stand among the others, but is never the first.
        return _as_given(result, [*args[1:], kwargs.get("out")])

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


def _as_given(result: Any, given: Iterable[Any]) -> Any:
    """A result of NumPy's; if it is an array that was given as `out`, what held it."""
    for value in given:
        if isinstance(value, NumpyProtocols) and result is value.array:
            return value
    return result


def _binary(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: operate(self.array, plain(other))


def _reflected(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: operate(plain(other), self.array)


def _in_place(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: _as_given(operate(self.array, plain(other)), (self,))


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
