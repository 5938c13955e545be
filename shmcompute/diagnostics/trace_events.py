"""A trace as a file for Perfetto and Chrome: the Trace Event Format, as JSON.

It is described in https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
A complete event (``X``) has its begin and duration in microseconds, an instant (``i``) its time;
both name a process and a thread, whose names are metadata (``M``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shmcompute.diagnostics.traced import Traced, TracedCall, TracedChunk
from shmcompute.system.records import Lane

Event = dict[str, Any]


def write(traced: Traced, path: Path) -> Path:
    """Write the file; an older one stays until the new one is whole."""
    whole = {
        "traceEvents": list(events_of(traced)),
        "displayTimeUnit": "ms",
        "otherData": {"program": "shmcompute", "lost": traced.lost},
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(whole), encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def events_of(traced: Traced) -> Iterator[Event]:
    """Each event of the format."""
    lanes: dict[tuple[int, int], Lane] = {}
    for event, lane in _slices(traced):
        lanes.setdefault((lane.pid, lane.thread), lane)
        event["ts"] = (event["ts"] - traced.began) / 1e3
        yield event | {"pid": lane.pid, "tid": lane.thread}
    for happening in traced.happenings:
        yield _instant(happening.event, happening.time - traced.began, happening.facts)
    yield from _names(lanes)


def _slices(traced: Traced) -> Iterator[tuple[Event, Lane]]:
    for call in traced.calls:
        yield from _of_call(call)
    for span in traced.spans:
        if span.lane is not None:
            name = f"{span.kind} {span.name}"
            yield _slice(name, span.kind, span.began, span.ended, error=span.error), span.lane
    for task in traced.tasks:
        if task.lane is not None and task.began:
            args = {"pool": task.pool, "error": task.error}
            yield _slice(task.name, "task", task.began, task.ended, **args), task.lane
    for lane, began, ended in traced.starts:
        yield _slice("start", "start", began, ended), lane


def _of_call(call: TracedCall) -> Iterator[tuple[Event, Lane]]:
    args = {"pool": call.pool, "chunks": len(call.chunks), "error": call.error}
    yield _slice(f"call {call.name}", "call", call.called, call.ended, **args), call.lane
    yield _slice(f"run {call.name}", "run", call.began, call.ended), call.lane
    for chunk in call.chunks:
        yield _of_chunk(chunk, call), chunk.lane
    for one in call.compilations:
        yield _slice(f"compile {call.name}", "compile", one.began, one.ended), one.lane


def _of_chunk(chunk: TracedChunk, call: TracedCall) -> Event:
    args = {"chunk": chunk.number, "start": chunk.start, "stop": chunk.stop}
    if chunk.unfinished:
        args["unfinished"] = True
    return _slice(call.name, "chunk", chunk.began, chunk.ended, **args)


def _slice(name: str, category: str, began: int, ended: int, **args: Any) -> Event:
    told = {key: value for key, value in args.items() if value != ""}
    event: Event = {"name": name, "cat": category, "ph": "X", "ts": began, "args": told}
    return event | {"dur": (ended - began) / 1e3}


def _instant(name: str, when: int, facts: dict[str, Any]) -> Event:
    told = {key: str(value) for key, value in facts.items()}
    here = os.getpid()
    event: Event = {"name": name, "cat": "event", "ph": "i", "ts": when / 1e3, "s": "g"}
    return event | {"pid": here, "tid": here, "args": told}


def _names(lanes: dict[tuple[int, int], Lane]) -> Iterator[Event]:
    """What the viewer calls processes and threads, the caller first."""
    here = os.getpid()
    for pid in dict.fromkeys(pid for pid, _ in lanes):
        own = [lane for lane in lanes.values() if lane.pid == pid]
        name = "caller" if pid == here else own[0].name
        yield _metadata("process_name", pid, 0, {"name": name})
        yield _metadata("process_sort_index", pid, 0, {"sort_index": 0 if pid == here else pid})
    for (pid, thread), lane in lanes.items():
        yield _metadata("thread_name", pid, thread, {"name": lane.name})


def _metadata(name: str, pid: int, thread: int, args: dict[str, Any]) -> Event:
    return {"name": name, "ph": "M", "pid": pid, "tid": thread, "args": args}
