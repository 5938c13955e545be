"""`Measurements`: what calls that are alike have taken, on each backend."""

from __future__ import annotations

from collections.abc import Container

RECENT = 5  # samples of a backend that count
ENOUGH = 3  # samples that settle what a backend takes,
LONG = 0.05  # of calls that are shorter than this; of longer ones, a single sample does
WARM = 2e-3  # seconds after which a backend is as quick as it gets: cores and caches are its own
LOSER = 1.5  # times the best: who takes so long twice is out

SHARE = 0.01  # of all time may go into looking again at backends that were slower,
DRIFT_SHARE = 0.1  # or this, when the quickest takes another time than it did
DRIFT = 1.5  # so many times as long, or as short
LEAST = 0.1  # of a call's time: what a trial costs at least,
MEASURING = 3e-5  # and the seconds that it takes to choose, to measure, and to wake workers


class Measurements:
    """The latest samples of each backend, and for how long its choice has held.

    Several threads may add to one: a sample is lost at worst.

    Attributes
    ----------
    total : float
        Seconds of all calls.
    spent : float
        Seconds of all calls since the others were looked at.
    """

    def __init__(self) -> None:
        # Replaced, never changed: who reads one while another thread adds sees it whole.
        self._samples: dict[str, tuple[float, ...]] = {}
        self._seen: set[str] = set()
        self._latest: str | None = None  # which backend had the latest call,
        self._stretch = 0.0  # and seconds of all calls since another one had one
        self._reference: float | None = None  # what the best took when all were known
        self.total = 0.0
        self.spent = 0.0

    def add(self, backend: str, seconds: float, calls: int = 1) -> None:
        """A call took so long; `calls` of them, it is guessed, since the last that was measured."""
        self.total += seconds * calls
        self.spent += seconds * calls
        if not self._is_cold(backend, seconds) or self._is_least(backend, seconds):
            samples = self._samples
            latest = (*samples.get(backend, ()), max(seconds, 1e-9))[-RECENT:]
            self._samples = {**samples, backend: latest}
        self._seen.add(backend)
        self._stretch = seconds * calls + (self._stretch if backend == self._latest else 0.0)
        self._latest = backend

    def to_warm(self, seconds: float) -> int:
        """How many calls of that length the latest backend needs to be as quick as it gets."""
        return max(0, int((WARM - self._stretch) / max(seconds, 1e-6)))

    def _is_cold(self, backend: str, seconds: float) -> bool:
        """Whether a sample says little: workers wake up; at first they map memory and load code."""
        warming = backend != self._latest or self._stretch < WARM
        return (warming and seconds < LONG) or (
            backend not in self._seen and (backend != "serial" or not self._seen)
        )

    def _is_least(self, backend: str, seconds: float) -> bool:
        """Whether a sample says more than those that there are, however it came."""
        least = self.least(backend)
        return least is not None and seconds < least

    def least(self, backend: str) -> float | None:
        """The least of its latest samples: whatever else runs meanwhile only adds to them."""
        return min(self._samples.get(backend, ()), default=None)

    def best(self, among: Container[str] | None = None) -> tuple[str, float] | None:
        """The quickest backend of those that were measured, and its time."""
        samples = self._samples.items()
        known = [(min(one), name) for name, one in samples if among is None or name in among]
        return min(known)[::-1] if known else None

    def is_known(self, backend: str) -> bool:
        """Whether a backend has been tried enough."""
        samples = self._samples.get(backend)
        if not samples:
            return False
        least, best = min(samples), self.best()
        if best is None:  # another thread looks again, just now
            return False
        loses = len(samples) > 1 and best[0] != backend and least > LOSER * best[1]
        return len(samples) >= ENOUGH or loses or least > LONG

    def settle(self) -> None:
        """All that is worth a trial is known: from here on look whether it stays so."""
        best = self.best()
        if best is None:
            return
        reference = self._reference
        if reference is None:
            self._reference, self.spent = best[1], 0.0
            return
        drifted = not 1 / DRIFT < best[1] / reference < DRIFT
        if 0 < self._price(*best) < self.spent * (DRIFT_SHARE if drifted else SHARE):
            self._look_again(best[0])

    def _price(self, best: str, seconds: float) -> float:
        """The seconds that it would cost to look at the others again; 0 if none was tried."""
        others = [min(one) for name, one in self._samples.items() if name != best]
        measured = [max(time - seconds, LEAST * seconds) + MEASURING for time in others]
        warmed = [WARM * max(1 - seconds / time, LEAST) for time in others]
        return (ENOUGH + 1) * sum(measured) + sum(warmed)

    def _look_again(self, best: str) -> None:
        self._samples = {name: one for name, one in self._samples.items() if name == best}
        self._reference, self.spent = None, 0.0
