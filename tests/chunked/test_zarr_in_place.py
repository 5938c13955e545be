"""`parallel_apply` on zarr arrays: a new version takes the old one's place, or nothing changes."""

from __future__ import annotations

import os
import shutil
import signal
import time

import leaks
import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTimeoutError, WorkerLostError

zarr = pytest.importorskip("zarr")
zarr.config.set({"threading.max_workers": 1})
with leaks.kept():  # its event loop, and the thread of that
    zarr.create_array({}, shape=4, chunks=2, dtype="f8")[:] = 1

X = np.random.default_rng(0).integers(0, 100, (1000, 4)).astype(float)


@nb.njit
def affine(x, factor, first):
    for i in range(x.shape[0]):
        x[i] = x[i] * factor + (first + i)


@nb.njit
def window(new, old):
    for i in range(new.shape[0]):
        new[i] = old[i] + 2 * old[i + 1] + 4 * old[i + 3]


@pytest.fixture
def pool():
    with sc.Pool(2) as pool:
        yield pool


@pytest.fixture(params=["v3", "v2", "shards"])
def array(request, tmp_path):
    more = {"v3": {}, "v2": {"zarr_format": 2}, "shards": {"shards": (200, 4)}}[request.param]
    made = zarr.create_array(tmp_path / "x", shape=X.shape, chunks=(100, 2), dtype="f8", **more)
    made[...] = X
    made.attrs["units"] = "m"
    return made


def left(array):
    return [name for name in os.listdir(array.store.root.parent) if ".new-" in name]


def again(array):
    return zarr.open_array(array.store.root)


@pytest.mark.parametrize("region", [1, 1 << 24])
def test_in_place(array, pool, region, monkeypatch):
    from shmcompute.chunked import zarr_arrays

    monkeypatch.setattr(zarr_arrays, "REGION", region)
    sc.parallel_apply(affine, array, 2.0, sc.offset, pool=pool)
    expected = X * 2 + np.arange(1000)[:, None]
    for one in (array, again(array)):
        np.testing.assert_array_equal(one[...], expected)
    assert (again(array).attrs["units"], again(array).chunks) == ("m", array.chunks)
    assert not left(array)


@pytest.mark.parametrize("boundary", ["edge", "reflect", "symmetric", "wrap", 2.5])
def test_from_one_to_another_by_halo(array, pool, tmp_path, boundary, monkeypatch):
    from shmcompute.chunked import zarr_arrays

    monkeypatch.setattr(zarr_arrays, "REGION", 1)
    new = zarr.create_array(tmp_path / "new", shape=X.shape, chunks=(100, 2), dtype="f8")
    mode = {"mode": boundary} if isinstance(boundary, str) else {"constant_values": boundary}
    padded = np.pad(X, ((1, 2), (0, 0)), **mode)
    sc.parallel_apply(window, sc.write(new), sc.halo(array, (1, 2), boundary=boundary), pool=pool)
    np.testing.assert_array_equal(again(new)[...], padded[:-3] + 2 * padded[1:-2] + 4 * padded[3:])
    np.testing.assert_array_equal(array[...], X)


def test_whole_and_a_chain(array, pool):
    def subtract(x, table):
        x -= table.mean(axis=0)

    sc.parallel_apply([np.square, (subtract, array, sc.whole(array))][:1], array, pool=pool)
    np.testing.assert_array_equal(again(array)[...], X**2)


@pytest.mark.parametrize("how", ["raise", "kill", "time"])
def test_a_failure_reads_as_before(array, pool, how):
    def fails(x, start, how):
        x += 1
        if start == 800 and how == "raise":
            raise ArithmeticError("no")
        if start == 800 and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "time":
            time.sleep(0.5)

    error = {"raise": ArithmeticError, "kill": WorkerLostError, "time": KernelTimeoutError}[how]
    from shmcompute.chunked import zarr_arrays

    before, zarr_arrays.REGION = zarr_arrays.REGION, 1
    try:
        with pytest.raises(error):
            timeout = 0.1 if how == "time" else None
            sc.parallel_apply(fails, array, sc.offset, how, pool=pool, timeout=timeout)
    finally:
        zarr_arrays.REGION = before
    np.testing.assert_array_equal(again(array)[...], X)
    assert not left(array)


def test_versions_that_a_dead_process_left_go_with_the_next_call(array, pool):
    from shmcompute.chunked import new_versions

    root = array.store.root
    dead = root.with_name(f".{root.name}.new-{new_versions._home()}-4194399-abc")
    elsewhere = root.with_name(
        f".x.new-{os.uname().nodename}-1-4194399-abc"
    )  # in another container
    dead.mkdir()
    elsewhere.mkdir()
    sc.parallel_apply(np.negative, array, pool=pool)
    assert left(array) == [elsewhere.name]


def test_gc_takes_them_from_the_folders_that_it_is_given(array, pool, capsys):
    from shmcompute.chunked import new_versions
    from shmcompute.cli.parser import main

    root, home = array.store.root, new_versions._home()
    (root.parent / "deep" / "down").mkdir(parents=True)
    dead = root.parent / "deep" / "down" / f".y.new-{home}-4194399-0ab1"
    alive = root.with_name(f".x.new-{home}-{os.getpid()}-0ab2")
    within = root / f".c.new-{home}-4194399-0ab3"  # an array's folders are not looked into
    for one in (dead, alive, within / "c"):
        one.mkdir(parents=True)
    (dead / "0").write_bytes(b"x" * 2048)
    assert main(["gc", str(root.parent)]) == 0
    told = capsys.readouterr().out
    assert "0ab1  2.0 KiB" in told
    assert len(told.splitlines()) == 3
    assert (dead.exists(), alive.exists(), within.exists()) == (False, True, True)
    shutil.rmtree(alive)
    shutil.rmtree(within)
    assert main(["gc", str(root.parent / "absent")]) == 2
    assert "absent is no folder" in capsys.readouterr().err


def test_if_one_of_two_can_not_be_exchanged_both_stay(array, pool, tmp_path, monkeypatch):
    from shmcompute.chunked import new_versions

    real, calls = new_versions.exchange, []

    def exchange(new, old):
        calls.append(old)
        if len(calls) == 2:
            raise OSError("no")
        real(new, old)

    monkeypatch.setattr(new_versions, "exchange", exchange)
    other = zarr.create_array(tmp_path / "y", shape=X.shape, chunks=(100, 2), dtype="f8")
    with pytest.raises(OSError, match="no"):
        sc.parallel_apply(np.negative, array, sc.write(other), pool=pool)
    np.testing.assert_array_equal(again(array)[...], X)
    assert not again(other)[...].any()
    assert not left(array)


def test_a_link_goes_on_pointing_to_the_array(array, pool, tmp_path):
    (tmp_path / "link").symlink_to(array.store.root)
    sc.parallel_apply(np.negative, zarr.open_array(tmp_path / "link"), pool=pool)
    np.testing.assert_array_equal(again(array)[...], -X)
    assert (tmp_path / "link").is_symlink()
    # By whatever name, it is one array: one version takes its place.
    link = zarr.open_array(tmp_path / "link")
    sc.parallel_apply([(np.negative, link), (np.negative, array)], pool=pool)
    np.testing.assert_array_equal(again(array)[...], -X)


def test_who_opened_it_to_read_does_not_write(array, pool):
    mine = zarr.open_array(array.store.root, mode="r")
    with pytest.raises(sc.errors.ReadOnlyError, match="mode='r'"):
        sc.parallel_apply(np.negative, mine, pool=pool)
    sc.parallel_apply(np.negative, sc.write(array), sc.read(mine), pool=pool)
    np.testing.assert_array_equal(again(array)[...], -X)


def test_progress(array, pool, capsys):
    sc.parallel_apply(np.negative, array, pool=pool, progress=print)
    assert capsys.readouterr().out.splitlines()[-1] == "1 1"


def test_what_is_refused(array, pool):
    memory = zarr.create_array({}, shape=(10,), chunks=(5,), dtype="f8")
    with pytest.raises(TypeError, match="icechunk"):
        sc.parallel_apply(np.negative, memory, pool=pool)
    with pytest.raises(TypeError, match="chunksize="):
        sc.parallel_apply(np.negative, array, pool=pool, chunksize=3)
    with pytest.raises(ValueError, match="nothing is written"):
        sc.parallel_apply(np.negative, sc.read(array), pool=pool)
    with pytest.raises(TypeError, match="plain ndarray"):
        sc.parallel_apply(np.add, array, X, pool=pool)


@nb.njit
def extremes(x):
    return x.min(), x.max(), x.sum()


def test_a_reduction_has_the_bits_of_the_same_blocks(array, pool):
    data = np.random.default_rng(1).random(X.shape)
    array[...] = data
    combine = np.minimum, np.maximum, np.add
    found = sc.parallel_reduce(extremes, sc.read(array), combine=combine)
    unit = (array.shards or array.chunks)[0]
    length = max(1, (1 << 24) // (unit * 32)) * unit
    with sc.SharedArray(data) as arr:
        expected = sc.parallel_reduce(extremes, sc.read(arr), combine=combine, chunksize=length)
    assert found == expected
