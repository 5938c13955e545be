"""Random calls of `applied`, each against NumPy.

``python against_numpy.py FIRST LAST`` runs some.
"""

from __future__ import annotations

import sys

import dask
import dask.array as da
import numba as nb
import numpy as np

import shmcompute as sc

DTYPES = ["f8", "f4", "f2", "i8", "i4", "u1", "c16", "?", "M8[s]", "S3", "U2", "a:f4,b:i2"]
BOUNDARIES = ["edge", "reflect", "symmetric", "wrap", 2]


@nb.njit
def affine(new, x, factor, first):
    for i in range(new.shape[0]):
        new[i] = x[i] * factor + (first + i)


def made(dice, dtype):
    """An array of random shape, the axis along which it is cut, and it in random blocks."""
    shape = tuple(map(int, dice.integers(1, 9, dice.integers(1, 4))))
    axis = int(dice.integers(len(shape)))
    raw = dice.integers(0, 100, shape)
    if dtype == "a:f4,b:i2":
        x = np.zeros(shape, [("a", "f4"), ("b", "i2")])
        x["a"] = x["b"] = raw
    else:
        x = (raw % 10 if dtype[0] in "SU" else raw.astype("i8")).astype(dtype)
    edges = np.unique([0, shape[axis], *dice.integers(0, shape[axis] + 1, 4)])
    chunks = tuple(
        tuple(map(int, np.diff(edges))) if along == axis else (size,)
        for along, size in enumerate(shape)
    )
    blocks = da.from_array(np.asarray(x, order=dice.choice(["C", "F"])), chunks=chunks)
    return x, axis, blocks.persist(scheduler="sync") if dice.random() < 0.3 else blocks


def in_place(dice, x, axis, blocks):
    """Each block, turned along another axis."""
    other = (axis + 1) % x.ndim

    def turn(y):
        if other != axis:
            y[...] = np.flip(y, other).copy()

    return sc.applied(turn, blocks, axis=axis - x.ndim), x if other == axis else np.flip(x, other)


def several(dice, x, axis, blocks):
    """Two that are written, of which one keeps what it held."""

    def copy(one, other, y):
        other[...] = y

    keep, whole = sc.split(blocks, axis), sc.write(da.empty_like(blocks), axis)
    one, other = sc.applied(copy, keep, whole, sc.read(blocks, axis))
    return da.stack([one, other]), np.stack([x, x])


def jitted(dice, x, axis, blocks):
    """A jitted kernel, that is told where its block begins."""
    if x.dtype.kind not in "fiuc" or x.dtype == "f2" or axis:
        return None
    new = np.empty(x.shape, "c16")
    affine.py_func(new, x, 3, 0) if x.ndim == 1 else affine(new, x, 3, 0)
    like = da.empty_like(blocks, dtype="c16")
    return sc.applied(affine, sc.write(like), sc.read(blocks), 3, sc.offset), new


def window(dice, x, axis, blocks):
    """What a halo brings, of any depth."""
    if x.dtype.kind not in "fiuc":
        return None
    depth = tuple(map(int, dice.integers(0, x.shape[axis] + 1, 2)))
    boundary = BOUNDARIES[dice.integers(len(BOUNDARIES))]
    mode = {"mode": boundary} if isinstance(boundary, str) else {"constant_values": boundary}

    def total(new, old):
        length = new.shape[axis]
        new[...] = 0
        for first in range(sum(depth) + 1):
            new[...] += old[(slice(None),) * axis + (slice(first, first + length),)]

    new, padded = np.empty_like(x), np.pad(x, _pads(x, axis, depth), **mode)
    total(new, padded)
    halo = sc.halo(blocks, depth, axis=axis, boundary=boundary)
    return sc.applied(total, sc.write(da.empty_like(blocks), axis), halo, axis=axis), new


def _pads(x, axis, depth):
    return [depth if along == axis else (0, 0) for along in range(x.ndim)]


def trial(seed):
    """One call; its blocks must be NumPy's, and what it read as it was."""
    dice = np.random.default_rng(seed)
    x, axis, blocks = made(dice, DTYPES[dice.integers(len(DTYPES))])
    call = (in_place, several, jitted, window)[dice.integers(4)]
    if (pair := call(dice, x, axis, blocks)) is not None:
        lazy, expected = pair
        (found,) = dask.compute(lazy, scheduler=dice.choice(["threads", "sync"]))
        told = f"seed {seed}: {call.__name__}, {x.dtype} of shape {x.shape}, {blocks.chunks}"
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), told
        np.testing.assert_array_equal(found, expected, told)
    np.testing.assert_array_equal(blocks.compute(), x)


if __name__ == "__main__":
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        trial(seed)
    print("equal", hasattr(da.Array, "expr"))
