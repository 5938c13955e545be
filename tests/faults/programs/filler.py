"""``filler.py MEBIBYTES COUNT METHOD``: arrays of sizes around what a /dev/shm of that size takes.

Prints a line for each size: whether it had room, untyped errors, wrong results, segments left.
"""

import os
import random
import sys
import warnings

import numpy as np

import shmcompute as sc


def add(x):
    x += 1


def written(arr, pool):
    """Whether each element is what it should be after a run of workers."""
    arr[:] = 1
    sc.parallel_apply(add, arr, pool=pool)
    return bool((arr.array == 2).all())


def tried(size, storage, pool):
    """What became of an array of that size: room, full or an untyped error; and if it is wrong."""
    try:
        with sc.SharedArray.empty(size, np.uint8, storage=storage) as arr:
            return "room", not written(arr, pool)
    except sc.errors.StorageFullError:
        return "full", False
    except Exception as error:
        print(type(error), error, file=sys.stderr)
        return "untyped", False


def main(mebibytes, count, method):
    dice = random.Random(f"{mebibytes} {method}")
    room = int(mebibytes) << 20
    warnings.simplefilter("ignore", RuntimeWarning)  # of the fallback
    with sc.Pool(2, start_method=method) as pool:
        for _ in range(int(count)):
            names = set(os.listdir("/dev/shm"))
            taken = dice.choice([0, dice.randrange(room)])
            kept = sc.SharedArray.full(taken, 7, np.uint8) if taken else None
            size = max(1, room - taken + dice.choice([0, -1, 1, dice.randint(-99_999, 99_999)]))
            first, wrong = tried(size, "shm", pool)
            other, also_wrong = tried(size, "auto", pool)
            untyped = (first, other).count("untyped") + (other == "full")
            intact = kept is None or bool((kept.array == 7).all())
            if kept is not None:
                kept.close()
            sc.shutdown()
            left = len(set(os.listdir("/dev/shm")) - names)
            print(first, untyped, wrong + also_wrong + (not intact), left, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
