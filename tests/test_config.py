"""Settings and the words that are known."""

from __future__ import annotations

import numpy as np
import pytest

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
