"""What runs in a worker process."""

from shmcompute.backends.processes.worker.main import worker_main

__all__ = ["worker_main"]
