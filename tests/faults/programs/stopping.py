"""``stopping.py TIMES SEED``: a process that takes from one queue and puts into another is stopped.

Prints a line for each time: the seconds that the longest step with a time-out took beyond it, how
many items were not the next ones.
"""

import multiprocessing
import os
import random
import signal
import sys
import time

import numpy as np

import shmcompute as sc
from shmcompute.errors import QueueClosedError, QueueEmptyError, QueueFullError

PATIENCE = 0.02  # seconds


def echo(source, target):
    """Pass on what comes, until no more does."""
    while True:
        try:
            item = source.get()
        except QueueClosedError:
            break
        target.put(item)


def main(times, seed):
    """Put and get while the other process is stopped somewhere, then let it go on."""
    dice, put, got = random.Random(seed), 0, 0
    with sc.ArrayQueue(2, "f8", 3) as source, sc.ArrayQueue(2, "f8", 3) as target:
        other = multiprocessing.get_context("fork").Process(target=echo, args=(source, target))
        other.start()
        for _ in range(times):
            longest, wrong = 0.0, 0
            stop = dice.randrange(1, 60)
            for step in range(80):
                if step == stop:
                    os.kill(other.pid, signal.SIGSTOP)
                if step == 75:
                    os.kill(other.pid, signal.SIGCONT)
                if step > stop + 6 and step < 75:
                    continue
                began = time.monotonic()
                try:
                    if dice.random() < 0.5:
                        source.put(np.full(2, float(put)), timeout=PATIENCE)
                        put += 1
                    else:
                        item = target.get(timeout=PATIENCE)
                        wrong += not (item == got).all()
                        got += 1
                except (QueueFullError, QueueEmptyError):
                    pass
                longest = max(longest, time.monotonic() - began - PATIENCE)
            print(longest, wrong, flush=True)
        source.close()
        while got < put:
            assert (target.get(timeout=60) == got).all()
            got += 1
        other.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
