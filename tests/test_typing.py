"""The words that type checkers know are those that are taken; typing_user.py has the rest."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

import shmcompute as sc
from shmcompute import config, typing
from shmcompute.chunking.markers import BOUNDARIES


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (typing.BackendName, config.CHOICES),
        (typing.ScheduleName, config.SCHEDULES),
        (typing.StorageName, config.STORAGES),
        (typing.StartMethodName, config.START_METHODS),
        (typing.BoundaryName, BOUNDARIES),
        (typing.OrderName, config.ORDERS),
        (typing.NewOrderName, config.NEW_ORDERS),
    ],
)
def test_a_type_has_the_words_that_are_taken(known, words):
    assert get_args(known) == words


def test_a_shared_array_has_a_dtype_for_checkers_alone():
    """``SharedArray[np.float64]`` can be written anywhere; what it makes is a `SharedArray`."""
    with sc.SharedArray[np.float64](np.arange(3.0)) as made:
        assert type(made) is sc.SharedArray
        assert made.sum() == 3
