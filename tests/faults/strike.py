"""What is done to a worker at a random moment, from outside or by its own kernel."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
LATE = 0.4  # seconds, the timeout of calls whose worker may be stopped


class Strike:
    """A signal for one of these processes, some time after `begin`."""

    def __init__(self, dice, pids, number, latest):
        self.number = number
        self.pid = dice.choice(pids)
        self.moment = None  # when it was sent, if there was somebody to send it to
        self._timer = threading.Timer(dice.uniform(0, latest), self._send)

    def _send(self):
        moment = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(self.pid, self.number)
            self.moment = moment

    def __enter__(self):
        self._timer.start()
        return self

    def __exit__(self, *_):
        self._timer.join()


def dies(x, start, where, how, moment):
    """A kernel that leaves a chunk half done, says when, and goes: by a signal, or an exit code.

    `moment` is a list of one array, for lists are passed as they are.
    """
    x *= 3.0
    if start == where:
        x[: x.size // 2] += 1.0
        moment[0][0] = time.monotonic()
        if how < 0:
            os.kill(os.getpid(), -how)
        os._exit(how)
    x += 1.0
