"""The fallback: a lock-free multiprocessing.Array, and how running workers reach it."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from kernels import affine, expected, run

import shmcompute as sc
from shmcompute.errors import SegmentExistsError, SegmentNotFoundError, StorageFullError
from shmcompute.storage import mp_array


def test_it_lies_in_a_multiprocessing_array():
    with sc.SharedArray(np.arange(10.0), storage="array") as arr:
        base = arr.array.base.base
        assert type(base).__name__.startswith("c_byte_Array")
        assert base._wrapper is not None


def test_arrays_of_many_sizes_leave_few_types_behind():
    """`multiprocessing` keeps a type of ctypes for each size that there ever was."""
    kept = multiprocessing.reduction.ForkingPickler._extra_reducers
    before = len(kept)
    for size in range(1000, 3000, 5):
        sc.SharedArray.empty(size, "i1", storage="array").close()
    assert len(kept) - before <= 40
    sizes = range(1, 1 << 30, (1 << 20) + 1)
    assert all(size <= mp_array._rounded(size) <= size * 17 / 16 + 64 for size in sizes)


@pytest.mark.parametrize("dtype", ["f8", "g", "G", "i1"])
def test_it_is_aligned_for_any_dtype(dtype):
    arrays = [sc.SharedArray(np.ones(n, dtype), storage="array") for n in (1, 3, 1000)]
    for arr in arrays:
        assert arr.array.flags.aligned
        assert arr.array.__array_interface__["data"][0] % mp_array.ALIGN == 0
        arr.close()


def test_arrays_made_before_and_after_the_pool_work(process_pool):
    for length in (10, 100_000, 3_000_000):
        with sc.SharedArray(np.arange(float(length)), storage="array") as arr:
            sc.parallel_apply(affine, arr, 3.0, 1.0, pool=process_pool)
            np.testing.assert_array_equal(arr.array, expected(np.arange(float(length))))


def test_it_also_travels_as_a_descriptor(process_pool, monkeypatch):
    """The portable way, `DupFd`, switched on here."""
    monkeypatch.setenv("SHMCOMPUTE_SEND_DESCRIPTORS", "1")
    with sc.SharedArray(np.arange(50.0), storage="array") as arr:
        sc.parallel_apply(affine, arr, 3.0, 1.0, pool=process_pool)
        np.testing.assert_array_equal(arr.array, expected(np.arange(50.0)))
    from multiprocessing.resource_sharer import stop

    stop()


def test_it_has_no_name_in_the_namespace_and_cannot_be_attached():
    with sc.SharedArray([1.0], storage="array") as arr, pytest.raises(SegmentNotFoundError):
        sc.SharedArray.attach(arr.name)


def test_a_handle_whose_maker_is_gone_says_so():
    done = run(
        """
        import pickle, sys, shmcompute as sc
        arr = sc.SharedArray([1.0], storage="array")
        sys.stdout.write(pickle.dumps(arr).hex())
        """
    )
    with pytest.raises(SegmentNotFoundError, match="made it has ended"):
        pickle.loads(bytes.fromhex(done.stdout))


def test_too_much_is_a_storage_full_error():
    with pytest.raises(StorageFullError, match="free"):
        sc.SharedArray.empty(2**50, np.uint8, storage="array")


@pytest.mark.long
def test_a_standard_process_takes_it_as_an_argument():
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        with sc.SharedArray(np.ones(4), storage="array") as arr:
            process = context.Process(target=_double, args=(arr,))
            process.start()
            process.join()
            assert process.exitcode == 0
            process.close()
            np.testing.assert_array_equal(arr.array, np.full(4, 2.0))


def _double(arr):
    assert not arr.owner
    arr *= 2
    assert os.getpid() != os.getppid()


def test_a_label_in_use_or_unfit_is_refused():
    in_use = pytest.raises(SegmentExistsError, match="label")
    with sc.SharedArray([1.0], storage="array", name="label"), in_use:
        sc.SharedArray([2.0], storage="array", name="label")
    with sc.SharedArray([2.0], storage="array", name="label") as again:
        assert again.name == "label"
    for name, kind in (("a/b", ValueError), ("a\nb", ValueError), (7, TypeError)):
        with pytest.raises(kind, match="name"):
            sc.SharedArray([1.0], storage="array", name=name)
