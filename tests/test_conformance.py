"""{processes x start methods, threads, serial} x {shm, file, array}: one suite, bit-equal.

It is that of `shmcompute.testing`. By default each check meets each pool and each storage, and
each pool each storage; with ``--matrix`` each check meets each pair of both, three times as many.
"""

from __future__ import annotations

import pytest

from shmcompute import testing


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, any_pool, any_storage):
    check(any_pool, any_storage)
