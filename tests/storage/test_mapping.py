"""Arrays of 2 MiB and more lie in huge pages, wherever the kernel gives any; others as before."""

from __future__ import annotations

import os
import sys
import textwrap

import numpy as np
import pytest
from kernels import run
from test_full import _can_mount, _in_tiny_shm

import shmcompute as sc
from shmcompute.storage import array_heap, mapping, shm_space
from shmcompute.system import huge_pages

MIB = 1 << 20
HUGE = huge_pages.size()

pytestmark = pytest.mark.skipif(HUGE != 2 * MIB, reason="needs huge pages of 2 MiB")
namespaces = pytest.mark.skipif(not _can_mount(), reason="needs a mount namespace of its own")
on_request = pytest.mark.skipif(
    not huge_pages.given(shm_space.FOLDER), reason="this kernel gives none on request"
)


@pytest.fixture
def refused(monkeypatch):
    """A kernel that does not take the advice."""
    monkeypatch.setattr(huge_pages, "advise", lambda memory, advice: False)
    monkeypatch.setattr(mapping, "advise", lambda memory, advice: False)


def _taken(arr):
    """KiB of an array that this process maps in huge pages."""
    with open("/proc/self/smaps") as file:
        entries = iter(file.read().splitlines())
    for line in entries:
        words = line.split()
        first, dash, last = words[0].partition("-")
        if dash and int(first, 16) <= arr.segment.address < int(last, 16):
            break
    mapped = next(line for line in entries if line.startswith("ShmemPmdMapped"))
    return int(mapped.split()[1])


# Everything that maps a segment: its maker, workers, who attaches, the next array in its memory.
EVERYBODY = """
import os, sys
import numpy as np, shmcompute as sc
from test_mapping import _taken
os.environ["SHMCOMPUTE_WARM_BYTES"] = str(64 << 20)

def of_worker(arr):
    arr[:] += 1
    return _taken(arr)

def of_attacher(name):
    with sc.SharedArray.attach(name) as arr:
        arr[:] += 1
        return _taken(arr)

size = (5 << 20) // 8
with sc.Pool(1) as pool:
    for storage in ("shm", "array", "shm"):
        with sc.SharedArray(np.ones(size), storage=storage) as arr:
            found = [_taken(arr), pool.submit(of_worker, arr).result()]
            if storage == "shm":
                found.append(pool.submit(of_attacher, arr.name).result())
            assert (arr.array == len(found)).all()
            print(storage, *found)
"""


def _everybody(options):
    program = f"import sys\nsys.path[:0] = {[os.path.dirname(__file__), *sys.path]!r}\n"
    done = _in_tiny_shm(program + EVERYBODY, size=f"64m{options}")
    assert done.stdout == "shm 4096 4096 4096\narray 4096 4096\nshm 4096 4096 4096\n"


@pytest.mark.long
@namespaces
@pytest.mark.parametrize("policy", ["within_size", "advise", "always"])
def test_whoever_maps_an_array_has_huge_pages_where_the_mount_gives_them(policy):
    _everybody(f",huge={policy}")


@pytest.mark.long
@namespaces
@on_request
def test_and_where_it_does_not_but_the_kernel_does():
    _everybody("")


@namespaces
def test_a_kernel_without_collapse_populates_a_mount_that_asks_for_advice():
    done = _in_tiny_shm(
        """
        import numpy as np, shmcompute as sc
        from shmcompute.system import huge_pages, mappings
        huge_pages.advise = lambda memory, advice: advice != 25 and mappings.advise(memory, advice)
        with sc.SharedArray(np.ones(1 << 20)) as arr:
            for line in open("/proc/self/smaps"):
                if line.startswith("ShmemPmdMapped") and line.split()[1] != "0":
                    print(line.split()[1])
        """,
        size="64m,huge=advise",
    )
    assert done.stdout == "8192\n"


@namespaces
@pytest.mark.parametrize("policy", ["", ",huge=within_size", ",huge=advise", ",huge=always"])
def test_filling_it_to_the_last_page_never_crashes(policy):
    """What fits can be written from end to end; what does not is an error."""
    done = _in_tiny_shm(
        """
        import os
        import numpy as np, shmcompute as sc
        kept = []
        for size in (3_000_000, 2_200_000, 100_000):
            try:
                while True:
                    kept.append(sc.SharedArray.full(size, 7, np.uint8, storage="shm"))
            except sc.errors.StorageFullError:
                pass
        for arr in kept:
            assert (arr.array == 7).all()
            arr.close()
        print(os.listdir("/dev/shm"))
        """,
        size=f"21m{policy}",
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


SIZES = [100, MIB, 2 * MIB - 4096, 2 * MIB, 2 * MIB + 100_000, 5 * MIB]


@namespaces
@pytest.mark.parametrize("policy", ["", ",huge=within_size", ",huge=advise"])
def test_it_takes_no_page_beyond_an_array_and_what_describes_it(policy):
    done = _in_tiny_shm(
        f"""
        import os
        import numpy as np, shmcompute as sc
        for size in {SIZES}:
            with sc.SharedArray.empty(size, np.uint8, storage="shm") as arr:
                print(os.stat("/dev/shm/" + arr.name).st_blocks * 512)
        """,
        size=f"64m{policy}",
    )
    rounded = [-(-size // 4096) * 4096 + 4096 for size in SIZES]
    assert list(map(int, done.stdout.split())) == rounded


@pytest.mark.parametrize("storage", ["shm", "array", "file"])
@pytest.mark.parametrize("elements", [MIB // 4 - 1, MIB // 4, MIB // 4 + 1, MIB])
def test_where_they_are_refused_all_works_as_before(storage, elements, refused, tmp_path):
    source = np.arange(float(elements))
    name = tmp_path / "x.npy" if storage == "file" else None
    with sc.SharedArray(source, storage=storage, name=name) as arr:
        assert _taken(arr) == 0 or storage == "file"
        sc.parallel_apply(np.negative, arr)
        assert (arr.array == -source).all()


@pytest.mark.parametrize("storage", ["shm", "array"])
def test_so_it_does_where_there_are_no_addresses_for_aligned_mappings(storage, monkeypatch):
    monkeypatch.setattr(mapping, "aligned", lambda *_: None)
    monkeypatch.setattr(huge_pages, "aligned", lambda *_: None)
    with sc.SharedArray(np.ones(MIB), storage=storage) as arr:
        assert (arr.array == 1).all()


@pytest.mark.parametrize("storage", ["shm", "array"])
def test_so_it_does_where_they_are_switched_off(storage, monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_HUGE_PAGES", "0")
    monkeypatch.setattr(mapping, "aligned", None)
    monkeypatch.setattr(huge_pages, "aligned", None)
    with sc.SharedArray(np.ones(MIB), storage=storage) as arr:
        assert (arr.array == 1).all()


def test_a_small_array_is_mapped_as_before(monkeypatch):
    monkeypatch.setattr(mapping, "aligned", None)
    monkeypatch.setattr(huge_pages, "aligned", None)
    with sc.SharedArray.zeros(2 * MIB - 8192, np.uint8) as arr:
        assert not arr.array.any()


def test_a_wrong_setting_is_refused(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_HUGE_PAGES", "yes")
    with pytest.raises(ValueError, match="SHMCOMPUTE_HUGE_PAGES: 'yes'; known: '0', '1'"):
        sc.SharedArray.zeros(MIB)


def test_a_new_array_is_zero_and_its_file_is_whole(tmp_path):
    """What a `.npy` holds before it is filled, its header, stays."""
    with sc.SharedArray.zeros(MIB, storage="file", name=tmp_path / "x.npy") as arr:
        assert not arr.array.any()
    loaded = np.load(tmp_path / "x.npy")
    assert loaded.shape == (MIB,)
    assert not loaded.any()


@on_request
def test_memory_without_a_name_has_them_too(monkeypatch):
    places = [("memory without a name", array_heap._memory_file, None)]
    monkeypatch.setattr(array_heap, "_places", lambda: places)
    with sc.SharedArray(np.ones(3 * MIB), storage="array") as arr:
        assert _taken(arr) >= 22 << 10


def test_a_forked_child_shares_it():
    done = run(
        """
        import os
        import numpy as np, shmcompute as sc
        with sc.SharedArray(np.ones(1 << 20), storage="shm") as arr:
            view = arr[10:]
            pid = os.fork()
            if not pid:
                view[:] = 2
                del view, arr
                os._exit(0)
            os.waitpid(pid, 0)
            print(arr[9], (view == 2).all())
        """
    )
    assert done.stdout == "1.0 True\n"


def test_kernels_see_them_as_any_other_array():
    source = np.arange(float(MIB))
    with sc.SharedArray(source) as arr, sc.SharedArray.attach(arr.name) as again:
        arr += 1
        assert (again.array == source + 1).all()
        assert np.shares_memory(arr.array, again.array)


def test_the_standard_librarys_recipe_works_on_them():
    done = run(
        textwrap.dedent(
            """
            import numpy as np, shmcompute as sc
            from multiprocessing.shared_memory import SharedMemory
            with sc.SharedArray(np.arange(1e6), storage="shm") as arr:
                memory = SharedMemory(name=arr.name)
                view = np.ndarray(arr.shape, arr.dtype, memory.buf)
                print((view == arr.array).all())
                del view
                memory.close()
                from multiprocessing import resource_tracker
                resource_tracker.unregister(memory._name, "shared_memory")
            """
        )
    )
    assert done.stdout == "True\n"
