"""Squares by `map`, products by `starmap`, and a lazy `imap`."""

import multiprocessing
from itertools import islice
from operator import mul

import shmcompute as sc


def square(number):
    return number * number


def show(pool):
    """What both pools do, by the same names."""
    print(list(pool.map(square, range(10))))
    print(pool.starmap(mul, [(2, 3), (4, 5), (6, 7)]))
    squares = pool.imap(square, range(1000), chunksize=100)
    print(list(islice(squares, 5)), "...", sum(squares))


if __name__ == "__main__":  # the standard library's form needs this guard; ours does not
    with multiprocessing.Pool(2) as pool:
        show(pool)
    with sc.Pool(2) as pool:  # whose map is an executor's: an iterator
        show(pool)
