"""`Explanation`: the account of a call: who would run it, in which parts, which way, and why so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shmcompute.chunking import Chunk
from shmcompute.diagnostics.rendering import as_html, as_text

Order = Literal["chunk by chunk", "one behind the other", "one after another"]
Way = Literal["machine code", "dispatcher", "ufunc", "Python"]


@dataclass(frozen=True)
class ArgumentAccount:
    """One argument, as chunks see it."""

    position: int
    seen: str  # "split along axis 0", "read along axis 0", "whole", "number", ...
    type: str  # dtype and shape of an array, else the name of its type
    nbytes: int  # of an array; 0 for all else
    memory: str | None  # "shm", "file", "array": what it lies in; "private"; None for no array
    copied: int = 0  # bytes that are copied for it, in each worker or at the ends


@dataclass(frozen=True)
class VersionAccount:
    """One version of a jitted kernel."""

    signature: str
    seconds: float | None  # that compiling it took; None where Numba does not tell: it was cached
    new: bool  # whether it was compiled for this explanation, which the first call would have done


@dataclass(frozen=True)
class KernelAccount:
    """One kernel, and which way it is called."""

    name: str
    way: Way
    reason: str | None  # why not by machine code; None if it is
    source: str | None  # why workers are sent its source; None: machine code, or it is not jitted
    versions: tuple[VersionAccount, ...]
    arguments: tuple[ArgumentAccount, ...]


@dataclass(frozen=True)
class ChunkAccount:
    """How the work is cut and dealt."""

    count: int
    smallest: int  # elements along the axis
    largest: int
    nbytes: int  # of all arrays that are split, in the largest chunk
    schedule: str
    takers: int  # how many run chunks at the same time
    ranges: tuple[Chunk, ...]

    def taker(self, number: int) -> int | None:
        """Which of the takers gets a chunk, from 0; None: whoever is free when it comes."""
        return number % self.takers if self.schedule == "static" and self.takers else None


@dataclass(frozen=True)
class Advice:
    """What is slow or odd in a call, and what to do about it."""

    topic: str  # one word for it
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}. {self.remedy}."


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a call would do; see `explain`. It prints, and shows as HTML in notebooks.

    Attributes
    ----------
    name : str
        What messages call the kernel.
    backend, why : str
        Who runs it, and why that backend.
    workers : int
        How many there are.
    started : bool
        Whether they are there; else the first call starts them.
    chunks : ChunkAccount
        How the work is cut: `count`, `smallest`, `largest`, `nbytes`, `ranges`, `taker(number)`.
    order : str
        How a chain goes: each chunk through all kernels ("chunk by chunk"); where one sees what
        another does to neighbours, "one behind the other", or over all chunks "one after another".
    kernels : tuple of KernelAccount
        Of each its `way` ("machine code", "dispatcher", "ufunc" or "Python") and, if it is not
        machine code, the `reason`; its compiled `versions` and its `arguments`.
    own : str or None
        Why the caller's own share goes another way, if it does.
    sent : int or None
        Bytes that each worker process is sent when it runs such a call first; None: nothing is.
    copied : int
        Bytes of arrays that are copied in each call.
    read, written : int
        Bytes of memory that chunks read and write, if each kernel goes over its arrays once.
    anew : str or None
        Why each such call is bound anew; None: it is bound once, and found again.
    advice : tuple of Advice
        What is slow or odd, each with a `topic`, a `text` and a `remedy`.
    """

    name: str
    backend: str
    why: str
    workers: int
    started: bool
    chunks: ChunkAccount
    order: Order
    kernels: tuple[KernelAccount, ...]
    own: str | None
    sent: int | None
    copied: int
    read: int
    written: int
    anew: str | None
    advice: tuple[Advice, ...]

    @property
    def way(self) -> Way:
        """The slowest way that one of its kernels goes."""
        ways: list[Way] = ["Python", "dispatcher", "ufunc", "machine code"]
        return min((kernel.way for kernel in self.kernels), key=ways.index)

    @property
    def reason(self) -> str | None:
        """Why not all goes by machine code."""
        return next((kernel.reason for kernel in self.kernels if kernel.reason), None)

    @property
    def compile_seconds(self) -> float:
        """What compiling took that was done for this explanation."""
        versions = (version for kernel in self.kernels for version in kernel.versions)
        return sum(version.seconds or 0.0 for version in versions if version.new)

    @property
    def topics(self) -> tuple[str, ...]:
        """What there is advice on."""
        return tuple(advice.topic for advice in self.advice)

    def lines(self) -> Iterator[tuple[str, str]]:
        """What is shown: headings and texts; a line without a heading goes on with the last."""
        yield "chunks", _chunks(self.chunks)
        if len(self.kernels) > 1:
            yield "chain", _ORDERS[self.order]
        for kernel in self.kernels:
            yield "kernel", _way(kernel)
            for version in kernel.versions:
                yield "", _version(version)
            for argument in kernel.arguments:
                yield "", _argument(argument)
        yield from (("own share", self.own),) if self.own else ()
        yield "memory", f"{size(self.read)} read, {size(self.written)} written"
        yield "copied", size(self.copied) if self.copied else "nothing"
        yield "sent", _sent(self)
        again = "it is bound once, and found again"
        yield "next call", again if self.anew is None else f"bound anew: {self.anew}"

    @property
    def headline(self) -> str:
        """What is run by whom, and why."""
        there = "" if self.started or self.backend == "serial" else "; the first call starts them"
        return f"{self.name} on {_who(self.backend, self.workers)}: {self.why}{there}"

    def __str__(self) -> str:
        return as_text(self.headline, self.lines(), map(str, self.advice))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.headline, self.lines(), map(str, self.advice))


_ORDERS: dict[Order, str] = {
    "chunk by chunk": "each chunk goes through all kernels before the next does",
    "one behind the other": "kernels see neighbours, so they go one behind the other, in blocks",
    "one after another": "kernels see neighbours, so each goes over all before the next does",
}


def size(nbytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"


def _who(backend: str, workers: int) -> str:
    if backend == "serial":
        return "the calling thread"
    if backend == "dask":
        return f"{workers} thread{'s' * (workers > 1)} of a Dask cluster"
    kind = {"processes": "worker process", "threads": "thread"}.get(backend, backend)
    return f"{workers} {kind}{'' if workers == 1 else 'es' if kind[-1] == 's' else 's'}"


def _chunks(chunks: ChunkAccount) -> str:
    sizes = f"{chunks.largest:,}"
    if chunks.smallest != chunks.largest:
        sizes = f"{chunks.smallest:,} to {sizes}"
    dealt = "dealt in turn to" if chunks.schedule == "static" else "taken, when free, by"
    bytes_each = f", {size(chunks.nbytes)}" if chunks.nbytes else ""
    return (
        f"{chunks.count:,} of {sizes} elements{bytes_each} each, {chunks.schedule}: "
        f"{dealt} {chunks.takers}"
    )


def _sent(told: Explanation) -> str:
    if told.sent is None:
        return "nothing"
    source = any(kernel.source for kernel in told.kernels)
    code = any(kernel.versions for kernel in told.kernels)
    what = ", the source of a kernel among it" if source else ", machine code" if code else ""
    return f"{size(told.sent)} to each worker, once{what}"


def _way(kernel: KernelAccount) -> str:
    how = f"{kernel.name}: by {kernel.way}"
    return how if kernel.reason is None else f"{how}, because {kernel.reason}"


def _version(version: VersionAccount) -> str:
    when = "now" if version.new else "before"
    took = "loaded from a cache" if version.seconds is None else f"in {version.seconds:.2f} s"
    return f"compiled {when} {took}: {version.signature}"


def _argument(argument: ArgumentAccount) -> str:
    told = f"argument {argument.position}: {argument.seen}, {argument.type}"
    if argument.memory is None:
        return told
    return f"{told}, {size(argument.nbytes)} in {argument.memory} memory"
