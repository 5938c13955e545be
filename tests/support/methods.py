"""Start methods for tests that start processes of their own.

What spawn starts takes seconds; with it these tests run in the soak. Pools that the suite shares,
`any_pool` and `process_pool`, are of every start method.
"""

import multiprocessing
import warnings

import pytest

METHODS = ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.soak)]


def started(method, target, *args):
    """A process of that start method that runs `target`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
        process = multiprocessing.get_context(method).Process(target=target, args=args)
        process.start()
    return process


def ended(process, code=0):
    """Wait for its end, which is to be that one."""
    process.join(60)
    assert process.exitcode == code
    process.close()
