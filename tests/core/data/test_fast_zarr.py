"""Local zarr arrays through tensorstore, and without it."""

import multiprocessing
import pickle

import numpy as np
import pytest
import zarr

from napari_muvit.core.data import fast_zarr
from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.fast_zarr import FastZarr
from napari_muvit.core.errors import PyramidError

tensorstore = pytest.importorskip("tensorstore")


def stored(path, dtype="u2", version=3, **options):
    image = np.arange(40 * 50, dtype=dtype).reshape(40, 50)
    array = zarr.create_array(
        path, shape=image.shape, chunks=(16, 16), dtype=dtype, zarr_format=version,
        **options,
    )  # fmt: skip
    array[:] = image
    return zarr.open_array(path, mode="r"), image


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", ">f8", "i8"])
def test_the_same_pixels_as_zarr_python(tmp_path, version, dtype):
    array, image = stored(tmp_path / "a.zarr", dtype, version)
    fast = FastZarr(array)
    np.testing.assert_array_equal(fast[3:39, 10:33], image[3:39, 10:33])
    np.testing.assert_array_equal(fast[5, :], image[5])
    assert fast._source() is not array


def test_sharded_and_inside_a_group(tmp_path):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    array = group.create_array(
        "a/0", shape=(64, 64), shards=(32, 32), chunks=(8, 8), dtype="u1"
    )
    array[:] = np.arange(64 * 64).reshape(64, 64) % 251
    fast = FastZarr(array)
    np.testing.assert_array_equal(fast[5:60, 7:9], array[5:60, 7:9])
    assert fast._source() is not array


def test_what_tensorstore_does_not_know_is_read_by_zarr_python(tmp_path):
    from numcodecs import LZMA

    array, image = stored(tmp_path / "a.zarr", version=2, compressors=LZMA())
    fast = FastZarr(array)
    np.testing.assert_array_equal(fast[0:9, 0:9], image[:9, :9])
    assert fast._source() is array


def test_without_tensorstore(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_zarr, "may_use_tensorstore", lambda: False)
    array, image = stored(tmp_path / "a.zarr")
    np.testing.assert_array_equal(FastZarr(array)[2:5, 2:5], image[2:5, 2:5])


def test_a_copy_opens_its_own(tmp_path):
    array, image = stored(tmp_path / "a.zarr")
    source = ArraySource(array, "yx")
    source.read((0, 0), (4, 4))
    copy = pickle.loads(pickle.dumps(source))
    assert "_reader" not in copy.__dict__
    np.testing.assert_array_equal(copy.read((1, 1), (9, 9))[0], image[1:9, 1:9])


def test_a_damaged_chunk_is_one_line(tmp_path):
    array, _ = stored(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "c" / "0" / "0").write_bytes(b"broken")
    with pytest.raises(PyramidError, match="cannot be read"):
        ArraySource(array, "yx").read((0, 0), (4, 4))


def _read_in_child(source, queue):
    queue.put(
        (int(source.read((1, 1), (2, 2))[0, 0, 0]), fast_zarr.may_use_tensorstore())
    )


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_no_process_dies_of_tensorstore_after_a_fork(tmp_path, method):
    # It aborts in a process that was forked from one that used it.
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is not known here")
    array, image = stored(tmp_path / "a.zarr")
    source = ArraySource(array, "yx")
    source.read((0, 0), (4, 4))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(source, queue))
    child.start()
    value, fast = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert value == image[1, 1]
    assert fast == (method == "forkserver")
