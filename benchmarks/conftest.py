"""What every benchmark needs: a job, a peer that is ready for it, the facts of the machine."""

import numba
import numpy as np
import pytest

from benchmarks.jobs import JOBS, MIB
from benchmarks.peers import PEERS, WORKERS, peers_of
from shmcompute import __version__


def pytest_generate_tests(metafunc):
    if "peer" in metafunc.fixturenames:
        pairs = [(job, peer) for job in JOBS.values() for peer in peers_of(job)]
        names = [f"{job.name}-{peer}" for job, peer in pairs]
        metafunc.parametrize(("job", "peer"), pairs, ids=names, indirect=["peer"])


@pytest.fixture
def peer(request, job, benchmark):
    """A peer that has done the job once: what happens in a first run only is not measured."""
    benchmark.group = job.name
    benchmark.name = request.param
    with PEERS[request.param](job) as ready:
        ready.array[...] = job.data
        ready.run()
        yield ready


def pytest_benchmark_update_machine_info(machine_info):
    machine_info.update(
        cores_granted=WORKERS,
        numba=numba.__version__,
        numpy=np.__version__,
        shmcompute=__version__,
        mebibytes=MIB,
    )
