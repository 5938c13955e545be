"""`NativeRunner`: runs native plans in the calling thread, by a control block without workers."""

from __future__ import annotations

from functools import cache

from shmcompute.backends.base import raise_first
from shmcompute.backends.doorbell import (
    ControlMapping,
    DoorbellCaller,
    DoorbellWorker,
    no_bases,
    prepare,
    unveil,
)
from shmcompute.chunking import Values
from shmcompute.plans import Plan
from shmcompute.system.unpatched import threading


class NativeRunner:
    """Does all chunks of a plan one after another, in machine code.

    It lets go of the GIL where the kernels do: a program may rely on kernels that hold it, when
    several of its threads work on one array.

    It is of use to one call at a time: another thread's, or one from within a kernel, is told so.
    Its memory is private to a process: what a forked child writes is nothing to its parent.
    """

    def __init__(self) -> None:
        prepare()
        mapping, bases = ControlMapping(0, fd=-1), no_bases()
        self._mapping = mapping
        self._own = DoorbellWorker(mapping, 0, 0, bases=bases)
        caller = DoorbellCaller(mapping, 0, bases.ctypes.data)
        self._run = {True: caller.run_alone, False: caller.run_with_gil}  # by `Plan.nogil`
        self._used = threading.Lock()

    def run(self, plan: Plan, address: int, values: Values) -> bool:
        """Run a plan whose machine code has that address; False if another call has the use of it.

        Raises
        ------
        Exception
            What a kernel raised.
        """
        if not self._used.acquire(blocking=False):
            return False
        try:
            if (frame := plan.frame_here) is not self._mapping.frame:
                self._mapping.write_frame(frame)
            if values:
                self._mapping.write_values(values)
            if not self._run[plan.nogil](address):
                raise_first([self._error(plan)])
        except SystemError as error:
            raise unveil(error) from None
        finally:
            self._used.release()
        return True

    def _error(self, plan: Plan) -> BaseException:
        """What a kernel raised in machine code."""
        error = self._own.error(plan)
        return RuntimeError("chunks were left; a fault of shmcompute") if error is None else error


native_runner = cache(NativeRunner)  # of this process
