"""`Rung`: a worker that is rung for."""

from __future__ import annotations

from collections.abc import Iterable

from shmcompute import machine
from shmcompute.arguments import Number
from shmcompute.backends import doorbell
from shmcompute.backends.processes.channel import Channel, Failure, Loaded, Packed
from shmcompute.backends.processes.packing import pack_error
from shmcompute.backends.processes.place import Place
from shmcompute.backends.processes.worker import Worker


class Rung(Worker):
    """A worker that is rung for: machine code answers by itself the rings that it can."""

    def __init__(self, channel: Channel, place: Place) -> None:
        super().__init__(channel)
        doorbell.prepare()
        self._block, self._seat = place.taken()
        self._kinds: dict[int, tuple[type[Number], ...]] = {}
        self._compilations = machine.Compilations()

    def _turn(self) -> bool:
        try:
            number = self._seat.wait()
        except BaseException as error:  # noqa: BLE001  # a kernel's, from machine code
            number = self._seat.plan
            self._plans[number].blame(error, self._seat.current)
            self._answer(pack_error(self._seat.current, error))
            return True
        if number != doorbell.NOTE:
            self._answer(self._rung(number))
            return True
        return super()._turn()

    def _reply(self, message: object) -> object:
        reply = super()._reply(message)
        self._seat.compiled(self._compilations.count)
        self._seat.answer()  # before the reply: who has that finds this worker silent
        return reply

    def _claims(self, number: int) -> bool:
        return self._seat.claim(number)

    def _load(self, number: int, packed: Packed, stale: Iterable[int]) -> Loaded:
        answer = super()._load(number, packed, stale)
        if answer.failure is None:
            self._kinds[number] = packed.kinds
            self._tabulate(number)
        return answer

    def _tabulate(self, number: int) -> None:
        frame = self._plans[number].frame
        if frame is not None:
            self._seat.table.put(number, frame)

    def _rung(self, number: int) -> Failure | None:
        """Run by Python what was rung for."""
        plan = self._plans[number]
        if number not in self._seat.table:  # another one had its place
            self._tabulate(number)
        try:
            self._seat.run(plan, self._block.told(self._kinds[number]))
        except BaseException as error:  # noqa: BLE001  # sys.exit() in a kernel, too
            return pack_error(self._seat.current, error)
        return None

    def _answer(self, failure: Failure | None) -> None:
        """Say that this worker writes no more, and what went wrong."""
        self._seat.compiled(self._compilations.count)
        self._seat.answer()
        if failure is not None:  # after: who reads it knows from the bell that it is to come
            self._channel.send(failure)

    def _drop(self, stale: Iterable[int]) -> None:
        super()._drop(stale)
        for number in stale:
            self._kinds.pop(number, None)
            self._seat.table.drop(number)
