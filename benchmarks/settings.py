"""Settings of a run, from the environment: workers of other libraries read them, too."""

import os

from shmcompute.system import cores

# Of the largest array; others are in proportion. 64 is more than most caches hold, 1 a smoke run.
MIB = float(os.environ.get("SHMCOMPUTE_BENCH_MIB", "64"))
ELEMENTS = int(MIB * (1 << 20)) // 8
SMOKE = MIB <= 4
LONGEST = 0.05 if SMOKE else 0.5  # seconds that rounds of a row may take, if there are enough
WORKERS = int(os.environ.get("SHMCOMPUTE_BENCH_WORKERS", cores.granted()))
# How other libraries start their processes. Not fork, which the threads that Numba and others have
# started by then might not survive; `startup` takes the platform's default.
METHOD = os.environ.get("SHMCOMPUTE_BENCH_METHOD", "spawn")
PIECES = 16  # a worker, where equal pieces are unequal work

# Of programs whose start is measured: as users have it, with the bytecode of modules kept.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
