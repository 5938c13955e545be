"""Errors travel and are what the standard library calls them."""

from __future__ import annotations

import pickle

import pytest

from shmcompute import errors


@pytest.mark.parametrize(
    "error",
    [errors.WorkerLostError("lost", -9, [(0, 3)]), errors.KernelTimeoutError("late", [(1, 2)])],
)
def test_errors_with_chunks_pickle(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)


def test_one_except_catches_all():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, errors.ShmComputeError), name
    assert issubclass(errors.SegmentNotFoundError, FileNotFoundError)
    assert issubclass(errors.SegmentExistsError, FileExistsError)
    assert issubclass(errors.KernelTimeoutError, TimeoutError)
    assert issubclass(errors.KernelTypeError, TypeError)
    assert issubclass(errors.OutOfBoundsError, IndexError)
    assert issubclass(errors.ReadOnlyError, ValueError)
