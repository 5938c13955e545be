"""`TaskQueue`: where the tasks of a pool wait, and the thread that has workers do them."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from types import FrameType

from shmcompute.backends.base import Backend
from shmcompute.backends.processes.dispatcher import Dispatcher
from shmcompute.backends.processes.fair_lock import FairLock
from shmcompute.backends.processes.poller import Wakeup
from shmcompute.backends.processes.worker_group import WorkerGroup
from shmcompute.errors import ClosedError
from shmcompute.system.interrupts import in_call
from shmcompute.tasks import WorkItem


class TaskQueue:
    """Takes tasks from any thread.

    Its own thread is there as long as there are tasks, and holds on to the pool meanwhile: so a
    pool that nobody else refers to still does them, and a program that ends does so when they are
    done. Between them no thread, no descriptor and no lock is taken.

    Attributes
    ----------
    thread : threading.Thread or None
        Its own thread, in which callbacks of futures run.
    """

    def __init__(self, group: WorkerGroup, fair_lock: FairLock, wakeup: Wakeup) -> None:
        self._group = group
        self._fair_lock = fair_lock
        self._wakeup = wakeup
        self._items: deque[WorkItem] = deque()
        self._lock = threading.Lock()  # of what is below, and of adding to `_items`
        self.thread: threading.Thread | None = None
        self._closed = False
        self._cancels = False

    def put(self, item: WorkItem, pool: Backend) -> None:
        """Have a worker of this pool do it."""
        with self._lock:
            if self._closed:
                raise ClosedError("this pool is closed; make another one")
            if self.thread is None:
                self._start(pool, item)
            else:
                self._items.append(item)
        self._wakeup.wake()

    def close(self, pool: Backend, *, wait: bool, cancel: bool) -> None:
        """Take no more, and close the pool when all is done.

        It is the dispatcher that cancels, once it has given workers something to do: a task that a
        worker was free to take has begun.
        """
        if self.waits_for_itself():
            self._closed, self._cancels = True, cancel  # the thread will see it
            return
        with self._lock:
            self._closed = True
            self._cancels |= cancel
            if self.thread is None and not wait:
                with suppress(RuntimeError):  # no more threads, or the interpreter ends
                    self._start(pool)
            thread = self.thread
        self._wakeup.wake()
        if thread is None:
            pool.close()
        elif wait and self.thread is not threading.current_thread():
            thread.join()

    def end(self, pool: Backend) -> None:
        """Cancel those that no worker has, take no more, and close the pool in the background."""
        self._closed = True
        with suppress(IndexError):  # there are no more
            while True:
                self._items.popleft().cancel()
        self.close(pool, wait=False, cancel=True)

    def waits_for_itself(self) -> bool:
        """Whether who waited for the lock would wait for itself: see `in_call`."""
        return self._lock.locked() and in_call(self._holds)

    def _holds(self, frame: FrameType) -> bool:
        """Whether the call of that frame holds the lock, or is about to."""
        holders = TaskQueue.put.__code__, TaskQueue.close.__code__
        return frame.f_code in holders and frame.f_locals["self"] is self

    def _start(self, pool: Backend, *items: WorkItem) -> None:
        thread = threading.Thread(target=self._serve, args=(pool,), name="shmcompute-dispatcher")
        self._wakeup.open()
        self._items.extend(items)
        self.thread = thread
        try:
            thread.start()
        except BaseException:
            self._items.clear()
            self.thread = None
            self._wakeup.close()
            raise

    def _serve(self, pool: Backend) -> None:
        while self._more():
            with self._fair_lock.held_by_dispatcher():
                self._dispatcher().complete()
        if self._closed:
            pool.close()

    def _dispatcher(self) -> Dispatcher:
        where = self._group, self._fair_lock, self._wakeup
        return Dispatcher(*where, self._items, lambda: self._cancels)

    def _more(self) -> bool:
        """Whether there are tasks; if not, this thread is about to end."""
        with self._lock:
            if self._items:
                return True
            self._wakeup.close()
            if not self._closed:
                self.thread = None
            return False
