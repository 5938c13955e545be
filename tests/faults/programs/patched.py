"""``patched.py LIBRARY SEED``: all features in random order, in a program that LIBRARY has patched.

Prints a line for each: its name, whether the result was wrong.
"""

import random
import sys
import warnings

warnings.simplefilter("ignore")
if sys.argv[1] == "gevent":
    from gevent import monkey

    monkey.patch_all()
else:
    import eventlet

    eventlet.monkey_patch()

import threading  # noqa: E402

import numpy as np  # noqa: E402

import shmcompute as sc  # noqa: E402

STEPS = 30


def add(x):
    """A kernel in Python."""
    x += 1


def call(pool, arr, _):
    before = arr.array.copy()
    sc.parallel_apply(add, arr, pool=pool)
    return (arr.array == before + 1).all()


def tasks(pool, _, __):
    return list(pool.map(abs, range(-9, 0))) == list(range(9, 0, -1))


def beside(pool, arr, queue):
    """A call in another thread, or greenlet, while this one waits for what it puts."""

    def work():
        call(pool, arr, queue)
        queue.put(np.full(3, 7.0))

    thread = threading.Thread(target=work)
    thread.start()
    item = queue.get(timeout=60)
    thread.join()
    return (item == 7).all()


def locked(_, arr, __):
    with arr.lock(timeout=60):
        arr[0] = 5
    return arr[0] == 5


def ends(pool, _, __):
    try:
        pool.submit(divmod, 1, 0).result()
    except ZeroDivisionError:
        return True
    return False


def main(seed):
    """Each feature on each backend."""
    dice = random.Random(seed)
    with (
        sc.SharedArray(np.zeros(64)) as arr,
        sc.ArrayQueue(3, "f8", slots=1) as queue,
        sc.Pool(2) as processes,
        sc.Pool(2, backend="threads") as threads,
    ):
        for _ in range(STEPS):
            step = dice.choice([call, tasks, beside, locked, ends])
            right = step(dice.choice([processes, threads]), arr, queue)
            print(step.__name__, int(not right), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[2]))
