"""Cores granted, not cores seen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shmcompute.system import cgroup, cores, memory


def _tree(root, **files):
    (root / "proc/self").mkdir(parents=True)
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("150000 100000", 1.5), ("max 100000", None), ("50000 100000", 0.5), ("nonsense", None)],
)
def test_a_version_2_quota_is_read(tmp_path, limit, expected):
    root = _tree(tmp_path, **{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": limit})
    assert cgroup.cpu_quota(root) == expected


def test_the_tightest_quota_on_the_way_up_counts(tmp_path):
    root = _tree(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            "sys/fs/cgroup/a/cpu.max": "100000 100000",
            "sys/fs/cgroup/cpu.max": "800000 100000",
        },
    )
    assert cgroup.cpu_quota(root) == 1
    assert cores.granted(root) == 1


def test_a_version_1_quota_is_read(tmp_path):
    root = _tree(
        tmp_path,
        **{
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup.cpu_quota(root) == 3


def test_a_path_of_the_host_falls_back_to_the_top(tmp_path):
    """In a container the cgroup's path may not exist; its limit then stands at the top."""
    root = _tree(
        tmp_path,
        **{"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "200000 100000"},
    )
    assert cgroup.cpu_quota(root) == 2


def test_no_cgroup_is_no_quota(tmp_path):
    assert cgroup.cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("listed", "counts"),
    [
        ("0::/a\n", "sys/fs/cgroup/a/memory.events"),
        ("4:cpu:/b\n3:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.oom_control"),
        ("0::/host/path\n", "sys/fs/cgroup/memory.events"),
    ],
)
def test_oom_kills_of_the_own_cgroup_are_counted(tmp_path, listed, counts):
    root = _tree(
        tmp_path,
        **{
            "proc/self/cgroup": listed,
            counts: "under_oom 0\noom 7\noom_kill 3\noom_group_kill 1\n",
        },
    )
    assert cgroup.oom_kills(root) == 3


@pytest.mark.parametrize("text", ["", "oom 7\n", "oom_kill many\n", "nonsense"])
def test_where_nobody_counts_oom_kills_there_is_no_number(tmp_path, text):
    assert cgroup.oom_kills(tmp_path) is None
    root = _tree(tmp_path, **{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.events": text})
    assert cgroup.oom_kills(root) is None


def test_affinity_is_respected():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.granted() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= cores.granted() <= cores.seen()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux scheduler")
@pytest.mark.parametrize(
    "move", [cores.migrate_to_my_core, lambda task: cores.evict_from_my_core([task])]
)
def test_who_is_moved_may_run_where_it_might_before(move):
    """Moving is a word to the scheduler, not a rule; who is gone is no error."""
    allowed = os.sched_getaffinity(0)
    try:
        for mine in allowed:
            os.sched_setaffinity(0, {mine})  # so that the core of this thread is known
            with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as other:
                os.sched_setaffinity(other.pid, allowed)
                move(other.pid)
                assert os.sched_getaffinity(other.pid) == allowed
                other.communicate(b"\n")
            move(other.pid)
    finally:
        os.sched_setaffinity(0, allowed)


def _groups(root, version, **groups):
    """Memory groups by path: limit, use, and pages of files, in bytes."""
    two = version == 2
    top = "sys/fs/cgroup" if two else "sys/fs/cgroup/memory"
    names = ("max", "current") if two else ("limit_in_bytes", "usage_in_bytes")
    files = {
        "proc/self/cgroup": "0::/a/b\n" if two else "3:memory:/a/b\n",
        "proc/meminfo": "MemAvailable: 4 kB\nSwapFree: 2 kB\n",
    }
    for path, (limit, used, pages) in groups.items():
        for name, number in zip(names, (limit, used), strict=True):
            files[f"{top}/{path}memory.{name}"] = f"{number}\n"
        prefix = "" if two else "total_"
        files[f"{top}/{path}memory.stat"] = (
            f"anon 7\n{prefix}inactive_file {pages}\n{prefix}active_file 10\n"
        )
    return _tree(root, **files)


@pytest.mark.parametrize("version", [1, 2])
def test_what_control_groups_let_one_keep_counts_pages_of_files_and_swap(tmp_path, version):
    """The group above may be the tightest, and a number that bounds nothing is none."""
    none = "max" if version == 2 else 1 << 62
    root = _groups(
        tmp_path, version, **{"a/b/": (none, 5, 0), "a/": (1000, 700, 90), "": (none, 9, 1)}
    )
    assert cgroup.memory_free(root) == 300
    assert cgroup.memory_left(root) == 400
    assert memory.reservable(root) == 400 + 2048


def test_without_groups_nothing_is_bounded(tmp_path):
    assert cgroup.memory_left(tmp_path) is None
    assert memory.reservable(tmp_path) is None
