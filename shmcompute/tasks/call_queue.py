"""`CallQueue`: calls that nobody waits for, run in the order in which they were submitted."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from shmcompute.errors import ClosedError
from shmcompute.system.interrupts import Latch, call_uninterrupted, deadline_of, in_call
from shmcompute.system.tracebacks import shorten

T = TypeVar("T")


class _Submitted:
    """A call that waits for its turn, its future, and what opens when it has ended."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.future: Future[Any] = Future()
        self.ended = Latch()


def _run(submitted: _Submitted) -> None:
    """Run it, unless it was cancelled."""
    future, ended = submitted.future, submitted.ended
    if not future.set_running_or_notify_cancel():
        ended.open()
        return
    result, error = _outcome(submitted.call)
    ended.open()  # first: a callback of the future may wait for who waits for this
    with suppress(Exception):  # somebody else has set it
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    # An error refers to the frames it came through, and these to this one: let it not refer to it.
    del submitted, future, result, error


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What a call returns, or raises."""
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001  # whoever asks the future is to know
        shorten(error)
        return None, error


def run_at_once(call: Callable[[], T]) -> Future[T]:
    """The future of a call that this thread runs, where there is nobody else to."""
    submitted = _Submitted(call)
    _run(submitted)
    if isinstance(error := submitted.future.exception(), KeyboardInterrupt):
        raise error  # meant for this thread
    return submitted.future


class CallQueue:
    """Runs calls one after the other, in a thread that is there as long as there are any.

    It is no daemon: a program ends when they are done. It holds on to what they refer to, so a pool
    that nobody else refers to still runs them.

    Attributes
    ----------
    busy : bool
        Whether there may be calls to wait for.
    """

    def __init__(self) -> None:
        self.busy = False
        self._waiting: deque[_Submitted] = deque()
        self._current: _Submitted | None = None
        self._serving: dict[None, threading.Thread] = {}  # at most one
        self._lock = threading.RLock()  # of what is above; reentrant, for handlers of signals
        self._closed = False
        self._afterwards: Callable[[], object] | None = None

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run `call` when those before it have ended, with the context variables of this thread."""
        submitted = _Submitted(partial(copy_context().run, call))
        with self._lock:
            if self._closed:
                raise ClosedError("this pool is closed; make another one")
            self._waiting.append(submitted)
            self.busy = True
            self._serve_soon()
        return submitted.future

    def _serve_soon(self) -> None:
        """Have a thread run what waits, unless there is one."""
        thread = threading.Thread(target=self._serve, name="shmcompute-calls")
        # In one step: the handler of a signal may submit another call.
        if self._serving.setdefault(None, thread) is not thread:
            return
        try:
            call_uninterrupted(thread.start, insists=True)  # in `start()`, one may leave it stuck
        except BaseException:  # no thread to be had; or Ctrl-C, and then it finds nothing to do
            self._drop_waiting()
            self._serving.clear()
            raise

    def _drop_waiting(self) -> None:
        while self._waiting:
            submitted = self._waiting.popleft()
            submitted.future.cancel()
            submitted.ended.open()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the calls that were submitted before; whether they have ended in that time.

        The queue's own thread, in which callbacks of futures run, waits for none.
        """
        if self._serving.get(None) is threading.current_thread():
            return True
        before = [*self._waiting, self._current]  # in this order: each goes from there to here
        deadline = None if timeout is None else deadline_of(timeout)
        return all(
            one.ended.wait(math.inf if deadline is None else max(0.0, deadline - time.monotonic()))
            for one in before
            if one is not None
        )

    def close(self, *, cancel: bool) -> None:
        """Take no more calls, and cancel those that were not begun if so asked."""
        self._closed = True
        for submitted in list(self._waiting) if cancel else ():
            submitted.future.cancel()

    def finish(self, end: Callable[[], object], *, wait: bool) -> None:
        """Call `end` when all have ended: here, or by the queue's own thread if nobody waits."""
        with self._lock:
            thread = self._serving.get(None)
            if thread is not None and (not wait or self._serves_who_asks(thread)):
                self._afterwards = end
                return
        if thread is not None:
            thread.join()
        end()

    def _serves_who_asks(self, thread: threading.Thread) -> bool:
        """Whether who waited for the thread would wait for itself: see `in_call`."""
        return thread is threading.current_thread() or in_call(self._submits)

    def _submits(self, frame: FrameType) -> bool:
        return frame.f_code is CallQueue.submit.__code__ and frame.f_locals["self"] is self

    def _serve(self) -> None:
        while self._next():
            if self._current is not None:
                _run(self._current)
        if self._afterwards is not None:
            self._afterwards()

    def _next(self) -> bool:
        """Take the next call; False if there is none, and this thread is about to end."""
        with self._lock:
            if self._waiting:
                self._current = self._waiting[0]
                self._waiting.popleft()
                return True
            self._current, self.busy = None, False
            self._serving.clear()
            return False
