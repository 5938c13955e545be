"""The counts of long trials, from a small run made up here."""

from __future__ import annotations

import pytest
from faults import counts as plugin
from faults.trial import CALLS, DEATHS, GROUP, PARENT, TRIALS, Trial

report = pytest.importorskip("faults.report", reason="needs benchmarks on the path")

MACHINE = {"cpu": "A Processor", "cores": 2, "system": "Linux 6.1", "python": "3.11.7"}
MACHINE |= {"numpy": "2.4.6", "numba": "0.68.1", "shmcompute": "0.2"}


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(plugin, "machine", lambda: MACHINE)
    made = plugin.Counts()
    with made.trial(PARENT) as trial:
        for _ in range(100):
            trial.count += 1
            trial.never("workers after 2 s")
            trial.within("last worker gone", 0.25, most=2.0)
    with pytest.raises(AssertionError, match="3 leaks"), made.trial(GROUP) as trial:
        trial.count += 7
        trial.tell("SIGKILL", 7)
        trial.never("leaks", 3)
    with pytest.raises(OSError), made.trial(CALLS):
        raise OSError("out of | order")
    return made


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {name: rest for name, *rest in cells}


def test_a_row_tells_how_many_what_was_found_and_the_bar(made, tmp_path):
    made.write(tmp_path / "counts.json")
    found = rows(report.section(plugin.read(tmp_path / "counts.json")))
    said = "0 workers after 2 s; last worker gone at most 0.25 s"
    assert found[PARENT] == ["100", said, "0; ≤ 2 s", "held"]
    assert found[GROUP] == ["7 (7 SIGKILL) of 100", "3 leaks", "0", "**not held**"]


def test_what_broke_off_or_did_not_run_is_told(made, tmp_path):
    made.write(tmp_path / "counts.json")
    text = report.section(plugin.read(tmp_path / "counts.json"))
    assert "BROKE OFF: OSError: out of \\| order" in text
    assert rows(text)[DEATHS][-1] == "**not run**"
    assert all(name in text for name in TRIALS)


def test_trials_that_were_run_again_replace_their_rows_and_are_named(made, tmp_path):
    made.write(tmp_path / "counts.json")
    again = plugin.Counts()
    with again.trial(GROUP) as trial:
        trial.count += 100
        trial.never("leaks", 0)
    again.write(tmp_path / "again.json")
    runs = [plugin.read(tmp_path / name) for name in ("counts.json", "again.json")]
    text = report.section(*runs)
    assert rows(text)[GROUP][-1] == "held"
    assert rows(text)[PARENT][-1] == "held"
    assert f"Run again by itself on {runs[1]['date']}: {GROUP}." in text


def test_several_tests_add_to_one_trial():
    made = plugin.Counts()
    for seconds in (0.1, 0.3):
        with made.trial(DEATHS) as trial:
            trial.count += 1
            trial.within("next call", seconds, most=3.0)
    (trial,) = made.in_order()
    assert (trial.count, trial.found) == (2, "next call at most 0.3 s")


def test_the_worst_hundredth_has_a_limit_of_its_own():
    trial = Trial(DEATHS)
    for seconds in [0.1] * 999 + [1.5]:
        trial.within("death to exception", seconds, most=2.0, p99=0.25)
    assert trial.held
    for _ in range(20):
        trial.within("death to exception", 0.3, most=2.0, p99=0.25)
    assert not trial.held
    assert trial.asked == "p99 ≤ 0.25 s, ≤ 2 s"


def test_the_page_keeps_what_stands_around_the_table(made, tmp_path):
    made.write(tmp_path / "counts.json")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nWHAT WAS\n{report.END}\nafter\n")
    for _ in range(2):
        report.main([str(tmp_path / "counts.json"), "--page", str(page)])
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\nRun on ")
    assert text.endswith(f"|\n{report.END}\nafter\n")
    assert "WHAT WAS" not in text
