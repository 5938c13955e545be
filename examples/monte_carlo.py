"""The price of an option by Monte Carlo: the same seed gives the same price, whoever computes it.

`parallel_for` cuts a range of numbers; `rng` gives each chunk a generator of its own, made of the
seed and the chunk's number, and `per_chunk` an output of its own. So neither the number of workers
nor the backend matters, to the last bit. The price is an Asian option's: of the mean of a path.
"""

import numba as nb
import numpy as np

import shmcompute as sc

SPOT, STRIKE, RATE, VOLATILITY, YEARS, STEPS = 100.0, 105.0, 0.03, 0.2, 1.0, 12
PATHS, SEED = 400_000, 2024


@nb.njit
def simulate(first, last, sums, rng):
    step = YEARS / STEPS
    drift, spread = (RATE - VOLATILITY**2 / 2) * step, VOLATILITY * np.sqrt(step)
    for _ in range(first, last):
        log, mean, geometric = np.log(SPOT), 0.0, 0.0
        for _ in range(STEPS):
            log += drift + spread * rng.standard_normal()
            mean += np.exp(log) / STEPS
            geometric += log / STEPS
        payoff = max(mean - STRIKE, 0.0)
        sums[0] += payoff
        sums[1] += payoff**2
        sums[2] += geometric


def price(seed, **options):
    outputs = sc.per_chunk(3)
    with sc.parallel_for(simulate, 0, PATHS, outputs, sc.rng(seed), **options) as sums:
        payoff, square, geometric = sums.array.sum(axis=0) / PATHS
    discount = np.exp(-RATE * YEARS)
    return discount * payoff, discount * np.sqrt((square - payoff**2) / PATHS), geometric


estimate, error, geometric = price(SEED)
print(f"price of the option: {estimate:.3f} +- {error:.3f}")
print(f"serially the same: {price(SEED, backend='serial') == (estimate, error, geometric)}")
print(f"with another seed: {price(SEED + 1)[0]:.3f}")

# What is known exactly: the mean of a path's logarithm.
months = np.arange(1, STEPS + 1) * YEARS / STEPS
expected = np.log(SPOT) + (RATE - VOLATILITY**2 / 2) * months.mean()
print(f"paths drift as they should: {abs(geometric - expected) < 1e-3}")
