"""A full or tiny /dev/shm: a typed error or the fallback, never SIGBUS."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from kernels import run
from methods import METHODS

import shmcompute as sc
from shmcompute.storage import array_heap
from shmcompute.system import memory


def _can_mount():
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        return os.geteuid() == 0 and subprocess.run(probe, capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _can_mount(), reason="needs a mount namespace of its own")


def _in_tiny_shm(program, size="1m"):
    """Run a program that sees a /dev/shm of that size."""
    env = {key: value for key, value in os.environ.items() if key != "SHMCOMPUTE_STORAGE"}
    command = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable, textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done


def test_shm_is_a_typed_error_that_names_asked_free_and_remedy():
    done = _in_tiny_shm(
        """
        import os
        import numpy as np, shmcompute as sc
        for mib in (1, 2, 100, 10**6):
            try:
                sc.SharedArray.empty(mib << 20, np.uint8, storage="shm")
            except sc.errors.StorageFullError as error:
                assert f"asked for {(mib << 20) + 4096} bytes" in str(error)
                assert "1048576 free" in str(error) and "shm-size" in str(error)
                print("full")
        assert os.listdir("/dev/shm") == []
        """
    )
    assert done.stdout == "full\n" * 4
    assert done.stderr == ""


def test_filling_it_to_the_last_page_never_crashes():
    """What fits can be written from end to end; what does not is an error."""
    done = _in_tiny_shm(
        """
        import numpy as np, shmcompute as sc
        kept = []
        try:
            while True:
                kept.append(sc.SharedArray.full(10_000, 7, np.uint8, storage="shm"))
        except sc.errors.StorageFullError:
            print(len(kept))
        assert all((arr.array == 7).all() for arr in kept)
        for arr in kept:
            arr.close()
        sc.SharedArray.zeros(900_000, np.uint8, storage="shm").close()
        """
    )
    assert int(done.stdout) == (1 << 20) // (4 * 4096)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_auto_falls_back_with_one_warning_and_works(method):
    done = _in_tiny_shm(
        f"""
        import numpy as np, shmcompute as sc
        with sc.Pool(2, start_method="{method}") as pool:
            for length in (10, 1_000_000, 300_000, 2_000_000):
                with sc.SharedArray(np.ones(length)) as arr:
                    sc.parallel_apply(np.negative, arr, pool=pool)
                    assert (arr.array == -1).all()
                    print(arr.storage)
        """
    )
    assert done.stdout == "shm\narray\narray\narray\n"
    assert done.stderr.count("RuntimeWarning") == 1
    assert "shared memory is full" in done.stderr


def test_the_fallback_never_crashes_either():
    """Many small arrays share arenas of multiprocessing; all of each is reserved."""
    done = _in_tiny_shm(
        """
        import warnings
        import numpy as np, shmcompute as sc
        kept = []
        for size in (100, 5_000, 60_000, 300_000, 700_000) * 8:
            kept.append(sc.SharedArray.full(size, 7, np.uint8, storage="array"))
        assert all((arr.array == 7).all() for arr in kept)
        print("fine")
        """
    )
    assert done.stdout == "fine\n"


@pytest.mark.long
def test_auto_without_any_shm_falls_back():
    done = _in_tiny_shm(
        """
        import os
        import numpy as np, shmcompute as sc
        from shmcompute.storage import shm
        shm.FOLDER = type(shm.FOLDER)("/dev/none")
        with sc.SharedArray(np.ones(10)) as arr:
            sc.parallel_apply(np.negative, arr)
            print(arr.storage, arr.array.sum())
        """
    )
    assert done.stdout == "array -10.0\n"
    assert "missing or not writable" in done.stderr


@pytest.mark.long
def test_memory_that_was_closed_can_be_used_again_at_once():
    """Workers have let go of it when close() returns, so the next array has room."""
    done = _in_tiny_shm(
        """
        import numpy as np, shmcompute as sc
        for _ in range(50):
            with sc.SharedArray.empty(10 << 20, np.uint8, storage="shm") as arr:
                sc.parallel_apply(np.negative, arr)
        print("fine")
        """,
        size="16m",
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


# Hosts by what to mount: in the first three shared memory can't be had, in the last no /proc.
HOSTS = {
    "missing": "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod /dev/urandom c 1 9",
    "read-only": "mount -t tmpfs -o ro tmpfs /dev/shm",
    "no inodes": "mount -t tmpfs -o nr_inodes=1 tmpfs /dev/shm",
    "nothing can be written": "mount -t tmpfs -o ro tmpfs /dev/shm",
    "no /proc": "mount -t tmpfs tmpfs /proc",
}
EVERYTHING = """
import ctypes, subprocess, sys, tempfile, warnings
import numpy as np, shmcompute as sc

ctypes.CDLL(None).unshare(0x20000)  # mounts of its own from here on
subprocess.run("mount --make-rprivate /;" + sys.argv[1], shell=True, check=True)
if sys.argv[2] == "nothing can be written":
    tempfile.tempdir = "/proc"
warnings.simplefilter("ignore", DeprecationWarning)
warnings.filterwarnings("ignore", 'storage="array" is used', RuntimeWarning)

def put(queue):
    queue.put(np.full(3, 5.0))

def made():
    return sc.SharedArray(np.full(300_000, 3.0))

with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.ones(100_000)) as arr:
    sc.parallel_apply(np.negative, arr, pool=pool)
    with pool.submit(made).result() as result, sc.ArrayQueue(3, "f8", slots=2) as queue:
        sc.parallel_apply(np.negative, result, pool=pool, retries=1)
        pool.submit(put, queue).result()
        with arr.lock():
            print(arr.storage, arr[-1], result[-1], queue.get()[-1], pool.submit(abs, -1).result())
    with sc.SharedArray(np.ones(10), storage="array") as late:
        sc.parallel_apply(np.negative, late, pool=pool)
        print(late[-1])
    sc.parallel_apply(np.negative, arr, pool=pool)  # who was to forget an array has done so
"""


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_everything_works_where_there_is_no_shared_memory(host):
    """The fallback takes the next place that can be written, or memory that needs none."""
    env = {key: value for key, value in os.environ.items() if key != "SHMCOMPUTE_STORAGE"}
    done = run(EVERYTHING, HOSTS[host], host, env=env)
    storage = "shm" if host == "no /proc" else "array"
    assert done.stdout == f"{storage} -1.0 -3.0 5.0 1\n-1.0\n"


@pytest.mark.long
def test_a_process_that_gave_up_root_shares_arrays_with_its_workers():
    """Its descriptors are closed to others, so they are sent."""
    done = run(
        """
        import os, warnings
        from multiprocessing import resource_sharer  # the user may not be able to read it
        import numpy as np, shmcompute as sc
        warnings.simplefilter("ignore", DeprecationWarning)
        for user in (0, 65534):
            os.setuid(user)
            with sc.SharedArray(np.ones(4), storage="array") as arr:
                with sc.Pool(2, start_method="fork") as pool:
                    pool.ready()
                    with sc.SharedArray(np.ones(4), storage="array") as late:
                        sc.parallel_apply(np.negative, late, pool=pool)
                        with late.lock():
                            print(late[0])
        """
    )
    assert done.stdout == "-1.0\n-1.0\n"


def test_a_limit_on_the_size_of_files_is_told_as_such(tmp_path):
    """It holds for every storage; what fits is made."""
    done = run(
        """
        import resource, sys
        import numpy as np, shmcompute as sc
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        for storage in ("auto", "shm", "array", "file"):
            name = sys.argv[1] if storage == "file" else None
            try:
                sc.SharedArray.empty(1_000_000, storage=storage, name=name)
            except sc.errors.StorageFullError as error:
                print("ulimit -f" in str(error), "1000000" in str(error))
            sc.SharedArray.empty(1000, storage=storage, name=name).close()
        """,
        tmp_path / "file",
    )
    assert done.stdout == "True True\n" * 4


def test_more_than_control_groups_grant_is_refused_before_it_is_taken(monkeypatch):
    """Else the kernel would kill somebody; small arrays are not worth the look."""
    monkeypatch.setattr(memory, "reservable", lambda: 1 << 20)
    with pytest.raises(sc.errors.StorageFullError, match="control groups grant"):
        sc.SharedArray.empty(32 << 20, np.uint8, storage="shm")
    sc.SharedArray.empty(4 << 20, np.uint8, storage="shm").close()
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    monkeypatch.setattr(array_heap, "_temp_folder", list)
    with pytest.raises(sc.errors.StorageFullError, match="are free"):
        sc.SharedArray.empty(32 << 20, np.uint8, storage="array")
