"""A plain NumPy kernel on a stack of images: remove cosmic rays, then normalise each frame.

Worker processes run Python side by side; nothing here has to release the GIL or be compiled.
"""

import numpy as np

import shmcompute as sc

FRAMES, SIZE = 48, 128


def neighbours(image):
    """Mean of the four pixels around each one."""
    framed = np.pad(image, 1, mode="edge")
    return (framed[:-2, 1:-1] + framed[2:, 1:-1] + framed[1:-1, :-2] + framed[1:-1, 2:]) / 4


def clean(frames, dark):
    """Write in place, return nothing: that is all that a kernel has to do."""
    for frame in frames:
        frame -= dark
        while (hot := frame > frame.mean() + 6 * frame.std()).any():
            frame[hot] = np.minimum(neighbours(frame), frame.mean())[hot]
        frame -= frame.mean()
        frame /= frame.std()


rng = np.random.default_rng(7)
dark = rng.uniform(90, 110, (SIZE, SIZE))
sky = rng.normal(20, 3, (FRAMES, SIZE, SIZE)) + dark
for number, frame in enumerate(sky):
    frame.flat[rng.choice(frame.size, 2 * number)] += 5_000  # the later, the more rays

with sc.SharedArray(sky) as stack:
    print(f"brightest pixel before: {np.max(stack):.0f}")

    # Some frames take longer than others, so the next free worker takes the next few frames.
    sc.parallel_apply(clean, stack, sc.whole(dark), axis=0, schedule="dynamic", chunksize=2)

    print(f"brightest pixel after: {np.max(stack):.1f} sigma")
    print(f"frames of deviation 1: {np.isclose(np.std(stack, axis=(1, 2)), 1).sum()}")

    # The same function, called as it is: a kernel knows nothing of workers.
    clean(sky, dark)
    assert np.array_equal(stack, sky)
    assert np.max(stack) < 6.5
