"""What SECURITY.md promises: who can read, who is refused, what is never run or opened."""

from __future__ import annotations

import ast
import os
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest
from kernels import run
from methods import METHODS
from test_package_law import MODULES

import shmcompute as sc
from shmcompute import storage
from shmcompute.backends.doorbell import ControlMapping
from shmcompute.errors import SegmentExistsError, SegmentFormatError, StorageError
from shmcompute.storage import liveness, npy_file, reaper, shm
from shmcompute.system import code_cache

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NOBODY = 65534


def _mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def named():
    """A name for this test alone; what has it afterwards goes."""
    name = f"test_{os.getpid()}_{os.urandom(4).hex()}"
    yield name
    path = shm.FOLDER / name
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


@pytest.fixture(params=[0, 0o022, 0o077], ids=oct)
def umask(request):
    """Every umask that people have, and none."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_whatever_the_umask_a_segment_is_its_users_alone(umask, any_storage):
    keywords = {key: any_storage[key] for key in any_storage}
    with sc.SharedArray([1.0], **keywords) as arr:
        handle = arr.segment.handle
        where = {
            "shm": shm.FOLDER / handle.name,
            "file": handle.name,
            "array": f"/proc/self/fd/{getattr(handle, 'fd', -1)}",
        }
        assert _mode(where[handle.kind]) == 0o600


def test_whatever_the_umask_a_lock_file_is_its_users_alone(umask, tmp_path, monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    monkeypatch.setattr(liveness.tempfile, "gettempdir", lambda: str(tmp_path))
    with sc.SharedArray([1.0], storage="shm") as arr:
        assert _mode(liveness.folder()) == 0o700
        assert _mode(liveness.folder() / arr.name) == _mode(shm.FOLDER / arr.name) == 0o600


def test_whatever_the_umask_warm_memory_is_its_users_alone():
    done = run(
        """
        import os
        import numpy as np, shmcompute as sc
        os.umask(0)
        arr = sc.SharedArray(np.zeros(1 << 18), storage="shm")
        serial = os.stat(f"/dev/shm/{arr.name}").st_ino
        arr.close()
        for entry in os.scandir("/dev/shm"):
            if entry.inode() == serial:
                print(entry.name[:10], oct(entry.stat().st_mode & 0o777))
        """,
        env={**os.environ, "SHMCOMPUTE_WARM_BYTES": str(1 << 30)},
    )
    assert done.stdout == "shmc_warm_ 0o600\n"


def _socket_at(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


ODD = {
    "fifo": os.mkfifo,
    "folder": os.mkdir,
    "socket": _socket_at,
    "link to nothing": lambda path: os.symlink("/nonexistent", path),
    "link to a folder": lambda path: os.symlink("/", path),
    "link to a device": lambda path: os.symlink("/dev/zero", path),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_under_a_name(named, kind):
    ODD[kind](shm.FOLDER / named)
    with pytest.raises(StorageError, match=named):
        sc.SharedArray.attach(named)
    with pytest.raises(SegmentExistsError, match=named):
        sc.SharedArray([1.0], name=named, storage="shm")
    reaper.reap()
    assert os.path.lexists(shm.FOLDER / named)


@pytest.mark.parametrize("mode", npy_file.MODES)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_at_a_path(tmp_path, kind, mode):
    path = tmp_path / "x.npy"
    ODD[kind](path)
    with pytest.raises(StorageError, match="x.npy"):
        sc.SharedArray.open(path, mode)
    with pytest.raises(SegmentExistsError, match="x.npy"):
        sc.SharedArray([1.0], name=path, storage="file")


def test_a_file_is_read_by_what_was_opened_not_by_its_name(tmp_path, monkeypatch):
    """Who swaps the file between two looks at it changes nothing."""
    path, other = tmp_path / "x.npy", tmp_path / "other.npy"
    np.save(path, np.arange(8.0))
    np.save(other, np.arange(16, dtype=np.int16))
    handle = npy_file.find(path)
    read_header = npy_file._read_header

    def swapped(fd, name):
        os.replace(other, name)
        return read_header(fd, name)

    monkeypatch.setattr(npy_file, "_read_header", swapped)
    segment, array = handle.map()
    np.testing.assert_array_equal(array, np.arange(8.0))
    assert segment.layout.dtype == np.float64


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../etc/passwd", "x\0y", "", "ü" * 99])
def test_a_handle_leads_nowhere_else(name):
    with pytest.raises(ValueError, match="name"):
        shm.ShmHandle(name, 1).map()


OTHER = """
import fcntl, os, signal, socket, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)  # of the lease
named, theirs, whole = sys.argv[1], sys.argv[2], sys.stdin.buffer.read(int(sys.argv[3]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.umask(0)
os.chdir("/dev/shm")
def copy(name):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    os.write(fd, whole)
    return fd
copy(named + "a")
fcntl.fcntl(copy(named + "b"), fcntl.F_SETLEASE, fcntl.F_WRLCK)
fcntl.flock(copy(named + "c"), fcntl.LOCK_EX)
os.mkfifo(named + "d", 0o666)
os.mkdir(named + "e")
socket.socket(socket.AF_UNIX).bind(named + "f")
os.symlink(theirs, named + "g")
os.symlink("/etc/passwd", named + "h")
def refused(call, *args):
    try:
        call(*args)
    except OSError:
        return True
print(
    refused(os.open, theirs, os.O_RDONLY),
    refused(os.rename, theirs, named + "i"),
    refused(os.unlink, theirs),
    refused(os.truncate, theirs, 0),
    flush=True,
)
sys.stdin.read()
for letter in "abcdfgh":
    os.unlink(named + letter)
os.rmdir(named + "e")
"""


@ROOT
def test_another_user_gets_nothing_and_gives_nothing(named):
    """He has made segments that are whole, leased and locked ones, and everything else."""
    named = named[:28]
    with sc.SharedArray([1.0], storage="shm") as arr:
        whole = (shm.FOLDER / arr.name).read_bytes()
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, named, arr.name, str(len(whole))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            other.stdin.write(whole)
            other.stdin.flush()
            assert other.stdout.readline().split() == [b"True"] * 4
            for letter in "abcdefgh":
                with pytest.raises(StorageError, match=named + letter):
                    sc.SharedArray.attach(named + letter)
                with pytest.raises(SegmentExistsError):
                    sc.SharedArray([1.0], name=named + letter, storage="shm")
            reaper.reap()
            assert not any(found.name.startswith(named) for found in reaper.list_segments())
            left = {entry for entry in os.listdir(shm.FOLDER) if entry.startswith(named)}
            assert left == {named + letter for letter in "abcdefgh"}
        finally:
            other.stdin.close()
            other.stdout.close()
            assert other.wait(60) == 0


@ROOT
@pytest.mark.parametrize("kind", ["theirs", "link", "file", "open"])
def test_a_lock_folder_that_is_not_ours_alone_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    monkeypatch.setattr(liveness.tempfile, "gettempdir", lambda: str(tmp_path))
    path = tmp_path / f"shmcompute-{os.geteuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    match kind:
        case "theirs":
            path.mkdir(mode=0o700)
            os.chown(path, NOBODY, NOBODY)
        case "link":
            path.symlink_to(elsewhere)
        case "file":
            path.touch()
        case "open":
            path.mkdir()
            path.chmod(0o777)
    with pytest.raises(StorageError, match="remove it, or set TMPDIR"):
        sc.SharedArray([1.0], storage="shm")


@ROOT
def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path, monkeypatch, named):
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    monkeypatch.setattr(liveness.tempfile, "gettempdir", lambda: str(tmp_path))
    (liveness.folder() / named).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        sc.SharedArray([1.0], name=named, storage="shm")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd here")
def test_the_control_block_has_no_name_and_keeps_its_size():
    block = ControlMapping(2)
    try:
        assert not os.get_inheritable(block.fd)
        assert "memfd:" in os.readlink(f"/proc/self/fd/{block.fd}")
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(block.fd, size)
    finally:
        block.close()


def test_machine_code_is_kept_only_where_others_put_none(tmp_path):
    folder = tmp_path / "cache"
    for mode, private in ((0o700, True), (0o755, True), (0o775, True), (0o777, False)):
        folder.mkdir()
        folder.chmod(mode)
        code_cache.private.cache_clear()
        assert code_cache.private(str(folder)) is private
        folder.rmdir()
    code_cache.private.cache_clear()


# Each makes code or objects out of bytes or text.
RUNS_WHAT_IT_READS = {
    "eval", "exec", "compile", "__import__", "literal_eval", "loads", "load", "Unpickler", "recv",
    "import_module", "run_path", "run_module", "memmap", "open_memmap", "CDLL",
}  # fmt: skip
# The pipe between a parent and its own workers is the one place that pickles come from, and
# `literal_eval` sees a header that was looked at before.
ALLOWED = {
    "shmcompute.kernels.dispatcher_pickling": {"loads"},  # machine code from the parent
    "shmcompute.backends.processes.protocol.pickling": {"loads"},  # plans and results
    "shmcompute.backends.processes.protocol.exception_pickling": {"loads"},
    "shmcompute.backends.processes.protocol.pickler": {"loads"},  # code that it made a line above
    "shmcompute.backends.processes.worker.loop": {"loads"},  # tasks from the parent
    "shmcompute.backends.processes.protocol.pipe": {"recv", "loads"},
    "shmcompute.backends.processes.protocol.kernel_bytes": {"loads"},  # what the user hands over
    "shmcompute.backends.dask_tasks": {"loads"},  # within a task, which Dask has unpickled
    "shmcompute.storage.npy_header": {"literal_eval"},
    "shmcompute.kernels.measured": {"exec"},  # a line made of numbered names alone
    "shmcompute": {"import_module"},  # of its own table
    "shmcompute.cli.bench_peers": {"recv"},  # a pipe to a process that it has started
}
NAMESAKES = {
    "shmcompute.diagnostics.host": {"import_module"},  # one of Numba's threading layers, by name
    "shmcompute.algorithms": {"import_module"},
    "shmcompute.chunked": {"import_module"},  # of its own modules
    "shmcompute.chunked.new_versions": {"compile", "loads"},  # a regular expression, and JSON
    "shmcompute.backends.processes.protocol.kernel_bytes": {"compile"},  # by Numba
    "shmcompute.algorithms.storing": {"exec"},  # text that it made of numbers
    "shmcompute.storage.npy_header": {"compile"},  # regular expressions
    "shmcompute.kernels.jitted": {"compile"},  # what the user hands over, by Numba
    "shmcompute.kernels.variants": {"compile"},
    "shmcompute.kernels.dispatcher_pickling": {"compile"},
    "shmcompute.kernels.trampoline": {"load"},  # LLVM's word for reading memory
    "shmcompute.system.atomic_words": {"compile", "load"},  # its own, by Numba
    "shmcompute.queues.slot_ring": {"load"},
    "shmcompute.kernels.sweeping": {"load"},
    "shmcompute.algorithms.block_sums": {"compile"},  # its own, by Numba
    "shmcompute.algorithms.block_squares": {"compile"},
    "shmcompute.backends.doorbell.control_block": {"load"},
    "shmcompute.backends.processes.worker.main": {"compile"},  # its own, by Numba
    "shmcompute.system.libc": {"CDLL"},  # the C library
    "shmcompute.storage.own_names": {"CDLL"},
}


def _called(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, (ast.Name, ast.Attribute)):
                yield function.id if isinstance(function, ast.Name) else function.attr


@pytest.mark.parametrize("name", MODULES)
def test_nothing_runs_what_it_reads_but_in_named_places(name):
    called = set(_called(ast.parse(MODULES[name].read_text()))) & RUNS_WHAT_IT_READS
    assert called <= ALLOWED.get(name, set()) | NAMESAKES.get(name, set())


def test_storage_has_no_pickle_at_all():
    """What stands in shared memory is bytes and a header."""
    for name, path in MODULES.items():
        if name.startswith("shmcompute.storage"):
            text = path.read_text()
            assert "import pickle" not in text, name
            assert "allow_pickle" not in text, name


def test_a_pickle_in_a_segment_or_file_is_never_loaded(tmp_path, named):
    class Trap:
        def __reduce__(self):
            return os.abort, ()

    path = tmp_path / "x.npy"
    np.save(path, np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(SegmentFormatError, match="objects"):
        sc.SharedArray.open(path)
    (shm.FOLDER / named).write_bytes(path.read_bytes())
    with pytest.raises(SegmentFormatError, match=named):
        storage.attach(named)


LISTENERS = """
import os, re, sys
import numpy as np, psutil, shmcompute as sc

def listening():
    # Sockets that accept connections, in any of our processes: the name and who has it.
    accept = {}
    for line in open("/proc/net/unix").read().splitlines()[1:]:
        parts = line.split()
        if int(parts[3], 16) & 0x10000:
            accept[parts[6]] = parts[7] if len(parts) > 7 else "nameless"
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for found in process.net_connections("inet"):
            if found.status == psutil.CONN_LISTEN:
                yield process, ""
        for entry in os.scandir(f"/proc/{process.pid}/fd"):
            inode = re.fullmatch(r"socket:.(\\d+).", os.readlink(entry.path))
            if inode and inode[1] in accept:
                yield process, accept[inode[1]]

with sc.Pool(2, start_method=sys.argv[1]) as pool, sc.SharedArray(np.ones(100)) as arr:
    sc.parallel_apply(np.sqrt, arr, pool=pool)
    with sc.SharedArray(np.ones(100), storage="array") as late:
        sc.parallel_apply(np.sqrt, late, pool=pool)
    for process, path in set(listening()):
        kind = "ours" if process.pid in (os.getpid(), *pool.pids) else "forkserver"
        both = filter(None, (path, os.path.dirname(path)))
        print(kind, *(oct(os.stat(part).st_mode & 0o777) for part in both))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("waiting", ["futex", "poll"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_listens_but_the_standard_librarys_fork_server(method, waiting):
    done = run(LISTENERS, method, env={**os.environ, "SHMCOMPUTE_WAIT": waiting})
    only = "forkserver 0o600 0o700\n" if method == "forkserver" else ""
    assert done.stdout == only


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_socket_that_listens_would_be_seen():
    """So that the silence above means something."""
    program = "import socket\nkept = socket.create_server(('localhost', 0))\n" + LISTENERS
    assert run(program, "spawn").stdout == "ours\n"
