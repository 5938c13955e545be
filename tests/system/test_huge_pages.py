"""Who decides on huge pages, as the kernel tells it; mappings that are aligned for them."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import numpy as np
import pytest

from shmcompute.diagnostics.huge_pages import facts
from shmcompute.system import huge_pages, mappings

MIB = 1 << 20
LINE = "24 1 {number} / /dev/shm rw,nosuid shared:2 - tmpfs tmpfs rw,size=64k{options}"
linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")


@pytest.fixture
def host(tmp_path):
    """Write what a kernel tells below a root of its own; None leaves a file out."""

    def told(*, mount="", knob="always within_size advise [never] deny force", size=2 * MIB, may=1):
        device = tmp_path.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        sysfs = tmp_path / huge_pages._SYSFS
        texts = {
            tmp_path / "proc/self/mountinfo": "23 1 0:99999 / /run rw - tmpfs run rw,huge=always\n"
            + LINE.format(number=number, options=mount),
            tmp_path / "proc/self/status": f"Name:\tx\nTHP_enabled:\t{may}\nThreads:\t1\n",
            sysfs / "shmem_enabled": knob,
            sysfs / "hpage_pmd_size": None if size is None else f"{size}\n",
        }
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
        return tmp_path

    yield told
    huge_pages.policy.cache_clear()
    huge_pages.size.cache_clear()


class TestPolicy:
    @pytest.mark.parametrize("word", ["always", "within_size", "advise", "never"])
    def test_is_the_mounts_own(self, host, word):
        root = host(mount=f",huge={word},inode64", knob="[always] never")
        assert huge_pages.policy(root.stat().st_dev, root) == word

    def test_is_never_where_the_mount_says_nothing(self, host):
        root = host(knob="[always] never")
        assert huge_pages.policy(root.stat().st_dev, root) == "never"

    @pytest.mark.parametrize("word", ["always", "advise", "deny"])
    def test_is_the_kernels_for_what_is_mounted_nowhere(self, host, word):
        root = host(knob=f"never [{word}] force")
        assert huge_pages.policy(os.makedev(0, 1), root) == word

    def test_is_never_where_nobody_tells(self, tmp_path):
        assert huge_pages.policy(1, tmp_path) == huge_pages.kernel_policy(tmp_path) == "never"
        assert huge_pages.process_may(tmp_path)
        assert huge_pages.size(tmp_path) is None


INFO = {
    "no such kernel": ({"size": None}, "none: ", ""),
    "denied": ({"knob": "[deny]"}, "refused by the kernel", "echo never > /sys"),
    "prctl": ({"may": 0}, "refused to this process", "prctl"),
    "forced": ({"knob": "[force]"}, "for arrays of 2 MiB and more", "shmem_enabled is force"),
    "within size": ({"mount": ",huge=within_size"}, "for arrays of 2 MiB", "huge=within_size"),
    "advise": ({"mount": ",huge=advise", "size": 32 * MIB}, "for arrays of 32 MiB", "huge=advise"),
    "always": ({"mount": ",huge=always"}, "for arrays of 2 MiB", "smaller arrays take a whole one"),
}


@linux
class TestInfo:
    @pytest.mark.parametrize("kernel", INFO)
    def test_says_who_gives_or_refuses_them(self, host, kernel):
        told, begins, holds = INFO[kernel]
        root = host(**told)
        [(what, text)] = facts(root, root)
        assert what == "huge pages"
        assert text.startswith(begins)
        assert holds in text

    @pytest.mark.parametrize(("given", "begins"), [(True, "for arrays"), (False, "refused: ")])
    def test_has_the_administrators_line_for_a_mount_without(
        self, host, monkeypatch, given, begins
    ):
        root = host()
        monkeypatch.setattr(huge_pages, "given", lambda folder: given)
        (_, text), (_, line), (_, container) = facts(root, root)
        assert text.startswith(begins)
        assert "is mounted without huge=" in text
        assert line == f"mount -o remount,huge=within_size {root}"
        assert container.endswith(f"nsenter -m -t PID {line}")

    def test_says_that_they_are_switched_off(self, host, monkeypatch):
        monkeypatch.setenv("SHMCOMPUTE_HUGE_PAGES", "0")
        root = host()
        assert facts(root, root) == [("huge pages", "switched off by SHMCOMPUTE_HUGE_PAGES=0")]

    def test_works_under_a_wrong_setting_and_without_a_folder(self, host, monkeypatch):
        monkeypatch.setenv("SHMCOMPUTE_HUGE_PAGES", "many")
        root = host()
        assert "known: '0', '1'" in facts(root, root)[0][1]
        assert "No such file" in facts(root / "none", root)[0][1]


@pytest.fixture
def memfd():
    """Nameless memory of 5 MiB and some pages, whose bytes tell where they are."""
    fd = os.memfd_create("test")
    try:
        os.write(fd, _numbers().tobytes())
        yield fd
    finally:
        os.close(fd)


def _numbers():
    return np.arange((5 * MIB + 3 * 4096) // 8)


def _maps():
    return Path("/proc/self/maps").read_text().count("/memfd:test")


@linux
class TestAligned:
    @pytest.mark.parametrize("offset", [0, 4096, 2 * MIB, 2 * MIB + 8192])
    @pytest.mark.parametrize("less", [0, 1, 4096])
    def test_lies_as_the_file_does_and_holds_its_bytes(self, memfd, offset, less):
        length = _numbers().nbytes - offset - less
        memory = mappings.aligned(memfd, length, 2 * MIB, offset)
        view = np.frombuffer(memory, np.uint8)
        assert (view.ctypes.data - offset) % (2 * MIB) == 0
        assert (view == _numbers().view(np.uint8)[offset : offset + length]).all()
        view[-1] = 77
        assert os.pread(memfd, 1, offset + length - 1) == b"M"

    def test_takes_no_addresses_beside_its_own(self, memfd):
        before = Path("/proc/self/statm").read_text().split()[0]
        memory = mappings.aligned(memfd, 4 * MIB, 2 * MIB)
        more = int(Path("/proc/self/statm").read_text().split()[0]) - int(before)
        assert more * os.sysconf("SC_PAGESIZE") < 5 * MIB
        assert len(memory) == 4 * MIB

    def test_goes_with_its_last_view(self, memfd):
        view = np.frombuffer(mappings.aligned(memfd, 4 * MIB, 2 * MIB), np.int64)[100:]
        gc.collect()
        assert view[0] == 100
        assert _maps() == 1
        del view
        assert _maps() == 0

    def test_holds_the_files_locks_without_its_descriptor(self, memfd):
        path = f"/proc/self/fd/{memfd}"
        one, other = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
        fcntl.flock(one, fcntl.LOCK_SH)
        memory = mappings.aligned(one, 4 * MIB, 2 * MIB)
        os.close(one)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        del memory
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)

    def test_never_reaches_behind_the_file(self, memfd):
        with pytest.raises(ValueError, match="greater than file size"):
            mappings.aligned(memfd, 6 * MIB, 2 * MIB)
        with pytest.raises(ValueError, match="greater than file size"):
            mappings.aligned(memfd, 4 * MIB, 2 * MIB, 2 * MIB)

    def test_is_none_where_the_kernel_does_not_map(self, memfd):
        with open(os.devnull) as file:
            assert mappings.aligned(file.fileno(), 0, 1 << 62) is None  # more than there is
        read_only = os.open(f"/proc/self/fd/{memfd}", os.O_RDONLY)
        assert mappings.aligned(read_only, 4 * MIB, 2 * MIB) is None
        os.close(read_only)
        assert _maps() == 0


@linux
class TestFill:
    def test_keeps_what_the_file_holds(self, memfd):
        filled = huge_pages.fill(memfd, _numbers().nbytes)
        assert filled in (0, 4 * MIB)
        assert os.pread(memfd, _numbers().nbytes, 0) == _numbers().tobytes()
        assert os.fstat(memfd).st_blocks * 512 == _numbers().nbytes

    def test_takes_nothing_where_the_kernel_gives_none(self, memfd, monkeypatch):
        monkeypatch.setattr(huge_pages, "advise", lambda memory, advice: False)
        os.ftruncate(memfd, 0)
        os.ftruncate(memfd, 64 * MIB)
        assert huge_pages.fill(memfd, 64 * MIB) == 0
        assert os.fstat(memfd).st_blocks * 512 <= 32 * 4096

    def test_takes_nothing_outside_of_memory(self):
        with open(__file__, "rb") as file:
            if mappings.is_tmpfs(file.fileno()):
                pytest.skip("these tests lie in memory")
            assert huge_pages.fill(file.fileno(), 64 * MIB) == 0
