"""The topic of huge pages: in a mount namespace for each way in which /dev/shm can give them.

There this file is run as a program, which measures and prints its samples.
"""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np

import shmcompute as sc
from benchmarks import kernels
from benchmarks.bars.speed import ELEMENTS, LARGE, POOLS, calls, prange
from benchmarks.bars.turns import Outcome, turns
from benchmarks.wraps import WRAPS, Wrapped
from shmcompute.system import huge_pages as system

MOUNTS = {"within_size": "huge=within_size", "advise": "huge=advise", "never": "no huge="}
NAMESPACE = ["unshare", "--mount", "sh", "-c"]
BARS = {"stream": 1.02, "cold": 0.35}  # against prange on private memory, and against small pages
PAIRS = {"stream": ("processes", "prange"), "cold": ("huge", "small")}


def huge():
    """Shared memory in huge pages, against private memory and against small pages."""
    for policy, mount in MOUNTS.items():
        found, why = _measured(policy)
        whats = {
            "stream": f"stream, {LARGE}, processes, {mount}",
            "cold": f"SharedArray of {LARGE}, cold, {mount}",
        }
        for topic, what in whats.items():
            ours, base = (found.get(name, []) for name in PAIRS[topic])
            yield Outcome(what, BARS[topic], ours, base, why=why)


def _measured(policy):
    """Samples by name, or none and why."""
    program = [sys.executable, "-m", "benchmarks.bars.huge_pages", policy]
    mount = f"mount -t tmpfs -o huge={policy} tmpfs /dev/shm"
    if subprocess.run([*NAMESPACE, mount], capture_output=True).returncode:
        return {}, "mounting a tmpfs with huge= is not permitted here"
    inside = f'{mount} && exec "$0" "$@"'
    done = subprocess.run([*NAMESPACE, inside, *program], capture_output=True, text=True)
    if done.returncode:
        return {}, done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout), ""


def _measure(policy):
    if policy == "never" and not system.given("/dev/shm"):
        sys.exit("this kernel gives none without the mount's consent")
    data = np.full(ELEMENTS, 0.5)
    with calls(kernels.stream, data, {"processes": POOLS["processes"]}) as ways:
        found = turns({"prange": prange(kernels.stream, data), **ways}, 15)
    wraps = {name: Wrapped(WRAPS["shmcompute, cold"], data) for name in ("huge", "small")}
    before = {
        "huge": partial(_prepare, wraps["huge"], policy, "1"),
        "small": partial(_prepare, wraps["small"], "never", "0"),
    }
    found |= turns(wraps, 5, before)
    sc.shutdown()
    print(json.dumps(found))


def _prepare(wrap, policy, setting):
    wrap.prepare()
    subprocess.run(["mount", "-o", f"remount,huge={policy}", "/dev/shm"], check=True)
    os.environ["SHMCOMPUTE_HUGE_PAGES"] = setting


if __name__ == "__main__":
    _measure(sys.argv[1])
