"""`Pace`: how many phases of sweeps the next run is of, and whether one worker does them alone.

Two workers that wait for each other at each phase take some microseconds for it. Where a phase is
shorter than that, as on the short diagonals of a wavefront, one worker alone is quicker; whether it
is depends on the kernel, and on how far the cores are from each other. So it is tried, now and
then, for a small part of the time. What a kernel is called with is the same either way.
"""

from __future__ import annotations

# Seconds of machine code after which a run comes back to Python, which sees to signals and time.
SPAN = 0.05
FIRST = 0.0001  # those of the first run, by a guess of what a phase takes:
STREAM = 1e10  # bytes a second,
LEAST = 2e-6  # and seconds for workers to meet
FASTER = 8  # at most so many times longer than the run before
SHORT = 20e-6  # seconds of a phase, of which waiting may be a good part: tried early
ENOUGH = 100e-6  # seconds of a run that say what a phase takes: workers may have to wake first
TRIAL = 1 / 32  # of a run's time, for the other way after it


class Pace:
    """Decides run after run, from what those before took.

    Parameters
    ----------
    phases : int
        Of all runs together.
    cost : float
        Bytes that they go through, by which the first is made short.
    parts : int
        Of a phase.

    Attributes
    ----------
    some : int
        Phases of the next run.
    alone : bool
        Whether one worker is to do them.
    """

    def __init__(self, phases: int, cost: float, parts: int) -> None:
        a_phase = cost / max(1, phases) / STREAM
        self.some = max(1, int(FIRST / (a_phase + LEAST)))
        self.alone = False
        self._parts = parts
        self._takes: dict[bool, float] = {}  # seconds of a phase, by who does it
        self._trial = False  # the last run was one
        self._usual = self.some  # phases of runs that are none

    def ran(self, phases: int, taken: float) -> None:
        """Decide on the next run, after one of so many phases and seconds.

        There are none if one was late, and who waited for it gave up: that says nothing.
        """
        if phases == 0:
            return
        self._takes[self.alone] = taken / phases
        if not self._trial:
            self._usual = max(1, int(phases * min(FASTER, SPAN / taken)))
            if (trial := self._trial_after(phases, taken)) is not None:
                self._trial, self.alone, self.some = True, not self.alone, trial
                return
        self._trial, self.some = False, self._usual
        self.alone = min(self._takes, key=self._takes.__getitem__)

    def _trial_after(self, phases: int, taken: float) -> int | None:
        """How many phases the other way is tried for, if it may be quicker and costs little."""
        if self._parts == 1 or taken < ENOUGH:
            return None
        other = self._takes.get(not self.alone)
        if other is None and taken <= SHORT * phases:
            return phases
        if taken * TRIAL < ENOUGH:
            return None
        # One worker takes as much time as all do together, at most: what it is not known to take.
        return int(taken * TRIAL / (other or self._parts * taken / phases)) or None
