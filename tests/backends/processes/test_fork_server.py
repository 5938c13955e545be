"""The fork server: reachable wherever temporary files go, and whatever becomes of them."""

from __future__ import annotations

import os

import pytest
from kernels import run

from shmcompute.backends.processes import fork_server, start


@pytest.mark.long
def test_workers_are_replaced_though_temporary_files_were_swept_away():
    done = run(
        """
        import os, shutil, signal
        from multiprocessing import connection, forkserver
        import numpy as np, shmcompute as sc
        import logging; logging.disable()  # it warns of workers that are killed here
        with sc.Pool(1, start_method="forkserver").ready() as pool, sc.SharedArray([1.0]) as arr:
            for _ in range(2):
                shutil.rmtree(os.path.dirname(forkserver._forkserver._forkserver_address))
                os.kill(pool.pids[0], signal.SIGKILL)
                connection.wait([pool.running._group.workers[0].end])
                sc.parallel_apply(np.negative, arr, pool=pool)
                print(arr[0])
            with sc.Pool(1, start_method="forkserver") as other:
                print(other.submit(abs, -2).result())
        """
    )
    assert done.stdout == "-1.0\n1.0\n2\n"


@pytest.mark.long
@pytest.mark.parametrize("folder", ["x" * 120, "none"])
def test_the_temp_directory_may_be_long_or_not_there(folder, tmp_path):
    """A socket's path has some hundred bytes at most."""
    if folder != "none":
        (tmp_path / folder).mkdir()
    done = run(
        """
        import shmcompute as sc
        with sc.Pool(1, start_method="forkserver") as pool:
            print(pool.running.start_method, pool.submit(abs, -2).result())
        """,
        env={**os.environ, "TMPDIR": str(tmp_path / folder)},
    )
    assert done.stdout == "forkserver 2\n"


def test_where_no_folder_can_be_made_workers_are_spawned(monkeypatch):
    def refuse(longest):
        raise OSError("nowhere")

    monkeypatch.setattr(fork_server, "_folders", {})
    monkeypatch.setattr(fork_server.private_folder, "make", refuse)
    methods = ["fork", "spawn", "forkserver"]
    assert [start.usable(method) for method in methods] == ["fork", "spawn", "spawn"]
