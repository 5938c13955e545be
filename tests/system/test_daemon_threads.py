"""Daemon threads at the program's end: what ends them there is not told, all else is."""

from __future__ import annotations

import pytest
from kernels import run

FRESH = "the order of exit handlers is a new interpreter's"


def ended(doing, daemon):
    """A program whose thread does that when all of ours has ended, or the main thread has."""
    return run(
        f"""
        import atexit, threading
        go = threading.Event()
        def last():
            go.set()
            thread.join(60)
        atexit.register(last)
        import numpy as np, shmcompute as sc

        def work():
            go.wait()
            {doing}

        pool = sc.Pool(2, backend="threads")
        arr = sc.SharedArray(np.ones(8))
        thread = threading.Thread(target=work, daemon={daemon})
        thread.start()
        if not {daemon}:
            threading._register_atexit(go.set)
        """,
        fresh=FRESH,
        check=False,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "doing",
    [
        "sc.parallel_apply(np.negative, arr, pool=pool)",
        "pool.submit(abs, -1).result()",
        "arr.lock().acquire()",
        "arr.lock(timeout=1).acquire()",
    ],
)
def test_that_ours_has_ended_is_not_told(doing):
    done = ended(doing, daemon=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("doing", "daemon"), [("1 / 0", True), ("pool.submit(abs, -1).result()", False)]
)
def test_all_else_is_told(doing, daemon):
    done = ended(doing, daemon)
    assert ("ZeroDivisionError" if daemon else "cannot schedule new futures") in done.stderr
