"""SharedArray: making, looking, closing, and NumPy's protocols."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kernels import run
from methods import METHODS

import shmcompute as sc
from shmcompute import storage
from shmcompute.backends.processes.protocol.pickler import reduce_view
from shmcompute.errors import ClosedError, StorageError

DTYPES = (
    hnp.scalar_dtypes()
    | hnp.nested_dtypes(max_leaves=3)
    | hnp.unicode_string_dtypes(min_len=1)
    | hnp.byte_string_dtypes(min_len=1)
)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["shm", "array"]), st.sampled_from("KCFA"))
def test_it_holds_what_numpy_holds(data, kind, order):
    """Any dtype without objects, any shape, either order: equal, byte for byte."""
    dtype = data.draw(DTYPES)
    shape = data.draw(hnp.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4))
    source = np.frombuffer(
        data.draw(
            st.binary(
                min_size=dtype.itemsize * int(np.prod(shape)),
                max_size=dtype.itemsize * int(np.prod(shape)),
            )
        ),
        np.uint8,
    )
    source = np.ndarray(shape, dtype, buffer=source.tobytes() or b"\0" * 64)
    if dtype.kind == "U":
        source = np.zeros(shape, dtype)  # random bytes are no characters
    with sc.SharedArray(source, order=order, storage=kind) as arr:
        assert (arr.shape, arr.dtype, arr.ndim) == (source.shape, source.dtype, source.ndim)
        assert (arr.size, arr.nbytes) == (source.size, source.nbytes)
        assert arr.array.tobytes("C") == source.tobytes("C")
        assert arr.array.flags.aligned or not dtype.isnative or dtype.names
        with pickle.loads(pickle.dumps(arr)) as again:
            assert again.array.tobytes("C") == source.tobytes("C")
            assert again.array.strides == arr.array.strides


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_view_travels_as_a_handle(data):
    """Any basic slice and transpose: same memory, same numbers, no copy."""
    source = data.draw(hnp.arrays(np.int32, hnp.array_shapes(max_dims=3, max_side=5)))
    with sc.SharedArray(source) as arr:
        cut = data.draw(hnp.basic_indices(source.shape, allow_ellipsis=False))
        view = arr.array[cut]
        if not isinstance(view, np.ndarray):
            return
        if data.draw(st.booleans()):
            view = view.T
        rebuild, args = reduce_view(view)
        again = rebuild(*pickle.loads(pickle.dumps(args)))
        np.testing.assert_array_equal(again, view)
        assert again.strides == view.strides or not view.size
        assert again.__array_interface__["data"] == view.__array_interface__["data"]


def test_a_plain_array_is_not_found():
    with sc.SharedArray(np.zeros(10)):
        assert storage.locate(np.zeros(10)) is None


def test_orders_and_dtypes_are_numpys():
    source = np.asfortranarray(np.arange(6).reshape(2, 3))
    for order, fortran in (("K", True), ("A", True), ("C", False), ("F", True)):
        with sc.SharedArray(source, order=order) as arr:
            assert arr.array.flags.f_contiguous == fortran
    with sc.SharedArray([[1, 2], [3, 4]], dtype="f4") as arr:
        assert arr.dtype == np.float32
    with pytest.raises(ValueError, match="'K', 'A', 'C', 'F'"):
        sc.SharedArray([1], order="Q")


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.array(["hello", "wo"]), "S"),
        (np.array([b"hello"]), str),
        (np.array([1, 22]), "S"),
        (np.array(["a", "bb"], object), "S"),
        (["hello"], "S"),
        (["hello"], None),
        (np.array([b"abc"]), "V"),
        (np.array(["2020-01-01"], "M8[D]"), "M8"),
        (np.array([3], "m8[h]"), "m8"),
        (["2020-01-02"], "M8"),
        (np.array([1, 2]), "(2,)i4"),
        (np.array([(1, 2)], "i4, i4"), "i8, f4"),
        (np.array([1.7, -1]), int),
        (np.array([300]), "u1"),
    ],
)
def test_a_dtype_means_what_it_means_to_numpy(data, dtype):
    """One without a length or a unit takes it from the elements, all of them."""
    want = np.array(data, dtype)
    with sc.SharedArray(data, dtype=dtype) as arr:
        assert arr.dtype == want.dtype
        assert arr.array.tolist() == want.tolist()
        if isinstance(data, np.ndarray) and not data.dtype.hasobject:
            with sc.SharedArray(data) as first, sc.SharedArray(first, dtype=dtype) as again:
                assert again.array.tolist() == want.tolist()


STRUCTURES = [
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype((np.record, [("x", "f4")])),
    np.dtype([(("title", "a"), ">i4"), ("b", "S3", (2,))]),
]


def _traits(x):
    return x.dtype, x.dtype.isalignedstruct, x.dtype.type, x.dtype.fields, x.dtype.alignment


def _traits_of_both(x, view):
    return _traits(x.array), _traits(view)


@pytest.mark.parametrize("dtype", STRUCTURES)
def test_a_dtype_arrives_as_it_was_sent(dtype, any_storage, pools):
    submit = pools["forkserver"].submit
    with sc.SharedArray.zeros(3, dtype, **{key: any_storage[key] for key in any_storage}) as arr:
        told = _traits(np.zeros(3, dtype))
        assert _traits(arr) == _traits(arr.array) == told
        assert submit(_traits_of_both, arr, arr[1:]).result() == (told, told)
        with sc.ArrayQueue(3, dtype, 1) as queue:
            queue.put(arr.array)
            assert submit(_traits, submit(queue.get).result()).result() == told
        if arr.storage == "file":
            arr.unlink()


def test_empty_zeros_and_full(any_storage):
    with sc.SharedArray.zeros(
        (2, 3),
        "i4",
        "F",
        **{key: any_storage[key] for key in any_storage},
    ) as arr:
        np.testing.assert_array_equal(arr.array, np.zeros((2, 3)))
        assert arr.array.flags.f_contiguous
    for value, dtype in ((7, np.dtype(int)), (2.5, np.dtype(float)), ("abc", np.dtype("U3"))):
        with sc.SharedArray.full(3, value) as arr:
            np.testing.assert_array_equal(arr.array, np.full(3, value))
            assert arr.dtype == dtype
    with sc.SharedArray.empty(4) as arr:
        assert arr.dtype == float


def test_repr_tells_all():
    arr = sc.SharedArray(np.zeros((2, 3), "f4"), storage="shm")
    name = arr.name
    told = (
        f"SharedArray(name={name!r}, shape=(2, 3), dtype='float32', storage='shm', "
        "owner=True, closed="
    )
    assert repr(arr) == f"{told}False)"
    arr.close()
    assert repr(arr) == f"{told}True)"


def test_objects_are_a_type_error_before_anything_is_allocated():
    before = {segment.address for segment in storage.live()}
    for data in ([object()], [None, 1], [{}]):
        with pytest.raises(TypeError, match="objects"):
            sc.SharedArray(data)
    assert {segment.address for segment in storage.live()} == before


def test_data_that_does_not_fit_leaves_nothing_behind():
    before = {segment.address for segment in storage.live()}
    with pytest.raises(ValueError, match="could not convert"):
        sc.SharedArray(np.array(["x"]), dtype=float)
    with pytest.raises(ValueError, match="broadcast"):
        sc.SharedArray.full(2, [1, 2, 3])
    assert {segment.address for segment in storage.live()} == before


@pytest.mark.parametrize("kind", ["ram", "", 7])
def test_an_unknown_storage_lists_the_known_ones(kind):
    with pytest.raises(ValueError, match="'auto', 'shm', 'file', 'array'"):
        sc.SharedArray([1], storage=kind)


def test_the_environment_chooses_the_storage(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_STORAGE", "array")
    with sc.SharedArray([1]) as arr:
        assert arr.storage == "array"
    with sc.SharedArray([1], storage="shm") as arr:
        assert arr.storage == "shm"
    monkeypatch.setenv("SHMCOMPUTE_STORAGE", "ram")
    with pytest.raises(ValueError, match="SHMCOMPUTE_STORAGE"):
        sc.SharedArray([1])


def test_after_close_it_says_closed(any_storage):
    arr = sc.SharedArray(np.arange(3.0), **{key: any_storage[key] for key in any_storage})
    arr.close()
    arr.close()
    for use in (
        lambda: arr.array,
        lambda: arr[0],
        lambda: arr.__setitem__(0, 1),
        lambda: arr + 1,
        lambda: np.sum(arr),
        lambda: len(arr),
        lambda: pickle.dumps(arr),
        lambda: sc.parallel_apply(np.sqrt, arr),
        lambda: arr.__enter__(),
        lambda: arr.__dlpack__(),
    ):
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert arr.closed
    assert arr.shape == (3,)
    if arr.storage == "file":
        arr.unlink()


def test_views_outlive_everything(any_storage):
    """close(), unlink() and del in any order leave views valid."""
    for order in (("close",), ("unlink",), ("unlink", "close"), ("close", "unlink"), ()):
        arr = sc.SharedArray(np.arange(1000.0), **{key: any_storage[key] for key in any_storage})
        view = arr.array[::2]
        for step in order:
            getattr(arr, step)()
        del arr
        gc.collect()
        assert view.sum() == np.arange(1000.0)[::2].sum()
        view[:] = 1
        del view


def test_memory_goes_back_at_once_when_there_is_no_view():
    arr = sc.SharedArray(np.zeros(1000), storage="shm")
    address = arr.segment.address
    arr.close()
    assert address not in {segment.address for segment in storage.live()}


def test_a_dropped_array_is_removed_with_its_last_view():
    arr = sc.SharedArray(np.zeros(1000), storage="shm")
    path = f"/dev/shm/{arr.name}"
    view = arr.array
    del arr
    assert os.path.exists(path)  # a view may still be sent to workers
    del view
    assert not os.path.exists(path)


def test_only_the_owner_unlinks():
    with sc.SharedArray([1.0], storage="shm") as arr:
        other = sc.SharedArray.attach(arr.name)
        assert (arr.owner, other.owner) == (True, False)
        with pytest.raises(StorageError, match="owner"):
            other.unlink()
        other.close()
        sc.SharedArray.attach(arr.name).close()
        arr.unlink()
        arr.unlink()
        assert not arr.owner or not os.path.exists(f"/dev/shm/{arr.name}")


def test_a_forked_child_owns_nothing():
    with sc.SharedArray([1.0], storage="shm") as arr:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                owner = arr.owner
                arr.close()
                code = int(owner)
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        sc.SharedArray.attach(arr.name).close()


def test_it_speaks_numpy():
    with sc.SharedArray(np.arange(6.0).reshape(2, 3)) as arr:
        plain = np.arange(6.0).reshape(2, 3)
        np.testing.assert_array_equal(arr + 1, plain + 1)
        np.testing.assert_array_equal(2 * arr - arr, plain)
        np.testing.assert_array_equal(np.sqrt(arr), np.sqrt(plain))
        np.testing.assert_array_equal(np.add.reduce(arr, axis=1), plain.sum(1))
        np.testing.assert_array_equal(arr @ plain.T, plain @ plain.T)
        np.testing.assert_array_equal(arr == plain, np.ones((2, 3), bool))
        assert isinstance(arr + 1, np.ndarray)
        assert np.mean(arr) == 2.5
        assert len(arr) == 2
        assert arr[1, 2] == 5
        assert isinstance(arr[0], np.ndarray)
        assert [row.sum() for row in arr] == [3, 12]
        same = arr
        same += 1
        assert same is arr
        arr[0] = arr[1]
        np.testing.assert_array_equal(arr.array, [[4, 5, 6], [4, 5, 6]])
        assert np.add(plain, 1, out=arr) is arr
        np.testing.assert_array_equal(arr[arr > 3], [4, 5, 6])


def test_array_and_dlpack_share_memory():
    with sc.SharedArray(np.arange(6.0)) as arr:
        assert np.shares_memory(np.asarray(arr), arr.array)
        assert np.shares_memory(np.from_dlpack(arr), arr.array)
        assert not np.shares_memory(np.array(arr), arr.array)
        assert np.asarray(arr, dtype="f4").dtype == np.float32
        with pytest.raises(ValueError, match="copy"):
            np.asarray(arr, dtype="f4", copy=False)


def test_truth_is_as_ambiguous_as_numpys():
    with sc.SharedArray([1.0, 2.0]) as arr, pytest.raises(ValueError, match="ambiguous"):
        bool(arr)
    with sc.SharedArray(5) as scalar:
        assert scalar
        assert scalar.shape == ()
        with pytest.raises(TypeError, match="0-d"):
            list(scalar)


def test_a_pickle_is_a_handle():
    """It gives another SharedArray over the same memory, not the owner."""
    with sc.SharedArray(np.arange(3.0)) as arr:
        again = pickle.loads(pickle.dumps(arr))
        assert not again.owner
        assert np.shares_memory(again.array, arr.array)
        assert len(pickle.dumps(sc.SharedArray(np.zeros(10**6)))) < 1000


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_an_array_of_its_own(copied, any_storage):
    """As of an ndarray: with the same content, dtype and order, and no way back."""
    source = np.asfortranarray(np.arange(6).reshape(2, 3), "i2")
    arr = sc.SharedArray(source, **{key: any_storage[key] for key in any_storage})
    again = copied(arr)
    arr[:] = 7
    arr.close()
    with again:
        np.testing.assert_array_equal(again.array, source)
        assert (again.dtype, again.array.strides) == (source.dtype, source.strides)
        assert again.owner
        assert again.storage != "file"
    with pytest.raises(ClosedError):
        copied(arr)
    if arr.storage == "file":
        arr.unlink()


class Model:
    def __init__(self, weights):
        self.weights = self.same = weights
        self.rows = {"first": weights[0]}


class Layer(sc.SharedArray):
    """Whose own attributes are copied with it."""


def test_what_holds_arrays_is_copied_with_them():
    model = Model(Layer(np.zeros((2, 2))))
    model.weights.bias = [0]
    best = copy.deepcopy(model)
    model.weights += 5
    model.weights.bias[0] = 5
    assert not best.weights.array.any()
    assert not best.rows["first"].any()
    assert best.same is best.weights
    assert (type(best.weights), best.weights.bias) == (Layer, [0])
    assert copy.copy(model.weights).bias is model.weights.bias
    best.weights.close()
    model.weights.close()


def test_a_copy_leaves_nothing_behind():
    with sc.SharedArray(np.zeros(3)) as arr:
        path = f"/dev/shm/{copy.deepcopy(arr).name}"
        assert not os.path.exists(path)


def _double(arr):
    arr *= 2
    return arr.owner, arr.shape


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["shm", "array"])
def test_the_standard_librarys_pools_take_it_as_an_argument(method, kind):
    context = multiprocessing.get_context(method)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        with sc.SharedArray(np.ones(4), storage=kind) as arr:
            with context.Pool(1) as pool:
                assert pool.map(_double, [arr]) == [(False, (4,))]
                pool.close()
                pool.join()
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                assert executor.submit(_double, arr).result() == (False, (4,))
            process = context.Process(target=_double, args=(arr,))
            process.start()
            process.join()
            process.close()
            np.testing.assert_array_equal(arr.array, np.full(4, 8.0))


EXITS = {
    "all alive": "",
    "array closed": "arr.close()",
    "array deleted": "del arr",
    "view deleted": "del view",
    "pool closed": "pool.close()",
    "pool deleted": "del pool",
    "unlinked": "arr.unlink()",
    "in a cycle": "cycle = [arr, view, pool]; cycle.append(cycle); del arr, view, pool",
    "kept by a module": "import math; math.arr = arr; math.view = view; math.pool = pool; del arr",
    "exit by exception": "raise SystemExit(0)",
    "many": "more = [sc.SharedArray(np.ones(9)) for _ in range(50)]; views = [a[1:] for a in more]",
    "shut down": "sc.shutdown()",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["shm", pytest.param("array", marks=pytest.mark.soak)])
@pytest.mark.parametrize("ending", EXITS.values(), ids=EXITS)
def test_exit_in_any_order_is_quiet(ending, kind, monkeypatch):
    """Exit 0, empty stderr, nothing left."""
    if kind == "array":  # one start method for each kind: the three differ little in how they end
        monkeypatch.setenv("SHMCOMPUTE_START_METHOD", "fork")
    monkeypatch.setenv("SHMCOMPUTE_WORKERS", "1")
    done = run(
        f"""
        import numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.ones(1000), storage="{kind}")
        view = arr.array[::2]
        pool = sc.Pool(1)
        sc.parallel_apply(np.sqrt, arr, pool=pool)
        sc.parallel_apply(np.sqrt, arr, backend="threads")
        sc.parallel_apply(np.sqrt, arr)
        print(arr.name)
        {ending}
        """
    )
    assert not os.path.exists(f"/dev/shm/{done.stdout.strip()}")
