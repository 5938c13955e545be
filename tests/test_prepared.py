"""A test program in a child of the prepared process is as one in an interpreter of its own."""

from __future__ import annotations

import os

import pytest
from kernels import run

FACTS = """
import os, signal, sys, threading
import __main__
descriptors = sorted(os.listdir("/proc/self/fd"))
names = sorted(vars(__main__))
signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
import shmcompute as sc
from multiprocessing import active_children, forkserver, resource_tracker
from shmcompute import default_pools, pool, storage
from shmcompute.storage import factory
print(descriptors, names, sorted(signals.items()), blocked, sys.argv, sys.path, sys.warnoptions)
print(os.getcwd(), sorted(os.environ.items()), __main__.__spec__, hasattr(__main__, "__file__"))
print(threading.active_count(), active_children(), forkserver._forkserver._forkserver_pid)
print(resource_tracker._resource_tracker._pid, default_pools.default_pools, list(pool._open))
print(storage.live(), factory._reaped_by, sys.stdin.read(), end="")
"""


@pytest.mark.long
def test_it_has_what_a_new_interpreter_has(tmp_path):
    options = {"input": "text\n", "cwd": tmp_path, "env": {**os.environ, "MINE": "1"}}
    new = run(FACTS, "a b", 2, fresh="to compare with", **options)
    assert run(FACTS, "a b", 2, **options).stdout == new.stdout
    assert new.stdout.endswith(" text\n")


@pytest.mark.long
@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "import sys; sys.exit(7)",
        "raise ValueError('mine')",
        "raise KeyboardInterrupt",
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import threading as t; t.Timer(0.1, print, ['timer']).start()",
    ],
)
def test_it_ends_as_a_new_interpreter_ends(ending):
    """With its exit handlers, threads waited for, text written, and the same code."""
    program = f"import atexit; atexit.register(print, 'late')\nprint('first')\n{ending}"
    child, new = run(program, check=False), run(program, check=False, fresh="to compare with")
    assert (child.returncode, child.stdout) == (new.returncode, new.stdout)
    assert child.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]


def test_one_that_takes_too_long_is_killed(tmp_path):
    """Who asked for it is killed by `subprocess`, and it with them."""
    from kernels import server, subprocess

    command = server().command(
        "import os, sys, time; print(os.getpid(), flush=True); time.sleep(99)", []
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asker:
        pid = int(asker.stdout.readline())
        end = os.pidfd_open(pid)
        asker.kill()
    import select

    assert select.select([end], [], [], 60)[0]
    os.close(end)
