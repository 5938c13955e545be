"""`rng`: a random number generator for each chunk, and why no other one is taken."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

FEW = 100  # elements of a container that are looked at
_KINDS = (np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)


@dataclass(frozen=True)
class Rng:
    """A generator of each chunk's own."""

    entropy: Hashable  # as `numpy.random.SeedSequence` takes it
    spawn_key: tuple[int, ...] = ()
    pool_size: int = 4
    first: int = 0  # how many children its sequence had before

    def generator(self, *key: int) -> np.random.Generator:
        """That of the chunk, or other part of the work, which this key names."""
        first, *more = key
        child = (*self.spawn_key, self.first + first, *more)
        entropy: Any = self.entropy
        sequence = np.random.SeedSequence(entropy, spawn_key=child, pool_size=self.pool_size)
        return np.random.default_rng(sequence)


@dataclass(frozen=True)
class SweptRng:
    """A generator of each chunk's own, and of each sweep's: the sweep is a number of the call."""

    rng: Rng
    link: int  # which of the sweep's kernels draws from it


def rng(seed: Any) -> Rng:
    """Give each chunk a `numpy.random.Generator` of its own, made of this seed.

    Chunks are then cut by length alone: the same seed gives the same numbers for any number of
    workers, on any backend. Another `chunksize` gives others. The generator of chunk `i` is
    ``default_rng(SeedSequence(seed).spawn(n)[i])``; in a chain each link after the first has one
    that is spawned from it, so that no two links draw the same numbers, and in `parallel_iterate`
    each sweep after the first has one that is spawned from its link's.

    Parameters
    ----------
    seed : int, sequence of int, SeedSequence or None
        What `numpy.random.SeedSequence` takes, or one; None makes one that no other call has. A
        SeedSequence is not changed: the same one gives the same numbers again.

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        For what is no seed, such as a Generator.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def draw(x, rng):
    ...     x[:] = rng.standard_normal(x.size)
    >>> with sc.SharedArray.zeros(1000) as one, sc.SharedArray.zeros(1000) as other:
    ...     sc.parallel_apply(draw, one, sc.rng(42))
    ...     sc.parallel_apply(draw, other, sc.rng(42), backend="serial")
    ...     print(np.array_equal(one, other), len(np.unique(one)))
    True 1000
    """
    sequence = seed if isinstance(seed, np.random.SeedSequence) else _sequence(seed)
    return Rng(
        _hashable(sequence.entropy),
        tuple(map(int, sequence.spawn_key)),
        sequence.pool_size,
        sequence.n_children_spawned,
    )


def _sequence(seed: Any) -> np.random.SeedSequence:
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(
            "rng: expected a seed, as numpy.random.SeedSequence takes it (whole numbers not below "
            f"0, or None), or a SeedSequence, got {seed!r}: {error}"
        ) from None


def _hashable(entropy: Any) -> Hashable:
    """The same entropy, which nobody can change any more."""
    if isinstance(entropy, np.ndarray):
        entropy = entropy.tolist()
    if isinstance(entropy, (list, tuple)):
        return tuple(map(_hashable, entropy))
    return int(entropy) if isinstance(entropy, np.integer) else entropy


def refuse_generators(where: str, value: Any) -> None:
    """Raise TypeError if this is a random generator, or a small container of one."""
    if isinstance(value, dict):
        value = list(value.values())
    found = value if isinstance(value, (list, tuple)) and len(value) <= FEW else (value,)
    for one in found:
        if isinstance(one, _KINDS):
            raise TypeError(
                f"{where} is or holds a random number generator ({type(one).__name__}): each "
                "worker would draw the same numbers from a copy of it, or threads would draw from "
                "it in whatever order they come. Pass sc.rng(seed), which gives each chunk a "
                "numpy.random.Generator of its own, with the same numbers for any number of workers"
            )
