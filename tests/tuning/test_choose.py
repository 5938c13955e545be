"""The choice, by times that are made up: nothing here is measured."""

import random
import sys
import threading

import pytest

from shmcompute.tuning import START, Record, Work, choose
from shmcompute.tuning.cost_model import bound
from shmcompute.tuning.measurements import Measurements

ALL = dict.fromkeys(("serial", "threads", "processes"), 0.0)


def simulate(work, times, calls, starts=ALL):
    """Where so many calls go that take these times."""
    record = Record(work)
    return record, run(record, times, calls, starts)


def run(record, times, calls, starts=ALL):
    """The choices of so many calls; some are not measured."""
    gone, left = [], 0
    for _ in range(calls):
        if left:
            left -= 1
        else:
            choice = record.choose(starts)
            left = record.add(choice, times[choice.backend])
        gone.append(choice)
    return gone


def settle(work, times):
    """The first choice that all is known for, and the seconds that calls have taken until then."""
    record, taken = Record(work), 0.0
    while not (choice := record.choose(ALL)).settled:
        calls = 1 + record.add(choice, times[choice.backend])
        taken += calls * times[choice.backend]
    return choice, taken


def test_the_quickest_is_found_in_a_handful_of_calls_or_milliseconds():
    """Whatever times there are that the bounds allow, and for each kind of kernel."""
    for seed in range(300):
        rng = random.Random(seed)
        work = Work(rng.choice(["native", "ufunc", "python"]), rng.randrange(1 << 28), 2)
        serial = 10 ** rng.uniform(-6, 1)
        times = {"serial": serial} | {
            name: bound(name, serial, work) * rng.choice([1, 1.1, 1.5, 3, 20])
            for name in ("threads", "processes")
        }
        choice, taken = settle(work, times)
        assert taken < 16 * max(times.values()) + 0.01, (seed, times)
        assert times[choice.backend] <= min(times.values()) / 0.9, (seed, times)


def test_other_programs_for_a_moment_mislead_nobody():
    """Two of three samples of the quickest come while others take its cores."""
    held_up = iter([6e-4, 3e-3, 6e-4, 3e-3])  # the first counts for nothing

    class Times(dict):
        def __getitem__(self, backend):
            return next(held_up, 6e-4) if backend == "threads" else super().__getitem__(backend)

    times = Times(serial=1e-3, threads=None, processes=2e-3)
    _, gone = simulate(Work("native", 1 << 23, 2), times, 20)
    assert gone[-1].backend == "threads"


def test_long_calls_are_tried_once_each_when_their_memory_is_touched():
    times = {"serial": 4.0, "threads": 4.4, "processes": 2.1}
    _, gone = simulate(Work("python", 1 << 20, 2), times, 7)
    assert [one.backend for one in gone] == ["serial"] * 2 + ["threads"] * 2 + ["processes"] * 3


def test_what_cannot_win_is_not_tried():
    """Handing out takes longer than the whole call."""
    times = {"serial": 1e-6, "threads": 1e-9, "processes": 1e-9}
    _, gone = simulate(Work("native", 128, 2), times, 20)
    assert {one.backend for one in gone} == {"serial"}


def test_threads_that_would_hold_the_gil_are_tried_for_long_calls_only():
    short, long = {"serial": 1e-4, "threads": 1e-5}, {"serial": 1e-2, "threads": 5e-3}
    starts = dict.fromkeys(short, 0.0)
    assert simulate(Work("python", 8, 2), short, 20, starts)[1][-1].backend == "serial"
    assert simulate(Work("python", 8, 2), long, 20, starts)[1][-1].backend == "threads"


def test_a_single_part_stays_serial():
    times = {"serial": 1.0, "threads": 1.0, "processes": 1.0}
    _, gone = simulate(Work("native", 1 << 20, 1), times, 10)
    assert {one.backend for one in gone} == {"serial"}


@pytest.mark.parametrize(
    ("work", "backend"),
    [
        (Work("native", 1 << 26, 2), "threads"),
        (Work("ufunc", 1 << 26, 2), "threads"),
        (Work("native", 1 << 7, 2), "serial"),
        (Work("python", 1 << 26, 2), "serial"),
    ],
)
def test_the_first_guess_is_by_bytes_and_kind(work, backend):
    choice = choose(work, Measurements(), ALL)
    assert (choice.backend, choice.settled) == (backend, False)
    assert choice.why.startswith("a first guess")


def test_nothing_is_started_before_it_could_have_paid():
    """Calls of a second, half of which workers might save: the start's price is lost by the second.

    With a price that is never reached, nothing is ever started.
    """
    times = {"serial": 1.0, "processes": 0.5}
    _, gone = simulate(Work("python", 8, 2), times, 6, {"serial": 0.0, "processes": 0.7})
    assert [one.backend for one in gone[:3]] == ["serial", "serial", "processes"]
    quick = {"serial": 1e-3, "processes": 5e-4}
    _, gone = simulate(Work("python", 8, 2), quick, 100, {"serial": 0.0, "processes": 0.7})
    assert {one.backend for one in gone} == {"serial"}


def test_waiting_for_a_start_costs_at_most_as_much_as_the_start():
    for seed in range(50):
        rng = random.Random(seed)
        serial = 10 ** rng.uniform(-3, 0)
        starts = {"serial": 0.0, "processes": START["processes"]}
        work = Work("python", 8, 2)
        best = bound("processes", serial, work)
        calls = int(2 * START["processes"] / (serial - best)) + 20
        _, gone = simulate(work, {"serial": serial, "processes": best}, calls, starts)
        lost = sum(serial - best for one in gone if one.backend == "serial")
        assert lost <= 1.05 * START["processes"] + 3 * serial, seed
        assert gone[-1].backend == "processes"


def test_the_quickest_changes_with_its_time():
    """The others are looked at again when it takes another time than it did."""
    work = Work("native", 1 << 20, 2)
    record, gone = simulate(work, {"serial": 2e-4, "threads": 1.1e-4, "processes": 3e-4}, 20)
    assert gone[-1].backend == "threads"
    gone = run(record, {"serial": 2e-5, "threads": 6e-5, "processes": 3e-4}, 20_000)
    assert gone[-1].backend == "serial"


def test_others_are_looked_at_again_though_nothing_has_changed_for_the_quickest():
    """Cores may have become free: but it takes a hundredth of the time at most."""
    work, busy = Work("native", 1 << 20, 2), {"serial": 1e-3, "threads": 2e-3, "processes": 2e-3}
    record, _ = simulate(work, busy, 20)
    gone = run(record, {"serial": 1e-3, "threads": 6e-4, "processes": 2e-3}, 3000)
    assert gone[-1].backend == "threads"
    _, gone = simulate(work, busy, 5000)
    taken = sum(busy[one.backend] for one in gone)
    assert taken < 5000 * busy["serial"] * 1.02


def test_one_core_is_enough_where_two_are_hardly_quicker():
    times = {"serial": 1.0e-3, "threads": 0.97e-3, "processes": 1.2e-3}
    assert simulate(Work("native", 1 << 20, 2), times, 40)[1][-1].backend == "serial"


def test_what_is_refused_is_chosen_no_more_though_it_was_the_quickest():
    times = {"serial": 1e-3, "threads": 1e-3, "processes": 5e-4}
    record, gone = simulate(Work("native", 1 << 20, 2), times, 20)
    assert gone[-1].backend == "processes"
    record.refused["processes"] = "a plain array came"
    assert record.choose(ALL).backend == "serial"


def test_short_calls_are_measured_now_and_then():
    """Three in a row, of which the first leaves the caches of the others behind."""
    record, gone = simulate(Work("native", 8, 2), {"serial": 1e-5}, 1000, {"serial": 0.0})
    left = sorted(record.add(gone[-1], 1e-5) for _ in range(3))
    assert left == [0, 0, pytest.approx(1000, abs=1)]
    long, gone = simulate(Work("native", 8, 2), {"serial": 1e-1}, 10, {"serial": 0.0})
    assert long.add(gone[-1], 1e-1) == 0


def test_calls_that_kill_their_worker_are_run_by_workers_alone():
    record, _ = simulate(Work("native", 8, 2), {"serial": 1e-5, "threads": 1e-5}, 10)
    record.keep_apart("it crashed")
    choice = record.choose(ALL)
    assert (choice.backend, choice.settled) == ("processes", True)


def test_the_reason_tells_the_times():
    times = {"serial": 2e-2, "threads": 1.1e-4, "processes": 3.0}
    record, gone = simulate(Work("native", 1 << 26, 2), times, 60)
    assert gone[-1].why == "the quickest of calls like it: serial 20 ms, threads 110 µs"


def test_asking_changes_nothing():
    work, times = Work("native", 1 << 20, 2), {"serial": 1e-3, "threads": 6e-4, "processes": 1e-3}
    asked, plain = Record(work), Record(work)
    for _ in range(300):
        for _ in range(3):
            choice = asked.choose(ALL)
        assert choice == plain.choose(ALL)
        for record in (asked, plain):
            record.add(choice, times[choice.backend])


def test_threads_that_add_to_one_record_meet_no_error_of_ours():
    record, errors = Record(Work("native", 1 << 20, 2)), []

    def calls(seed):
        rng = random.Random(seed)
        try:
            for _ in range(3000):
                choice = record.choose(ALL)
                record.add(choice, rng.choice([1e-2, 2e-2, 4e-2]))
        except Exception as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=calls, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors
