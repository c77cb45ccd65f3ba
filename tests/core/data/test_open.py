import pickle

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_muvit.core.data.open import open_pyramid, stem
from napari_muvit.core.data.units import micrometres, snap_factors
from napari_muvit.core.errors import ImageNotFoundError, PyramidError
from napari_muvit.core.geometry import Box


def read_all(pyramid):
    return pyramid.read(pyramid.extent, 1, pyramid.shape)


@pytest.mark.parametrize(
    ("shape", "axes", "channels", "spatial", "rgb"),
    [
        ((20, 30), None, 1, (20, 30), False),
        ((3, 20, 30), None, 3, (20, 30), False),
        ((16, 20, 30), None, 16, (20, 30), False),
        ((20, 30, 3), None, 3, (20, 30), True),
        ((20, 30, 4), None, 3, (20, 30), True),
        ((5, 20, 30), "zyx", 1, (20, 30), False),
        ((20, 30, 5), "yxc", 5, (20, 30), False),
        ((2, 3, 4, 20, 30), None, 3, (20, 30), False),
    ],
)
def test_axes_of_an_array(shape, axes, channels, spatial, rgb):
    image = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    pyramid = open_pyramid(image, axes=axes)
    assert (pyramid.num_channels, pyramid.shape, pyramid.rgb) == (
        channels,
        spatial,
        rgb,
    )
    got = read_all(pyramid)
    if shape == (20, 30, 4):
        np.testing.assert_array_equal(got, image[..., :3].transpose(2, 0, 1))
    elif shape == (5, 20, 30):
        np.testing.assert_array_equal(got[0], image[0])
        assert "z is fixed at the first of 5" in pyramid.note


@pytest.mark.parametrize("shape", [(5,), (40, 20, 30), (2, 2, 2, 2), (40, 20, 5)])
def test_an_array_that_says_nothing_needs_axes(shape):
    with pytest.raises(PyramidError, match="axes="):
        open_pyramid(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "int is no image"),
        (None, "NoneType is no image"),
        ([], "at least one array"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.zeros((0, 4)), "empty"),
        ("https://example.org/a.ome.tif", "is a .tif file; only zarr"),
        ("nonsense://a.zarr", "cannot be opened: Protocol not known"),
    ],
)
def test_what_is_no_image(source, message):
    with pytest.raises(PyramidError, match=message):
        open_pyramid(source)


def test_a_missing_path(tmp_path):
    with pytest.raises(ImageNotFoundError, match="There is no image at"):
        open_pyramid(tmp_path / "missing.tif")
    with pytest.raises(FileNotFoundError):
        open_pyramid(str(tmp_path / "missing.zarr"))
    with pytest.raises(PyramidError, match="no OME-Zarr"):
        open_pyramid(tmp_path)


def test_lists_have_the_factors_of_their_shapes():
    shapes = [(4443, 3567), (2221, 1783), (1110, 891), (138, 111)]
    arrays = [np.zeros(s, np.uint8) for s in shapes]
    assert open_pyramid(arrays).scale_factors == (1, 2, 4, 32)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8, 10, 16, 32])
@pytest.mark.parametrize("rounding", [np.floor, np.ceil])
def test_factors_are_found_again(factor, rounding):
    finest = (5001, 7003)
    shape = tuple(int(rounding(n / factor)) for n in finest)
    assert snap_factors(finest, shape) == (factor, factor)


def test_factors_by_metadata_give_way_to_shapes():
    assert snap_factors((1000, 1000), (250, 250), (1.0, 1.0)) == (4, 4)
    assert snap_factors((1000, 1000), (31, 31), (32.258, 32.258)) == (32, 32)
    assert snap_factors((1000, 1000), (400, 400), (2.5, 2.5)) == (2.5, 2.5)
    assert snap_factors((1, 1000), (1, 500)) == (2, 2)


def test_channels_by_index_and_name(tmp_path):
    image = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)
    pyramid = open_pyramid(image, channels=[2, 0])
    np.testing.assert_array_equal(read_all(pyramid), image[[2, 0]])
    np.testing.assert_array_equal(
        read_all(open_pyramid(pyramid, channels=["1"])), image[[0]]
    )
    np.testing.assert_array_equal(
        read_all(open_pyramid(pyramid, channels=1)), image[[0]]
    )
    for channels in ([3], [-1], ["DAPI"], []):
        with pytest.raises(PyramidError, match="channel"):
            open_pyramid(image, channels=channels)


def test_a_stated_pixel_size_counts():
    image = np.zeros((20, 30), np.uint8)
    assert open_pyramid(image).pixel_size is None
    assert open_pyramid(image, pixel_size=0.5).pixel_size == (0.5, 0.5)
    for wrong in (0, -1, np.nan):
        with pytest.raises(PyramidError, match="pixel size"):
            open_pyramid(image, pixel_size=wrong)


def test_a_pyramid_is_returned_as_it_is():
    pyramid = open_pyramid(np.zeros((20, 30), np.uint8), name="a", max_bytes=2**20)
    assert open_pyramid(pyramid) is pyramid
    assert (pyramid.name, pyramid.cache.max_bytes) == ("a", 2**20)


def test_dask_and_zarr_arrays():
    da = pytest.importorskip("dask.array")
    image = np.arange(600, dtype=np.uint8).reshape(20, 30)
    for source in (da.from_array(image, chunks=7), zarr.array(image, chunks=(8, 8))):
        np.testing.assert_array_equal(read_all(open_pyramid(source))[0], image)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b.ome.zarr", "a.b"), ("x.OME.TIF", "x"), ("y.svs", "y"), ("plain", "plain")],
)
def test_names_without_suffixes(tmp_path, name, expected):
    assert stem(tmp_path / name) == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "P", "1"])
def test_png(tmp_path, mode):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        pixels = rng.integers(0, 60000, (20, 30), dtype=np.uint16)
        picture = Image.fromarray(pixels)
        want = pixels[None]
    else:
        pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).convert(mode)
        flat = picture.convert("L" if mode in ("L", "1") else "RGB")
        want = np.asarray(flat)
        want = want[None] if want.ndim == 2 else want.transpose(2, 0, 1)
    picture.save(tmp_path / "a.png")
    pyramid = pickle.loads(pickle.dumps(open_pyramid(tmp_path / "a.png")))
    np.testing.assert_array_equal(read_all(pyramid), want)
    assert pyramid.rgb == (len(want) == 3)
    assert pyramid.name == "a"


def test_broken_and_huge_pictures(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(PyramidError, match="no image that can be read"):
        open_pyramid(tmp_path / "a.png")
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "b.png")
    monkeypatch.setattr("napari_muvit.core.data.pictures.MAX_EDGE", 32)
    with pytest.raises(PyramidError, match="too large"):
        open_pyramid(tmp_path / "b.png")
    whole = (tmp_path / "b.png").read_bytes()
    monkeypatch.undo()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) - 25])
    pyramid = open_pyramid(tmp_path / "c.png")
    with pytest.raises(PyramidError, match="no image that can be read"):
        pyramid.read(Box.from_shape((4, 4)), 1, (4, 4))


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("micrometer", 1), ("nm", 1e-3), ("Millimetre", 1e3), ("µm", 1), ("um", 1),
        ("meters", 1e6), ("pixel", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_units(unit, expected):
    assert micrometres(unit) == expected
