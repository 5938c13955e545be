"""Names of segments: gone when the process that gave them is, however late in its end that was."""

from __future__ import annotations

import os
import sys

import pytest
from kernels import run
from others import undisturbed_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm")
FRESH = "the order of exit handlers is a new interpreter's"


def left(done):
    """Those of the printed names that there are yet."""
    names = done.stdout.split()
    assert names, done.stderr
    return [name for name in names if os.path.exists(f"/dev/shm/{name}")]


@pytest.mark.parametrize("lock_files", ["", "1"])
@pytest.mark.parametrize("size", [8, 1 << 18])
def test_what_a_late_exit_handler_makes_is_removed(size, lock_files):
    done = run(
        """
        import atexit, builtins, os, sys, tempfile
        def last():
            dropped = sc.SharedArray(np.zeros(int(sys.argv[1])))
            print(dropped.name)
            kept = builtins.kept = sc.SharedArray(np.zeros(int(sys.argv[1])))
            print(kept.name)
            kept.lock().acquire()
        atexit.register(last)
        import numpy as np, shmcompute as sc
        before = sc.SharedArray(np.zeros(int(sys.argv[1])))
        print(before.name)
        """,
        size,
        fresh=FRESH,
        env=os.environ
        | {"SHMCOMPUTE_LOCK_FILES": lock_files, "SHMCOMPUTE_WARM_BYTES": str(1 << 30)},
    )
    assert not left(done)


def test_what_a_late_exit_handler_drops_is_removed_at_once():
    done = run(
        """
        import atexit, os
        def last():
            for _ in range(3):
                arr = sc.SharedArray(np.zeros(1 << 18))
                path = f"/dev/shm/{arr.name}"
                assert os.path.exists(path)
                del arr
                assert not os.path.exists(path)
            print("removed")
        atexit.register(last)
        import numpy as np, shmcompute as sc
        """,
        fresh=FRESH,
    )
    assert done.stdout == "removed\n"


def test_what_a_destructor_makes_when_modules_go_is_removed():
    done = run(
        """
        import numpy as np, shmcompute as sc
        class Late:
            def __del__(self):
                arr = sc.SharedArray(like)
                os.write(1, arr.name.encode())
                self.again.append(arr)
        import os, struct
        like = np.zeros(8)
        first = sc.SharedArray(like)
        print(first.name, flush=True)
        late = Late()
        late.me, late.again = late, []
        """,
        fresh=FRESH,
    )
    assert not left(done)


@pytest.mark.parametrize("doing", ["make", "close"])
@pytest.mark.parametrize("where", ["in", "behind"])
def test_what_a_daemon_thread_has_just_named_as_the_program_ends_is_removed(doing, where):
    done = run(
        """
        import os, threading
        import numpy as np, shmcompute as sc
        from shmcompute.storage import own_names

        def stops(function):
            def stopped(source, name, **keywords):
                print(os.path.basename(source), os.path.basename(name), flush=True)
                function(source, name, **keywords)
                named.name = os.path.basename(name)
                named.set()
                if sys.argv[2] == "in":
                    threading.Event().wait()
            return stopped

        def trace(frame, event, _):
            if named.is_set() and own_names._removers.get(named.name):
                threading.Event().wait()
            return trace

        def work():
            sys.settrace(trace if sys.argv[2] == "behind" else None)
            if sys.argv[1] == "make":
                sc.SharedArray(np.zeros(1 << 18))
            else:
                arr.close()

        import sys
        arr = sc.SharedArray(np.zeros(1 << 18))
        if sys.argv[1] == "make":
            arr.close()
        named = threading.Event()
        os.link, os.rename = stops(os.link), stops(os.rename)
        threading.Thread(target=work, daemon=True).start()
        named.wait()
        """,
        doing,
        where,
        env=os.environ | {"SHMCOMPUTE_WARM_BYTES": str(1 << 30)},
    )
    assert not left(done)


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_what_a_child_of_multiprocessing_leaves_open_is_removed(method, tmp_path):
    """Also what a thread of it goes on to use, for which it waits."""
    (tmp_path / "child.py").write_text(
        """
import threading
import numpy as np, shmcompute as sc

def use(attached):
    with attached:
        print(sc.SharedArray.attach(arr.name).name, flush=True)

def work():
    global arr
    arr = sc.SharedArray(np.zeros(8))
    attached = threading.Condition()
    threading.Thread(target=use, args=[attached]).start()
"""
    )
    done = run(
        """
        import multiprocessing, sys
        sys.path.insert(0, sys.argv[2])
        import child
        process = multiprocessing.get_context(sys.argv[1]).Process(target=child.work)
        process.start()
        process.join()
        assert not process.exitcode
        """,
        method,
        tmp_path,
        fresh="a main module that children may import",
    )
    assert not left(done)


@undisturbed_once
def test_a_name_that_was_given_up_late_may_be_anybodys():
    done = run(
        """
        import atexit, os
        def last():
            arr = sc.SharedArray(np.zeros(8))
            print(arr.name)
            path = f"/dev/shm/{arr.name}"
            arr.close()
            open(path, "w").close()
        atexit.register(last)
        import numpy as np, shmcompute as sc
        """,
        fresh=FRESH,
    )
    (name,) = left(done)
    os.unlink(f"/dev/shm/{name}")


@pytest.mark.long
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python forks no more at its end")
def test_a_late_child_removes_nothing_of_its_parents():
    done = run(
        """
        import atexit, os
        def last():
            global arr
            arr = sc.SharedArray(np.zeros(8))
            if child := os.fork():
                os.waitpid(child, 0)
                sc.SharedArray.attach(arr.name)
                print(arr.name)
        atexit.register(last)
        import numpy as np, shmcompute as sc
        """,
        fresh=FRESH,
    )
    assert not left(done)
