"""A Dask cluster of this machine's own, which needs no ``__main__`` guard and ends with its maker.

Dask's `LocalCluster` starts workers by multiprocessing, which runs the program's main module in
each of them: a program without a guard would make a cluster in each. These are started by a
command, as `dask worker` is. Scheduler and connections are on loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from distributed import Client, Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster

# Before anything else: the system is to end it with its parent, however that ends (Linux).
_BEGIN = """
import ctypes, os, signal, sys
parent = int(sys.argv.pop(1))
getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != parent:
    sys.exit()
from dask.__main__ import main
main()
"""


def local_client(workers: int) -> Any:
    """A client of a new cluster of so many worker processes of one thread; both end by `close`."""
    loopback = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}
    worker = {"cls": _Nanny, "options": {"loopback": loopback}}
    cluster = SpecCluster(
        scheduler={"cls": Scheduler, "options": loopback},
        workers=dict.fromkeys(range(workers), worker),
        name="shmcompute",
        silence_logs=40,  # logging.ERROR
    )
    client = Client(cluster, set_as_default=False)
    client.wait_for_workers(workers)
    return client


def close(client: Any) -> None:
    """End a client of `local_client`, and its cluster."""
    cluster = client.cluster
    client.close()
    cluster.close()


class _Nanny(ProcessInterface):  # type: ignore[misc]  # Dask is not typed
    """A process that keeps a worker process, and starts another one when that was killed."""

    def __init__(self, scheduler: str, loopback: dict[str, Any], **_: Any) -> None:
        super().__init__(scheduler)
        self._scheduler = scheduler
        self._loopback = loopback
        self._process: Any = None

    async def start(self) -> None:
        options = {"nthreads": 1, "preload": ["shmcompute.backends.dask_tasks"], **self._loopback}
        spec = {"cls": "distributed.Nanny", "opts": options}
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "DASK_LOGGING__DISTRIBUTED": "critical",
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _BEGIN, str(os.getpid()),
            "spec", self._scheduler, "--spec", json.dumps(spec),
            env=environment, start_new_session=True,  # a terminal's Ctrl-C is for the caller
        )  # fmt: skip
        await super().start()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()  # and its worker with it
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._process = None
        await super().close()
