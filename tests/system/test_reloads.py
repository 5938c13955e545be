"""Modules that the parent loads again."""

from __future__ import annotations

import functools
import importlib
import sys

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.system import reloads


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that scales by a factor, and one that uses it; give back how to write."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(factor):
        code = f"def scale(x): x *= {factor}\ndef times(v): return v * {factor}\n"
        code += f"class Scale:\n    def __call__(self, v): return v * {factor}\n"
        (tmp_path / "scaling.py").write_text(code)
        importlib.invalidate_caches()

    (tmp_path / "indirect.py").write_text("import scaling\ndef times(v): return scaling.times(v)\n")
    write(2)
    yield write
    for name in ("scaling", "indirect"):
        sys.modules.pop(name, None)


def import_again(name):
    del sys.modules[name]
    return importlib.import_module(name)


AGAIN = {"reload": importlib.reload, "import": lambda old: import_again(old.__name__)}


@pytest.mark.parametrize("how", AGAIN)
def test_tasks_run_what_the_module_is_now(module, process_pool, how):
    scaling = importlib.import_module("scaling")
    indirect = importlib.import_module("indirect")
    for factor in (2, 5, 7):
        module(factor)
        scaling = AGAIN[how](scaling)
        indirect.scaling = scaling
        assert list(process_pool.map(scaling.times, [1, 2])) == [factor, 2 * factor]
        assert process_pool.submit(scaling.Scale(), 1).result() == factor
        if how == "reload":
            assert process_pool.submit(indirect.times, 1).result() == factor


@pytest.mark.parametrize("how", AGAIN)
def test_kernels_too_also_where_workers_hold_them(module, process_pool, how):
    scaling = importlib.import_module("scaling")
    with sc.SharedArray(np.ones(4)) as arr:
        for factor in (2, 5):
            module(factor)
            scaling = AGAIN[how](scaling)
            for _ in range(3):
                arr[:] = 1
                sc.parallel_apply(scaling.scale, arr, pool=process_pool)
                np.testing.assert_array_equal(arr.array, factor)


def test_a_kernel_that_uses_another_module_follows(module, process_pool):
    scaling = importlib.import_module("scaling")

    def kernel(x):
        import scaling  # noqa: PLC0415

        scaling.scale(x)

    with sc.SharedArray(np.ones(4)) as arr:
        run = sc.plan(kernel, arr, pool=process_pool)
        run()
        run()
        module(5)
        importlib.reload(scaling)
        arr[:] = 1
        run()
        np.testing.assert_array_equal(arr.array, 5)


def test_a_name_that_means_another_function_by_now(module, process_pool, monkeypatch):
    """By a decorator that is put around it, as a patch does."""
    scaling = importlib.import_module("scaling")
    original = scaling.times
    assert process_pool.submit(scaling.times, 3).result() == 6

    @functools.wraps(original)
    def negative(v):
        return -original(v)

    with monkeypatch.context() as patched:
        patched.setattr(scaling, "times", negative)
        assert process_pool.submit(scaling.times, 3).result() == -6
        assert list(process_pool.map(scaling.times, [1, 2])) == [-2, -4]
    assert process_pool.submit(scaling.times, 3).result() == 6
    exec("def times(v): return 10 * v", scaling.__dict__)  # noqa: S102
    assert process_pool.submit(scaling.times, 3).result() == 30


def test_a_module_that_can_no_more_be_loaded_is_named_by_who_needs_it(
    module, process_pool, tmp_path
):
    scaling = importlib.import_module("scaling")
    assert process_pool.submit(scaling.times, 1).result() == 2
    (tmp_path / "scaling.py").write_text("1 / 0")
    importlib.invalidate_caches()
    with pytest.raises(ZeroDivisionError):
        importlib.reload(scaling)
    with pytest.raises(sc.errors.KernelSerializationError, match="division"):
        process_pool.submit(scaling.times, 1).result()
    assert process_pool.submit(abs, -1).result() == 1


def test_what_was_never_loaded_is_not_loaded_by_a_reload():
    name = "shmcompute_test_module"
    number = max((number for _, number in reloads.noted()), default=0) + 1
    assert reloads.follow([(name, number)])
    assert name not in sys.modules
    assert not reloads.follow([(name, number)])
