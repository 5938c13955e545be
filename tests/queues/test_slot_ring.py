"""The words of a queue, against a model in plain Python: what each step answers and leaves."""

from __future__ import annotations

import ctypes
import random
import threading
from collections import deque

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.queues import slot_ring
from shmcompute.queues.slot_ring import BUSY, ENDED, FREE, NOTHING

COUNT = 4
ME, OTHER = 11, 12


class Ring:
    """The words of `COUNT` slots in memory of its own."""

    def __init__(self):
        self.words = np.zeros(slot_ring.bytes_for(COUNT) // 8, np.int64)
        self.base = self.words.__array_interface__["data"][0]
        slot_ring.rebuild(self.base, COUNT)

    def __getitem__(self, at):
        return int(self.words[at // 8])

    def __setitem__(self, at, value):
        self.words[at // 8] = value

    def slot(self, number):
        return self[slot_ring.SLOTS + 8 * number]

    def __call__(self, step, *args, me=ME):
        return getattr(slot_ring, step)(self.base, COUNT, me, *args)


class Model:
    """The same with deques. A slot is published under a ticket, and keeps it when put back."""

    def __init__(self):
        self.free, self.ready = deque(range(COUNT)), deque()
        self.held = {}  # by slot: its holder, whether he is to publish it
        self.tickets, self.closed = {}, False

    def reserve(self, me):
        if self.closed or not self.free:
            return ENDED if self.closed else NOTHING
        self.held[slot := self.free.popleft()] = me, True
        return slot

    def take(self, me):
        if not self.ready:
            waits = any(publishes or holder != me for holder, publishes in self.held.values())
            return ENDED if self.closed and not waits else NOTHING
        self.held[slot := self.ready.popleft()] = me, False
        return slot

    def publish(self, slot):
        del self.held[slot]
        self.tickets[slot] = max(self.tickets.values(), default=0) + 1
        self.ready.append(slot)

    def give_back(self, slot):
        del self.held[slot]
        self.free.append(slot)

    def put_back(self, slot):
        del self.held[slot]
        self.ready.append(slot)
        self._rebuilt()

    def reclaim(self, dead):
        slots = [slot for slot, (holder, _) in self.held.items() if holder == dead]
        for slot in slots:
            self.give_back(slot)
        self._rebuilt()
        return len(slots)

    def _rebuilt(self):
        self.free = deque(sorted(self.free))
        self.ready = deque(sorted(self.ready, key=self.tickets.get))


@pytest.mark.parametrize("seed", range(30))
def test_each_step_is_that_of_a_model(seed):
    rng, ring, model = random.Random(seed), Ring(), Model()
    for _ in range(200):
        me = rng.choice([ME, OTHER])
        held = [(slot, told) for slot, (holder, told) in model.held.items() if holder == me]
        step = rng.choice(["reserve", "take", "end", "end", "reclaim", "close"])
        events = ring[slot_ring.ITEMS], ring[slot_ring.SPACE]
        if step in ("reserve", "take"):
            assert ring(step, me=me) == getattr(model, step)(me)
        elif step == "end" and held:
            slot, publishes = rng.choice(held)
            step = rng.choice(["publish", "give_back"] if publishes else ["give_back", "put_back"])
            ring[slot_ring.GETTERS], ring[slot_ring.PUTTERS] = 3, 5
            none = [rng.randrange(2)] if step == "publish" else []
            assert ring(step, slot, *none, me=me) == (5 if step == "give_back" else 3)
            getattr(model, step)(slot)
            grown = slot_ring.SPACE if step == "give_back" else slot_ring.ITEMS
            assert ring[grown] > events[grown == slot_ring.SPACE]
            if none:
                assert ring.slot(slot) % 2 == none[0]
        elif step == "reclaim" and rng.random() < 0.2:
            assert ring(step, me) == model.reclaim(me)
            assert ring[slot_ring.ITEMS] > events[0]
            assert ring[slot_ring.SPACE] > events[1]
        elif step == "close" and rng.random() < 0.02:
            slot_ring.close(ring.base)
            model.closed = True
            assert ring[slot_ring.ITEMS] > events[0]
            assert ring[slot_ring.SPACE] > events[1]
        assert ring[slot_ring.LOCK] == 0
        assert ring[slot_ring.READY_TO] - ring[slot_ring.READY_FROM] == len(model.ready)
        assert ring[slot_ring.FREE_TO] - ring[slot_ring.FREE_FROM] == len(model.free)
        first = slot_ring.holder(ring.base, COUNT, 0)
        slots = sorted(model.held)
        assert first == ((model.held[slots[0]][0], slots[0]) if slots else (0, COUNT))


@pytest.mark.parametrize(
    ("step", "args"),
    [
        ("reserve", ()),
        ("take", ()),
        ("publish", (0, 0)),
        ("give_back", (0,)),
        ("put_back", (0,)),
        ("reclaim", (OTHER,)),
    ],
)
def test_a_step_that_finds_the_lock_taken_changes_nothing(step, args):
    ring = Ring()
    ring[slot_ring.LOCK] = OTHER
    before = ring.words.copy()
    assert ring(step, *args) == BUSY
    np.testing.assert_array_equal(ring.words, before)


def test_the_lock_of_a_dead_holder_is_seized_once_and_its_slots_are_free():
    ring = Ring()
    assert ring("reserve", me=OTHER) == 0
    ring[slot_ring.LOCK] = OTHER
    assert not ring("seize", 99)  # somebody else's by now
    assert ring.slot(0) != FREE
    assert ring("seize", OTHER)
    assert not ring("seize", OTHER)
    assert ring.slot(0) == FREE
    assert ring[slot_ring.LOCK] == 0


@pytest.fixture
def queue():
    with sc.ArrayQueue(1, "f8", 2) as queue:
        yield queue


def test_a_table_says_whether_it_is_closed(queue):
    assert queue._table.closed is False
    queue.close()
    assert queue._table.closed is True


def test_who_finds_nothing_sleeps_on_the_word_that_tells_of_it(queue, monkeypatch):
    parked = []

    def park(address, *_):
        parked.append(address - queue._table.base)
        if len(parked) == 1:
            queue.put([1.0])

    monkeypatch.setattr(slot_ring, "park", park)
    assert queue.get(timeout=60).tolist() == [1.0]
    assert parked == [slot_ring.ITEMS]


def _woken(monkeypatch):
    woken = []
    for name in ("wake_one", "wake_everybody"):
        monkeypatch.setattr(slot_ring, name, lambda address, name=name: woken.append(name))
    return woken


def test_one_sleeper_is_woken_by_what_is_put_and_none_where_none_sleeps(queue, monkeypatch):
    woken = _woken(monkeypatch)
    queue.put([1.0])
    assert not woken
    monkeypatch.setattr(slot_ring, "publish", lambda *_: 1)
    with queue.reserve():
        pass
    assert woken == ["wake_one"]


def test_all_are_woken_when_a_closed_queue_loses_what_they_waited_for(queue, monkeypatch):
    with queue.reserve():
        queue.close()
        woken = _woken(monkeypatch)
    assert woken == ["wake_everybody"] * 2


def test_all_are_woken_when_the_lock_was_that_of_a_dead_process(queue, monkeypatch):
    table, woken = queue._table, _woken(monkeypatch)
    me = table.participant()
    monkeypatch.setattr(type(me), "knows_dead", lambda self, token: token == OTHER)
    ctypes.c_int64.from_address(table.base + slot_ring.LOCK).value = OTHER
    queue.put([1.0])
    assert woken == ["wake_everybody"] * 2


@pytest.mark.parametrize("polls", [0, 1])
def test_who_sleeps_is_counted_and_sleeps_until_the_word_is_another(polls):
    ring = Ring()
    at, seen = slot_ring.ITEMS, ring[slot_ring.ITEMS]
    args = ring.base + at, seen, 60_000_000_000, polls
    thread = threading.Thread(target=slot_ring.park, args=args)
    thread.start()
    while not ring[slot_ring.GETTERS]:
        pass
    ring[at] = seen + 1
    slot_ring.wake_everybody(ring.base + at)
    thread.join(30)
    assert not thread.is_alive()
    assert ring[slot_ring.GETTERS] == 0
