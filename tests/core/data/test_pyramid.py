"""Reading any box at any factor against a float oracle."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.block_cache import BlockCache
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.errors import PyramidError
from napari_muvit.core.geometry import Box


def oracle_area(image, lower, factor, shape, fill):
    """Mean over each output pixel, by the exact overlap with each source pixel."""
    weights = []
    for axis in (0, 1):
        size = image.shape[axis + 1]
        pixels = np.arange(size)
        begin = lower[axis] + factor * np.arange(shape[axis])[:, None]
        end = begin + factor
        overlap = np.minimum(end, pixels + 1) - np.maximum(begin, pixels)
        overlap = np.clip(overlap, 0, None)
        centre = (begin + end) / 2
        inside = ((centre > 0) & (centre < size))[:, 0]
        total = overlap.sum(axis=1, keepdims=True)
        weights.append((overlap / np.where(total > 0, total, 1), inside))
    (wy, iy), (wx, ix) = weights
    mean = np.einsum("yh,chw,xw->cyx", wy, image.astype(float), wx)
    return np.where(iy[:, None] & ix, mean, fill)


@st.composite
def requests(draw):
    height, width = draw(st.integers(3, 40)), draw(st.integers(3, 40))
    channels = draw(st.integers(1, 3))
    seed = draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (channels, height, width), dtype=np.uint8)
    factor = draw(st.sampled_from([1, 2, 3, 4, 2.5, 1.7, 8]))
    on_grid = draw(st.booleans())
    step = factor if on_grid else 0.25
    lower = [draw(st.integers(-8, 12)) * step for _ in range(2)]
    shape = [draw(st.integers(1, 9)) for _ in range(2)]
    return image, factor, lower, shape, on_grid


@given(requests())
@settings(max_examples=80, deadline=None)
def test_a_box_is_the_area_average_with_padding(request_):
    image, factor, lower, shape, on_grid = request_
    if not on_grid and factor != 1 and factor <= 1.5:
        return
    box = Box(
        tuple(lower), tuple(v + factor * n for v, n in zip(lower, shape, strict=True))
    )
    got = open_pyramid(image).read(box, factor, shape, fill=7)
    assert got.dtype == np.float32
    assert got.shape == (image.shape[0], *shape)
    # Off the grid a missing level is interpolated between its own pixels; there only
    # the range can be promised, and away from the border the mean.
    want = oracle_area(image, lower, factor, shape, 7)
    if on_grid or factor <= 1.5:
        np.testing.assert_allclose(got, want, atol=2e-3)
    else:
        assert got.min() >= min(image.min(), 7) - 1e-3
        assert got.max() <= max(image.max(), 7) + 1e-3


@given(st.integers(40, 120), st.integers(40, 120), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_stored_level_is_read_as_it_is(height, width, seed):
    rng = np.random.default_rng(seed)
    fine = rng.random((height, width), dtype=np.float32)
    coarse = rng.random((-(-height // 4), -(-width // 4)), dtype=np.float32)
    pyramid = open_pyramid([fine, coarse])
    assert pyramid.scale_factors == (1, 4)
    shape = coarse.shape
    got = pyramid.read(Box.from_shape((shape[0] * 4, shape[1] * 4)), 4, shape)
    np.testing.assert_array_equal(got[0], coarse)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.tuples(st.floats(-20, 50), st.floats(-20, 50)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.floats(0.3, 9),
)
@settings(max_examples=80, deadline=None)
def test_sample_takes_the_pixel_under_each_centre(height, width, lower, shape, factor):
    image = np.arange(height * width, dtype=np.int32).reshape(height, width) + 1
    box = Box(lower, tuple(v + factor * n for v, n in zip(lower, shape, strict=True)))
    got = open_pyramid(image).sample(box, shape, fill=0)[0]
    for i, j in itertools.product(range(shape[0]), range(shape[1])):
        y = lower[0] + (box.shape[0] / shape[0]) * (i + 0.5)
        x = lower[1] + (box.shape[1] / shape[1]) * (j + 0.5)
        if min(abs(y - round(y)), abs(x - round(x))) < 1e-6:
            continue
        inside = 0 <= y < height and 0 <= x < width
        assert got[i, j] == (image[int(y), int(x)] if inside else 0)


def test_sample_over_a_large_image_reads_in_pieces():
    class Source:
        shape, dtype, chunks = (40_000, 40_000), np.dtype(np.uint8), (512, 512)
        largest = 0

        def __getitem__(self, key):
            counts = [s.stop - s.start for s in key]
            self.largest = max(self.largest, int(np.prod(counts)))
            return np.ones(counts, dtype=np.uint8)

    source = Source()
    box = Box((0, 0), (8192, 8192))
    got = open_pyramid(source).sample(box, (16, 16))
    assert (got == 1).all()
    assert source.largest <= 2**22


def test_a_pyramid_in_memory_survives_pickling():
    image = np.arange(48, dtype=np.uint16).reshape(6, 8)
    pyramid = open_pyramid(image, pixel_size=0.5).viewed_at(1.0)
    copy = pickle.loads(pickle.dumps(pyramid))
    assert copy.zoom == pyramid.zoom == (0.5, 0.5)
    box = Box.from_shape((3, 4))
    np.testing.assert_array_equal(
        copy.read(box, 1, (3, 4)), pyramid.read(box, 1, (3, 4))
    )


def test_contradicting_requests_are_refused():
    pyramid = open_pyramid(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="spans"):
        pyramid.read(Box.from_shape((4, 4)), 2, (4, 4))
    with pytest.raises(PyramidError, match="no levels"):
        type(pyramid)(levels=())


@pytest.mark.parametrize("factor", [1.7, 8, 32, 16.003])
@pytest.mark.parametrize("axes", ["cyx", "yxc"])
def test_no_bit_depends_on_what_was_read_before(tmp_path, axes, factor):
    # Sums of these pixels differ in the last digit where they begin elsewhere.
    rng = np.random.default_rng(0)
    pixels = rng.normal(1e4, 1e4, (900, 1000, 3)).astype("f4")
    pixels = pixels if axes == "yxc" else pixels.transpose(2, 0, 1)
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=pixels.shape,
        chunks=tuple(min(100, n) for n in pixels.shape),
        dtype="f4",
    )
    array[:] = pixels
    corners = [rng.integers(-5, 900 // factor, 2) * factor for _ in range(6)]
    boxes = [Box(tuple(c), tuple(c + np.array((90, 70)) * factor)) for c in corners]
    wanted = None
    for budget, order in itertools.product((0, 2**18, 2**22, 2**26), (1, -1)):
        image = open_pyramid(array, axes=axes)
        image = dataclasses.replace(image, cache=BlockCache(budget))
        read = [image.read(box, factor, (90, 70)) for box in boxes[::order]][::order]
        wanted = wanted or read
        for got, want in zip(read, wanted, strict=True):
            np.testing.assert_array_equal(got, want)
