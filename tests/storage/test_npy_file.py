"""A .npy on disk as a segment."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import (
    SegmentExistsError,
    SegmentFormatError,
    SegmentNotFoundError,
    StorageError,
)
from shmcompute.storage import npy_file


def test_a_file_segment_is_a_plain_npy(tmp_path):
    path = tmp_path / "x.npy"
    for order in "CF":
        with sc.SharedArray(np.arange(6.0).reshape(2, 3), order=order, storage="file", name=path):
            pass
        found = np.load(path)
        np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3))
        assert found.flags.f_contiguous == (order == "F")
        path.unlink()


@pytest.mark.parametrize(
    "dtype", ["f8", "?", "M8[ns]", "U5", [("λ", "f4"), ("b", "i2", (3,))], ">i4"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3)])
def test_what_numpy_saves_can_be_opened_and_back(tmp_path, dtype, shape):
    path = tmp_path / "x.npy"
    source = np.zeros(shape, dtype)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # NumPy tells that Unicode needs version 3
        np.save(path, source)
        with sc.SharedArray.open(path) as arr:
            assert (arr.shape, arr.dtype, arr.owner, arr.storage) == (
                shape,
                source.dtype,
                False,
                "file",
            )
        path.unlink()
        sc.SharedArray.empty(shape, dtype, storage="file", name=path).close()
        assert np.load(path).dtype == source.dtype


def test_what_a_kernel_writes_lands_in_the_file(tmp_path, any_pool):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(100.0))
    with sc.SharedArray.open(path) as arr:
        sc.parallel_apply(np.negative, arr, pool=any_pool)
    np.testing.assert_array_equal(np.load(path), -np.arange(100.0))


def test_a_file_stays_until_it_is_unlinked(tmp_path):
    path = tmp_path / "x.npy"
    arr = sc.SharedArray([1.0, 2.0], storage="file", name=path)
    arr.close()
    assert path.exists()
    with sc.SharedArray.open(path) as again, pytest.raises(StorageError, match="owner"):
        again.unlink()
    arr.unlink()
    arr.unlink()
    assert not path.exists()


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    path = tmp_path / "x.npy"
    path.write_text("precious")
    with pytest.raises(SegmentExistsError, match="exists"):
        sc.SharedArray([1.0], storage="file", name=path)
    assert path.read_text() == "precious"


def test_a_file_needs_a_path():
    with pytest.raises(ValueError, match="path"):
        sc.SharedArray([1.0], storage="file")


@pytest.mark.parametrize("content", [b"", b"noise", b"\x93NUMPY\x01\x00\xff\xff"])
def test_what_is_no_npy_is_a_format_error(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(SegmentFormatError, match="npy"):
        sc.SharedArray.open(path)


def test_a_truncated_npy_is_a_format_error_and_stays_as_it_is(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(1000.0))
    os.truncate(path, 500)
    with pytest.raises(SegmentFormatError):
        sc.SharedArray.open(path)
    assert path.stat().st_size == 500


def test_a_pickled_npy_is_a_format_error(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(SegmentFormatError, match="object"):
        sc.SharedArray.open(path)


def test_no_file_and_no_folder_are_typed(tmp_path):
    with pytest.raises(SegmentNotFoundError, match="no file"):
        sc.SharedArray.open(tmp_path / "none.npy")
    with pytest.raises(StorageError):
        sc.SharedArray([1.0], storage="file", name=tmp_path / "none" / "x.npy")
    with pytest.raises(ValueError, match="'r', 'r\\+'"):
        sc.SharedArray.open(tmp_path / "none.npy", mode="c")


def test_opened_for_reading_it_can_be_read_but_not_split(tmp_path, any_pool):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(4.0))
    with sc.SharedArray.open(path, mode="r") as arr, sc.SharedArray(np.zeros(4)) as out:
        with pytest.raises(ValueError, match="read-only"):
            sc.parallel_apply(np.negative, arr, pool=any_pool)
        sc.parallel_apply(np.negative, out, sc.read(arr), pool=any_pool)
        np.testing.assert_array_equal(out.array, -np.arange(4.0))
        with pytest.raises(ValueError, match="read-only"):
            arr[0] = 1


@pytest.mark.skipif(os.geteuid() != 0, reason="as root, another user is acted")
def test_a_read_only_file_names_the_way_out(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(4.0))
    path.chmod(0o444)
    for folder in (path.parent, *path.parent.parents):
        folder.chmod(folder.stat().st_mode | 0o055) if folder != folder.parent else None
    done = subprocess.run(
        [sys.executable, "-c", _READ_ONLY, path], capture_output=True, text=True, timeout=60
    )
    assert 'mode="r"' in done.stdout, done.stderr
    assert "[0. 1. 2. 3.]" in done.stdout


_READ_ONLY = """
import os, sys
import shmcompute as sc
os.seteuid(65534)
try:
    sc.SharedArray.open(sys.argv[1])
except sc.errors.StorageError as error:
    print(error)
print(sc.SharedArray.open(sys.argv[1], mode="r").array)
"""


def test_one_file_is_mapped_once_here(tmp_path):
    """Two openings of one file share their memory, so overlapping writes are seen as such."""
    path = tmp_path / "x.npy"
    np.save(path, np.arange(10.0))
    with sc.SharedArray.open(path) as one, sc.SharedArray.open(path) as two:
        assert np.shares_memory(one.array, two.array)
        with pytest.raises(ValueError, match="overlap"):
            sc.parallel_apply(np.add, one[:5], two[2:7])


def test_one_file_by_two_names_is_one_segment(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10.0))
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    os.link(tmp_path / "x.npy", tmp_path / "hard.npy")
    with sc.SharedArray.open(tmp_path / "x.npy") as one:
        for name in ("link.npy", "hard.npy"):
            with sc.SharedArray.open(tmp_path / name) as two:
                assert np.shares_memory(one.array, two.array)


def _found(arr):
    return arr.shape, arr.dtype.str, arr.array.tolist()


def test_a_file_that_was_written_anew_is_another_array(tmp_path, process_pool):
    """NumPy writes into the same inode, of which there may be a mapping, here and in workers."""
    path = tmp_path / "x.npy"
    before = np.arange(10.0)
    np.save(path, before)
    with sc.SharedArray.open(path) as old:
        assert process_pool.submit(_found, old).result() == ((10,), "<f8", before.tolist())
        np.save(path, np.arange(5, dtype="i4"))
        with sc.SharedArray.open(path) as new:
            told = (5,), "<i4", [0, 1, 2, 3, 4]
            assert _found(new) == process_pool.submit(_found, new).result() == told
        with sc.SharedArray.open(path, "r") as new:
            assert _found(new) == told


def test_what_was_written_anew_is_not_mapped_by_an_old_handle(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(10.0))
    handle = npy_file.find(path)
    np.save(path, np.arange(5, dtype="i4"))
    with pytest.raises(SegmentNotFoundError, match="written anew"):
        handle.map()


def test_data_that_does_not_fit_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="convert"):
        sc.SharedArray(np.array(["x"]), dtype=float, storage="file", name=tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
