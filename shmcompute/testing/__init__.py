"""The conformance suite: what every backend does on every storage, bit-equal to NumPy.

For parts that live elsewhere, too. Each check is a function of a pool and of the keywords that
choose a storage; it raises `AssertionError` where a promise is broken. With pytest::

    @pytest.mark.parametrize("check", shmcompute.testing.CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        with sc.Pool(2, backend="threads") as pool:
            check(pool, {"storage": "shm"})

`shmcompute` itself does not import this package.
"""

from shmcompute.testing.conformance import CHECKS, check_all, shared

__all__ = ["CHECKS", "check_all", "shared"]
