"""A trace as a picture: a Gantt chart, drawn by matplotlib."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shmcompute.diagnostics.traced import Traced
from shmcompute.system.records import Lane

GREYS = {"plan": "0.75", "send": "0.6", "wait": "0.9", "compile": "0.35", "start": "0.8"}

# Of a lane and a label: where bars begin, and how long they are, in seconds.
Bars = dict[tuple[Lane, str], list[tuple[float, float]]]


def draw(traced: Traced, path: str | os.PathLike[str] | None, ax: Any) -> Any:
    """Draw it, and write it if there is a path; the axes."""
    bars = _bars(traced)
    lanes = list(dict.fromkeys(lane for lane, _ in bars))
    if ax is None:
        ax = _new_axes(len(lanes))
    _draw_bars(ax, bars, lanes)
    ax.set_yticks(range(len(lanes)), [_label(lane) for lane in lanes])
    ax.set_ylim(max(1, len(lanes)) - 0.5, -0.5)  # the caller on top
    ax.set_xlabel("seconds since the trace began")
    ax.grid(axis="x", alpha=0.3)
    if bars:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=5, frameon=False)
    if path is not None:
        ax.figure.savefig(Path(path), bbox_inches="tight", dpi=120)
    return ax


def _new_axes(lanes: int) -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # it is optional, and large
    except ImportError as error:
        raise ImportError(
            "a trace's plot() needs matplotlib: pip install 'shmcompute[plot]'; save() writes a "
            "file for https://ui.perfetto.dev without it"
        ) from error
    figure = Figure(figsize=(9, 1.5 + 0.4 * lanes))  # not pyplot's, which would keep it
    return figure.add_subplot()


def _draw_bars(ax: Any, bars: Bars, lanes: list[Lane]) -> None:
    colors = _colors(label for _, label in bars)
    shown: set[str] = set()
    for (lane, label), spans in bars.items():
        row, thin = lanes.index(lane), label in GREYS
        height = 0.3 if thin else 0.7
        ax.broken_barh(
            spans,
            (row - height / 2, height),
            color=colors[label],
            edgecolor="white",
            linewidth=0.3,
            label="" if label in shown else label,
        )
        shown.add(label)


def _colors(labels: Iterator[str]) -> dict[str, str]:
    kernels = [label for label in dict.fromkeys(labels) if label not in GREYS]
    return GREYS | {label: f"C{number % 10}" for number, label in enumerate(kernels)}


def _bars(traced: Traced) -> Bars:
    bars: Bars = defaultdict(list)

    def add(lane: Lane | None, label: str, began: int, ended: int) -> None:
        if lane is not None and began:
            bars[lane, label].append(((began - traced.began) / 1e9, (ended - began) / 1e9))

    for span in traced.spans:
        add(span.lane, span.kind, span.began, span.ended)
    for lane, began, ended in traced.starts:
        add(lane, "start", began, ended)
    for call in traced.calls:
        for chunk in call.chunks:
            add(chunk.lane, call.name, chunk.began, chunk.ended)
    for task in traced.tasks:
        add(task.lane, f"task {task.name}", task.began, task.ended)
    return bars


def _label(lane: Lane) -> str:
    return "caller" if lane.name == "MainThread" else lane.name
