"""Named shared memory: names, ownership, permissions, and the standard library's view of it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute.errors import (
    SegmentExistsError,
    SegmentFormatError,
    SegmentNotFoundError,
    StorageError,
    StorageFullError,
)
from shmcompute.storage import names, shm

SHM = Path("/dev/shm")
# More than can be free with a trailer beside it, whatever other tests hold or let go meanwhile.
_ALL = shutil.disk_usage(SHM).total


@pytest.fixture
def named():
    """A name for this test alone."""
    return f"test_{os.getpid()}_{os.urandom(4).hex()}"


@pytest.fixture
def foreign(named):
    """A segment that is not ours: any bytes under a name."""
    path = SHM / named

    def make(content):
        path.write_bytes(content)
        return named

    yield make
    path.unlink(missing_ok=True)


def test_data_starts_at_offset_0(named):
    """The standard library's recipe works on a SharedArray."""
    with sc.SharedArray(np.arange(12.0).reshape(3, 4), name=named, storage="shm"):
        raw = np.fromfile(SHM / named, float, 12)
        np.testing.assert_array_equal(raw, np.arange(12.0))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before 3.13 the tracker unlinks (gh-82300)")
def test_a_program_of_the_standard_library_doubles_it_in_place(named):
    """It knows only name, shape and dtype; it exits, and the array is still attachable."""
    with sc.SharedArray(np.arange(1000.0), name=named, storage="shm") as arr:
        run(
            """
            import sys
            import numpy as np
            from multiprocessing.shared_memory import SharedMemory
            shm = SharedMemory(name=sys.argv[1], track=False)
            x = np.ndarray((1000,), float, buffer=shm.buf)
            x *= 2
            del x
            shm.close()
            """,
            named,
        )
        np.testing.assert_array_equal(arr.array, np.arange(1000.0) * 2)
        with sc.SharedArray.attach(named) as again:
            np.testing.assert_array_equal(again.array, np.arange(1000.0) * 2)


def test_a_standard_library_attacher_without_a_tracker_leaves_it_alone(named):
    """On any Python: what the README says for 3.11 and 3.12."""
    with sc.SharedArray(np.arange(10.0), name=named, storage="shm") as arr:
        run(
            """
            import sys
            import numpy as np
            from multiprocessing import resource_tracker
            from multiprocessing.shared_memory import SharedMemory
            shm = SharedMemory(name=sys.argv[1])
            resource_tracker.unregister(shm._name, "shared_memory")
            x = np.ndarray((10,), float, buffer=shm.buf)
            x *= 2
            del x
            shm.close()
            """,
            named,
        )
        np.testing.assert_array_equal(arr.array, np.arange(10.0) * 2)
        sc.SharedArray.attach(named).close()


def test_another_process_attaches_by_name_and_leaves_it_there(named):
    with sc.SharedArray(np.arange(6.0).reshape(2, 3), name=named, order="F", storage="shm") as arr:
        done = run(
            """
            import sys, shmcompute as sc
            arr = sc.SharedArray.attach(sys.argv[1])
            arr.array[1] += 10
            print(arr.shape, arr.dtype, arr.array.flags.f_contiguous, arr.owner)
            """,
            named,
        )
        assert done.stdout == "(2, 3) float64 True False\n"
        np.testing.assert_array_equal(arr.array, [[0, 1, 2], [13, 14, 15]])
        assert (SHM / named).exists()
    assert not (SHM / named).exists()


def test_a_segment_is_private_to_its_user(named):
    with sc.SharedArray([1.0], name=named, storage="shm"):
        assert stat.S_IMODE((SHM / named).stat().st_mode) == 0o600


def test_a_name_in_use_is_an_error_and_leaves_the_other_alone(named):
    with sc.SharedArray([1.0, 2.0], name=named, storage="shm") as arr:
        with pytest.raises(SegmentExistsError, match=named):
            sc.SharedArray([3.0], name=named)
        with pytest.raises(FileExistsError):
            sc.SharedArray([3.0], name=named, storage="shm")
        np.testing.assert_array_equal(sc.SharedArray.attach(named).array, arr.array)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/a",
        "a:b",
        "a\0b",
        "a\nb",
        "a b",
        "x" * 31,
        "ü" * 16,
        "a\udcff",
        "a\\b",
    ],
)
def test_a_bad_name_is_a_value_error(name):
    for call in (
        lambda: sc.SharedArray([1.0], name=name, storage="shm"),
        lambda: sc.SharedArray.attach(name),
    ):
        with pytest.raises(ValueError, match="name"):
            call()


def test_a_name_of_30_bytes_is_taken():
    name = os.urandom(15).hex()
    with sc.SharedArray([1.0], name=name, storage="shm") as arr:
        assert arr.name == name


def test_a_name_that_is_no_string_is_a_type_error():
    with pytest.raises(TypeError, match="name"):
        sc.SharedArray([1.0], name=7, storage="shm")


def test_attach_to_nothing_says_so(named):
    with pytest.raises(SegmentNotFoundError, match=named):
        sc.SharedArray.attach(named)
    with pytest.raises(FileNotFoundError):
        sc.SharedArray.attach(named)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 4096, os.urandom(10_000)])
def test_attach_to_what_is_not_ours_is_a_format_error(foreign, content):
    name = foreign(content)
    with pytest.raises(SegmentFormatError, match=name):
        sc.SharedArray.attach(name)
    assert (SHM / name).read_bytes() == content


@pytest.mark.parametrize("keep", [0, 1, 4095, 4096, 8191])
def test_a_truncated_segment_is_a_format_error(foreign, named, keep):
    with sc.SharedArray(np.zeros(600), storage="shm") as arr:
        whole = (SHM / arr.name).read_bytes()
    foreign(whole[:keep])
    with pytest.raises(SegmentFormatError):
        sc.SharedArray.attach(named)


def test_a_corrupt_segment_is_a_format_error_or_reads_the_same(foreign, named):
    """A flipped byte in the trailer never attaches as something else."""
    with sc.SharedArray(np.arange(3.0), storage="shm") as arr:
        whole = bytearray((SHM / arr.name).read_bytes())
    for at in range(len(whole) - 200, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        foreign(bytes(damaged))
        try:
            with sc.SharedArray.attach(named) as found:
                assert (found.shape, found.dtype) == ((3,), np.dtype(float))
        except SegmentFormatError:
            pass


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_users_segment_is_refused(named):
    with sc.SharedArray([1.0], name=named, storage="shm"):
        done = subprocess.run(
            [sys.executable, "-c", _OTHER, named], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.startswith("StorageError"), done.stderr
        os.chown(SHM / named, 12345, -1)
        with pytest.raises(StorageError, match="12345"):
            shm.attach(named)  # anew: this process has it mapped
        os.chown(SHM / named, 0, -1)


_OTHER = """
import os, sys
import shmcompute as sc
os.seteuid(65534)
try:
    sc.SharedArray.attach(sys.argv[1])
except sc.errors.StorageError as error:
    print(type(error).__name__, error)
"""


def test_a_symbolic_link_is_refused(named):
    with sc.SharedArray([1.0], storage="shm") as arr:
        (SHM / named).symlink_to(SHM / arr.name)
        try:
            with pytest.raises(StorageError):
                sc.SharedArray.attach(named)
        finally:
            (SHM / named).unlink()


def test_a_handle_does_not_attach_to_an_impostor(named):
    """A name taken again by another array is not the array that was sent."""
    first = sc.SharedArray([1.0], name=named, storage="shm")
    handle = first.segment.handle
    first.close()
    with sc.SharedArray([2.0], name=named, storage="shm"), pytest.raises(SegmentNotFoundError):
        handle.map()


def test_asking_for_too_much_is_a_storage_full_error(monkeypatch):
    ours = f"{names.PREFIX}full_{os.getpid()}_"  # others make segments meanwhile
    monkeypatch.setattr(names, "PREFIX", ours)
    with sc.SharedArray([1.0], storage="shm") as arr:
        assert arr.name.startswith(ours)
    with pytest.raises(StorageFullError, match=r"asked for \d+ bytes, \d+ free"):
        sc.SharedArray.empty(_ALL, np.uint8, storage="shm")
    assert not [name for name in os.listdir(SHM) if name.startswith(ours)]


def test_a_removed_name_does_not_disturb_close(named):
    """Whoever was faster, an administrator or a tracker: close() is quiet."""
    arr = sc.SharedArray([1.0], name=named, storage="shm")
    (SHM / named).unlink()
    arr.close()


def test_close_leaves_a_successor_of_the_same_name(named):
    """Only the owner's own segment is unlinked, not one that took the name since."""
    arr = sc.SharedArray([1.0], name=named, storage="shm")
    (SHM / named).unlink()
    with sc.SharedArray([2.0], name=named, storage="shm"):
        arr.close()
        assert (SHM / named).exists()


@pytest.mark.long
def test_the_portable_way_makes_the_same_segment(named, monkeypatch):
    """`shm_open` with O_EXCL, as on macOS, switched on here."""
    monkeypatch.setattr(shm, "_nameless", lambda: False)
    monkeypatch.setattr(shm, "_READABLE", False)
    with sc.SharedArray(np.arange(5.0), name=named, storage="shm") as arr:
        assert stat.S_IMODE((SHM / named).stat().st_mode) == 0o600
        program = "import sys, shmcompute as sc; print(sc.SharedArray.attach(sys.argv[1])[4])"
        assert run(program, named).stdout == "4.0\n"
        with pytest.raises(SegmentExistsError):
            sc.SharedArray([1.0], name=named, storage="shm")
        assert arr.array.sum() == 10
    with pytest.raises(StorageFullError):
        sc.SharedArray.empty(_ALL, np.uint8, name=named, storage="shm")
    assert not (SHM / named).exists()


@pytest.mark.long
def test_the_tracker_of_the_standard_library_knows_nothing_of_it(named):
    """A process that attaches through us and exits unlinks nothing, whatever its Python."""
    with sc.SharedArray([1.0], name=named, storage="shm"):
        run(
            """
            import sys, shmcompute as sc
            from multiprocessing import resource_tracker
            sc.SharedArray.attach(sys.argv[1])
            assert resource_tracker._resource_tracker._fd is None
            """,
            named,
        )
        assert (SHM / named).exists()


def test_it_can_be_attached_by_the_standard_library_here(named):
    with sc.SharedArray([1, 2, 3], name=named, storage="shm") as arr:
        if sys.version_info < (3, 13):
            pytest.skip("SharedMemory registers with the tracker here")
        other = shared_memory.SharedMemory(name=named, track=False)
        other.buf[0] = 9
        other.close()
        assert arr[0] == 9


def test_a_name_leads_to_what_has_it_now(named):
    """Also where this process still maps an older segment of that name."""
    with sc.SharedArray([1.0], name=named, storage="shm") as old:
        other = sc.SharedArray.attach(named)
        (SHM / named).unlink()
        with sc.SharedArray([2.0], name=named, storage="shm"):
            with sc.SharedArray.attach(named) as found:
                assert found[0] == 2
            assert other[0] == old[0] == 1
        other.close()


@pytest.mark.long
def test_too_many_descriptors_is_a_storage_error_and_leaves_nothing():
    done = run(
        """
        import os, resource, warnings
        warnings.simplefilter("ignore")  # "auto" tells that it falls back
        import numpy as np, shmcompute as sc
        sc.SharedArray([1.0]).close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        for kind in ("shm", "array", "auto"):
            kept, error = [], None
            try:
                while len(kept) < 1000:
                    kept.append(sc.SharedArray(np.zeros(1_000_000), storage=kind))
            except sc.errors.StorageError as caught:
                error = str(caught)
            names = [arr.name for arr in kept]
            for arr in kept:
                arr.close()
            assert not set(names) & set(os.listdir("/dev/shm"))
            print(kind, len(kept) > 5, "Too many open files" in error)
        sc.SharedArray([1.0]).close()
        """
    )
    assert done.stdout == "shm True True\narray True True\nauto True True\n"


def test_a_trailer_is_read_through_a_mapping_where_segments_can_t_be_read(monkeypatch):
    with sc.SharedArray(np.ones((3, 2)), storage="shm") as arr:
        monkeypatch.setattr(shm, "_READABLE", False)
        fd = shm.open_segment(arr.name)
        try:
            assert shm.read_layout(fd, arr.name) == arr.segment.layout
            assert shm._bytes_of(fd, 0, 8) == np.float64(1).tobytes()
            assert shm._bytes_of(fd, 4, 4) == b""
        finally:
            os.close(fd)
