"""`parallel_reduce`: a kernel's results for all chunks, combined in a fixed tree.

The file is long because its front door is documented for users.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, Never

import numpy as np

from shmcompute import config
from shmcompute.algorithms.combine import Combine, Partials
from shmcompute.algorithms.known_calls import DirectCall, KnownCalls, StoringCall
from shmcompute.algorithms.part_sizes import part_length
from shmcompute.algorithms.returned_values import ROW, Sending, received, together
from shmcompute.algorithms.storing import layout, stored, storing
from shmcompute.calls import await_turn, call, pool_for
from shmcompute.chunked import kind_of_chunked, results_of_blocks
from shmcompute.chunking import (
    Arguments,
    Bound,
    Chunk,
    ChunkCall,
    ChunkStart,
    PaddedPart,
    PerChunk,
    Scalar,
    ScratchRow,
    Setting,
    Values,
    bind,
    bytes_of,
    chunks,
    cut_ends,
    per_chunk,
)
from shmcompute.chunking import chunk as chunk_number
from shmcompute.errors import KernelTypeError
from shmcompute.kernels import Kernel, NumbaKernel, name_of, rewrap
from shmcompute.kernels import kernel as kernel_of
from shmcompute.plans import Options, call_key
from shmcompute.pool import Pool
from shmcompute.progress import Asked, asked_for
from shmcompute.system.tracebacks import shorten
from shmcompute.typing import BackendName, ScheduleName

SMALLEST = 1 << 15  # bytes of a chunk: to call a Python kernel costs as much as to add these

Keyed = tuple[Hashable | None, Values]  # of `call_key`

_known = KnownCalls()


def parallel_reduce(
    kernel: Any,
    *args: Any,
    combine: Any,
    initial: Any = None,
    axis: int = 0,
    chunksize: int | None = None,
    schedule: ScheduleName = "static",
    pool: Pool | None = None,
    backend: BackendName | None = None,
    timeout: float | None = None,
    retries: int = 0,
    debug: bool | None = None,
    progress: Asked = None,
    **unknown: Never,
) -> Any:
    """Combine what `kernel` returns for each chunk of the arrays.

    The result is the same, bit for bit, for any number of workers, on every backend, storage and
    start method: chunks are cut by the length of the axis and the size of its elements alone, and
    results are combined neighbour with neighbour, in a tree that depends on their number alone.

    Parameters
    ----------
    kernel : callable
        Returns the result of its chunk: a number, a tuple of numbers, or an array of a shape that
        all chunks have. A jitted kernel, or any Python callable (``np.sum``). Where `per_chunk` is
        among its arguments it writes there and returns nothing: so large arrays are not copied.
    *args
        As for `parallel_apply`: what is only read is best passed in `read`.
    combine : callable, or tuple of them
        Makes one of two neighbouring results: a ufunc, which is used on each part of a tuple or
        element of an array; a jitted or Python function; or one of these for each part of a tuple.
        It is to be associative, up to rounding, which nobody can check; it need not be commutative.
    initial : optional
        Comes before the first result, and is the result where the axis has no elements.
    axis, chunksize, pool, backend, timeout, retries, debug, progress
        As for `parallel_apply`. Another `chunksize` may change the last bits of floats.
    schedule : {'static', 'dynamic', 'guided'}
        Who takes which chunk. All have the same chunks; ``'guided'`` is ``'dynamic'`` here.
    **unknown
        As for `parallel_apply`.

    Returns
    -------
    number, array, or tuple of these
        As the kernel returns, in NumPy's types.

    Raises
    ------
    ValueError
        For an axis of no elements without `initial`.
    TypeError
        For a kernel that returns nothing or what is no number, chunks or a `combine` that return
        another type or shape: before anything runs, where it can be known.
    Exception
        As `parallel_apply`.

    Examples
    --------
    >>> import numpy as np, numba as nb, shmcompute as sc
    >>> @nb.njit
    ... def extremes(x):
    ...     return x.min(), x.max(), x.sum()
    >>> with sc.SharedArray(np.arange(1000.0)) as arr:
    ...     low, high, total = sc.parallel_reduce(
    ...         extremes, sc.read(arr), combine=(np.minimum, np.maximum, np.add)
    ...     )
    ...     print(low, high, total)
    0.0 999.0 499500.0
    """
    if unknown:
        config.refuse_unknown("parallel_reduce", unknown)
    if (library := kind_of_chunked(args)) is not None:
        config.refuse_given(
            "parallel_reduce of chunked arrays",
            "it is a task for each block, which Dask's own scheduler runs if they are Dask's",
            chunksize=chunksize, timeout=timeout, retries=retries or None, debug=debug or None,
            progress=progress,
        )  # fmt: skip
        _check_kernel(kernel)
        blocks = results_of_blocks(
            library, "parallel_reduce", kernel, args, axis, pool_for(pool, backend)
        )
        return _reduce_blocks(kernel, blocks, Combine(combine), initial)
    chosen, combiner = pool_for(pool, backend), Combine(combine)
    if timeout is not None:
        config.timeout(timeout)  # raises
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, retries, guarded)
    try:
        asked = None if progress is None else asked_for(progress)
        request = _Request(kernel, args, options, chosen, timeout, asked)
        keyed = call_key(kernel, args, options)
        if chosen.records is not None:
            return _reduce_tuned(request, combiner, initial, keyed)
        return _reduce(request, combiner, initial, keyed)
    except BaseException as error:
        shorten(error)
        raise


def _reduce_blocks(kernel: Any, blocks: Any, combiner: Combine, initial: Any) -> Any:
    """The result of a kernel over arrays that lie in blocks; each block is a chunk."""
    call, lengths, results = blocks
    length = lengths[0] if lengths else 0
    ((_, *given),) = call.calls([kernel], 0, call.samples(length))
    arguments = bind(given, Setting(0, shared=False))  # its markers name the axis
    jitted = kernel_of(kernel, arguments).threaded()
    dtype = _layout(jitted, arguments, [(0, length)])
    if not results:
        nothing = Partials((), False) if dtype is None else stored(np.empty(0, dtype), dtype)
        return combiner(nothing, initial)
    partials = together(results, name_of(kernel))
    if dtype is not None:  # Python has made int64 and float64 of all that it returned
        kinds = [dtype] if dtype.names is None else [dtype[name] for name in dtype.names]
        columns = [one.astype(kind) for one, kind in zip(partials.columns, kinds, strict=True)]
        partials = partials._replace(columns=tuple(columns))
    return combiner(partials, initial)


def _reduce(request: _Request, combiner: Combine, initial: Any, keyed: Keyed) -> Any:
    """The result of a request to a pool of one kind."""
    key: Any
    key, values = keyed
    if key is not None:
        running = request.pool.running
        key = key, running.shared, running.threaded, running.caller_runs
        known = _known.find(key)
        if known is not None:
            return combiner(known(request, values), initial)
    return combiner(request.partials(combiner, key), initial)


def _reduce_tuned(request: _Request, combiner: Combine, initial: Any, keyed: Keyed) -> Any:
    """The same on the backend that suits it."""
    from shmcompute import tuned  # noqa: PLC0415  # for backend="auto" only
    from shmcompute.tuning import Decision  # noqa: PLC0415

    pool, options, key = request.pool, request.options, keyed[0]
    await_turn(pool, request.timeout)

    def on(runner: Pool) -> Callable[[], Any]:
        return partial(_reduce, request._replace(pool=runner), combiner, initial, keyed)

    if (only := tuned.only_pool(pool, options, request.timeout)) is not None:
        return on(only)()
    assert pool.records is not None  # noqa: S101  # for the type checker
    if key is not None and (note := pool.records.note(key)) is not None:
        note.left -= 1
        return on(note.pool)()
    _check_kernel(request.kernel)
    calls = [(request.kernel, *request.args)]
    record = tuned.record_of(pool, calls, options, "reduce", cut_by_length=True)
    result, runner, left = tuned.run_tuned(pool, record, on, whole=True)
    if key is not None and left:
        pool.records.keep(key, Decision(runner, left))
    return result


class _Request(NamedTuple):
    """One call, step by step."""

    kernel: Any
    args: tuple[Any, ...]
    options: Options
    pool: Pool
    timeout: float | None
    progress: Asked = None

    def partials(self, combiner: Combine, key: Any) -> Partials:
        """The results of all chunks."""
        _check_kernel(self.kernel)
        axis, schedule, debug = self.options.axis, self.options.schedule, self.options.debug
        if isinstance(axis, tuple):
            raise TypeError(
                f"axis: a reduction goes along one axis, got {axis!r}; for results of blocks "
                "parallel_apply takes two, with sc.per_chunk(shape)"
            )
        running = self.pool.running
        setting = Setting(axis, running.shared, running.workers)
        arguments = bind(self.args, setting)
        cut = self._cut(arguments)
        options = self.options._replace(
            chunksize=self._size(arguments),
            schedule="static" if schedule == "static" else "dynamic",
        )
        if any(isinstance(arg, PerChunk) for arg in self.args):
            return self._from_outputs(options)
        kernel = kernel_of(self.kernel, arguments)
        kernel = kernel.bounded() if debug else kernel
        kernel = kernel.threaded() if running.threaded else kernel
        dtype = _layout(kernel, arguments, cut)
        if dtype is None or not isinstance(kernel, NumbaKernel):
            return self._from_python(kernel, arguments, cut, options)
        combiner.check(stored(np.empty(0, dtype), dtype))
        make = (
            _direct
            if self._is_direct(arguments, cut)
            else partial(_storing, count=len(cut), options=options)
        )
        known = make(kernel, arguments, dtype)
        result = known(self, arguments.values)
        if key is not None:
            calls = [(self.kernel, *self.args)]
            _known.keep(key, known, kernel.dispatcher.overloads, calls)
        return result

    def _size(self, arguments: Arguments) -> int:
        """Elements of a chunk."""
        if self.options.chunksize is not None:
            return config.count("chunksize", self.options.chunksize)
        return part_length(arguments.length, bytes_of([arguments]), SMALLEST)

    def _cut(self, arguments: Arguments) -> Sequence[Chunk]:
        size = self._size(arguments)
        chunks(arguments.length, 1, self.options.schedule, size)  # raises for an unknown schedule
        cut = chunks(arguments.length, 1, "static", size)
        padded = [one for one in arguments.bound if isinstance(one, PaddedPart)]
        return cut_ends(cut, padded) if padded else cut

    def _call(self, kernel: Any, args: tuple[Any, ...], options: Options) -> Any:
        return call(kernel, args, options, self.pool, self.timeout, None, self.progress)

    def _from_outputs(self, options: Options) -> Partials:
        """Of a kernel that writes them itself."""
        outputs = self._call(self.kernel, self.args, options)
        several = isinstance(outputs, tuple)
        columns = []
        for output in outputs if several else (outputs,):
            with output:
                columns.append(output.array.copy())
        return Partials(tuple(columns), several)

    def _from_python(
        self, kernel: Kernel, arguments: Arguments, cut: Sequence[Chunk], options: Options
    ) -> Partials:
        """Of any callable, called by Python."""
        if not isinstance(kernel, NumbaKernel):
            kernel.check(arguments, cut)
        if not cut:
            return Partials((), several=False)
        with tempfile.TemporaryDirectory(prefix="shmcompute-") as folder:
            sending = Sending(kernel.function, folder)
            args = (*self.args, chunk_number, per_chunk(ROW, np.uint8))
            with self._call(sending, args, options) as rows:
                return received(rows.array, folder)

    def _is_direct(self, arguments: Arguments, cut: Sequence[Chunk]) -> bool:
        """Whether the caller calls the kernel, and nobody else needs to know."""
        return (
            len(cut) == 1
            and self.pool.running.caller_runs
            and not (self.options.debug or self.options.retries)
            and not any(isinstance(one, (ScratchRow, PaddedPart)) for one in arguments.bound)
        )


def _storing(
    kernel: NumbaKernel, arguments: Arguments, dtype: np.dtype[Any], *, count: int, options: Options
) -> StoringCall:
    given = len(kernel.partial_args) + len(arguments.bound)
    wrapped = storing(kernel.dispatcher, given, len(dtype.names or ()))
    return StoringCall(rewrap(kernel.function, wrapped), dtype, count, options)


def _direct(kernel: NumbaKernel, arguments: Arguments, dtype: np.dtype[Any]) -> DirectCall:
    sample = arguments.at(ChunkCall(0, arguments.length, values=arguments.values))
    before = len(kernel.partial_args)
    values = tuple(
        (before + position, index)
        for position, argument in enumerate(arguments.bound)
        if (index := _number_of(argument)) is not None
    )
    given = [*kernel.partial_args, *sample]
    length, name = arguments.length, kernel.name
    return DirectCall(kernel.dispatcher, name, length, given, values, _converter(dtype))


def _number_of(argument: Bound) -> int | None:
    """Which of the call's numbers an argument of its only chunk is; that chunk starts at 0."""
    if isinstance(argument, ChunkStart):
        return argument.base
    return argument.index if isinstance(argument, Scalar) else None


def _check_kernel(kernel: Any) -> None:
    if isinstance(kernel, list):
        raise TypeError("kernel: a reduction has one kernel, which may call others; got a chain")
    if isinstance(getattr(kernel, "ufunc", kernel), np.ufunc):  # Numba wraps its own
        raise KernelTypeError(
            f"kernel {name_of(kernel)} is a ufunc, which returns an array as long as its chunk; "
            f"pass its method, {name_of(kernel)}.reduce"
        )


def _layout(kernel: Kernel, arguments: Arguments, cut: Sequence[Chunk]) -> np.dtype[Any] | None:
    """How memory holds its result; None if that is known only when there is one."""
    if not isinstance(kernel, NumbaKernel):
        return None
    returned = kernel.returned(arguments, cut)
    return None if kernel.keywords else layout(kernel.name, returned)


def _converter(dtype: np.dtype[Any]) -> Callable[[Any], Partials]:
    """Makes the partials of one result."""
    if dtype.names is None:
        return lambda result: Partials((np.array([result], dtype),), several=False)
    kinds = [dtype[name] for name in dtype.names]
    return partial(_converted, kinds)


def _converted(kinds: list[np.dtype[Any]], result: tuple[Any, ...]) -> Partials:
    pairs = zip(result, kinds, strict=True)
    return Partials(tuple(np.array([part], kind) for part, kind in pairs), several=True)
