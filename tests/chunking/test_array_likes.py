"""Other libraries' arrays as arguments: in place where memory is shared, else refused."""

from __future__ import annotations

import numpy as np
import pytest

import shmcompute as sc


class Lending:
    """An array-like of nobody's."""

    def __init__(self, array):
        self.held = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.held, dtype=dtype, copy=copy)


class Reading(Lending):
    """One whose elements must be read first, as a zarr array's."""

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("it always copies")
        return np.array(self.held, dtype=dtype)


@pytest.fixture
def arr():
    with sc.SharedArray(np.arange(6.0)) as made:
        yield made


@pytest.fixture(params=["serial", "threads", "processes"])
def pool(request):
    with sc.Pool(2, backend=request.param) as made:
        yield made


@pytest.mark.parametrize("mark", [lambda x: x, sc.split, sc.write])
def test_what_lends_shared_memory_is_worked_on_in_place(pool, arr, mark):
    for _ in range(3):
        sc.parallel_apply(np.negative, mark(Lending(arr.array)), pool=pool)
    assert np.array_equal(arr, -np.arange(6.0))


def test_it_is_read_whole_or_in_parts(pool, arr):
    with sc.SharedArray.zeros(6) as out:

        def fill(out, part, whole):
            out[:] = part + whole.sum()

        sc.parallel_apply(
            fill, out, sc.read(Lending(arr.array)), sc.whole(Lending(arr.array)), pool=pool
        )
        assert np.array_equal(out, np.arange(6.0) + 15)


def test_a_call_like_an_earlier_one_takes_its_plan(arr):
    with sc.Pool(2, backend="threads") as pool:
        for _ in range(3):
            sc.parallel_apply(np.negative, Lending(arr.array), pool=pool)
        sc.parallel_apply(np.negative, Lending(arr.array[:3]), pool=pool)
        assert len(pool.plans._entries) == 2
        arr.close()
        assert not pool.plans._entries


def test_memory_that_is_not_shared_is_refused_where_workers_would_not_see_it():
    with (
        sc.Pool(2) as pool,
        pytest.raises(TypeError, match=r"argument 0 is a test_array_likes.Lending.*copy it in"),
    ):
        sc.parallel_apply(np.negative, Lending(np.ones(3)), pool=pool)
    held = np.ones(3)
    sc.parallel_apply(np.negative, Lending(held), backend="threads")
    assert held.tolist() == [-1, -1, -1]


def test_what_has_no_memory_to_lend_is_never_nothing_to_split(arr):
    for given in (Reading(np.ones(3)), sc.split(Reading(np.ones(3)))):
        with pytest.raises(TypeError, match=r"argument 0 is a .*Reading.*copy it in"):
            sc.parallel_apply(np.negative, given, backend="serial")
    with pytest.raises(ValueError, match="nothing to split"):
        sc.parallel_apply(np.negative, 3, backend="serial")


def test_it_is_passed_as_it_is_beside_what_is_split(arr):
    def fill(out, first, source):
        out[:] = np.asarray(source)[first : first + len(out)]

    source = Reading(np.arange(6.0) + 1)
    sc.parallel_apply(fill, arr, sc.offset, source, backend="serial")
    assert np.array_equal(arr, np.arange(6.0) + 1)


def test_a_memmap_is_told_of_open(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(4))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")
    with sc.Pool(2) as pool, pytest.raises(TypeError, match=r"SharedArray\.open"):
        sc.parallel_apply(np.negative, mapped, pool=pool)
