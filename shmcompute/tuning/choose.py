"""`choose`: the backend of the next call, by what calls like it have taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shmcompute.tuning import cost_model
from shmcompute.tuning.measurements import Measurements
from shmcompute.tuning.work import Work

WORTH = 0.9  # what might take so much of the best's time, or less, is tried
# Serial is chosen if it takes so much of the best's time, or less: others may want the other cores,
# and who needs several is as slow as the slowest of them.
ALIKE = 1.04


@dataclass(frozen=True)
class Choice:
    """The backend that a call gets.

    Attributes
    ----------
    backend : {'serial', 'threads', 'processes'}
    why : str
        A sentence for people.
    settled : bool
        Whether all that is worth a trial is known.
    """

    backend: str
    _reason: str
    settled: bool = False
    _seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def why(self) -> str:
        taken = ", ".join(f"{name} {_told(time)}" for name, time in self._seconds.items())
        return f"{self._reason}: {taken}" if taken else self._reason


def choose(work: Work, measured: Measurements, starts: Mapping[str, float]) -> Choice:
    """The backend of the next call.

    Nothing is begun before it could have paid: a backend that must be started is tried when the
    time that it might have saved is as long as its start. So a program never takes more than twice
    what it would if the future were known, as who rents skis until he has paid their price [1]_.

    Parameters
    ----------
    work : Work
    measured : Measurements
        What calls like this one have taken.
    starts : mapping
        The backends that can run it, and the seconds that each takes to start, now.

    References
    ----------
    .. [1] A. Karlin, M. Manasse, L. Rudolph, D. Sleator, "Competitive snoopy caching",
       Algorithmica 3 (1988), 79-119.
    """
    if len(starts) == 1:
        return Choice(next(iter(starts)), "no other backend can run it", settled=True)
    best = measured.best(starts)
    if best is None:
        return _first(work, starts)
    for name in ("serial", "threads", "processes"):
        if name in starts and not measured.is_known(name):
            if name == best[0]:
                return _because(name, "measured again", measured, starts)
            if _is_worth_it(name, work, measured, best[1], starts[name]):
                return _because(name, "tried, for it may be quicker", measured, starts)
    serial = measured.least("serial")
    if best[0] != "serial" and serial is not None and serial < ALIKE * best[1]:
        return _because("serial", "as quick as any, on one core", measured, starts, settled=True)
    return _because(best[0], "the quickest of calls like it", measured, starts, settled=True)


def _first(work: Work, starts: Mapping[str, float]) -> Choice:
    """The choice where nothing was measured yet."""
    if "serial" not in starts:
        return Choice("threads", "a first guess: no start to wait for")
    size, guessed = f"{work.nbytes} bytes", cost_model.guess(work)
    shared = cost_model.bound("threads", guessed, work)
    if work.kind != "python" and starts.get("threads") == 0 and shared < WORTH * guessed:
        return Choice("threads", f"a first guess: {size} are enough for several cores")
    if work.kind == "python":
        return Choice("serial", "a first guess: Python may hold the GIL")
    return Choice("serial", f"a first guess: {size} may be too few, or threads are not started")


def _is_worth_it(name: str, work: Work, measured: Measurements, best: float, start: float) -> bool:
    """Whether a backend might win, and could have saved the time of its start by now."""
    if name == "serial":  # which costs nothing to begin, and nobody may be slower than
        return True
    serial = measured.least("serial")
    if serial is None:  # it can't run it; the GIL lets threads share nothing but machine code
        serial = best * (1 if work.kind == "python" else work.parts)
    least = cost_model.bound(name, serial, work)
    if least >= WORTH * best:
        return False
    return measured.total * (1 - least / best) >= start


def _because(
    name: str,
    reason: str,
    measured: Measurements,
    starts: Mapping[str, float],
    *,
    settled: bool = False,
) -> Choice:
    taken = {one: time for one in starts if (time := measured.least(one)) is not None}
    return Choice(name, reason, settled, taken)


def _told(seconds: float) -> str:
    """A time as people read it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
