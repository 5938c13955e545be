"""The topic of tasks: pools as executors, against the standard library's."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import shmcompute as sc
from benchmarks.bars.speed import WORKERS
from benchmarks.bars.turns import ratio, turns

TASKS = 10_000


def nothing(number):
    return number


def tasks():
    """10 000 tasks that do nothing, each by itself."""
    for method in ("forkserver", "fork", "spawn"):
        context = multiprocessing.get_context(method)
        with (
            ProcessPoolExecutor(WORKERS, mp_context=context) as theirs,
            sc.Pool(WORKERS, start_method=context) as ours,
        ):
            ways = {"Pool": _mapped(ours), "ProcessPoolExecutor": _mapped(theirs)}
            found = turns(ways, 3, dict.fromkeys(ways, lambda: None))
        what = f"map of {TASKS} tiny tasks, {method}"
        yield ratio(what, found, "Pool", "ProcessPoolExecutor", 0.7)


def _mapped(executor):
    def run():
        for _ in executor.map(nothing, range(TASKS)):
            pass

    run()
    return run
