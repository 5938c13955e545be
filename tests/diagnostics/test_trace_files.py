"""What a trace writes: the Trace Event Format, pictures, and a program's own trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict

import kernels
import leaks
import numpy as np
import pytest
from prepared import QUIET  # threads that were joined may still count as such when it forks

import shmcompute as sc
from shmcompute.errors import WorkerLostError

# What the format's description demands of the kinds of events that we write.
COMMON = {"name": str, "ph": str, "pid": int, "tid": int}
MORE = {
    "X": {"ts": (int, float), "dur": (int, float), "cat": str, "args": dict},
    "i": {"ts": (int, float), "s": str, "cat": str, "args": dict},
    "M": {"args": dict},
}
METADATA = {
    "process_name": "name",
    "process_sort_index": "sort_index",
    "thread_name": "name",
}


def check_format(whole):
    """That a viewer reads it."""
    assert set(whole) <= {"traceEvents", "displayTimeUnit", "otherData"}
    assert whole["displayTimeUnit"] in ("ms", "ns")
    for event in whole["traceEvents"]:
        for key, kind in (COMMON | MORE[event["ph"]]).items():
            assert isinstance(event[key], kind), event
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        if event["ph"] == "M":
            assert set(event["args"]) == {METADATA[event["name"]]}
    check_nesting(event for event in whole["traceEvents"] if event["ph"] == "X")


def check_nesting(slices):
    """Complete events of a thread lie apart or within one another, or a viewer drops them."""
    lanes = defaultdict(list)
    for event in slices:
        lanes[event["pid"], event["tid"]].append(event)
    for events in lanes.values():
        events.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_until = []
        for event in events:
            while open_until and open_until[-1] <= event["ts"]:
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1] + 0.002, event  # ns, rounded
            open_until.append(end)


def named(whole, category):
    return [event for event in whole["traceEvents"] if event.get("cat") == category]


def test_a_file_is_of_the_trace_event_format(any_pool, tmp_path):
    with sc.SharedArray(np.zeros(100)) as arr, sc.trace(tmp_path / "run.json") as t:
        sc.parallel_apply(lambda x: None, arr, pool=any_pool, chunksize=9)
        sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=any_pool)
        assert any_pool.submit(abs, -1).result() == 1
    whole = json.loads((tmp_path / "run.json").read_text())
    check_format(whole)
    assert len(named(whole, "call")) == len(named(whole, "run")) == 2
    assert len(named(whole, "task")) == 1
    chunks = named(whole, "chunk")
    assert len(chunks) == sum(len(call.chunks) for call in t.calls)
    first = [event["args"] for event in chunks if event["name"].endswith("<lambda>")]
    assert sorted((one["start"], one["stop"]) for one in first) == [
        (start, min(100, start + 9)) for start in range(0, 100, 9)
    ]
    workers = {event["pid"] for event in chunks}
    assert workers <= {*any_pool.pids, os.getpid()}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def die(x):
    os._exit(3)


def test_a_death_stands_in_the_file(tmp_path):
    t, lost = sc.trace(), pytest.raises(WorkerLostError)
    with t, sc.Pool(1) as pool, sc.SharedArray(np.zeros(1)) as arr, lost:
        sc.parallel_apply(die, arr, pool=pool)
    whole = json.loads(t.save(tmp_path / "{pid}.json").read_text())
    assert (tmp_path / f"{os.getpid()}.json").exists()
    check_format(whole)
    (lost,) = (event for event in named(whole, "event") if event["name"] == "worker_lost")
    assert "exit code 3" in lost["args"]["how"]
    (chunk,) = named(whole, "chunk")
    assert chunk["args"]["unfinished"] is True
    (call,) = named(whole, "call")
    assert call["args"]["error"] == "WorkerLostError"
    assert named(whole, "start")


def test_a_folder_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path):
    with sc.trace() as t:
        pass
    with pytest.raises(FileNotFoundError):
        t.save(tmp_path / "absent" / "run.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        t.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


PROGRAM = """
import numpy as np, shmcompute as sc, subprocess, sys, os
with sc.Pool(2, start_method=sys.argv[1]) as pool, sc.SharedArray(np.zeros(4)) as arr:
    sc.parallel_apply(np.negative, arr, pool=pool)
    assert pool.submit(os.environ.get, "SHMCOMPUTE_TRACE").result() is None
if os.fork() == 0:
    sys.exit()
os.wait()
subprocess.run([sys.executable, "-c", "import shmcompute"], check=True)
os.chdir("/")
"""


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_program_traces_itself(tmp_path, method):
    """Its workers, children and other programs write nothing."""
    env = os.environ | {"SHMCOMPUTE_TRACE": "run.json"}
    done = subprocess.run(
        [sys.executable, *QUIET, "-c", PROGRAM, method],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    whole = json.loads((tmp_path / "run.json").read_text())
    check_format(whole)
    assert len(named(whole, "chunk")) == 2


def test_a_program_that_can_not_be_traced_says_so():
    env = os.environ | {"SHMCOMPUTE_TRACE": "/absent/run.json"}
    done = subprocess.run(
        [sys.executable, "-c", "import shmcompute"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "SHMCOMPUTE_TRACE='/absent/run.json': there is no such folder" in done.stderr


def test_a_picture_shows_each_worker(pools, tmp_path):
    pytest.importorskip("matplotlib")
    pool = pools["fork"]
    with sc.SharedArray(np.zeros(100)) as arr, sc.trace() as t:
        sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, pool=pool)
        pool.submit(abs, 1).result()
    with leaks.kept():  # matplotlib keeps its fonts open
        axes = t.plot(tmp_path / "run.svg")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert {"worker 0", "worker 1"} <= set(labels)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {"affine_python", "task abs"} <= set(legend)
    assert (tmp_path / "run.svg").read_text().startswith("<?xml")
    assert t.plot(ax=axes) is axes
    with sc.trace() as empty:
        pass
    assert empty.plot() is not None


def test_without_matplotlib_a_picture_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with sc.trace() as t:
        pass
    with pytest.raises(ImportError, match=r"pip install 'shmcompute\[plot\]'"):
        t.plot()


def test_nothing_is_imported_for_who_does_not_trace():
    code = "import sys, shmcompute; print([m for m in sys.modules if 'diagnostics' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
