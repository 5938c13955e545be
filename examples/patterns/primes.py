"""Primes between 100 000 and 101 000, by an executor."""

from concurrent.futures import ProcessPoolExecutor
from math import isqrt

import shmcompute as sc

NUMBERS = range(100_000, 101_000)


def is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def standard_library():
    with ProcessPoolExecutor() as executor:
        found = executor.map(is_prime, NUMBERS, chunksize=100)
        return [number for number, prime in zip(NUMBERS, found, strict=True) if prime]


def with_shmcompute():
    with sc.Pool() as executor:  # it is a concurrent.futures.Executor, too
        found = executor.map(is_prime, NUMBERS, chunksize=100)
        return [number for number, prime in zip(NUMBERS, found, strict=True) if prime]


if __name__ == "__main__":  # the standard library's form needs this guard; ours does not
    for primes in (standard_library(), with_shmcompute()):
        print(f"{len(primes)} primes: {primes[0]}, {primes[1]}, ... {primes[-1]}")
