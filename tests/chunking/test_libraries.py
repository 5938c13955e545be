"""The libraries whose arrays lend memory, or don't, each as it is installed."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from kernels import run

import shmcompute as sc


@pytest.fixture(scope="module", autouse=True)
def no_leaks():
    """These libraries keep threads and descriptors of their own."""


@pytest.fixture
def arr():
    with sc.SharedArray(np.arange(6.0)) as made:
        yield made


@pytest.fixture(params=["serial", "threads", "processes"])
def pool(request):
    with sc.Pool(2, backend=request.param) as made:
        yield made


def test_pandas(arr):
    """pandas 3 hands out views that can't be written, so that copies on write stay right."""
    pd = pytest.importorskip("pandas")
    series = pd.Series(arr.array, copy=False)
    frame = pd.DataFrame(arr.array.reshape(3, 2), columns=["a", "b"], copy=False)
    with sc.SharedArray.zeros(6) as out, sc.SharedArray.zeros(3) as half:
        sc.parallel_apply(np.square, sc.read(series), out)
        sc.parallel_apply(np.square, sc.read(frame["b"]), half)
        assert np.array_equal(out, series**2)
        assert np.array_equal(half, frame["b"] ** 2)
    with (
        sc.Pool(2) as pool,
        pytest.raises(TypeError, match=r"is a pandas.Series.*copy it"),
    ):
        sc.parallel_apply(np.negative, sc.read(pd.Series([1.0, 2.0])), pool=pool)
    with pytest.raises(TypeError, match=r"argument 0 is a pandas.DataFrame.*copy it in"):
        sc.parallel_apply(np.negative, pd.DataFrame({"a": [1], "b": ["x"]}))


XARRAY = """
import numpy as np
import shmcompute as sc
import xarray as xr
with sc.SharedArray(np.arange(6.0)) as arr:
    data = xr.DataArray(arr.array, dims="t")
    for backend in ("serial", "threads", "processes"):
        sc.parallel_apply(np.negative, data, backend=backend)
    assert np.array_equal(data, -np.arange(6.0))
    sc.parallel_apply(np.negative, data[::2], backend="processes")
    assert data[2] == 2
"""


def test_xarray():
    """What can be written is written in place. In a program of its own: xarray keeps an array."""
    pytest.importorskip("xarray")
    run(XARRAY)


def test_torch(pool, arr):
    torch = pytest.importorskip("torch")
    tensor = torch.from_dlpack(arr)
    sc.parallel_apply(np.negative, tensor, pool=pool)
    assert tensor[5] == -5


def test_jax(arr):
    """Its arrays are not to be written; both ways go without a copy."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True), sc.SharedArray.zeros(6) as out:
        given = jax.numpy.from_dlpack(arr)
        sc.parallel_apply(np.square, sc.read(given), out)
        assert np.array_equal(out, np.arange(6.0) ** 2)
        assert np.shares_memory(np.from_dlpack(given), arr.array)
        with pytest.raises(ValueError, match="read-only"):
            sc.parallel_apply(np.negative, given)
        del given
        gc.collect()


def test_pyarrow(arr):
    pa = pytest.importorskip("pyarrow")
    column = pa.Array.from_buffers(pa.float64(), 6, [None, pa.py_buffer(arr.array)])
    with sc.SharedArray.zeros(6) as out:
        sc.parallel_apply(np.square, sc.read(column), out)
        assert np.array_equal(out, np.arange(6.0) ** 2)


def test_h5py_and_zarr(tmp_path):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        given = file.create_dataset("x", data=np.ones(3)), zarr.array(np.ones(3))
        for one in given:
            with pytest.raises(TypeError, match=r"(argument 0 is a h5py|zarr array).*copy it in"):
                sc.parallel_apply(np.negative, one)
            with sc.SharedArray(one[:]) as arr:
                sc.parallel_apply(np.negative, arr)
                one[:] = arr.array
            assert one[0] == -1


def test_dask_is_not_computed(arr):
    da = pytest.importorskip("dask.array")
    computed = []
    lazy = da.ones(4).map_blocks(
        lambda block: computed.append(1) or block, dtype=float, meta=np.ones(0)
    )
    with pytest.raises(TypeError, match=r"argument 0 is a dask.Array.*computed"):
        sc.parallel_apply(np.negative, lazy)
    assert not computed


def test_dask_runs_its_graphs_on_a_pool(arr):
    da = pytest.importorskip("dask.array")
    with sc.Pool(2, backend="threads") as pool:
        total = da.from_array(arr.array, chunks=2).sum().compute(scheduler=pool)
    assert total == 15


def test_scikit_learn_and_joblib(arr):
    sklearn, joblib = pytest.importorskip("sklearn.preprocessing"), pytest.importorskip("joblib")
    scaled = sklearn.StandardScaler().fit_transform(sc.SharedArray(arr.array.reshape(3, 2)))
    assert np.allclose(scaled.mean(0), 0)
    with joblib.parallel_config("threading"):
        sums = joblib.Parallel(n_jobs=2)(
            joblib.delayed(np.sum)(part) for part in (arr[:3], arr[3:])
        )
    assert sums == [3, 12]


def test_matplotlib(arr):
    figure = pytest.importorskip("matplotlib.figure")
    axes = figure.Figure().subplots()
    (line,) = axes.plot(arr)
    assert np.array_equal(line.get_ydata(), arr)
