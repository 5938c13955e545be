"""The report of the benchmarks, from a small run made up here."""

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks import plot, report, results

TIMES = {
    ("stream", "Numba prange"): 0.010,
    ("stream", "shmcompute processes"): 0.0104,
    ("stream", "joblib"): 0.3512,
    ("dispatch", "Numba prange"): 2.5e-6,
    ("dispatch", "shmcompute processes"): 34.1e-6,
    ("python kernel", "serial"): 1.0,
    ("python kernel", "joblib"): 0.52,
    ("wrap cost", "shmcompute, cold"): 0.2,
    ("wrap cost", "np.copyto, touched memory"): 0.05,
    ("start-up", "<slow & new>"): 12.04,
}
MACHINE = {
    "cpu": {"brand_raw": "A Processor"},
    "cores_granted": 2,
    "system": "Linux 6.1",
    "python_version": "3.11.7",
    "numpy": "2.4.6",
    "numba": "0.68.1",
    "mebibytes": 64.0,
    "not_installed": ["Ray"],
}


@pytest.fixture
def file(tmp_path):
    rows = [
        {"group": group, "name": name, "stats": {"median": median}}
        for (group, name), median in TIMES.items()
    ]
    made = {"benchmarks": rows, "machine_info": MACHINE, "datetime": "2030-01-02T03:04:05+00:00"}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(made))
    return path


@pytest.fixture
def run(file):
    return results.read(file)


def lines(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_common_table(run):
    """A row a peer, ours first, a column a group; median, and ratio to the base of the group."""
    heads, _, *rows = lines(report.common_table(run, run.rows))
    assert heads == [
        "",
        "dispatch<br>(× Numba prange)",
        "stream<br>(× Numba prange)",
        "python kernel<br>(× serial)",
    ]
    assert rows == [
        ["**shmcompute processes**", "34.1 µs (14×)", "10.4 ms (1.04×)", ""],
        ["Numba prange", "2.50 µs (1.00×)", "10.0 ms (1.00×)", ""],
        ["serial", "", "", "1.00 s (1.00×)"],
        ["joblib", "", "351 ms (35×)", "520 ms (0.52×)"],
    ]


def test_other_table(run):
    """Best first; rows where we lose stay; no ratio where the base was not measured."""
    _, _, *rows = lines(report.other_table(run))
    assert rows == [
        [
            "wrap cost (× np.copyto, touched memory)",
            "np.copyto, touched memory",
            "50.0 ms",
            "1.00×",
        ],
        ["", "**shmcompute, cold**", "200 ms", "4.0×"],
        ["start-up (× serial)", "<slow & new>", "12.0 s", ""],
    ]


def test_facts(run):
    """Where and when."""
    assert report.facts(run) == (
        "Measured on 2030-01-02: A Processor, 2 cores granted, Linux 6.1, Python 3.11.7, "
        "NumPy 2.4.6, Numba 0.68.1; the largest array has 64 MiB."
    )


def test_busy_machine(run):
    """Numbers of a machine that did other things say so."""
    run.machine["busy"] = 51.7
    assert "Other programs took 52 % of the processors." in report.facts(run)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (2.5e-7, "250 ns"),
        (9.999e-7, "1.00 µs"),
        (34.06e-6, "34.1 µs"),
        (0.25, "250 ms"),
        (75, "75.0 s"),
    ],
)
def test_duration(seconds, said):
    assert results.duration(seconds) == said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.0312, "0.031×"),
        (0.5234, "0.52×"),
        (1.043, "1.04×"),
        (2.04, "2.0×"),
        (15.4, "15×"),
        (3512, "3,500×"),
    ],
)
def test_times(ratio, said):
    assert results.times(ratio) == said


def test_plot(run):
    """It is well-formed and has a bar for each measurement, ours told apart."""
    root = ET.fromstring(plot.drawn(run))
    bars = [mark.get("class") for mark in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars.count("ours") == 3
    assert bars.count("peer") == len(TIMES) - 3


def test_bars_grow_with_time(run):
    """On a log scale, but in order, and none leaves the picture."""
    root = ET.fromstring(plot.drawn(run))
    bars = [mark for mark in root.iter("{http://www.w3.org/2000/svg}rect") if mark.get("x")]
    assert all(float(bar.get("width")) > 0 for bar in bars)
    assert all(float(bar.get("x")) + float(bar.get("width")) < plot.WIDTH for bar in bars)


def test_main(file, tmp_path):
    """What stands between the markers is replaced, what stands around them stays."""
    readme, comparison = tmp_path / "README.md", tmp_path / "docs" / "comparison.md"
    comparison.parent.mkdir()
    for page in (readme, comparison):
        page.write_text(f"before\n{report.BEGIN}\nWHAT WAS\n{report.END}\nafter\n")
    image = tmp_path / "docs" / "plot.svg"
    pages = ["--readme", str(readme), "--comparison", str(comparison), "--plot", str(image)]
    for _ in range(2):
        report.main([str(file), *pages])
    for page, place in ((readme, "docs/plot.svg"), (comparison, "plot.svg")):
        text = page.read_text()
        assert text.startswith(f"before\n{report.BEGIN}\nMeasured on 2030-01-02")
        assert text.endswith(f"\n{report.END}\nafter\n")
        assert f"]({place})" in text
        assert "WHAT WAS" not in text
    assert f"Ray.\n{report.END}" in comparison.read_text()
    assert image.exists()


def test_readme_without_markers():
    """A README that lost its markers is not overwritten."""
    with pytest.raises(ValueError, match="once each"):
        report.inserted("no markers", "new")
