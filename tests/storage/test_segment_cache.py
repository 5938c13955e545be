"""Memory of closed arrays is used again, but never what anybody else could still look into."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from kernels import affine, expected, run
from test_full import _can_mount, _in_tiny_shm

import shmcompute as sc
from shmcompute.errors import SegmentExistsError, SegmentNotFoundError
from shmcompute.storage import exclusive, reaper, segment_cache, shm
from shmcompute.storage.names import HIDDEN
from shmcompute.system import memory

SHM = Path("/dev/shm")
MIB = 1 << 20
SIZE = 2 * MIB

pytestmark = pytest.mark.skipif(not exclusive.SUPPORTED, reason="needs leases")


@pytest.fixture(autouse=True)
def on(monkeypatch):
    """Keep 64 MiB; at the end everything goes."""
    monkeypatch.setenv("SHMCOMPUTE_WARM_BYTES", str(64 * MIB))
    yield
    segment_cache.release()
    for page in exclusive._current.values():
        page.close()
    exclusive._current.clear()


def _made(value=1, size=SIZE, **keywords):
    return sc.SharedArray.full(size, value, np.uint8, storage="shm", **keywords)


def _inode(arr):
    return arr.segment.handle.serial


def _closed(**keywords):
    """The inode of an array that was made and closed."""
    with _made(**keywords) as arr:
        return _inode(arr)


def _hidden():
    """Hidden names of this process."""
    inodes = set(segment_cache._blocks)
    return [path for path in SHM.glob(f"{HIDDEN}*") if path.stat().st_ino in inodes]


def test_the_memory_of_a_closed_array_serves_the_next():
    first = _closed()
    with _made(2) as arr:
        assert _inode(arr) == first
        assert (arr.array == 2).all()
        assert (SHM / arr.name).stat().st_mode & 0o777 == 0o600
        with sc.SharedArray.attach(arr.name) as again:
            assert again.shape == (SIZE,)
    assert _closed() == first


def test_so_does_the_memory_of_one_that_was_collected():
    arr = _made()
    first = _inode(arr)
    ring = [arr]
    ring.append(ring)
    del arr, ring
    gc.collect()
    assert _closed() == first


@pytest.mark.long
@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [((SIZE // 8,), "f8", "C"), ((SIZE // 64, 4, 8), "u2", "F"), ((SIZE // 4 - 1,), "c8", "C")],
)
def test_another_shape_and_dtype_of_that_size_is_described_anew(shape, dtype, order):
    if dtype == "c8":
        shape = (SIZE // 8 - 1,)  # as many pages
    first = _closed(value=255)
    source = np.arange(np.prod(shape)).astype(dtype).reshape(shape, order=order)
    with sc.SharedArray(source, storage="shm", order=order) as arr:
        assert _inode(arr) == first
        told = run(
            """
            import sys, shmcompute as sc
            arr = sc.SharedArray.attach(sys.argv[1])
            print(arr.shape, arr.dtype.str[1:], arr.array.flags.f_contiguous, arr.array.sum())
            """,
            arr.name,
        ).stdout
        f_contiguous = order == "F" or len(shape) == 1
        assert told == f"{shape} {dtype} {f_contiguous} {source.sum()!s}\n"


def test_zeros_are_zero():
    first = _closed(value=255)
    with sc.SharedArray.zeros(SIZE, np.uint8, storage="shm") as arr:
        assert _inode(arr) == first
        assert not arr.array.any()


def test_another_size_takes_memory_of_its_own():
    first = _closed()
    assert _closed(size=SIZE + 4096) != first
    assert _closed(size=SIZE) == first


def test_a_small_array_is_not_kept():
    _closed(size=segment_cache.LEAST // 2)
    assert segment_cache.cached_bytes() == 0


def test_the_old_name_is_gone_at_once():
    with _made() as arr:
        name = arr.name
        view = arr.array[:10]
    with pytest.raises(SegmentNotFoundError):
        sc.SharedArray.attach(name)
    assert not (SHM / name).exists()
    del view


def test_a_view_keeps_its_memory_to_itself():
    arr = _made(7)
    first = _inode(arr)
    view = arr.array[::2]
    arr.close()
    assert segment_cache.cached_bytes() == 0
    with _made(8) as other:
        assert _inode(other) != first
        assert (view == 7).all()
    del view
    assert first in segment_cache._blocks


def test_even_one_that_looks_into_the_mapping_itself():
    arr = _made(7)
    first = _inode(arr)
    mapping = arr.array
    while isinstance(mapping, np.ndarray):
        mapping = mapping.base
    view = np.frombuffer(mapping, np.uint8)
    del mapping
    arr.close()
    assert _closed(value=8) != first
    assert (view == 7).all()
    del view
    assert first in {_closed(), *segment_cache._blocks}


ELSEWHERE = {
    "attached with the standard library": """
        from multiprocessing import resource_tracker
        from multiprocessing.shared_memory import SharedMemory
        held = SharedMemory(name=name)
        resource_tracker.unregister(held._name, "shared_memory")
        """,
    "mapped, the descriptor closed": """
        fd = os.open("/dev/shm/" + name, os.O_RDWR)
        held = mmap.mmap(fd, 4096)
        os.close(fd)
        """,
    "mapped to be read": """
        fd = os.open("/dev/shm/" + name, os.O_RDONLY)
        held = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
        os.close(fd)
        """,
    "opened, to be mapped later": """
        held = os.open("/dev/shm/" + name, os.O_RDWR)
        """,
    "attached as a SharedArray": """
        import shmcompute as sc
        held = sc.SharedArray.attach(name)
        """,
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_what_another_process_holds_is_not_used_again(how):
    arr = _made()
    first = _inode(arr)
    program = (
        "import mmap, os, sys\nname = sys.argv[1]\n"
        + textwrap.dedent(ELSEWHERE[how])
        + "\nprint(flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", program, arr.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        arr.close()
        assert _closed() != first
        other.stdin.close()
        other.wait()
    with _made() as one, _made() as two:
        assert first in {_inode(one), _inode(two)}


FORKED = """
    import ctypes, os, signal, sys
    import numpy as np, shmcompute as sc
    size = 2 << 20
    def inode(arr):
        return arr.segment.handle.serial
    def made(value):
        return sc.SharedArray.full(size, value, np.uint8, storage="shm")
    arr = made(1)
    first = inode(arr)
    ask, asked = os.pipe()
    tell, told = os.pipe()
    child = {fork}()
    if not child:
        if {bare}:
            view = ctypes.string_at
            address = arr.array.ctypes.data
            for fd in set(range(3, 256)) - {{ask, told}}:
                try:
                    os.close(fd)
                except OSError:
                    pass
        os.close(asked) if not {bare} else None
        os.read(ask, 1)
        os.write(told, bytes(arr.array[:1]))
        os._exit(0)
    os.close(ask)
    arr.close()
    other = made(2)
    assert inode(other) != first, "used again under a child"
    second = inode(other)
    other.close()
    with made(3) as other:
        assert inode(other) == second and (other.array == 3).all()
    os.write(asked, b"x")
    assert os.read(tell, 1) == bytes([1])
    os.waitpid(child, 0)
    with made(4) as one, made(5) as two:
        assert {{inode(one), inode(two)}} == {{first, second}}, "not used again after the child"
        assert (one.array == 4).all() and (two.array == 5).all()
    """


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("bare", [False, True], ids=["plain", "closes descriptors"])
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_what_a_forked_child_inherited_is_not_used_again(fork, bare):
    """Not even where the fork bypassed Python, and the child closed all descriptors."""
    run(FORKED.format(fork=fork, bare=bare))


def test_a_forked_child_forgets_what_is_kept_and_removes_nothing():
    run(
        """
        import os
        import numpy as np, shmcompute as sc
        from shmcompute.storage import segment_cache
        sc.SharedArray.zeros(2 << 20, np.uint8, storage="shm").close()
        kept = [block.path for block in segment_cache._blocks.values()]
        child = os.fork()
        if not child:
            code = segment_cache.cached_bytes()
            with sc.SharedArray.full(2 << 20, 1, np.uint8, storage="shm"):
                pass
            sc.shutdown()
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert segment_cache.cached_bytes() and kept and all(path.exists() for path in kept)
        """
    )


@pytest.mark.long
def test_workers_see_the_new_array_and_not_the_old(process_pool):
    inodes = set()
    for value in range(8):
        with sc.SharedArray(np.full(SIZE // 8, float(value)), storage="shm") as arr:
            inodes.add(_inode(arr))
            sc.parallel_apply(affine, arr, 3.0, 1.0, pool=process_pool)
            assert (arr.array == expected(value)).all()
        arr = sc.SharedArray(np.full(SIZE // 8, -1.0), storage="shm")
        sc.parallel_apply(affine, arr, 3.0, 1.0, pool=process_pool)
        assert (arr.array == -2).all()
        del arr
    assert len(inodes) < 8


def test_a_name_is_never_borne_twice_by_one_block():
    """Or a handle of the old array, in a queue say, would lead into the new one."""
    name = f"test_{os.getpid()}_twice"
    first = _closed(name=name)
    assert _closed(name=name) != first
    assert _closed() in segment_cache._blocks


def test_a_name_that_is_taken_costs_no_memory():
    name = f"test_{os.getpid()}_taken"
    with _made(name=name, size=10):
        first = _closed()
        with pytest.raises(SegmentExistsError):
            _made(name=name)
    assert _closed() == first


def test_memory_that_somebody_removed_is_not_missed():
    first = _closed()
    for path in _hidden():
        path.unlink()
    assert _closed() != first


def test_an_array_that_somebody_unlinked_is_not_kept():
    with _made() as arr:
        (SHM / arr.name).unlink()
    assert segment_cache.cached_bytes() == 0


def test_0_turns_it_off(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_WARM_BYTES", "0")
    first = _closed()
    assert segment_cache.cached_bytes() == 0
    assert _closed() != first


@pytest.mark.parametrize("said", ["much", "-1", "1.5"])
def test_a_setting_that_is_no_number_is_refused(monkeypatch, said):
    monkeypatch.setenv("SHMCOMPUTE_WARM_BYTES", said)
    with pytest.raises(ValueError, match="SHMCOMPUTE_WARM_BYTES"):
        _made()


def test_no_more_is_kept_than_is_set(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_WARM_BYTES", str(5 * MIB))
    arrays = [_made() for _ in range(4)]
    inodes = [_inode(arr) for arr in arrays]
    for arr in arrays:
        arr.close()
    assert list(segment_cache._blocks) == inodes[-2:]  # the youngest
    _closed(size=6 * MIB)  # too large: nothing makes room for it
    assert list(segment_cache._blocks) == inodes[-2:]
    assert segment_cache.cached_bytes() <= 5 * MIB
    assert len(_hidden()) == 2


def test_a_quarter_of_what_is_free_is_kept_by_default(monkeypatch):
    monkeypatch.delenv("SHMCOMPUTE_WARM_BYTES")
    for free, kept in ((0, 0), (64 * MIB, 16 * MIB), (1 << 40, segment_cache.MOST)):
        monkeypatch.setattr(memory, "free_in", lambda folder, free=free: free)
        assert segment_cache.limit(SHM) == kept


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_what_is_free_is_what_machine_and_container_leave(tmp_path, limit, used):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert memory.free_in(SHM, tmp_path) == 50 << 10
    for name, said in ((limit, "10240\n"), (used, "4096\n")):
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)
    assert memory.free_in(SHM, tmp_path) == 6 << 10
    (tmp_path / "sys/fs/cgroup" / limit).write_text("max\n")
    assert memory.free_in(SHM, tmp_path) == 50 << 10
    assert memory.free_in(SHM, tmp_path / "none") == 0


def test_shutdown_gives_it_back():
    _closed()
    paths = _hidden()
    assert paths
    sc.shutdown()
    assert segment_cache.cached_bytes() == 0
    assert not any(path.exists() for path in paths)


@pytest.mark.long
@pytest.mark.skipif(not _can_mount(), reason="needs a mount namespace of its own")
@pytest.mark.parametrize("storage", ["shm", "auto", "array"])
def test_a_full_folder_gets_it_back_first(storage):
    done = _in_tiny_shm(
        f"""
        import os
        os.environ["SHMCOMPUTE_WARM_BYTES"] = str(64 << 20)
        import numpy as np, shmcompute as sc
        from shmcompute.storage import shm, segment_cache
        for size in (10, 12, 9, 13):
            sc.SharedArray.full(size << 20, 1, np.uint8, storage="shm").close()
            assert segment_cache.cached_bytes() > size << 20
        with sc.SharedArray.full(14 << 20, 1, np.uint8, storage="{storage}"):
            assert segment_cache.cached_bytes() == 0 or "{storage}" == "array"
        """,
        size="16m",
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_descriptors_that_run_out_are_given_back_first():
    run(
        """
        import os, resource
        import numpy as np, shmcompute as sc
        from shmcompute.storage import segment_cache
        arrays = [sc.SharedArray.zeros(1 << 20, np.uint8, storage="shm") for _ in range(8)]
        while arrays:
            arrays.pop().close()
        assert len(segment_cache._blocks) == 8
        used = max(map(int, os.listdir("/proc/self/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
        with sc.SharedArray.zeros(2 << 20, np.uint8, storage="shm"):
            assert segment_cache.cached_bytes() == 0
        """
    )


@pytest.mark.skipif(not _can_mount(), reason="needs a mount namespace of its own")
def test_nothing_is_left_at_exit():
    """However much of it is open, viewed, closed or kept."""
    _in_tiny_shm(
        """
        import os, subprocess, sys
        program = '''if True:
            import numpy as np, shmcompute as sc
            from shmcompute.storage import segment_cache
            arrays = [sc.SharedArray.full(2 << 20, 1, np.uint8, storage="shm") for _ in range(6)]
            view = arrays[0].array[3:]
            for arr in arrays[:4]:
                arr.close()
            del arr
            del arrays[5]
            assert segment_cache.cached_bytes() == 4 * ((2 << 20) + 4096)
            '''
        os.environ["SHMCOMPUTE_WARM_BYTES"] = str(64 << 20)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert os.listdir("/dev/shm") == []
        """,
        size="64m",
    )


def _keep_in_child(connection):
    with sc.SharedArray.full(SIZE, 1, np.uint8, storage="shm"):
        pass
    connection.send(segment_cache.cached_bytes())


@pytest.mark.long
@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_multiprocessing_keeps_nothing(method):
    """It runs no exit handlers, and a Pool ends it with a signal."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context(method).Process(target=_keep_in_child, args=(theirs,))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == 0
    child.join()
    child.close()
    ours.close()
    theirs.close()


@pytest.mark.long
def test_what_a_killed_process_kept_is_listed_as_warm_and_then_goes():
    program = """if True:
        import sys
        import numpy as np, shmcompute as sc
        from shmcompute.storage import segment_cache
        sc.SharedArray.full(2 << 20, 1, np.uint8, storage="shm").close()
        print(*(block.path.name for block in segment_cache._blocks.values()), flush=True)
        sys.stdin.read()
        """
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        name = other.stdout.readline().strip()
        reaper.reap()
        assert (SHM / name).exists()
        listed = run("from shmcompute.cli import commands; commands.ls()").stdout.splitlines()
        (line,) = (line.split() for line in listed if name in line)
        assert "warm" in line
        other.kill()
    run("import shmcompute as sc; sc.SharedArray([1.0], storage='shm').close()")
    assert not (SHM / name).exists()


def test_threads_that_make_and_drop_arrays_never_share_one():
    wrong = []

    def work(number):
        for turn in range(60):
            value = (number * 60 + turn) % 251
            arr = _made(value)
            if turn % 3:
                arr.close()
                continue
            if not (arr.array == value).all():
                wrong.append(value)
            del arr

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert segment_cache.cached_bytes() <= 64 * MIB


def test_without_leases_nothing_is_kept(monkeypatch):
    """Where the kernel does not tell who has a file."""

    def refuse(fd):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(segment_cache, "is_exclusive", refuse)
    first = _closed()
    assert segment_cache.cached_bytes() == 0
    assert _closed() != first


def test_lock_files_and_blocks_do_not_meet(monkeypatch):
    """The ways of macOS make no use of it."""
    _closed()
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    with _made() as arr:
        assert _inode(arr) not in segment_cache._blocks
    assert len(segment_cache._blocks) == 1
    assert shm._nameless() is False
