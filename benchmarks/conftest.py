"""What every benchmark needs: a job, a peer that is ready for it, the facts of the machine."""

import os
import platform
import time
from statistics import mean

import numba
import numpy as np
import psutil
import pytest

from benchmarks import functions
from benchmarks.jobs import JOBS
from benchmarks.peers import PEERS
from benchmarks.settings import MIB, WORKERS
from shmcompute import __version__

SLOW = 0.1  # seconds a run, from which on a few runs must do


_busy = []  # per cent of the processors that others took, between the peers


def pytest_generate_tests(metafunc):
    if "team" in metafunc.fixturenames:
        pairs = [(name, job) for name, peer in PEERS.items() for job in JOBS.values()]
        able = [(name, job) for name, job in pairs if PEERS[name].able(job)]
        names = [f"{job.name}-{name}" for name, job in able]
        # Of module scope, so that pytest runs all jobs of a team before it starts the next.
        metafunc.parametrize(("team", "job"), able, ids=names, indirect=["team"], scope="module")


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore"))  # what peers warn of is theirs


@pytest.fixture(scope="module")
def team(request):
    """A peer that has started."""
    peer = PEERS[request.param]
    if peer.missing:
        pytest.skip(f"{request.param}: {peer.module} is not installed")
    if request.config.getoption("benchmark_enable"):
        _busy.append(psutil.cpu_percent(interval=0.3))
    with peer.start() as ready:
        yield request.param, ready


@pytest.fixture
def peer(team, job, benchmark):
    """A peer that has done the job: what happens in first runs only is not measured."""
    benchmark.group = job.name
    benchmark.name, ready = team
    with ready(job) as made:
        made.array[...] = job.data
        for _ in range(3):  # until each worker has had a chunk
            made.run()
        yield made


@pytest.fixture
def measure(benchmark):
    """Call again and again; the slower, the fewer times."""

    def measure(run):
        began = time.perf_counter()
        run()
        once = time.perf_counter() - began
        if once < SLOW:
            benchmark(run)
        else:
            benchmark.pedantic(run, rounds=5 if once < 1 else 3)

    return measure


def pytest_benchmark_update_machine_info(machine_info):
    machine_info.update(
        system=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        cores_seen=os.cpu_count(),
        cores_granted=WORKERS,
        numba=numba.__version__,
        numpy=np.__version__,
        shmcompute=__version__,
        mebibytes=MIB,
        busy=mean(_busy) if _busy else 0.0,
        not_installed=[
            *(name for name, peer in PEERS.items() if peer.missing),
            *(name for name in functions.PEERS if functions.missing(name)),
        ],
    )
