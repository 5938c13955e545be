"""The doctor finds what is wrong with a host, says what to do, and never falls ill itself."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import shmcompute
from shmcompute import config
from shmcompute.cli import doctor as command
from shmcompute.cli import main
from shmcompute.diagnostics import BROKEN, OK, WARNING, Finding, examine, host, shared_memory, speed
from shmcompute.errors import StorageError
from shmcompute.storage import reaper, shm

needs_names = pytest.mark.skipif(shm.unavailable() is not None, reason="no shared memory here")


def one(check, name=None):
    """What a check finds, of that name or as its only finding."""
    found = [finding for finding in examine([check]) if name in (None, finding.check)]
    assert len(found) == 1, found
    assert bool(found[0].remedy) == (found[0].state != OK), "what is wrong has a remedy"
    return found[0]


@pytest.mark.long
def test_this_host_is_examined_in_json():
    """Each check says something, nothing is broken where the suite runs, and stdout is JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "shmcompute", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert report["status"] in (OK, WARNING)
    names = [finding["check"] for finding in report["findings"]]
    assert len(names) == len(set(names))
    for name in ("Python", "numba", "cores", "memory", "ulimit -n", "futex", "Numba's cache"):
        assert name in names
    for name in ("threading layers", "start method", "/dev/shm", "flock", "locks", "memfd"):
        assert name in names or sys.platform != "linux"
    for name in ("leftovers", "new memory", "start", "stream"):
        assert name in names
    for name in ("dispatch to threads", "dispatch to processes"):
        assert name in names
    assert all(finding["remedy"] for finding in report["findings"] if finding["state"] != OK)
    assert all(line.startswith("doctor: ") for line in done.stderr.splitlines())


class TestCommand:
    def _run(self, monkeypatch, capsys, *findings):
        monkeypatch.setattr(command, "CHECKS", [lambda: findings])
        code = main(["doctor"])
        return code, capsys.readouterr().out.splitlines()

    def test_all_is_well(self, monkeypatch, capsys):
        code, lines = self._run(monkeypatch, capsys, Finding("eyes", "two"))
        assert code == 0
        assert lines == ["ok       eyes  two", "", "all is well"]

    def test_warnings_are_no_failure(self, monkeypatch, capsys):
        """All works, so the exit code is 0."""
        warning = Finding("ears", "one", WARNING, "listen")
        code, lines = self._run(monkeypatch, capsys, Finding("eyes", "two"), warning)
        assert code == 0
        assert lines[1:3] == ["warning  ears  one", "               -> listen"]
        assert lines[-1] == "all works; 1 to look at: see the lines with ->"

    def test_what_is_broken_is(self, monkeypatch, capsys):
        code, lines = self._run(monkeypatch, capsys, Finding("leg", "left", BROKEN, "rest"))
        assert code == 1
        assert lines[0] == "BROKEN   leg  left"
        assert lines[-1].startswith("1 broken")

    def test_a_check_that_fails_is_a_finding(self, monkeypatch, capsys):
        """The others are heard all the same, and what it found before it failed."""

        def falls_ill():
            yield Finding("eyes", "two")
            raise OSError("dizzy")

        monkeypatch.setattr(command, "CHECKS", [falls_ill, lambda: [Finding("ears", "two")]])
        assert main(["doctor", "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["status"] == BROKEN
        assert [finding["state"] for finding in report["findings"]] == [OK, BROKEN, OK]
        assert report["findings"][1]["check"] == "falls ill"
        assert "OSError: dizzy" in report["findings"][1]["found"]


class TestHost:
    def test_old_and_missing_packages_are_broken(self, monkeypatch):
        real = metadata.version

        def version(name):
            if name == "psutil":
                raise metadata.PackageNotFoundError(name)
            return "0.1" if name == "numba" else real(name)

        monkeypatch.setattr(metadata, "version", version)
        found = {finding.check: finding for finding in host.packages()}
        assert (found["numba"].state, found["psutil"].state) == (BROKEN, BROKEN)
        assert found["numba"].remedy == "pip install -U numba"
        assert found["psutil"].remedy == "pip install 'psutil>=5.9'"
        assert found["numpy"].state == OK

    def test_optional_packages_are_not_asked_for(self):
        assert {finding.check for finding in host.packages()} >= {"numpy", "numba"}
        assert "dask" not in {finding.check for finding in host.packages()}

    @pytest.mark.parametrize(
        ("name", "value", "state", "told"),
        [
            ("WORKERS", "2", OK, "2"),
            ("WORKERS", "many", BROKEN, "expected a number of at least 1"),
            ("WAIT", "drum", BROKEN, "known: 'futex', 'poll'"),
            ("START_METHOD", "teleport", BROKEN, "known: 'fork'"),
            ("WARM_BYTES", "much", BROKEN, "expected a number of bytes"),
            ("WORKRES", "2", WARNING, "there is no such setting"),
        ],
    )
    def test_settings_are_looked_at(self, name, value, state, told, monkeypatch):
        monkeypatch.setenv(f"SHMCOMPUTE_{name}", value)
        found = one(host.settings, f"SHMCOMPUTE_{name}")
        assert found.state == state
        assert told in found.found
        assert name != "WORKRES" or found.remedy == "known: SHMCOMPUTE_WORKERS"

    def test_all_settings_are_known(self):
        """What the package's text calls a setting is one."""
        package = Path(shmcompute.__file__).parent
        text = "\n".join(path.read_text() for path in package.rglob("*.py"))
        named = set(re.findall(r"SHMCOMPUTE_([A-Z_]+)", text))
        read = set(re.findall(r"\b(?:setting|configured|switched_on)\(\"([A-Z_]+)\"", text))
        assert named | read <= set(config.SETTINGS)

    def test_one_core_is_a_warning(self, monkeypatch):
        monkeypatch.setattr(host.cores, "granted", lambda: 1)
        monkeypatch.setattr(host.cgroup, "cpu_quota", lambda: 0.5)
        found = one(host.processors, "cores")
        assert found.state == WARNING
        assert "(cgroup quota: 0.5)" in found.found

    def test_a_busy_machine_is_a_warning(self, monkeypatch):
        monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0, 0))
        assert one(host.processors, "load").state == WARNING

    def test_little_memory_and_the_killed_are_warnings(self, monkeypatch):
        monkeypatch.setattr(host.memory, "available", lambda: 1 << 20)
        monkeypatch.setattr(host.memory, "limit", lambda: 2 << 20)
        monkeypatch.setattr(host.cgroup, "oom_kills", lambda: 3)
        memory, killed = host.memory_left()
        assert (memory.state, killed.state) == (WARNING, WARNING)
        assert "1.0 MiB free" in memory.found
        assert "cgroup limit: 2.0 MiB" in memory.found
        assert killed.found.startswith("3 processes")

    @pytest.mark.parametrize(
        ("limit", "granted", "state"), [("-n", 64, WARNING), ("-n", 65536, OK), ("-f", 1, WARNING)]
    )
    def test_limits_are_told_by_the_shells_option(self, limit, granted, state, monkeypatch):
        numbers = {"-n": resource.RLIMIT_NOFILE, "-f": resource.RLIMIT_FSIZE}
        infinite = resource.RLIM_INFINITY

        def limits(number):
            return (granted if number == numbers[limit] else infinite), infinite

        monkeypatch.setattr(resource, "getrlimit", limits)
        found = one(host.ulimits, f"ulimit {limit}")
        assert found.state == state
        assert str(granted) in found.found
        assert {finding.state for finding in host.ulimits() if finding != found} == {OK}

    def test_polling_is_a_warning(self, monkeypatch):
        monkeypatch.setenv("SHMCOMPUTE_WAIT", "poll")
        found = one(host.waiting)
        assert found.state == WARNING

    def test_no_place_for_machine_code_is_a_warning(self, monkeypatch):
        def nowhere(function):
            raise RuntimeError("no locator available")

        monkeypatch.setattr(host.code_cache, "folder_of", nowhere)
        found = one(host.code_on_disk)
        assert found.state == WARNING
        assert "NUMBA_CACHE_DIR" in found.remedy


class TestSharedMemory:
    def test_none_is_a_warning(self, monkeypatch):
        monkeypatch.setattr(shm, "unavailable", lambda: "it is full of eels")
        found = one(shared_memory.folder)
        assert (found.state, found.found) == (WARNING, "it is full of eels")
        assert [*shared_memory.segment(), *shared_memory.leases()] == []

    def test_a_folder_where_others_may_remove_is_a_warning(self, tmp_path):
        tmp_path.chmod(0o777)
        assert shared_memory._mode(tmp_path).state == WARNING
        tmp_path.chmod(0o1777)
        assert shared_memory._mode(tmp_path).state == OK

    @needs_names
    def test_a_segment_that_can_not_be_made_is_broken(self, monkeypatch):
        def full(*args, **options):
            raise StorageError("no room")

        monkeypatch.setattr(shared_memory.SharedArray, "full", full)
        found = one(shared_memory.segment)
        assert (found.state, found.found) == (BROKEN, "can't be made: no room")

    @needs_names
    def test_what_looks_dead_while_it_lives_is_broken(self, monkeypatch):
        monkeypatch.setattr(reaper, "list_segments", lambda: iter(()))
        assert one(shared_memory.segment, "flock").state == BROKEN

    @needs_names
    @pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
    def test_no_leases_is_a_warning(self, monkeypatch):
        def refuse(fd):
            raise PermissionError("sandbox")

        monkeypatch.setattr(shared_memory.exclusive, "is_exclusive", refuse)
        found = one(shared_memory.leases)
        assert found.state == WARNING
        assert "sandbox" in found.found

    def test_no_memfd_is_a_warning(self, monkeypatch):
        def refuse(*args):
            raise OSError("seccomp")

        monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
        assert one(shared_memory.memfd).state == WARNING

    def test_leftovers_are_a_warning(self, monkeypatch):
        left = reaper.SegmentInfo("shmc_a", 3 << 20, alive=False, layout=None)
        alive = reaper.SegmentInfo("shmc_b", 1, alive=True, layout=None)
        monkeypatch.setattr(reaper, "list_segments", lambda: iter([left, alive]))
        found = one(shared_memory.leftovers)
        assert (found.state, found.found) == (WARNING, "1 segments of 3.0 MiB")
        assert found.remedy == "python -m shmcompute gc"

    def test_refused_huge_pages_come_with_the_administrators_line(self, monkeypatch):
        facts = [("huge pages", "refused: no"), ("  as root", "mount it")]
        monkeypatch.setattr(shared_memory.huge, "facts", lambda folder: facts)
        found = one(shared_memory.huge_pages)
        assert (found.state, found.remedy) == (WARNING, "as root: mount it")

    def test_a_tiny_dev_shm_is_found(self):
        """In a namespace with 1 MiB of it, as in a container, it says how to enlarge it."""
        mount = "mount -t tmpfs -o size=1M,mode=1777 tmpfs /dev/shm"
        probe = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True)
        if probe.returncode:
            pytest.skip("needs root, to mount")
        program = "from shmcompute.diagnostics import shared_memory as s; print(*s.folder())"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f'{mount} && "$0" -c "$1"', sys.executable, program],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "found='1.0 MiB, 1.0 MiB free', state='warning'" in done.stdout, done.stderr
        assert "docker run --shm-size=2g" in done.stdout


class TestSpeed:
    def test_workers_that_do_not_start_are_broken(self, monkeypatch):
        def fail(self, timeout=None):
            raise StorageError("no process to be had")

        monkeypatch.setattr(speed.Pool, "ready", fail)
        found = one(speed.processes)
        assert found.state == BROKEN
        assert "no process to be had" in found.found

    @pytest.mark.parametrize(("seconds", "state"), [(1e-5, OK), (1.0, WARNING)])
    def test_slow_is_a_warning(self, seconds, state, monkeypatch):
        monkeypatch.setattr(speed, "_median", lambda run, times: seconds)
        assert one(speed.threads).state == state
