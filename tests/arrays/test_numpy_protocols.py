"""Whatever NumPy does with a SharedArray comes to what it does with the ndarray within."""

from __future__ import annotations

import io
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shmcompute as sc

DTYPES = [np.dtype(name) for name in ("?", "i1", "u4", "i8", ">i4", "f4", "f8", "c16", "m8[s]")]
UFUNCS = [ufunc for ufunc in vars(np).values() if isinstance(ufunc, np.ufunc)]
REDUCTIONS = [
    *(np.sum, np.prod, np.mean, np.std, np.var, np.min, np.max, np.ptp, np.median, np.any, np.all),
    *(np.nansum, np.nanprod, np.nanmean, np.nanstd, np.nanvar, np.nanmin, np.nanmax, np.nanmedian),
    *(np.argmin, np.argmax, np.nanargmin, np.cumsum, np.cumprod, np.nancumsum),
]
BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift"]
BINARY += ["and_", "or_", "xor", "lt", "le", "eq", "ne", "gt", "ge"]
IN_PLACE = ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"]
# With what each is called: x, y of x's kind, an index.
INTO = [  # those that take `out`
    lambda x, y, i, out=None: np.take(x, [i], 0, out),
    lambda x, y, i, out=None: np.take(x, [i], 0, out=out),
    lambda x, y, i, out=None: np.compress([True], x, axis=0, out=out),
    lambda x, y, i, out=None: np.choose([0], [x[:1], y[:1]], out=out),
    lambda x, y, i, out=None: np.clip(x, np.min(y), np.max(y), out=out),
    lambda x, y, i, out=None: np.clip(x, np.min(y), np.max(y), out),
    lambda x, y, i, out=None: np.round(x, 1, out=out),
    lambda x, y, i, out=None: np.dot(x, np.transpose(y), out),
    lambda x, y, i, out=None: np.matmul(x, np.transpose(y), out=out),
    lambda x, y, i, out=None: np.einsum("...i,...i", x, y, out=out),
    lambda x, y, i, out=None: np.concatenate([x, y], out=out),
    lambda x, y, i, out=None: np.stack([x, y], axis=-1, out=out),
    lambda x, y, i, out=None: np.outer(x, y, out=out),
    lambda x, y, i, out=None: np.trace(x, out=out),
    lambda x, y, i, out=None: np.quantile(x, 0.3, axis=0, out=out),
    lambda x, y, i, out=None: np.nanpercentile(x, 30, axis=0, out=out),
    lambda x, y, i, out=None: np.fft.fft(x, out=out),
    lambda x, y, i, out=None: np.add.reduce(x, axis=-1, out=out),
    lambda x, y, i, out=None: np.maximum.accumulate(x, out=out),
    lambda x, y, i, out=None: np.multiply.outer(x, y, out=out),
    lambda x, y, i, out=None: np.add.reduceat(x, [0], out=out),
    lambda x, y, i, out=None: np.linalg.multi_dot([x, np.transpose(y), x], out=out),
]
CHANGING = [  # those that write into x
    lambda x, y, i: np.copyto(x, y),
    lambda x, y, i: np.copyto(x, y, where=y != y[:1]),
    lambda x, y, i: np.put(x, [i, 0], y),
    lambda x, y, i: np.place(x, y == y[:1], [1, 0]),
    lambda x, y, i: np.putmask(x, y != y[:1], y),
    lambda x, y, i: np.fill_diagonal(x, 1),
    lambda x, y, i: np.put_along_axis(x, np.zeros((1,) * x.ndim, int), 1, 0),
    lambda x, y, i: np.add.at(x, [i, i], y[:1]),
    lambda x, y, i: np.negative.at(x, i),
    lambda x, y, i: operator.setitem(x, i, y[0]),
    lambda x, y, i: operator.setitem(x, y == y[:1], 1),
    lambda x, y, i: operator.setitem(x, (slice(None), ...), y),
]
ASKING = [  # all others
    lambda x, y, i: (np.array(x, "(2,)i4"), np.asarray(x, "f4"), np.array(x, "S")),
    lambda x, y, i: np.sort(x, axis=0),
    lambda x, y, i: np.partition(x, i, axis=None),
    lambda x, y, i: np.unique(x, return_counts=True),
    lambda x, y, i: np.where(x == y, x, 0),
    lambda x, y, i: np.concatenate([x, y, x], axis=-1),
    lambda x, y, i: np.tensordot(x, y, axes=x.ndim),
    lambda x, y, i: np.histogram(x, bins=3),
    lambda x, y, i: np.divmod(x, y),
    lambda x, y, i: np.isin(x, y),
    lambda x, y, i: np.ones_like(x),
    lambda x, y, i: np.full_like(y, 3, dtype=float),
    lambda x, y, i: np.zeros(2, like=x),
    lambda x, y, i: np.roll(x, i),
    lambda x, y, i: np.gradient(x),
    lambda x, y, i: np.interp(0.5, x, y),
    lambda x, y, i: np.array_equal(x, y),
    lambda x, y, i: np.linalg.norm(x),
    lambda x, y, i: np.atleast_3d(y, x),
    lambda x, y, i: np.result_type(x, "f4"),
    lambda x, y, i: np.random.default_rng(1).permutation(x),
    lambda x, y, i: np.random.default_rng(1).permuted(x),
    lambda x, y, i: np.random.default_rng(1).choice(x, 2),
    lambda x, y, i: divmod(x, y),
    lambda x, y, i: divmod(3, x),
    lambda x, y, i: (-x, abs(x)),
    lambda x, y, i: (~x, +x),
    lambda x, y, i: (x**0.5, x**2),
    lambda x, y, i: (x**-1, 2**x),
    lambda x, y, i: (x == "a", x != None),  # noqa: E711
    lambda x, y, i: (3 - x, [[1]] * x, np.ones(1) @ x),
    lambda x, y, i: (y[0] in x, 77 in x),
    lambda x, y, i: (bool(x), float(x)),
    lambda x, y, i: (int(x[:1]), complex(x)),
    lambda x, y, i: range(5)[x],
    lambda x, y, i: (x[i], x[..., None], x[x == y], x[[i]]),
    lambda x, y, i: (len(x), list(x)),
]


def _equal(one, other):
    """Whether two results are the same, bit for bit."""
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and all(map(_equal, one, other))
    if not isinstance(other, (np.ndarray, np.generic)):
        return one is other or one == other
    one = np.asarray(one)
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _outcome(call):
    with np.errstate(all="ignore"):
        try:
            return call()
        except Exception as error:
            return type(error)


@st.composite
def _operands(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))
    small = st.integers(0, 1) if dtype.kind == "b" else st.integers(0, 4)
    numbers = hnp.arrays(np.int64, shape, elements=small)
    x, y = draw(numbers).astype(dtype), draw(numbers).astype(dtype)
    return x, y, draw(st.integers(0, shape[0] - 1))


def _check(call, x, y, *more, out=()):
    """Call it with arrays, and with SharedArrays in all places that take one."""
    plain = x.copy(), y.copy(), *(one.copy() for one in out)
    want = _outcome(lambda: call(*plain[:2], *more, *plain[2:]))
    with sc.SharedArray(x) as a, sc.SharedArray(y) as b:
        shared = a, b, *map(sc.SharedArray, out)
        got = _outcome(lambda: call(*shared[:2], *more, *shared[2:]))
        assert _equal(got, want)
        assert all(map(_equal, shared, plain))
        for mine, theirs in zip(shared, plain, strict=True):
            assert (got is mine) == (want is theirs)


def _into(call, x, y, *more):
    """The same with `out`, if it takes one."""
    want = _outcome(lambda: call(x.copy(), y.copy(), *more))
    if isinstance(want, np.ndarray):
        _check(call, x, y, *more, out=[np.zeros_like(want)])


@pytest.mark.long
@settings(max_examples=120, deadline=None)
@given(_operands(), st.data())
def test_functions_do_the_same(operands, data):
    for calls in (ASKING, CHANGING):
        _check(data.draw(st.sampled_from(calls)), *operands)
    call = data.draw(st.sampled_from(INTO))
    _check(call, *operands)
    _into(call, *operands)


@settings(max_examples=60, deadline=None)
@given(_operands(), st.sampled_from(UFUNCS), st.sampled_from(REDUCTIONS), st.sampled_from([0, -1]))
def test_ufuncs_and_reductions_do_the_same(operands, ufunc, reduction, axis):
    x, y, _ = operands
    for call in (
        lambda a, b, *out: ufunc(*(a, b)[: ufunc.nin], **({"out": out} if out else {})),
        lambda a, b, *out: reduction(a, axis, **({"out": out[0]} if out else {})),
        lambda a, b, *out: reduction(a, axis, None, *out),
    ):
        _check(call, x, y)
        _into(call, x, y)


@settings(max_examples=60, deadline=None)
@given(_operands(), st.sampled_from(BINARY), st.sampled_from(IN_PLACE))
def test_operators_do_the_same(operands, name, in_place):
    x, y, _ = operands
    for operate in (getattr(operator, name), getattr(operator, in_place)):
        _check(operate, x, y)
        _check(lambda a, b, o=operate: o(a, 2), x, y)
        _check(lambda a, b, o=operate: o(a, y), x, y)
        _check(lambda a, b, o=operate: o(x.copy(), b), x, y)


def test_a_mean_is_left_in_out():
    """NumPy leaves the sum in what is no ndarray."""
    x = np.arange(60.0).reshape(5, 3, 4)
    for function in (np.mean, np.var, np.std):
        with sc.SharedArray.zeros((3, 4)) as out:
            assert function(x, axis=0, out=out) is out
            np.testing.assert_array_equal(out.array, function(x, axis=0))


def test_two_outs_are_what_was_given():
    with sc.SharedArray([7, 8]) as a, sc.SharedArray([0, 0]) as b, sc.SharedArray([0, 0]) as c:
        assert all(map(operator.is_, np.divmod(a, 3, out=(b, c)), (b, c)))
        assert (b.array.tolist(), c.array.tolist()) == ([2, 2], [1, 2])


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_multiplies_as_matrices_do():
    with sc.SharedArray(np.arange(4.0).reshape(2, 2)) as arr:
        matrix = np.eye(2).view(np.matrix) * 2
        np.testing.assert_array_equal(arr * matrix, arr.array * matrix)
        np.testing.assert_array_equal(matrix * arr, matrix * arr.array)


def test_masks_are_kept_by_operators():
    with sc.SharedArray(np.arange(3.0)) as arr:
        masked = np.ma.masked_array(np.ones(3), [0, 1, 0])
        for sums in (arr + masked, masked + arr):
            assert sums.mask.tolist() == [False, True, False]


def _doubled(x):
    with np.nditer([x], op_flags=[["readwrite"]]) as elements:
        for element in elements:
            element[...] = element * 2


def _strided(x):
    corner = np.lib.stride_tricks.as_strided(x, (2, 2), (8, 8))
    corner[0, 0] = 99
    return corner.copy()


def _saved(x):
    file = io.BytesIO()
    np.savez(file, x=x)
    file.seek(0)
    return np.load(file)["x"]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore:the matrix subclass")
@pytest.mark.parametrize(
    "call",
    [
        *(_doubled, _strided, _saved),
        lambda x: np.nditer([x, None]).operands[0].sum(),
        lambda x: np.vectorize(lambda v: v + 1)(x),
        lambda x: np.vectorize(lambda v: v.sum(), signature="(n)->()")(x),
        lambda x: np.frompyfunc(lambda v: v + 1, 1, 1)(x).astype(float),
        lambda x: list(np.ndenumerate(x)),
        lambda x: np.broadcast(x, x).shape,
        lambda x: np.broadcast_arrays(x, np.ones((2, 1, 1))),
        lambda x: np.apply_over_axes(np.sum, x, [0, 1]),
        lambda x: np.piecewise(x, [x < 2, x >= 2], [lambda v: -v, 1]),
        lambda x: np.select([x < 2, x > 3], [x, -x], 7),
        lambda x: (np.r_[x, x], np.c_[x, x], np.block([[x, x]])),
        lambda x: np.asarray(np.matrix(x) * np.matrix(x).T),
        lambda x: np.ma.masked_greater(x, 2).filled(7),
        lambda x: np.array([x, x]),
        lambda x: np.fromiter(x.ravel(), float),
        lambda x: np.asfortranarray(x),
        lambda x: np.lexsort((x[0], x[1])),
        lambda x: np.nan_to_num(x, copy=False).sum(),
        lambda x: np.poly1d(x[0])(2),
        lambda x: np.polynomial.Polynomial(x[0])(2),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=1).sum(),
        lambda x: np.random.default_rng(0).permuted(x, axis=0),
        lambda x: np.random.default_rng(0).normal(x, x + 1),
        lambda x: np.random.default_rng(0).choice(3, 2, p=x[0] / x[0].sum()),
        lambda x: np.random.RandomState(0).permutation(x),
        lambda x: np.random.SeedSequence(x.astype("u4").ravel()).generate_state(2),
        lambda x: (sum(x), min(x.flat), sorted(x.ravel()), list(reversed(x))),
    ],
)
def test_what_takes_elements_apart_takes_its_own(call):
    plain = np.arange(6.0).reshape(2, 3)
    with sc.SharedArray(plain) as arr:
        want = call(plain)
        assert _equal(call(arr), want)
        assert _equal(arr, plain)


@pytest.mark.parametrize("name", ["random", "standard_normal", "standard_exponential", "permuted"])
def test_random_numbers_are_put_in_no_shared_array(name):
    """The generators ask for an ndarray, and say so."""
    call = getattr(np.random.default_rng(0), name)
    with sc.SharedArray(np.ones((2, 3))) as arr, pytest.raises((TypeError, ValueError)):
        call(*([arr] if name == "permuted" else []), out=arr)


@pytest.mark.parametrize("shuffle", [np.random.default_rng(0).shuffle, np.random.shuffle])
def test_it_is_not_shuffled_as_no_ndarray_is(shuffle):
    """NumPy would lose rows, which are views, and warns only."""
    with sc.SharedArray(np.arange(6).reshape(3, 2)) as arr:
        with pytest.raises(UserWarning, match="you are shuffling a 'SharedArray' object"):
            shuffle(arr)
        np.testing.assert_array_equal(arr.array, np.arange(6).reshape(3, 2))
        shuffle(arr.array)
        assert {row[0] for row in arr.array.tolist()} == {0, 2, 4}
