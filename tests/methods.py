"""Start methods for tests that start processes of their own.

What spawn starts takes seconds; with it these tests run in the soak. Pools that the suite shares,
`any_pool` and `process_pool`, are of every start method.
"""

import pytest

METHODS = ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.soak)]
