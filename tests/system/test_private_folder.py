"""Folders of one process: others leave them alone, and remove them when it was killed."""

from __future__ import annotations

import os
import subprocess

import kernels
import pytest

from shmcompute.system import private_folder

HOLDER = """
import os, signal, sys
from shmcompute.system import private_folder
private_folder._places = lambda: sys.argv[1:]
print(private_folder.make(200), flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    monkeypatch.setattr(private_folder, "_places", lambda: [str(tmp_path)])
    return tmp_path


def test_what_a_killed_process_left_is_reaped_and_what_a_living_one_has_is_not(place):
    holder = subprocess.Popen(
        kernels.server().command(HOLDER, [str(place)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        path = holder.stdout.readline().strip()
        assert private_folder.reap() == []
        assert os.stat(path).st_mode & 0o777 == 0o700
    assert private_folder.reap() == [path]
    assert private_folder.reap() == []
    assert os.listdir(os.path.dirname(path)) == []


def test_a_folder_that_others_may_write_is_not_used(place):
    (place / f"shmcompute-{os.geteuid()}").mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        private_folder.users_folder(str(place))
    with pytest.raises(OSError, match="no folder can be made"):
        private_folder.make(200)


def test_a_path_that_would_be_too_long_is_not_used():
    with pytest.raises(OSError, match="at most 10 bytes"):
        private_folder.make(10)
