"""A full or tiny /dev/shm: a typed error or the fallback, never SIGBUS."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from methods import METHODS


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
