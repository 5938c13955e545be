"""`Plan`: kernels, their bound arguments and the chunks: all that a run needs to know.

The file is long because a plan is one class, and each of its methods is small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shmcompute.chunking import (
    NO_WORKER,
    Arguments,
    Chunk,
    ChunkCall,
    Chunks,
    Cut,
    Grid,
    Place,
    Places,
    ScratchRow,
    Values,
    find_places,
    pack_head,
    place_in_memory,
)
from shmcompute.kernels import (
    Captured,
    Kernel,
    Kinds,
    NativeCall,
    NativePlan,
    NeedsPython,
    NumbaKernel,
    make_native_plan,
)
from shmcompute.plans.form import Form
from shmcompute.plans.journal import Journal
from shmcompute.system.addresses import address
from shmcompute.system.call_context import CallContext
from shmcompute.system.context import nesting
from shmcompute.typing import Array

if TYPE_CHECKING:  # few programs need it
    from shmcompute.plans.sweep_state import Sweeps

OF_CHUNKS = "_frame", "frame_here", "count"  # what a plan caches of its chunks,
OF_ARRAYS = "outputs", "_places", "frame_here", "detached_links"  # and of its arrays
KEPT = 1024  # plans over other ranges that a plan knows


@dataclass(frozen=True, eq=False)
class Link:
    """One kernel of a plan, and what it is called with."""

    kernel: Kernel
    arguments: Arguments
    kinds: Kinds | None = None  # of what types these are in chunks, where that has been checked

    def checked(self, chunks: Sequence[Chunk]) -> Link:
        """The same, if the kernel takes what these chunks call it with; else it raises."""
        return replace(self, kinds=self.kernel.check(self.arguments, chunks))

    def native(self, chunks: Sequence[Chunk]) -> NativeCall | NeedsPython:
        """How machine code calls it on these, or why it can't."""
        return self.kernel.native(self.arguments, chunks, self.kinds)


@dataclass(frozen=True, eq=False)
class Plan:
    """Frozen and complete; every backend runs it, in whatever process.

    `run_chunk` calls its kernels from Python. Where `native` is not None, machine code may call
    them instead, with the same arguments.
    """

    links: tuple[Link, ...]  # each chunk goes through all of them
    chunks: Sequence[Chunk]
    values: Values  # the numbers among the arguments, where a call does not bring others
    static: bool  # whether chunks are dealt before the run, or taken by the next free worker
    retries: int = 0  # how often the chunks of dead workers are run again
    journal: Journal | None = None  # with retries: the old content of chunks
    debug: bool = False  # whether kernels get guarded copies
    captured: tuple[Captured, ...] = ()  # with retries or debug: what else kernels may write,
    careful: bool = False  # and whether they do it as if others wrote there, too
    context: CallContext | None = None  # the caller's, where another process is to have it
    sweeps: Sweeps | None = None  # where it repeats itself; links are then those of two sweeps
    apart: bool = False  # whether links see neighbouring chunks: so one after another (`stages`),
    skewed: Plan | None = None  # or, if machine code can, one behind the other
    numbers: tuple[int, ...] | None = None  # of a plan of some chunks: their numbers among all
    form: Form = field(default_factory=Form)

    @cached_property
    def count(self) -> int:
        """How many chunks it has: to ask them takes a call each time."""
        return len(self.chunks)

    @cached_property
    def name(self) -> str:
        """What messages call its kernel."""
        links = self.links if self.sweeps is None else self.links[: len(self.links) // 2]
        return " + ".join(link.kernel.name for link in links)

    @cached_property
    def versions(self) -> tuple[tuple[dict[Any, Any], Any], ...]:
        """The versions of each jitted kernel, and the first, which ``recompile()`` replaces."""
        kernels = [link.kernel for link in self.links]
        overloads = [one.dispatcher.overloads for one in kernels if isinstance(one, NumbaKernel)]
        # Not known.values(): an OrderedDict looks each key up, and hashes Numba's types for it.
        return tuple((known, next(iter(dict.values(known)), None)) for known in overloads)

    def run_chunk(self, number: int, values: Values, worker: int = NO_WORKER) -> None:
        """Call the kernels on one chunk. This is the only place where Python calls a kernel."""
        if self.sweeps is not None:
            self._run_part(number, values, worker)
            return
        call = self._chunk_call(number, values, worker)
        nesting.depth += 1
        try:
            if self.journal is not None:
                self.journal.keep(number, self.written(number))
            if self.context is None:
                self._call(call)
            else:
                self.context.run(self._call, call)
            if self.journal is not None:
                self.journal.commit(number)
        except BaseException as error:
            self.blame(error, number)
            raise
        finally:
            nesting.depth -= 1

    def _run_part(self, number: int, values: Values, worker: int) -> None:
        """Go through the sweeps of a part, as far as other parts have come and the goal is."""
        assert self.native is not None  # noqa: S101  # else there would be no such plan
        from shmcompute.kernels import sweeping  # noqa: PLC0415  # for sweeps only

        error = sweeping.run_part(self.native, self.frame_here, number, values, max(0, worker))
        if error is not None:
            self.blame(error, number)
            raise error

    @cached_property
    def stages(self) -> tuple[Plan, ...]:
        """A plan of each link, where these are apart, to be run one after another."""
        alone = replace(self, apart=False, skewed=None)
        return tuple(replace(alone, links=(link,), form=Form()) for link in self.links)

    def _chunk_call(self, number: int, values: Values = (), worker: int = 0) -> ChunkCall:
        chunks = self.chunks
        if self.numbers is not None:
            among_all = self.numbers[number]
        else:
            among_all = chunks.number(number) if isinstance(chunks, Grid) else number
        return ChunkCall(*chunks[number], among_all, worker, values)

    def _call(self, call: ChunkCall) -> None:
        for link in self._guarded(call) if self.debug else self.links:
            link.kernel(link.arguments.at(call))

    def _guarded(self, call: ChunkCall) -> Iterator[Link]:
        """The links on copies, checked after each; written back only if all links behaved."""
        from shmcompute.plans.debug_guard import Guard  # noqa: PLC0415  # for debugging only

        guard = Guard([link.arguments.at(call) for link in self.links])
        for number, link in enumerate(self.links):
            yield replace(link, arguments=guard.arguments(number))
            guard.check(number, link.kernel, (call.start, call.stop))
        guard.write_back()

    def written(self, number: int) -> list[Array]:
        """What a chunk writes, each part once."""
        call = self._chunk_call(number)
        written = itertools.chain.from_iterable(link.arguments.written(call) for link in self.links)
        return list({address(view): view for view in written}.values())

    def only(self, numbers: Sequence[int]) -> Plan:
        """The plan of some of its chunks."""
        among_all = tuple(self._chunk_call(number).number for number in numbers)
        chunks = tuple(self.chunks[number] for number in numbers)
        return replace(self, chunks=chunks, numbers=among_all, form=Form())

    def with_journal(self, journal: Journal) -> Plan:
        """The plan that keeps there what its chunks held before."""
        return replace(self, journal=journal, form=Form())

    @cached_property
    def outputs(self) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each array that a run of it makes: a row for each chunk."""
        return [
            ((len(self.chunks), *row.shape[1:]), row.dtype)
            for link in self.links
            for row in link.arguments.outputs()
        ]

    def with_outputs(self, views: Sequence[Array]) -> Plan:
        """The plan that writes these."""
        left = iter(views)
        links = tuple(
            replace(link, arguments=link.arguments.with_outputs(left)) for link in self.links
        )
        return replace(self, links=links)

    def within(self, now: CallContext) -> Plan:
        """The plan that is run in this context."""
        latest: Plan | None = self.__dict__.get("_within")
        if latest is None or latest.context != now:
            forms = self.form.within
            if now not in forms:
                forms.clear()  # the latest is enough
                forms[now] = Form()
            latest = self.__dict__["_within"] = self._copy((), context=now, form=forms[now])
        return latest

    def over(self, chunks: Sequence[Chunk]) -> Plan:
        """The same plan of other chunks."""
        # Where it makes nothing, that need not be found out again.
        stale = ("outputs", *OF_CHUNKS) if self.outputs else OF_CHUNKS
        return self._copy(stale, chunks=chunks)

    @cached_property
    def ranges(self) -> dict[Hashable, Plan]:
        """The latest plans that `over` has made of it, by their ranges."""
        return {}

    def keep(self, extent: Hashable, plan: Plan) -> Plan:
        """Keep the plan over another range while it is among the latest: to make it takes 3 µs."""
        if len(self.ranges) >= KEPT:
            self.ranges.clear()
        self.ranges[extent] = plan
        return plan

    def _copy(self, stale: Sequence[str], **changes: Any) -> Plan:
        """What `replace` makes, in a tenth of the time; what is cached stays, but for the stale."""
        copy = object.__new__(Plan)
        state = self.__dict__ | changes
        for name in ("_within", "ranges", "stages", *stale):
            state.pop(name, None)
        object.__setattr__(copy, "__dict__", state)  # the class is frozen
        return copy

    def frame(self, place: Callable[[Array], Place]) -> bytes:
        """Where its arrays are and how its chunks are cut, as workers are told."""
        frame: bytes | None = self.__dict__.get("_frame")
        if frame is None:
            arrays = self.places(place).words
            frame = self.__dict__["_frame"] = pack_head(self.chunks) + arrays
        return frame

    @cached_property
    def frame_here(self) -> bytes:
        """The same, by addresses of this process."""
        return pack_head(self.chunks) + find_places(self.views(), place_in_memory).words

    def places(self, place: Callable[[Array], Place], *, again: bool = False) -> Places:
        """Where its arrays are, as `place` tells; asked once, or again."""
        places: Places | None = None if again else self.__dict__.get("_places")
        if places is None:
            places = self.__dict__["_places"] = find_places(self.views(), place)
            self.__dict__.pop("_frame", None)
        return places

    def attached(self, views: Iterator[Array], chunks: Sequence[Chunk]) -> Plan:
        """The plan of a detached one's form, with these arrays."""
        links = tuple(
            replace(link, arguments=link.arguments.attached(views)) for link in self.links
        )
        return self._copy((*OF_ARRAYS, *OF_CHUNKS), links=links, chunks=chunks)

    def detached(self) -> Plan:
        """Its form as a plan, without arrays and chunks."""
        return replace(self, links=self.detached_links, chunks=(), values=())

    @cached_property
    def detached_links(self) -> tuple[Link, ...]:
        """Its links as they are sent, and kept: without arrays."""
        return tuple(replace(link, arguments=link.arguments.detached()) for link in self.links)

    def reattached(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Plan:
        """The plan of its form and one kernel, with other arguments of the same kinds."""
        links = (replace(self.links[0], arguments=arguments),)
        stale = *OF_ARRAYS, *OF_CHUNKS
        return self._copy(stale, links=links, chunks=chunks, values=arguments.values)

    def views(self) -> list[Any]:
        """The arrays whose places a frame tells; their outlines where the plan is detached."""
        return [view for link in self.links for view in link.arguments.views()]

    @cached_property
    def jitted(self) -> bool:
        """Whether all of it is jitted, so that no such context rules it."""
        return all(isinstance(link.kernel, NumbaKernel) for link in self.links)

    @cached_property
    def has_scratch(self) -> bool:
        """Whether workers have memory of their own for it."""
        return any(ScratchRow in link.arguments.classes for link in self.links)

    @cached_property
    def nogil(self) -> bool:
        """Whether all of its kernels were compiled to run without the GIL."""
        kernels = [link.kernel for link in self.links]
        return all(
            isinstance(kernel, NumbaKernel) and bool(kernel.dispatcher.targetoptions.get("nogil"))
            for kernel in kernels
        )

    def targets(self) -> list[Array]:
        """The arrays among its arguments that chunks write."""
        parts = itertools.chain.from_iterable(link.arguments.bound for link in self.links)
        return [part.view for part in parts if isinstance(part, Cut) and part.writes]

    def blame(self, error: BaseException, number: int) -> None:
        """Say in which chunk an error arose."""
        if self.sweeps is not None:
            number = self.sweeps.at_work(number)
        start, stop = self.chunks[number]
        with suppress(
            Exception
        ):  # a kernel's exception may refuse a note, and is raised all the same
            error.add_note(f"in chunk [{start}, {stop}) of kernel {self.name}")

    @property
    def native(self) -> NativePlan | None:
        """The plan as machine code runs it, if machine code can."""
        form = self.form
        if not form.is_made:
            form.native, form.is_made = self._make_native(), True
        return form.native

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """Why each kernel is called by Python; None for one that machine code can call."""
        return (None,) * len(self.links) if self.native is not None else self.form.reasons

    def _make_native(self) -> NativePlan | None:
        calls = self._native_calls()
        if not all(isinstance(call, NativeCall) for call in calls):
            one_way = "another kernel of the chain needs Python, and a chain goes one way"
            self.form.reasons = tuple(
                call.reason if isinstance(call, NeedsPython) else one_way for call in calls
            )
        if self.sweeps is not None:
            return self.sweeps.native(calls)
        return make_native_plan(calls, _edges(self.chunks))

    def _native_calls(self) -> Sequence[NativeCall | NeedsPython]:
        """How machine code calls each kernel, or why it can't."""
        reason = self._needs_python()
        if reason is not None:
            return [NeedsPython(reason)] * len(self.links)
        try:
            if self.sweeps is None:
                return [link.native(self.chunks) for link in self.links]
            # A worker to which only source came has yet to compile it.
            chunks = self.sweeps.typical
            return [link.checked(chunks).native(chunks) for link in self.links]
        except Exception as error:  # noqa: BLE001  # private parts of Numba: Python will do
            failed = f"its call by machine code can't be made ({type(error).__name__}: {error})"
            return [NeedsPython(failed)] * len(self.links)

    def _needs_python(self) -> str | None:
        """Why Python has to run its chunks, whatever its kernels are."""
        if self.debug:
            return "debug=True gives it guarded copies, which Python makes and looks at"
        if self.journal is not None:
            return "with retries= Python first copies what each chunk is about to write"
        if self.numbers is not None:
            return "these are chunks that a dead worker left"
        return None


def _edges(chunks: Sequence[Chunk]) -> list[int]:
    """The edges of chunks that are contiguous, where no rule tells them."""
    if isinstance(chunks, Chunks):
        return []
    if isinstance(chunks, Grid):
        return [edge for cuts in chunks.axes() for edge in _edges(cuts)]
    return [start for start, _ in chunks[:1]] + [stop for _, stop in chunks]
