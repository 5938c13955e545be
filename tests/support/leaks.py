"""What this process holds, to be compared before and after."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

import psutil

from shmcompute import storage
from shmcompute.storage import reaper, shm
from shmcompute.system import private_folder


def held():
    """Segments, descriptors, child processes and threads, each by what tells one from another."""
    return {
        "descriptors": descriptors(),
        "child processes": children(),
        "threads": set(threading.enumerate()),
        "segments mapped": {segment.address for segment in storage.live()},
        "segments in the namespace": orphans(),
    }


def left(before):
    """What is held now and was not then; without what is kept, and without kinds of nothing."""
    now = held()
    return {what: found for what in now if (found := now[what] - before[what] - _kept[what])}


@contextmanager
def kept():
    """What is made within is kept on purpose, for later tests."""
    before = held()
    yield
    now = held()
    for what in now:
        _kept[what] |= now[what] - before[what]


_kept = defaultdict(set)


def descriptors():
    """Open descriptors by what they lead to, without multiprocessing's own memory and servers."""
    found = []
    own = {forkserver._forkserver._forkserver_alive_fd, resource_tracker._resource_tracker._fd}
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        # Arenas that multiprocessing keeps for later arrays; the lock of the fork server's folder.
        lasts = "/pym-" in target or f"/{private_folder.PREFIX}" in target
        if not lasts and int(entry) not in own:
            found.append((int(entry), target))
    return set(found)


def children():
    """Without the standard library's fork server and resource tracker, which end with this one."""
    own = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}
    return {child.pid for child in psutil.Process().children() if _lives(child)} - own


def _lives(process):
    """Not so one that has ended and is about to be reaped, by whomever."""
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def orphans():
    """Segments of this process that nobody holds; other programs may leave some meanwhile."""
    return {found.name for found in _found() if not found.alive}


def names():
    """Segments that this process made or mapped and that still have their name."""
    return {found.name for found in _found()}


def _found():
    """What is ours. To look at others' might keep them from using their memory again."""
    _ours.intersection_update(reaper._names())  # names are not used twice: forget those that went
    looks = [reaper._inspect(name, remove=False) for name in _ours]
    return [found for found in looks if found is not None]


_ours = set()  # names of the segments that this process made or mapped


def _recorded(fd, handle, *args, _real=shm._map, **keywords):
    _ours.add(handle.name)
    return _real(fd, handle, *args, **keywords)


shm._map = _recorded
