"""`Copies`: new arrays that lie in memory as views of another one do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from shmcompute.typing import Array


class Copies:
    """Makes copies of parts of an array, of the memory layout that these parts have as views."""

    view: Array

    @property
    @abstractmethod
    def sample(self) -> Array:
        """A small part, to look at its layout."""

    def empty(self, shape: Sequence[int]) -> Array:
        """A new array of that shape."""
        *outer, inner = self.order
        step, gap = self.spacing
        memory = np.empty([*(shape[i] for i in outer), shape[inner] * step + gap], self.view.dtype)
        cut = memory[..., : shape[inner] * step : step]
        return cut.transpose(np.argsort(self.order))

    def bytes_for(self, shape: Sequence[int]) -> int:
        """Bytes of that array."""
        sizes, (step, gap) = [*shape], self.spacing
        sizes[self.order[-1]] = sizes[self.order[-1]] * step + gap
        return int(np.prod(sizes)) * self.view.itemsize

    @property
    def order(self) -> list[int]:
        """The axes, by how far apart their elements are: the last ones lie side by side."""
        strides = [abs(stride) for stride in self.view.strides]
        return sorted(range(self.view.ndim), key=lambda axis: -strides[axis])

    @property
    def spacing(self) -> tuple[int, int]:
        """Elements from one to the next along the innermost axis, and how many follow the last.

        To Numba a view with gaps is of another type than one without, so copies must have them too.
        """
        if self.sample.flags.forc:
            return 1, 0
        *outer, _ = self.order
        return (1, 1) if any(self.sample.shape[axis] > 1 for axis in outer) else (2, 0)
