"""Processes that tell who they are: `Process`, and the workers of a `Pool`."""

import os
from multiprocessing import Process

import shmcompute as sc


def greet(name, caller):
    print(f"hello {name}, from process {os.getpid()}; called by {caller}", flush=True)


def standard_library():
    processes = [Process(target=greet, args=(name, os.getpid())) for name in ("Ada", "Grace")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def with_shmcompute():
    with sc.Pool(2) as pool:  # whose workers wait for the next call
        futures = [pool.submit(greet, name, os.getpid()) for name in ("Ada", "Grace")]
        for future in futures:
            future.result()


if __name__ == "__main__":  # the standard library's form needs this guard; ours does not
    standard_library()
    with_shmcompute()
