"""Settings and the words that are known."""

from __future__ import annotations

import numpy as np
import pytest

import shmcompute as sc
from shmcompute import config


def test_an_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_COLOUR", "red")
    assert config.chosen("colour", "blue", "COLOUR", ("red", "blue"), "red") == "blue"
    assert config.chosen("colour", None, "COLOUR", ("red", "blue"), "blue") == "red"
    monkeypatch.setenv("SHMCOMPUTE_COLOUR", "")
    assert config.chosen("colour", None, "COLOUR", ("red", "blue"), "blue") == "blue"
    monkeypatch.setenv("SHMCOMPUTE_COLOUR", "grey")
    with pytest.raises(ValueError, match=r"from SHMCOMPUTE_COLOUR.*'grey'.*'red', 'blue'"):
        config.chosen("colour", None, "COLOUR", ("red", "blue"), "red")


def test_a_count_is_any_whole_number_from_1():
    assert config.count("n", np.int8(3)) == 3
    for value, kind in ((0, ValueError), (1.0, TypeError), (None, TypeError), (False, TypeError)):
        with pytest.raises(kind, match="n: expected"):
            config.count("n", value)


def test_a_size_is_a_number_of_bytes(monkeypatch):
    for said, size in (("0", 0), ("1048576", 1 << 20), ("", None)):
        monkeypatch.setenv("SHMCOMPUTE_ROOM", said)
        assert config.size("ROOM") == size
    monkeypatch.setenv("SHMCOMPUTE_ROOM", "1 GiB")
    with pytest.raises(ValueError, match="SHMCOMPUTE_ROOM='1 GiB'.*bytes"):
        config.size("ROOM")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sc.Pool(n_jobs=2), r"Pool\(\).*'n_jobs'; here it is called workers"),
        (lambda: sc.Pool(max_workers=2), "'max_workers'; here it is called workers"),
        (lambda: sc.Pool(processes=2), "'processes'; here it is called workers"),
        (lambda: sc.Pool(mp_context=None), "'mp_context'; here it is called start_method"),
        (lambda: sc.Pool(2, colour=1), "unexpected keyword argument 'colour'$"),
        (lambda: sc.parallel_apply(abs, 1, n_jobs=2), r"parallel_apply.*pool=sc.Pool\(workers=2\)"),
        (lambda: sc.parallel_apply(abs, 1, workers=3), r"pool=sc.Pool\(workers=3\)"),
        (
            lambda: sc.plan(abs, 1, chunk_size=2),
            r"plan\(\).*'chunk_size'; here it is called chunksize",
        ),
        (lambda: sc.parallel_for(abs, 0, 1, n_jobs=2), r"parallel_for.*sc.Pool\(workers=2\)"),
        (lambda: sc.parallel_iterate(abs, times=1, verbose=5), "'verbose'.*called progress"),
        (lambda: sc.parallel_reduce(abs, combine=max, n_workers=2), r"sc.Pool\(workers=2\)"),
    ],
)
def test_what_other_libraries_call_an_option_is_refused_with_its_name_here(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("workers", [-1, 0])
def test_as_many_workers_as_cores_are_had_by_not_asking(workers):
    with pytest.raises(
        ValueError, match=rf"workers: expected at least 1, got {workers}; leave it out"
    ):
        sc.Pool(workers)
