"""The command line tells what is, removes only what nobody uses, and fails in one line."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
from tempfile import NamedTemporaryFile

import numpy as np
import psutil
import pytest
from others import undisturbed_once

from shmcompute import SharedArray, __version__
from shmcompute.cli import commands, main, text
from shmcompute.errors import StorageError
from shmcompute.storage import reaper, shm
from shmcompute.system import memory

needs_names = pytest.mark.skipif(shm.unavailable() is not None, reason="no shared memory here")
linux = pytest.mark.skipif(sys.platform != "linux", reason="segments are no files elsewhere")

ORPHAN = """
import os, signal, shmcompute
array = shmcompute.SharedArray.zeros((3, 4), dtype="float32", name={name!r}, storage="shm")
os.kill(os.getpid(), signal.SIGKILL)
"""


def run(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "shmcompute", *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def row_of(name, text):
    """The cells after the name in the line of a table that begins with it."""
    rows = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(name)]
    return rows[0] if rows else None


def names(*, alive):
    return {found.name for found in reaper.list_segments() if found.alive is alive}


@pytest.fixture
def live():
    # Made before the orphan: a process's first creation removes the orphans that there are.
    with SharedArray(np.zeros(5), name=f"shmc_live_{secrets.token_hex(4)}", storage="shm") as array:
        yield array


@pytest.fixture
def orphan(live):
    # Looked at at once and in this process, since any other process may remove it meanwhile.
    made = []

    def make():
        made.append(f"shmc_dead_{secrets.token_hex(4)}")
        code = ORPHAN.format(name=made[-1])
        assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
        return made[-1]

    yield make
    for name in names(alive=False).intersection(made):
        (shm.FOLDER / name).unlink(missing_ok=True)


@needs_names
class TestLs:
    @undisturbed_once
    def test_tells_the_living_from_the_dead(self, live, orphan, capsys):
        """A segment is alive while a process maps it; one whose maker was killed is orphaned."""
        name = orphan()
        assert main(["ls"]) == 0
        text = capsys.readouterr().out
        assert row_of(name, text).split() == ["(3,", "4)", "float32", "8.0", "KiB", "orphaned"]
        state = ["(5,)", "float64", "8.0", "KiB", "alive"]
        assert row_of(live.name, text).split()[:5] == state

    @undisturbed_once
    def test_removes_nothing(self, live, orphan, capsys):
        """Listing an orphan leaves it where it is."""
        name = orphan()
        assert main(["ls"]) == 0
        assert name in capsys.readouterr().out
        assert name in names(alive=False)

    def test_sees_what_other_processes_hold(self, live):
        """Another process sees this one's segment, and sees it alive."""
        done = run("ls")
        assert done.returncode == 0
        assert f" alive  {os.getpid()} python" in row_of(live.name, done.stdout)

    @undisturbed_once
    def test_json_names_who_holds_a_segment(self, live, orphan, capsys):
        """For programs: what a segment is, and which processes have it; an orphan has none."""
        name = orphan()
        assert main(["ls", "--json"]) == 0
        found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
        held = found[live.name]
        assert (held["shape"], held["dtype"], held["state"]) == ([5], "float64", "alive")
        assert held["holders"][0]["pid"] == os.getpid()
        assert held["holders"][0]["program"].startswith("python")
        left = found[name]
        assert (left["state"], left["holders"], left["damaged"]) == ("orphaned", [], False)

    @linux
    def test_says_damaged(self, capsys):
        """What has a name of ours but no trailer is damaged: it has neither shape nor dtype."""
        path = shm.FOLDER / f"{shm.PREFIX}{secrets.token_hex(8)}"
        with NamedTemporaryFile(dir=shm.FOLDER, delete=False) as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # before it has the name: nobody may remove it
            file.write(b"x" * 100)
            file.flush()
            os.rename(file.name, path)
            try:
                assert main(["ls"]) == 0
            finally:
                path.unlink()
        row = row_of(path.name, capsys.readouterr().out)
        assert row.split()[:6] == ["-", "-", "100", "B", "alive,", "damaged"]

    def test_prints_any_name(self, monkeypatch, capsys):
        """A file name that stdout's encoding does not know is shown escaped."""
        found = reaper.SegmentInfo("shmc_\udcff", 0, alive=False, layout=None)
        monkeypatch.setattr(reaper, "list_segments", lambda: iter([found]))
        assert main(["ls"]) == 0
        assert row_of("shmc_\\udcff", capsys.readouterr().out).endswith("orphaned, damaged")

    def test_says_that_there_is_none(self, monkeypatch, capsys):
        """No segment is told in words, not by an empty table."""
        monkeypatch.setattr(reaper, "list_segments", lambda: iter(()))
        assert main(["ls"]) == 0
        assert capsys.readouterr().out.startswith("no segments")


@needs_names
class TestGc:
    @undisturbed_once
    def test_removes_orphans_and_keeps_the_living(self, live, orphan, capsys):
        """Gc removes what no process holds, says so, and leaves the rest alone."""
        name = orphan()
        live[:] = 7
        assert main(["gc"]) == 0
        text = capsys.readouterr().out
        assert row_of(name, text) == "8.0 KiB"
        assert "given back" in text.splitlines()[-1]
        assert name not in names(alive=False)
        assert live.name not in text
        assert live.name in names(alive=True)
        with SharedArray.attach(live.name) as again:
            assert (again.array == 7).all()

    def test_keeps_what_other_processes_hold(self, live):
        """Gc in one process keeps the segment of another."""
        done = run("gc")
        assert (done.returncode, done.stderr) == (0, "")
        assert live.name not in done.stdout
        assert live.name in names(alive=True)

    def test_says_that_there_is_none(self, monkeypatch, capsys):
        """Nothing to remove is told in words."""
        monkeypatch.setattr(reaper, "reap", lambda over: [])
        assert main(["gc"]) == 0
        assert capsys.readouterr().out.startswith("no orphans")


class TestInfo:
    @pytest.mark.long
    def test_tells_versions_machine_and_settings(self):
        """Every fact has its line, with values aligned in one column."""
        done = run("info", SHMCOMPUTE_WORKERS="3")
        assert (done.returncode, done.stderr) == (0, "")
        assert row_of("shmcompute", done.stdout).strip() == __version__
        assert row_of("numpy", done.stdout).strip() == np.__version__
        assert row_of("SHMCOMPUTE_WORKERS", done.stdout).strip() == "3"
        for word in ("Python", "numba", "llvmlite", "psutil", "cloudpickle", "platform", "cores"):
            assert row_of(word, done.stdout), word
        for word in ("memory", "/dev/shm", "storage shm", "storage file", "start methods"):
            assert row_of(word, done.stdout), word
        column = done.stdout.index(__version__)
        assert all(line[column - 2 : column] == "  " for line in done.stdout.splitlines())

    @pytest.mark.long
    def test_json_has_the_same_facts(self):
        facts = json.loads(run("info", "--json").stdout)
        assert facts["shmcompute"] == __version__
        assert facts["numpy"] == np.__version__
        assert facts["cores"]

    def test_says_why_there_is_no_shared_memory(self, monkeypatch, capsys):
        """A storage that can't be had is listed with the reason."""
        monkeypatch.setattr(shm, "unavailable", lambda: "it is full of eels")
        assert main(["info"]) == 0
        row = row_of("storage shm", capsys.readouterr().out)
        assert row.endswith(" not available: it is full of eels")

    @pytest.mark.long
    def test_works_under_a_setting_that_is_wrong(self):
        """A wrong setting is shown, where it would stop other commands."""
        done = run("info", SHMCOMPUTE_START_METHOD="teleport", SHMCOMPUTE_WAIT="drum")
        assert done.returncode == 0
        assert row_of("SHMCOMPUTE_START_METHOD", done.stdout).strip() == "teleport"
        assert "'drum'; known: 'futex', 'poll'" in row_of("waiting", done.stdout)

    @pytest.mark.long
    def test_tells_what_is_kept_and_how_work_travels(self):
        done = run("info", SHMCOMPUTE_WARM_BYTES=str(3 << 20), SHMCOMPUTE_WAIT="poll")
        assert row_of("kept warm", done.stdout).endswith("up to 3.0 MiB of closed arrays")
        assert row_of("waiting", done.stdout).strip() == "poll"


class TestMemoryLimit:
    @pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
    @pytest.mark.parametrize(
        ("said", "limit"), [("1048576\n", 1 << 20), ("max\n", None), (f"{2**63 - 4096}\n", None)]
    )
    def test_is_what_the_cgroup_grants(self, tmp_path, monkeypatch, name, said, limit):
        """A cgroup's limit counts in both versions; "max" and what exceeds the machine do not."""
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(said)
        machine = psutil.virtual_memory()
        monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
        assert memory.limit(tmp_path) == limit
        assert memory.available(tmp_path) == (limit or machine.available)

    def test_is_none_without_cgroups(self, tmp_path):
        """Where no cgroup says anything there is no limit."""
        assert memory.limit(tmp_path) is None


class TestText:
    @pytest.mark.parametrize(
        ("size", "told"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (5 << 30, "5.0 GiB"),
            (3 << 40, "3.0 TiB"),
            (3 << 50, "3072.0 TiB"),
        ],
    )
    def test_human_sizes(self, size, told):
        """Bytes are told in the largest unit that they fill, up to TiB."""
        assert commands.human(size) == told

    def test_columns_are_as_wide_as_their_widest_cell(self):
        """Cells stand under each other, flush left or right, and no line ends in blanks."""
        rows = [("a", "1", "x"), ("bbb", "22", ""), ("", "", "yy")]
        assert text.table(rows, right=(1,)) == ["a     1  x", "bbb  22", "         yy"]


class TestErrors:
    def test_the_version_is_told(self, capsys):
        with pytest.raises(SystemExit) as left:
            main(["--version"])
        assert left.value.code == 0
        assert capsys.readouterr().out == f"shmcompute {__version__}\n"

    def test_without_a_command_there_is_help(self, capsys):
        """All of it, as what went wrong: on stderr, exit code 2, as argparse has it."""
        assert main([]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        for word in ("demo", "bench", "doctor", "info", "ls", "gc", "--version"):
            assert word in err

    @pytest.mark.long
    @pytest.mark.parametrize("args", [["unknown"], [], ["ls", "--nonsense"]])
    def test_wrong_usage_exits_2(self, args):
        """An unknown command or option is told with the usage, exit code 2."""
        done = run(*args)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: shmcompute")

    @pytest.mark.parametrize(
        ("args", "told"),
        [
            (
                ["--workers", "0"],
                "shmcompute: workers: expected at least 1, got 0; leave it out for as many as "
                "there are cores that this process may use\n",
            ),
            (["--repeat", "0"], "shmcompute: --repeat: expected at least 1, got 0\n"),
            (["--size", "-1"], "shmcompute: --size: expected at least 1, got -1\n"),
        ],
    )
    def test_a_wrong_number_is_told_in_one_line(self, args, told, capsys):
        """A number out of range is one line on stderr that names it, exit code 2."""
        assert main(["demo", *args]) == 2
        assert capsys.readouterr() == ("", told)

    def test_a_wrong_setting_is_told_in_one_line(self):
        """So is a setting that is wrong."""
        done = run("demo", "--size", "1", SHMCOMPUTE_WORKERS="many")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("shmcompute: SHMCOMPUTE_WORKERS='many'")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        ("error", "code"),
        [(StorageError("no room"), 1), (ValueError("bad"), 2), (KeyboardInterrupt(), 130)],
    )
    def test_errors_of_the_library_become_exit_codes(self, error, code, monkeypatch, capsys):
        """What the library raises is one line on stderr and an exit code, no traceback."""

        def fail(**options):
            raise error

        monkeypatch.setattr(commands, "ls", fail)
        assert main(["ls"]) == code
        assert capsys.readouterr() == ("", f"shmcompute: {str(error) or 'interrupted'}\n")

    def test_a_reader_that_leaves_is_no_trouble(self):
        """With nobody at the other end of the pipe the command ends without a word."""
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            done = subprocess.run(
                [sys.executable, "-m", "shmcompute", "info"],
                stdout=pipe,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
            )
        assert (done.returncode, done.stderr) == (1, "")
