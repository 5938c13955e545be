"""A manager: its arrays live as long as it does, and processes find them by key."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

import kernels
import numpy as np
import pytest
from methods import METHODS

import shmcompute as sc
from shmcompute.storage import reaper

pytestmark = pytest.mark.skipif(
    os.environ.get("SHMCOMPUTE_STORAGE") == "array", reason="needs names to find arrays by"
)


@pytest.fixture(scope="module", autouse=True)
def tracker():
    """The standard library starts it with the first manager and keeps it."""
    resource_tracker.ensure_running()


@pytest.fixture(params=METHODS)
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def manager():
    with sc.SharedArrayManager() as manager:
        # pytest keeps what a fixture yields, and a manager its process, past the look for leaks.
        yield weakref.proxy(manager)


def _names():
    return {found.name for found in reaper.list_segments()}


def test_setdefault_hands_out_what_is_shared(manager):
    first = manager.arrays.setdefault("x", np.zeros(3))
    first[0] = 7.0
    again = manager.arrays.setdefault("x", np.ones(3))
    np.testing.assert_array_equal(again, [7, 0, 0])


def test_who_was_too_slow_for_a_key_leaves_no_array_behind(manager, monkeypatch):
    arrays = manager.arrays
    arrays["x"] = np.zeros(3)
    copies = []
    real = type(arrays).copy_in

    def copied(*args):
        copies.append(made := real(*args))
        return made

    monkeypatch.setattr(type(arrays), "copy_in", copied)
    monkeypatch.setattr(type(arrays), "__contains__", lambda *_: False)  # it was free a moment ago
    with pytest.raises(sc.errors.SegmentExistsError, match="'x' is taken"):
        arrays["x"] = np.ones(3)
    assert len(copies) == 1
    assert copies.pop().name not in _names()
    assert arrays["x"].name in _names()


def test_all_that_it_made_goes_with_it():
    with sc.SharedArrayManager() as manager:
        made = [manager.SharedArray(np.arange(5.0)), manager.zeros((2, 3), "i4")]
        manager.arrays["third"] = np.ones(4)
        made.append(manager.arrays["third"])
        names = {array.name for array in made}
        assert names <= _names()
        assert not any(array.owner for array in made)
        view = made[0].array[1:]
    assert not names & _names()
    np.testing.assert_array_equal(view, [1, 2, 3, 4])


def test_it_makes_what_the_standard_librarys_does(manager):
    memory = manager.SharedMemory(64)
    try:
        listed = manager.ShareableList([1, "two"])
        assert (memory.size, listed[1]) == (64, "two")
        listed.shm.close()
    finally:
        memory.close()


@pytest.mark.parametrize("data", [np.arange(6.0).reshape(2, 3), 7, [1 + 2j], np.zeros((3, 0))])
def test_an_array_holds_what_it_was_made_of(manager, data):
    array = manager.SharedArray(data)
    np.testing.assert_array_equal(array.array, data)
    assert array.dtype == np.asarray(data).dtype


def test_memory_order_is_kept(manager):
    array = manager.SharedArray(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert array.array.flags.f_contiguous
    np.testing.assert_array_equal(array.array, np.arange(6.0).reshape(2, 3))


def _double(arrays):
    arrays["numbers"].array[:] *= 2
    arrays["sum"] = [float(arrays["numbers"].array.sum())]


@pytest.mark.long
def test_processes_share_the_data_of_a_key(context):
    with sc.SharedArrayManager(ctx=context) as manager:
        manager.arrays["numbers"] = np.arange(4.0)
        process = context.Process(target=_double, args=(manager.arrays,))
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()
        np.testing.assert_array_equal(manager.arrays["numbers"].array, [0, 2, 4, 6])
        # Its maker is gone, and it is there.
        np.testing.assert_array_equal(manager.arrays["sum"].array, [12])


@pytest.mark.long
def test_another_program_finds_it_by_address_and_key(manager):
    manager.arrays["x"] = np.arange(3.0)
    program = f"""
import shmcompute as sc
manager = sc.SharedArrayManager(address={manager.address!r}, authkey=bytes.fromhex(input()))
manager.connect()
manager.arrays["x"].array[:] += 1
print(list(manager.arrays))
"""
    key = bytes(manager._authkey).hex()
    done = subprocess.run(
        [sys.executable, "-c", program], input=key, text=True, capture_output=True
    )
    assert (done.stdout, done.stderr) == ("['x']\n", "")
    np.testing.assert_array_equal(manager.arrays["x"].array, [1, 2, 3])


def test_arrays_is_a_mapping(manager):
    arrays = manager.arrays
    assert len(arrays) == 0
    assert "a" not in arrays
    arrays["a"], arrays["b"] = [1.0], [2.0]
    assert dict(arrays).keys() == {"a", "b"} == set(arrays)
    assert arrays.get("c") is None
    np.testing.assert_array_equal(arrays.pop("a").array, [1.0])
    assert list(arrays) == ["b"]


def test_a_deleted_key_ends_what_the_manager_made(manager):
    manager.arrays["a"] = np.ones(3)
    name = manager.arrays["a"].name
    del manager.arrays["a"]
    assert name not in _names()


def test_an_array_of_ones_own_is_found_while_it_is_open(manager):
    with sc.SharedArray(np.arange(3.0)) as own:
        manager.arrays["mine"] = own
        manager.arrays["mine"].array[0] = 9
        assert own.array[0] == 9
        del manager.arrays["mine"]
        assert own.name in _names()  # its owner ends it
        manager.arrays["mine"] = own
        name = own.name
    assert name not in _names()


def test_kernels_run_on_it(manager, process_pool):
    manager.arrays["x"] = np.ones(1000)
    x = manager.arrays["x"]
    sc.parallel_apply(kernels.affine, x, 2.0, 1.0, pool=process_pool)
    np.testing.assert_array_equal(manager.arrays["x"].array, 3.0)
    x.close()


def test_a_key_is_taken_once(manager):
    """Of many that try at once, one has it."""
    arrays, refused = manager.arrays, []

    def put(number):
        try:
            arrays["one"] = manager.SharedArray([number])
        except sc.errors.SegmentExistsError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert "'one' is taken" in refused[0]
    with pytest.raises(sc.errors.SegmentExistsError, match="del manager.arrays"):
        arrays["one"] = np.zeros(3)
    assert len(arrays["one"]) == 1


def test_wrong_keys_and_data_are_refused(manager):
    with pytest.raises(KeyError, match="no array 'nothing' in this manager; its keys"):
        manager.arrays["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        del manager.arrays["nothing"]
    with pytest.raises(TypeError, match="key: expected a string, got 3"):
        manager.arrays[3] = np.zeros(2)
    with pytest.raises(TypeError, match="object"):
        manager.SharedArray([object()])
    with pytest.raises(sc.errors.StorageFullError):
        manager.zeros((1 << 50,))
    own = sc.SharedArray([1.0])
    own.close()
    with pytest.raises(sc.errors.ClosedError):
        manager.arrays["closed"] = own


def test_a_manager_that_does_not_run_says_so():
    manager = sc.SharedArrayManager()
    with pytest.raises(sc.errors.ClosedError, match="with block"):
        manager.SharedArray([1.0])
    with manager:
        arrays = manager.arrays
        arrays["a"] = [1.0]
    with pytest.raises(sc.errors.ClosedError, match="not running"):
        manager.zeros(3)
    with pytest.raises(sc.errors.ClosedError, match="shut down"):
        arrays["a"]


@pytest.mark.long
def test_nothing_is_left_when_its_parent_dies(context):
    """The standard library's would live on."""
    program = f"""
import multiprocessing, sys
import numpy as np
import shmcompute as sc
if __name__ == "__main__":
    manager = sc.SharedArrayManager(ctx=multiprocessing.get_context({context.get_start_method()!r}))
    manager.start()
    manager.arrays["x"] = np.ones(10)
    print(manager.arrays["x"].name, manager._process.pid, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-3, text=True) as parent:
        name, pid = parent.stdout.readline().split()
        ended = os.pidfd_open(int(pid))
        try:
            parent.send_signal(signal.SIGKILL)
            assert wait([ended], 20)
        finally:
            os.close(ended)
    assert name not in _names()
