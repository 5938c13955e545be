"""`explain` names the true reason of calls that are slow or odd, each of which is provoked here."""

from __future__ import annotations

import multiprocessing
import os
import threading
from functools import partial

import kernels
import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute import calls, default_pools
from shmcompute.kernels import original_of
from shmcompute.plans import Options, Plan, call_key, calls_of, why_bound_anew
from shmcompute.system import cores


@nb.njit(nogil=True)  # so that threads run this very version
def scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@nb.njit
def add_first(x, several):
    x += several[0]


@nb.njit
def plus_one(x):
    for i in range(x.size):
        x[i] += 1


def python_kernel(x):
    x += 1


class Runs:
    """Which way a call really goes: how often Python calls its kernels in this process."""

    def __init__(self, monkeypatch):
        self.by_python = 0
        run_chunk = Plan.run_chunk

        def counted(plan, *args):
            self.by_python += 1
            return run_chunk(plan, *args)

        monkeypatch.setattr(Plan, "run_chunk", counted)

    def __call__(self, *args, **options):
        self.by_python = 0
        sc.parallel_apply(*args, **options)
        return self.by_python


@pytest.fixture
def runs(monkeypatch):
    return Runs(monkeypatch)


@pytest.fixture
def arr():
    with sc.SharedArray(np.ones(100_000)) as array:
        yield array


@pytest.fixture
def threads(pools):
    return pools["threads"]


@pytest.fixture
def processes(pools):
    return pools["forkserver"]


def advice_of(told, topic):
    """The one advice on that topic, in words."""
    (advice,) = [one for one in told.advice if one.topic == topic]
    return str(advice)


# Which way it goes


def test_a_jitted_kernel_of_arrays_and_numbers_goes_by_machine_code(arr, threads, runs):
    told = sc.explain(scale, arr, 2.0, pool=threads)
    assert (told.way, told.reason, told.advice) == ("machine code", None, ())
    assert runs(scale, arr, 2.0, pool=threads) == 0


REFLECTED = pytest.mark.filterwarnings("ignore::numba.NumbaPendingDeprecationWarning")


@REFLECTED
@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([1.0, 2.0], "argument 1 is a list (Numba's type reflected list(float64)"),
        ((1.0, 2), "argument 1 is a tuple (Numba's type Tuple(float64, int64)"),
        (("a", "b"), "argument 1 is a tuple (Numba's type UniTuple(unicode_type x 2)"),
        (nb.typed.List([1.0]), "argument 1 is a List (Numba's type ListType[float64]"),
    ],
)
def test_an_argument_that_machine_code_does_not_pass_is_named(value, named, arr, threads, runs):
    @nb.njit
    def kernel(x, several):
        x[0] = len(several)

    told = sc.explain(kernel, arr, value, pool=threads)
    assert told.way == "dispatcher"
    assert told.reason.startswith(named)
    assert named in advice_of(told, "by-python")
    assert runs(kernel, arr, value, pool=threads) == len(told.chunks.ranges)


def test_a_string_and_none_are_named(arr, threads):
    @nb.njit
    def kernel(x, what, nothing):
        x[0] = len(what)

    told = sc.explain(kernel, arr, "text", 1, pool=threads)
    assert told.reason.startswith("argument 1 is a str (Numba's type unicode_type)")
    told = sc.explain(kernel, sc.split(arr), b"", None, pool=threads)
    assert told.reason.startswith("argument 1 is a bytes")


def test_an_object_of_a_jitclass_is_named(arr, threads):
    @nb.experimental.jitclass([("by", nb.float64)])
    class Step:
        def __init__(self, by):
            self.by = by

    @nb.njit
    def kernel(x, step):
        x += step.by

    told = sc.explain(kernel, arr, Step(2.0), pool=threads)
    assert "argument 1 is a Step" in told.reason


def test_an_object_that_numba_does_not_know_is_refused_as_a_call_refuses_it(arr, threads):
    with pytest.raises(sc.errors.KernelTypeError, match="argument 1"):
        sc.explain(scale, arr, object(), pool=threads)


def test_a_partial_with_keywords_is_named(arr, threads, runs):
    kernel = partial(scale, factor=2.0)
    told = sc.explain(kernel, arr, pool=threads)
    assert told.reason == "its partial passes factor=, and machine code knows no keywords"
    assert runs(kernel, arr, pool=threads) == 2


def test_what_a_partial_holds_is_named_as_its_own(arr, threads):
    @nb.njit
    def kernel(several, x):
        x += several[0]

    told = sc.explain(partial(kernel, (1.0, 2)), arr, pool=threads)
    assert told.reason.startswith("argument 0 of its partial is a tuple")


def test_a_returned_array_is_named(arr, threads, runs):
    @nb.njit
    def kernel(x):
        x += 1
        return x

    told = sc.explain(kernel, arr, pool=threads)
    assert told.reason.startswith("it returns array(float64, 1d, C)")
    assert runs(kernel, arr, pool=threads) == 2


def test_object_mode_is_named(arr, threads, runs):
    @nb.jit(forceobj=True)
    def kernel(x):
        x += 1

    told = sc.explain(kernel, arr, pool=threads)
    assert "object mode" in told.reason
    assert runs(kernel, arr, pool=threads) == 2


@pytest.mark.filterwarnings("ignore:.*object mode won't allow parallel")
def test_an_objmode_block_is_named(arr, threads, processes, runs):
    @nb.njit
    def kernel(x):
        with nb.objmode():
            str(x.size)
        x[0] = 3

    told = sc.explain(kernel, arr, pool=threads)
    assert "`with objmode` block" in told.reason
    assert runs(kernel, arr, pool=threads) == 2
    told = sc.explain(kernel, arr, pool=processes)
    assert "`with objmode` block" in told.kernels[0].source


def test_types_that_an_eager_kernel_converts_are_named(arr, threads, runs):
    @nb.njit("void(float64[::1], float64)")
    def kernel(x, factor):
        x *= factor

    told = sc.explain(kernel, arr, 2, pool=threads)
    assert told.reason.startswith("it was compiled for other types")
    assert "float64" in told.reason
    assert runs(kernel, arr, 2, pool=threads) == 2
    assert sc.explain(kernel, arr, 2.0, pool=threads).way == "machine code"


def test_chunks_of_several_types_are_named(threads, runs):
    @nb.njit
    def kernel(x):
        x += 1

    with sc.SharedArray(np.ones(10)) as arr:  # of a view with gaps, one element has none
        told = sc.explain(kernel, arr[::2], chunksize=2, pool=threads)
        several = "array(float64, 1d, A), array(float64, 1d, C)"
        assert told.reason == f"argument 0 is of several types in its chunks: {several}"
        assert runs(kernel, arr[::2], chunksize=2, pool=threads) == 3


def test_a_random_generator_is_named(arr, threads, runs):
    @nb.njit
    def kernel(x, rng):
        x[0] = rng.random()

    told = sc.explain(kernel, arr, sc.rng(1), pool=threads)
    assert told.reason.startswith("argument 1 is a random generator")
    assert told.chunks.count == runs(kernel, arr, sc.rng(1), pool=threads)


def test_a_python_kernel_on_threads_takes_turns(arr, threads, runs):
    told = sc.explain(python_kernel, arr, pool=threads)
    assert (told.way, told.reason) == ("Python", "it is a Python function")
    assert "take turns" in advice_of(told, "gil")
    assert runs(python_kernel, arr, pool=threads) == 2


def test_a_python_kernel_on_processes_does_not(arr, processes):
    told = sc.explain(python_kernel, arr, pool=processes)
    assert told.way == "Python"
    assert "gil" not in told.topics


def test_a_ufunc_is_called_by_python_but_takes_no_turns(arr, threads, runs):
    told = sc.explain(np.sqrt, arr, pool=threads)
    assert (told.way, told.topics) == ("ufunc", ())
    assert runs(np.sqrt, arr, pool=threads) == 2


def test_a_chain_goes_one_way(arr, threads, runs):
    told = sc.explain([plus_one, np.sqrt], arr, pool=threads)
    jitted, ufunc = told.kernels
    assert (jitted.way, ufunc.way) == ("dispatcher", "ufunc")
    assert jitted.reason == "another kernel of the chain needs Python, and a chain goes one way"
    assert (told.order, told.anew) == ("chunk by chunk", None)
    assert runs([plus_one, np.sqrt], arr, pool=threads) == told.chunks.count


def test_chains_that_see_neighbours_go_one_behind_the_other(any_chain_pool, runs):
    with sc.SharedArray(np.ones(5000)) as new, sc.SharedArray(np.ones(5000)) as old:
        seen = sc.halo(old, 1, boundary="edge")
        links = [(plus_one, old), (mean, new, seen)]
        told = sc.explain(links, pool=any_chain_pool)
        assert (told.order, told.way) == ("one behind the other", "machine code")
        assert runs(links, pool=any_chain_pool) == 0
        told = sc.explain([(np.negative, old), (mean, new, seen)], pool=any_chain_pool)
        assert told.order == "one after another"
        assert [kernel.way for kernel in told.kernels] == ["ufunc", "machine code"]
        assert "chain" in told.topics


@pytest.fixture(params=["threads", "caller"])
def any_chain_pool(request, pools):
    return pools[request.param]


@nb.njit(nogil=True)
def mean(new, old):
    for i in range(new.size):
        new[i] = 0.5 * (old[i] + old[i + 2])


def test_serial_calls_come_from_python(arr, runs):
    told = sc.explain(scale, arr, 2.0, backend="serial")
    assert "one thread calls it from Python" in told.reason
    assert told.advice == ()
    assert runs(scale, arr, 2.0, backend="serial") == 1


def test_one_chunk_is_run_by_the_caller_alone(arr, threads, runs):
    told = sc.explain(scale, arr, 2.0, pool=threads, chunksize=arr.size)
    assert "one thread calls it from Python" in told.reason
    assert "1 for 2" in advice_of(told, "few-chunks")
    assert runs(scale, arr, 2.0, pool=threads, chunksize=arr.size) == 1


def test_a_timeout_has_the_callers_own_share_called_from_python(arr, pools, runs):
    for name in ("threads", "caller"):
        told = sc.explain(scale, arr, 2.0, pool=pools[name], timeout=60)
        assert told.way == "machine code"
        assert "timeout=" in told.own
        assert runs(scale, arr, 2.0, pool=pools[name], timeout=60) == 1
        assert sc.explain(scale, arr, 2.0, pool=pools[name]).own is None
        assert runs(scale, arr, 2.0, pool=pools[name]) == 0
    assert sc.explain(scale, arr, 2.0, pool=pools["forkserver"], timeout=60).own is None


def test_debug_is_named(arr, threads, runs):
    told = sc.explain(scale, arr, 2.0, pool=threads, debug=True)
    assert told.reason.startswith("debug=True")
    assert told.topics[0] == "debug"
    assert told.anew == "it is debugged"
    assert runs(scale, arr, 2.0, pool=threads, debug=True) >= 2


def test_retries_are_named_with_what_they_copy(arr, pools, runs):
    told = sc.explain(scale, arr, 2.0, pool=pools["caller"], retries=1)
    assert told.reason.startswith("with retries=")
    largest = max(stop - start for start, stop in told.chunks.ranges) * 8
    assert f"{largest / 1024:.1f} KiB" in advice_of(told, "retries")
    assert runs(scale, arr, 2.0, pool=pools["caller"], retries=1) >= 1


def test_retries_do_nothing_on_threads(arr, threads, runs):
    told = sc.explain(scale, arr, 2.0, pool=threads, retries=1, chunksize=50_000)
    assert told.way == "machine code"
    assert "does nothing" in advice_of(told, "retries")
    assert runs(scale, arr, 2.0, pool=threads, retries=1, chunksize=50_000) == 0


def test_numba_switched_off_is_named():
    program = """
        import numba as nb, numpy as np, shmcompute as sc

        @nb.njit
        def kernel(x):
            x += 1

        with sc.SharedArray(np.ones(9)) as arr:
            told = sc.explain(kernel, arr, backend="serial")
        print(told.way, told.reason, told.topics)
    """
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    out = kernels.run(program, fresh="a setting that is read at import", env=env).stdout
    assert out.startswith("Python NUMBA_DISABLE_JIT is set")
    assert "jit-off" in out


def _count_in_worker():
    """Have this worker count how often Python calls its kernels."""
    import functools

    from shmcompute.plans import Plan

    run_chunk = Plan.run_chunk

    @functools.wraps(run_chunk)
    def counted(plan, *args):
        counted.calls += 1
        return run_chunk(plan, *args)

    counted.calls = 0
    Plan.run_chunk = counted


def _calls_in_worker():
    from shmcompute.plans import Plan

    calls, Plan.run_chunk.calls = Plan.run_chunk.calls, 0
    return calls


@pytest.mark.long
def test_worker_processes_go_the_way_that_it_names(arr):
    @nb.njit
    def captures(x):
        x[0] = EVERY_OTHER[1]

    @nb.njit("void(float64[::1])")
    def eager(x):
        x[0] = EVERY_OTHER[1]

    with sc.Pool(1) as pool:
        pool.submit(_count_in_worker).result()
        for way, kernel, args, options in [
            ("machine code", scale, (arr, 2.0), {}),
            ("machine code", scale, (arr, 2.0), {"timeout": 60}),
            ("machine code", eager, (arr,), {}),
            ("dispatcher", captures, (arr,), {}),
            ("dispatcher", scale, (arr, 2.0), {"retries": 1}),
            ("dispatcher", scale, (arr, 2.0), {"debug": True}),
            ("dispatcher", add_first, (arr, (1.0, 2)), {}),
            ("ufunc", np.sqrt, (arr,), {}),
            ("Python", python_kernel, (arr,), {}),
            ("dispatcher", [scale, np.multiply], (arr, 2.0), {}),
        ]:
            told = sc.explain(kernel, *args, **options, pool=pool)
            sc.parallel_apply(kernel, *args, **options, pool=pool)
            by_python = pool.submit(_calls_in_worker).result()
            assert told.kernels[0].way == way
            assert (by_python == 0) == (way == "machine code"), (told, by_python)


# What is compiled and sent


EVERY_OTHER = np.arange(6.0)[::2]  # Numba refers to such an array where it lies


def test_code_with_addresses_of_this_process_goes_as_source(arr, processes):
    @nb.njit
    def kernel(x):
        x[0] = EVERY_OTHER[1]

    told = sc.explain(kernel, arr, pool=processes)
    assert "addresses of this process" in told.kernels[0].source
    assert "addresses of this process" in advice_of(told, "source")
    assert told.way == "dispatcher"
    assert told.reason.startswith("its machine code can't be sent")
    assert "by-python" not in told.topics  # which says the same
    assert "the source of a kernel" in str(told)


def test_workers_compile_what_explain_says_they_compile(arr, processes):
    @nb.njit
    def sent(x):
        x += 1

    @nb.njit
    def compiled(x):
        x[0] = EVERY_OTHER[1]

    for kernel in (sent, compiled):
        told = sc.explain(kernel, arr, pool=processes)
        before = processes.running.compilations()
        sc.parallel_apply(kernel, arr, pool=processes)
        compiles = processes.running.compilations() > before
        assert compiles == (told.kernels[0].source is not None)


def test_machine_code_is_sent_once_and_measured(arr, processes):
    told = sc.explain(scale, arr, 2.0, pool=processes)
    assert told.kernels[0].source is None
    assert told.sent > 1000
    assert "to each worker, once, machine code" in str(told)


def test_what_the_first_call_would_compile_is_timed(arr, threads, monkeypatch):
    @nb.njit(nogil=True)
    def kernel(x):
        x += 1

    monkeypatch.setattr("shmcompute.diagnostics.kernel_advice.SLOW", 0)
    first = sc.explain(kernel, arr, pool=threads)
    (version,) = first.kernels[0].versions
    assert version.new
    assert 0 < version.seconds == first.compile_seconds
    assert f"took {version.seconds:.1f} s" in advice_of(first, "compiling")
    assert version.signature == "(array(float64, 1d, C))"
    monkeypatch.undo()
    later = sc.explain(kernel, arr, pool=threads)
    assert not later.kernels[0].versions[0].new
    assert later.kernels[0].versions[0].seconds == version.seconds
    assert (later.compile_seconds, later.topics) == (0, ())


def test_threads_compile_a_variant_and_say_so(arr, threads):
    @nb.njit
    def kernel(x):
        x += 1

    assert "variant" not in sc.explain(kernel, arr, pool=threads).topics
    kernel(np.ones(3))
    assert "nogil=True" in advice_of(sc.explain(kernel, arr, pool=threads), "variant")
    assert original_of(kernel) is kernel


def test_many_versions_of_a_kernel_are_counted(threads):
    @nb.njit(nogil=True)
    def kernel(x, by):
        x += by

    with sc.SharedArray(np.ones(8, "f4")) as floats, sc.SharedArray(np.ones(8, "c16")) as others:
        for array in (floats, others):
            for by in (1, np.float32(1)):
                sc.parallel_apply(kernel, array, by, pool=threads)
        told = sc.explain(kernel, others, 1, pool=threads)
        assert len(told.kernels[0].versions) == 4
        assert "compiled 4 times" in advice_of(told, "versions")


def test_a_parallel_kernel_is_named(arr, processes):
    @nb.njit(parallel=True)
    def kernel(x):
        for i in nb.prange(x.size):
            x[i] += 1

    assert "parallel=True" in advice_of(sc.explain(kernel, arr, pool=processes), "parallel")


@REFLECTED
def test_a_list_is_converted_for_each_chunk(arr, threads):
    told = sc.explain(add_first, arr, [1.0] * 7, pool=threads)
    assert "all 7 elements" in advice_of(told, "list")


def test_numpy_scalars_cost_nothing(arr, threads, runs):
    told = sc.explain(scale, arr, np.float64(2), pool=threads)
    assert (told.way, told.topics, told.anew) == ("machine code", (), None)
    assert runs(scale, arr, np.float64(2), pool=threads) == 0


# Chunks and workers


def test_fewer_chunks_than_workers(processes):
    with sc.SharedArray(np.ones((1, 5000))) as arr:
        told = sc.explain(scale_rows, arr, pool=processes)
        assert told.chunks.count == 1
        assert "1 for 2" in advice_of(told, "few-chunks")
        assert "few-chunks" not in sc.explain(scale_rows, arr, axis=1, pool=processes).topics


@nb.njit
def scale_rows(x):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] *= 2


def test_more_workers_than_cores(arr, monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_WORKERS", str(cores.granted() + 3))
    monkeypatch.setattr(default_pools, "default_pools", {})
    monkeypatch.setattr(calls, "default_pools", {})
    told = sc.explain(scale, arr, 2.0, backend="threads")
    assert told.workers == cores.granted() + 3
    assert f"share {cores.granted()} cores" in advice_of(told, "oversubscribed")


def test_one_worker_where_several_were_thought_of(arr):
    with sc.Pool(1, backend="threads") as alone:
        told = sc.explain(scale, arr, 2.0, pool=alone)
    assert f"{cores.granted()} of {cores.seen()} cores" in advice_of(told, "one-worker")


def test_little_to_do(threads):
    with sc.SharedArray(np.ones(64)) as few:
        assert "512 bytes" in advice_of(sc.explain(scale, few, 2.0, pool=threads), "small")


def test_tiny_chunks_that_are_handed_out_one_by_one(arr, threads):
    told = sc.explain(scale, arr, 2.0, pool=threads, chunksize=8, schedule="dynamic")
    assert "called 12,500 times, for 64 bytes" in advice_of(told, "tiny-chunks")
    told = sc.explain(scale, arr, 2.0, pool=threads, chunksize=1000, schedule="dynamic")
    assert "tiny-chunks" not in told.topics


def test_chunks_that_share_a_cache_line(arr, threads):
    told = sc.explain(scale, arr, 2.0, pool=threads, chunksize=1)
    assert "8 bytes" in advice_of(told, "cache-line")


def test_static_chunks_of_which_one_worker_gets_more(arr, threads):
    told = sc.explain(scale, arr, 2.0, pool=threads, chunksize=40_000)
    assert "60,000 of 100,000" in advice_of(told, "uneven")
    shares = [0, 0]
    for number, (start, stop) in enumerate(told.chunks.ranges):
        shares[told.chunks.taker(number)] += stop - start
    assert shares == [60_000, 40_000]


def test_chunks_of_a_chain_that_are_larger_than_the_cache(threads):
    size = cores.cache() // 8 * 4
    with sc.SharedArray.zeros(size) as arr:
        told = sc.explain([plus_one, plus_one], arr, pool=threads, chunksize=size // 2)
        assert "second-level cache" in advice_of(told, "chain")
        assert told.read == 2 * arr.nbytes
        cut = sc.explain([plus_one, plus_one], arr, pool=threads)
        assert "chain" not in cut.topics
        assert (cut.read, cut.written) == (arr.nbytes, arr.nbytes)


# Arrays


def test_an_axis_along_which_chunks_are_not_contiguous(threads):
    with sc.SharedArray(np.ones((300, 400))) as arr:
        told = sc.explain(scale_rows, arr, axis=1, pool=threads)
        assert "lies in memory by axis 0" in advice_of(told, "scattered")
        assert "scattered" not in sc.explain(scale_rows, arr, pool=threads).topics
    with sc.SharedArray(np.ones((300, 400)), order="F") as arr:
        told = sc.explain(scale_rows, arr, pool=threads)
        assert "Split along axis=1" in advice_of(told, "scattered")


def test_a_view_with_gaps(arr, threads):
    told = sc.explain(scale, arr[::2], 2.0, pool=threads)
    assert "view with gaps" in advice_of(told, "scattered")


def test_a_plain_array_is_copied_to_each_worker(arr, processes, threads):
    plain = np.ones(20_000)
    told = sc.explain(add_first, arr, sc.whole(plain), pool=processes)
    assert told.copied == plain.nbytes
    assert told.sent > plain.nbytes
    assert "156.2 KiB" in advice_of(told, "copied")
    assert "plain array" in told.anew
    shared = sc.explain(add_first, arr, sc.whole(plain), pool=threads)
    assert (shared.copied, "copied" in shared.topics) == (0, False)


def test_what_a_boundary_copies(threads):
    @nb.njit
    def kernel(new, old):
        new[:] = old[: new.size]

    with sc.SharedArray(np.ones(30)) as new, sc.SharedArray(np.ones(30)) as old:
        told = sc.explain(kernel, new, sc.halo(old, 10, boundary="edge"), pool=threads)
        assert told.copied > 100
        assert "boundary=" in advice_of(told, "padding")


def test_a_file_and_a_fallback_are_named(tmp_path, threads):
    with sc.SharedArray(np.ones(10_000), storage="array") as arr:
        told = sc.explain(scale, arr, 2.0, pool=threads)
        assert "multiprocessing.Array" in advice_of(told, "storage")
        assert told.kernels[0].arguments[0].memory == "array"
    path = tmp_path / "x.npy"
    with sc.SharedArray(np.ones(10_000), storage="file", name=path) as arr:
        told = sc.explain(scale, arr, 2.0, pool=threads)
        assert told.kernels[0].arguments[0].memory == "file"
        assert str(path) in advice_of(told, "file") or "file" not in told.topics  # in a tmpfs


def test_why_a_call_is_bound_anew_is_why_no_plan_is_kept(arr):
    many = tuple(range(70))
    for kernel, args in [
        (scale, (arr, 2.0)),
        (python_kernel, (arr,)),
        (lambda x: None, (arr,)),
        ([scale, scale], (arr, 2.0)),
        ([scale, python_kernel_with(None)], (arr, 2.0)),
        (add_first, (arr, [1.0])),
        (add_first, (arr, "text")),
        (scale, (arr, *many)),
        (np.add, (arr, sc.read(arr))),
    ]:
        key, _ = call_key(kernel, args, Options())
        assert (key is None) == (why_bound_anew(calls_of(kernel, args), ()) is not None)


# Who runs it


def test_the_reason_of_the_backend(arr, monkeypatch, threads):
    assert sc.explain(scale, arr, 2.0, backend="threads").why == "backend= names it"
    assert sc.explain(scale, arr, 2.0, pool=threads).why == "pool= is one of these"
    monkeypatch.delenv("SHMCOMPUTE_BACKEND", raising=False)
    assert sc.explain(scale, arr, 2.0).why == "it is the default"
    monkeypatch.setenv("SHMCOMPUTE_BACKEND", "serial")
    told = sc.explain(scale, arr, 2.0)
    assert (told.backend, told.why) == ("serial", "SHMCOMPUTE_BACKEND=serial names it")


def test_a_daemonic_process_gets_threads(arr, monkeypatch):
    monkeypatch.setattr(default_pools, "default_pools", {})
    monkeypatch.setattr(calls, "default_pools", {})
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    told = sc.explain(scale, arr, 2.0)
    assert (told.backend, "daemonic" in told.why) == ("threads", True)


def test_a_call_within_a_kernel_is_serial(arr, threads):
    told = []

    def outer(x):
        told.append(sc.explain(scale, x, 2.0, backend="processes"))

    sc.parallel_apply(outer, arr, pool=threads, chunksize=arr.size)
    assert (told[0].backend, told[0].why) == (
        "serial",
        "a call within a kernel or task is run by who makes it",
    )


def test_what_auto_would_choose_and_why(arr):
    with sc.Pool(2, backend="auto") as auto:
        told = sc.explain(python_kernel, arr, pool=auto)
        assert (told.backend, told.workers) == ("serial", 1)
        assert told.why.startswith("auto: a first guess")
        told = sc.explain(python_kernel, arr, pool=auto, retries=1)
        assert (told.backend, told.started) == ("processes", False)
        assert "retries=" in told.why
        assert not auto.pids  # nobody was started for that
        sc.parallel_apply(scale, arr, 2.0, pool=auto)
        told = sc.explain(scale, arr, 2.0, pool=auto)
        assert "s" in told.why  # what calls like it have taken
        assert sc.plan(scale, arr, 2.0, pool=auto).explain().backend in ("serial", "threads")
    told = sc.explain(python_kernel, arr, backend="auto")
    assert told.why.startswith("auto: ")


@pytest.mark.parametrize("backend", [None, "threads", "serial", "auto"])
def test_the_backend_is_the_one_that_runs_it(backend):
    runner, chosen = calls.runner_for(None, backend), calls.pool_for(None, backend)
    assert runner.backend == chosen.backend
    assert calls.runner_for(chosen, None).pool is chosen
    assert calls.runner_for(None, backend).pool is chosen


def test_workers_that_are_not_there_yet(arr, monkeypatch):
    monkeypatch.setattr(default_pools, "default_pools", {})
    monkeypatch.setattr(calls, "default_pools", {})
    told = sc.explain(scale, arr, 2.0, backend="processes")
    assert not told.started
    assert "first call starts" in advice_of(told, "start")


def test_nothing_is_started_and_nothing_runs():
    program = """
        import multiprocessing, threading
        import numpy as np, shmcompute as sc
        from shmcompute.default_pools import default_pools

        def kernel(x):
            raise SystemExit("it was run")

        before = threading.active_count()
        with sc.SharedArray(np.ones(9)) as arr:
            for backend in ("processes", "threads", "serial"):
                print(sc.explain(kernel, arr, backend=backend).backend)
            assert (arr.array == 1).all()
        assert not multiprocessing.active_children()
        assert threading.active_count() == before
        assert not default_pools
    """
    assert kernels.run(program).stdout.split() == ["processes", "threads", "serial"]


# What it is


def test_a_range_is_that_of_a_parallel_for(threads):
    @nb.njit
    def kernel(first, last, out):
        out[first:last] += 1

    with sc.SharedArray(np.zeros(50)) as out:
        told = sc.explain(kernel, range(10, 40), sc.shared(out), pool=threads)
        assert told.chunks.ranges == ((10, 25), (25, 40))
        assert told.way == "machine code"
        assert told.anew is None
        assert told.kernels[0].arguments[2].seen == "shared with all chunks"
        assert sc.explain(kernel, range(5, 3), sc.shared(out), pool=threads).chunks.count == 0
        with pytest.raises(ValueError, match="a step of 1"):
            sc.explain(kernel, range(0, 9, 2), sc.shared(out), pool=threads)


def test_what_a_call_with_progress_is_cut_into(arr, threads):
    told = sc.explain(scale, arr, 2.0, pool=threads, progress=print)
    assert told.chunks.ranges == sc.plan(scale, arr, 2.0, pool=threads, progress=print).chunks


@pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
def test_chunks_are_those_of_the_plan(schedule, arr, threads):
    options = {"schedule": schedule, "pool": threads, "chunksize": 7000}
    told = sc.explain(scale, arr, 2.0, **options)
    assert told.chunks.ranges == sc.plan(scale, arr, 2.0, **options).chunks
    lengths = [stop - start for start, stop in told.chunks.ranges]
    assert (told.chunks.smallest, told.chunks.largest) == (min(lengths), max(lengths))
    assert told.chunks.nbytes == 8 * max(lengths)
    assert (told.chunks.taker(1) is None) == (schedule != "static")


def test_memory_that_is_read_and_written(arr, threads):
    told = sc.explain(scale, arr, 2.0, pool=threads)
    assert (told.read, told.written, told.copied) == (arr.nbytes, arr.nbytes, 0)
    with sc.SharedArray(np.ones(arr.size)) as out:
        told = sc.explain(np.sqrt, out, sc.read(arr), pool=threads)
        assert (told.read, told.written) == (arr.nbytes, out.nbytes)


def test_what_a_call_refuses_is_refused(arr, threads):
    for wrong, kind in [
        ({"schedule": "random"}, ValueError),
        ({"axis": 3}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"pool": 3}, TypeError),
        ({"backend": "gpu"}, ValueError),
    ]:
        with pytest.raises(kind):
            sc.explain(scale, arr, 2.0, **wrong)
    with pytest.raises(sc.errors.KernelSerializationError):
        sc.explain(python_kernel_with(threading.Lock()), arr, backend="processes")


def python_kernel_with(lock):
    def kernel(x):
        with lock:
            x += 1

    return kernel


def test_it_prints_and_shows_as_html(arr, threads):
    @nb.njit
    def kernel(x, several):
        x[0] = len(several)

    told = sc.explain(kernel, arr, "<b>", pool=threads)
    text, html = str(told), told._repr_html_()
    assert repr(told) == text
    assert max(map(len, text.splitlines())) <= 100
    for words in ("on 2 threads", "by dispatcher, because argument 1 is a str", "! by-python"):
        assert words in text.replace("\n           ", "")
    assert "<table>" in html
    assert "<locals>" not in html
    assert "&lt;locals&gt;" in html


def test_a_plan_explains_itself(arr, threads):
    step = sc.plan(scale, arr, 2.0, pool=threads)
    told = step.explain()
    assert (told.way, told.backend, told.started) == ("machine code", "threads", True)
    assert told.chunks.ranges == step.chunks
    assert told.anew is None
    assert told.compile_seconds == 0
