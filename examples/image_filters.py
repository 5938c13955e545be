"""Filters on one large image: blur, sharpen and median, each pixel from those around it.

Chunks are bands of rows. What a filter needs of the neighbouring bands it sees through `halo`:
nothing is copied, but a few rows at the ends, where ``"reflect"`` mirrors the image as `numpy.pad`
does. With the name of a picture as its argument the program draws one.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

SIDE, FOCUS = 512, 0.75


@nb.njit
def across(out, x):
    """The mean of three pixels of a row, which is mirrored at its ends."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            left, right = abs(j - 1), j + 1 if j + 1 < x.shape[1] else j - 1
            out[i, j] = (x[i, left] + x[i, j] + x[i, right]) / 3


def down(out, x):
    np.divide(x[:-2] + x[1:-1] + x[2:], 3, out=out)


def sharpen(out, x, blurred):
    out[:] = x + FOCUS * (x - blurred)


def median(out, x):
    around = np.pad(x, ((0, 0), (1, 1)), mode="reflect")
    out[:] = np.median(np.lib.stride_tricks.sliding_window_view(around, (3, 3)), axis=(2, 3))


rng = np.random.default_rng(5)
i, j = np.mgrid[:SIDE, :SIDE] / SIDE * 9
scene = (np.sin(i * j) > 0) * np.hypot(i - 4.5, j - 4.5) / 6
noisy = np.where(rng.random(scene.shape) < 0.05, rng.random(scene.shape), scene)

with sc.SharedArray(noisy) as image:
    rows, blurred, sharp, clean = (sc.SharedArray.empty(image.shape) for _ in range(4))
    sc.parallel_apply(across, rows, sc.read(image))
    sc.parallel_apply(down, blurred, sc.halo(rows, 1, boundary="reflect"))
    sc.parallel_apply(median, clean, sc.halo(image, 1, boundary="reflect"), chunksize=64)
    sc.parallel_apply(sharpen, sharp, sc.read(image), sc.read(blurred))
    for name, result in {"noisy": image, "blurred": blurred, "median": clean}.items():
        print(f"{name:>8}: {np.abs(result.array - scene).mean():.4f} off")
    print(f"contrast: {np.std(image):.3f}, sharpened {np.std(sharp):.3f}")
    if sys.argv[1:]:
        from matplotlib.image import imsave

        views = [a.array[:256, :256] for a in (image, blurred, sharp, clean)]
        imsave(sys.argv[1], np.hstack(views), cmap="gray", vmin=0, vmax=1)
