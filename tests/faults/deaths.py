"""End a worker at a chosen point, without a hook in the product.

A pool started within `doomed` starts its workers by `main` of this module, which replaces one name
in the worker by a function that ends it, and then goes on as any worker does.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import pytest

from shmcompute.backends.processes import worker_process
from shmcompute.backends.processes.worker import worker_main

WAYS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "SIGABRT": lambda: os.kill(os.getpid(), signal.SIGABRT),
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
ENDS = [way for way in WAYS if way != "SIGSTOP"]

ENTRY = "shmcompute.backends.processes.worker.main"
PIPE = "shmcompute.backends.processes.protocol.pipe"
WORKER = "shmcompute.backends.processes.worker.loop"
POINTS: dict[str, tuple[str, str, bool | bytes]] = {
    # What is replaced, and whether the end comes after it instead of before; or, of answers, which
    # one it is that breaks off in the middle.
    "starting": (ENTRY, "watch_parent", False),
    "saying that it is ready": (WORKER, "Worker.serve", False),
    "attaching": (WORKER, "map_handle", False),
    "attached": (WORKER, "map_handle", True),
    "unpickling": ("shmcompute.backends.processes.protocol.pickling", "unpack", False),
    "running": ("shmcompute.plans.plan", "Plan.run_chunk", False),
    "answering a plan": (PIPE, "Pipe._write", b"Loaded"),
    "telling an error": (PIPE, "Pipe._write", b"Failure"),
    "before the journal": ("shmcompute.plans.journal", "Journal.keep", False),
    "after the journal": ("shmcompute.plans.journal", "Journal.keep", True),
    "before the commit": ("shmcompute.plans.journal", "Journal.commit", False),
    "after the commit": ("shmcompute.plans.journal", "Journal.commit", True),
}


def await_stop(pids: list[int]) -> None:
    """Return when these stand still; a call that came earlier would only wait for them."""
    while not all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids):
        time.sleep(0.001)


def told(way: str) -> tuple[int, str]:
    """Exit code and words of a death."""
    if way.startswith("exit"):
        return int(way.split()[1]), f"exit code {way.split()[1]}"
    return -signal.Signals[way], way


def main(point: str, way: str, flag: str, *args: Any) -> None:
    """A worker that ends at a point; once, if there is a file `flag` to be made."""
    faulthandler.disable()  # a forked worker has it from pytest, and would tell of each end
    home, path, after = POINTS[point]
    *outer, name = path.split(".")
    place: Any = importlib.import_module(home)
    for part in outer:
        place = getattr(place, part)
    real = getattr(place, name)

    def end() -> None:
        if not flag:
            WAYS[way]()
            return
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        WAYS[way]()

    def replaced(*given: Any, **named: Any) -> Any:
        if isinstance(after, bytes):
            return _half(real, end, after, *given)
        if not after:
            end()
        result = real(*given, **named)
        if after:
            end()
        return result

    setattr(place, name, replaced)
    worker_main(*args)


def _half(
    real: Callable[..., Any], end: Callable[[], None], which: bytes, pipe: Any, data: bytes, _: Any
) -> None:
    if which not in data:
        real(pipe, data, None)
        return
    real(pipe, data[: len(data) // 2], None)
    end()
    real(pipe, data[len(data) // 2 :], None)


@contextmanager
def doomed(point: str, way: str, flag: object = "") -> Iterator[None]:
    """Workers that are started meanwhile end at that point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_process, "worker_main", partial(main, point, way, str(flag)))
        yield


def spare() -> None:
    """Workers that are started from now on live."""
    worker_process.worker_main = worker_main
