"""One run of one plan by worker processes: ring, do the own share, and on any trouble quiesce.

However a run ends, no worker writes when `complete` returns or raises: each has answered, or has
been killed and joined.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from functools import partial

from shmcompute.backends.base import Report, overrun, raise_first
from shmcompute.backends.doorbell import unveil
from shmcompute.backends.processes.protocol import Lost, exception_pickling
from shmcompute.backends.processes.worker_group import WorkerGroup
from shmcompute.backends.processes.worker_process import WorkerProcess, kill_unwanted
from shmcompute.chunking import NumberedSegment, Values
from shmcompute.errors import WorkerLostError
from shmcompute.plans import Plan
from shmcompute.system import cores, interrupts, recording
from shmcompute.system.records import Job, Lanes
from shmcompute.system.surroundings import surroundings

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL)
ADVICE = (
    ". So end kernels that index beyond their part, whose indices start at 0 in each chunk: "
    "debug=True names the place"
)
GRACE = 0.5  # seconds that workers have to end their chunk, once the call is lost


class DoorbellRun:
    """Rings workers for a plan that they hold, and judges what came of it.

    It can be completed again as long as the registry's generation is its own. It does not refer to
    its plan, whose end lets go of it.

    Parameters
    ----------
    plan : Plan
    number : int
        What the workers call it.
    group : WorkerGroup
    workers : sequence of WorkerProcess
        Those that run it.
    own : bool
        Whether the caller takes a share.
    timeout, deadline : float or None
        Seconds; when they have passed.
    report : callable, optional
        Told now and then how many chunks are done.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        group: WorkerGroup,
        workers: Sequence[WorkerProcess],
        *,
        own: bool,
        timeout: float | None,
        deadline: float | None,
        report: Report | None = None,
    ) -> None:
        self.generation = group.registry.generation
        # What frames may name, as its workers know it.
        self._segments = (
            frozenset.intersection(*(frozenset(one.segments) for one in workers))
            if workers
            else None
        )
        self._mapping = group.mapping
        self._pool = group.name
        self._place = group.registry.segments.place
        # Where its kernel finds modules and files; to machine code it is all one.
        self._around = None if plan.native is not None else surroundings()
        self._number = number
        self._workers = workers
        self._caller = caller = group.caller
        self._own = group.own if own else None
        self._timeout = timeout
        self._deadline = deadline
        self._late = False  # whether the deadline has passed
        self._deaths = group.deaths
        # How far it is from one chunk of a worker to its next; 0 if that is not known before.
        self._step = len(workers) + own if plan.static else 0
        self._job: Job | None = None  # as somebody traces it
        self._run: Callable[[], bool] | None = None  # unless Python has to do the own share
        self._between = None if report is None else caller.reporter(report, self._numbers())
        native = plan.native if own and deadline is None and report is None else None
        if not own or native is not None:
            share = (caller.own if own else 0), (0 if native is None else native.address)
            self._run = partial(caller.run, number, len(workers), *share, self._step)

    @property
    def current(self) -> bool:
        """Whether its workers find modules and files where the caller does now."""
        return self._around is None or self._around == surroundings()

    def reaches(self, segments: frozenset[NumberedSegment]) -> bool:
        """Whether its workers have these mapped already."""
        return self._segments is None or segments <= self._segments

    def record(self, recorder: recording.Recorder, plan: Plan, values: Values) -> None:
        """`complete` it, and leave a record of it."""
        if self._job is None:
            self._job = recorder.job(plan, self._who)
        run = recorder.begin_run(plan, self._job, self._caller)
        try:
            self.complete(plan, values)
        except BaseException as error:
            recorder.end_run(run, self._caller, error)
            raise
        recorder.end_run(run, self._caller)

    @property
    def _who(self) -> Lanes:
        lanes = {worker.number: worker.lane for worker in self._workers}
        own = [] if self._own is None else [self._own.number]
        return Lanes(self._pool, (*lanes, *own), lanes)

    def complete(self, plan: Plan, values: Values) -> None:
        """Run every chunk, or raise what went wrong once nobody writes any more."""
        if (frame := plan.frame(self._place)) is not self._mapping.frame:
            self._mapping.write_frame(frame)
        if values:
            self._mapping.write_values(values)
        try:
            if self._run is None:
                self._caller.ring(self._number, len(self._workers), own=True, step=self._step)
                self._own_share(plan, values)
            elif self._run():
                return
            if self._await() and self._own is None and self._caller.silent():
                self._part()
                return
        except Exception as failure:  # noqa: BLE001  # of the own chunk
            self._caller.stop()
            self._quiesce(interrupts.seconds_to(self._deadline))
            raise unveil(failure) from failure.__cause__
        except BaseException:  # Ctrl-C
            try:
                self._caller.stop()
            finally:  # another one
                self._quiesce()
            raise
        raised, gone = self._quiesce()
        self._part()
        self._judge(plan, raised, gone)
        raise_first(raised)

    def _part(self) -> None:
        """Have workers that were found on the caller's own core, again and again, leave it."""
        if self._caller.crowded():
            cores.evict_from_my_core(worker.process.pid for worker in self._workers)

    def _own_share(self, plan: Plan, values: Values) -> None:
        assert self._own is not None  # noqa: S101  # for the type checker
        self._own.run(plan, values, self._deadline, self._between)

    def _await(self) -> bool:
        """Wait until all have answered; False: one has died, or the time is up, and all stop."""
        late = [worker for worker in self._workers if self._caller.late(worker.number)]
        for worker in late[:1]:
            cores.migrate_to_my_core(worker.process.pid)
        while not self._lost():
            if (recorder := recording.recorder) is not None:
                recorder.take(self._caller)  # while there is time, and room
            if self._caller.finished():
                return True
            if self._between is not None:
                self._between()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._late = True
                break
        self._caller.stop()
        return False

    def _lost(self) -> bool:
        """Whether one has ended that owes an answer."""
        return bool(self._deaths.poll(0)) and not all(worker.alive for worker in self._owing())

    def _owing(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if self._caller.owes(worker.number)]

    def _quiesce(
        self, grace: float | None = GRACE
    ) -> tuple[list[BaseException], list[WorkerProcess]]:
        """Let workers end the chunk that they write, for `grace` seconds; then kill them.

        None is as long as it takes; who overran the deadline gets no time at all.

        Returns
        -------
        tuple of list
            What kernels raised in workers; the workers that are gone.
        """
        until = time.monotonic() + (0.0 if self._late else float("inf") if grace is None else grace)
        try:
            while any(worker.alive for worker in self._owing()) and time.monotonic() < until:
                self._caller.finished()
        finally:
            gone = self._owing()
            kill_unwanted(gone)
        raised = []
        patience = None if self._deadline is None else GRACE  # it is on its way
        for worker in self._workers:
            if worker not in gone and self._caller.failed(worker.number):
                try:
                    raised.append(exception_pickling.unpack_error(worker.failure(patience)))
                except Lost:
                    gone.append(worker)
        return raised, gone

    def _numbers(self) -> list[int]:
        """Those of the slots that take part."""
        own = [] if self._own is None else [self._own.number]
        return [worker.number for worker in self._workers] + own

    def _judge(self, plan: Plan, raised: list[BaseException], gone: list[WorkerProcess]) -> None:
        """Add to the errors what went wrong otherwise, now that nobody writes."""
        if self._own is not None and (own := self._own.error(plan)) is not None:
            raised.insert(0, own)
        if raised:
            return
        undone = sorted(self._caller.undone(plan.count, self._numbers(), self._step))
        passed = self._deadline is not None and time.monotonic() >= self._deadline
        if self._late or (undone and not gone and passed):
            raised.append(overrun(plan, self._timeout, undone))
        elif gone:
            raised.append(_worker_lost(plan, gone, undone))
        elif undone:
            raised.append(RuntimeError(f"chunks {undone} were left; this is a fault of shmcompute"))


def _worker_lost(
    plan: Plan, gone: Sequence[WorkerProcess], numbers: Sequence[int]
) -> WorkerLostError:
    """The error of a call whose workers died, with these chunks not known to be done."""
    died = [worker for worker in gone if not worker.expected]  # the others were killed for it
    hows = {worker: worker.ended() for worker in died or gone[:1]}
    worker, how = next(iter(hows.items()))
    chunks = [plan.chunks[number] for number in numbers]
    code = worker.process.exitcode
    crashed = code is not None and -code in CRASHES
    return WorkerLostError(
        f"worker {worker.process.pid} was lost ({how}) while it ran kernel {plan.name}; the "
        f"content of chunks {_listed(chunks)} is undefined{ADVICE if crashed else ''}",
        worker.process.exitcode,
        chunks,
    )


def _listed(chunks: Sequence[tuple[int, int]]) -> str:
    listed = ", ".join(f"[{start}, {stop})" for start, stop in chunks[:4])
    return listed + (f" and {len(chunks) - 4} more" if len(chunks) > 4 else "")
