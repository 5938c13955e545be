"""`Desk`: where tasks wait, and the thread that has workers do them."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from shmcompute.backends.base import Backend
from shmcompute.backends.processes.crew import Crew
from shmcompute.backends.processes.library import Library
from shmcompute.backends.processes.shift import Shift
from shmcompute.backends.processes.turn import Turn
from shmcompute.backends.processes.wake import Wake
from shmcompute.call import Call
from shmcompute.errors import ClosedError


class Desk:
    """Takes tasks from any thread.

    Its own thread is there as long as there are tasks, and holds on to the pool meanwhile: so a
    pool that nobody else refers to still does them, and a program that ends does so when they are
    done. Between them no thread, no descriptor and no lock is taken.
    """

    def __init__(self, crew: Crew, library: Library, turn: Turn, wake: Wake) -> None:
        self._crew = crew
        self._library = library
        self._turn = turn
        self._wake = wake
        self._calls: deque[Call] = deque()
        self._lock = threading.Lock()  # of what is below, and of adding to `_calls`
        self._thread: threading.Thread | None = None
        self._closed = False
        self._cancels = False

    @property
    def here(self) -> bool:
        """Whether this is the desk's thread, in a callback of a future."""
        return self._thread is threading.current_thread()

    def put(self, call: Call, pool: Backend) -> None:
        """Have a worker of this pool do it."""
        with self._lock:
            if self._closed:
                raise ClosedError("this pool is closed; make another one")
            if self._thread is None:
                self._start(pool, call)
            else:
                self._calls.append(call)
        self._wake.ring()

    def close(self, pool: Backend, *, wait: bool, cancel: bool) -> None:
        """Take no more, and close the pool when all is done.

        It is the desk that cancels, once it has given workers something to do: a task that a worker
        was free to take has begun.
        """
        with self._lock:
            self._closed = True
            self._cancels |= cancel
            if self._thread is None and not wait:
                with suppress(RuntimeError):  # no more threads, or the interpreter ends
                    self._start(pool)
            thread = self._thread
        self._wake.ring()
        if thread is None:
            pool.close()
        elif wait and not self.here:
            thread.join()

    def _start(self, pool: Backend, *calls: Call) -> None:
        thread = threading.Thread(target=self._serve, args=(pool,), name="shmcompute-desk")
        self._wake.open()
        self._calls.extend(calls)
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            self._calls.clear()
            self._thread = None
            self._wake.close()
            raise

    def _serve(self, pool: Backend) -> None:
        while self._more():
            with self._turn.of_desk():
                self._shift().complete()
        if self._closed:
            pool.close()

    def _shift(self) -> Shift:
        where = self._crew, self._library, self._turn, self._wake
        return Shift(*where, self._calls, lambda: self._cancels)

    def _more(self) -> bool:
        """Whether there are tasks; if not, this thread is about to end."""
        with self._lock:
            if self._calls:
                return True
            self._wake.close()
            if not self._closed:
                self._thread = None
            return False
