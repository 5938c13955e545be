"""{processes x start methods, threads, serial} x {shm, file, array}: one suite, bit-equal."""

from __future__ import annotations

import conformance
import pytest


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, any_pool, any_storage):
    check(any_pool, any_storage)
