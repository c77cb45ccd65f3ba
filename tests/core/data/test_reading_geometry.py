"""Any pyramid, any box, any factor: the right place and the right values.

The oracle works in float64 on whole arrays, by other means than the reader.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.arrays import ArraySource
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.pyramid import Pyramid, PyramidLevel
from napari_muvit.core.geometry import Box, nest, place_fine

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
AXES = {2: "yx", 3: "zyx"}


class Chunked:
    """An array in chunks, as a file has it."""

    def __init__(self, array, edge):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.chunks = (edge,) * array.ndim

    def __getitem__(self, key):
        return self.array[key]


@st.composite
def pyramids(draw, fill_level):
    """A pyramid of 1 to 3 levels in 2D or 3D, odd sizes, factors and places."""
    ndim = draw(st.sampled_from([2, 2, 3]))
    size = 60 if ndim == 2 else 24
    finest = [draw(st.integers(1, size)) for _ in range(ndim)]
    factors = [1.0, *draw(st.sampled_from([(), (4,), (2, 4), (3.0007,), (2, 8.01)]))]
    levels, edge = [], draw(st.integers(3, 20))
    for factor in factors:
        rounded = [(round(n / factor), -(-n // int(factor))) for n in finest]
        shape = [max(1, draw(st.sampled_from(pair))) for pair in rounded]
        offset = [0.0] * ndim
        if factor > 1 and draw(st.booleans()):
            offset = [draw(st.sampled_from([0.0, 0.5, -0.25])) for _ in range(ndim)]
        array = Chunked(fill_level(shape, factor, offset, len(levels)), edge)
        source = ArraySource(array, AXES[ndim], spatial=AXES[ndim])
        levels.append(PyramidLevel(source, (factor,) * ndim, tuple(offset)))
    return Pyramid(tuple(levels), name="made")


@st.composite
def requests(draw, pyramid, factors=(1, 1.7, 2, 2.5, 4, 8, 0.5, 0.7)):
    factor = draw(st.sampled_from(factors))
    step = draw(st.sampled_from([factor, 0.25]))
    lower = [draw(st.integers(-8, 12)) * step for _ in range(pyramid.ndim)]
    shape = [draw(st.integers(1, 7)) for _ in range(pyramid.ndim)]
    upper = [v + n * factor for v, n in zip(lower, shape, strict=True)]
    return Box(tuple(lower), tuple(upper)), factor, shape


def weights(start, step, count, size):
    """Share of each source pixel in each output, (count, size); which are inside."""
    pixels = np.arange(size)
    begin = start + step * np.arange(count)[:, None]
    centre = begin[:, 0] + step / 2
    inside = (centre > 0) & (centre < size)
    if step >= 1:
        overlap = np.minimum(begin + step, pixels + 1) - np.maximum(begin, pixels)
        share = np.clip(overlap, 0, None)
    else:
        where = np.clip(centre - 0.5, 0, size - 1)[:, None]
        share = np.clip(1 - np.abs(where - pixels), 0, None)
    total = share.sum(axis=1, keepdims=True)
    return share / np.where(total > 0, total, 1), inside


def on_grid(start, step, tolerance=1e-4):
    at = start / step
    return abs(at - np.floor(at + tolerance)) < 1e-3


def oracle(pyramid, box, factor, shape, fill):
    level = [v for v in pyramid.levels if max(v.scale) <= 1.01 * factor or
             v is pyramid.levels[0]][-1]  # fmt: skip
    image = level.source.array.array.astype(np.float64)
    start = [(b - o) / s for b, o, s in
             zip(box.lower, level.offset, level.scale, strict=True)]  # fmt: skip
    step = [factor / s for s in level.scale]
    if max(step) > 1.5 and not all(map(on_grid, start, step)):
        # A missing level is averaged on its own grid, then read between its pixels.
        first = [np.floor(a / t + 1e-4) for a, t in zip(start, step, strict=True)]
        at = [f * t for f, t in zip(first, step, strict=True)]
        out = area(image, at, step, [n + 1 for n in shape], fill)
        for axis, (a, t, f) in enumerate(zip(start, step, first, strict=True)):
            share = a / t - f
            low, high = (
                np.take(out, range(k, out.shape[axis] - 1 + k), axis) for k in (0, 1)
            )
            out = (1 - share) * low + share * high
        return out
    return area(image, start, step, shape, fill)


def area(image, start, step, shape, fill):
    known = np.ones((), dtype=bool)
    for axis, (a, t, n) in enumerate(zip(start, step, shape, strict=True)):
        share, inside = weights(a, t, n, image.shape[axis])
        image = np.moveaxis(np.tensordot(share, image, (1, axis)), 0, axis)
        known = np.logical_and.outer(known, inside)
    return np.where(known, image, fill)


def noise(shape, factor, offset, number):
    return np.random.default_rng(number).integers(0, 1000, shape).astype(np.uint16)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_box_at_any_factor_agrees_with_the_oracle(data):
    pyramid = data.draw(pyramids(noise))
    box, factor, shape = data.draw(requests(pyramid))
    got = pyramid.read(box, factor, shape, fill=7)[0]
    want = oracle(pyramid, box, factor, shape, 7.0)
    np.testing.assert_allclose(got, want, atol=0.02)


def ramp(shape, factor, offset, number):
    """Each pixel holds a linear function of the world position of its centre."""
    axes = [
        o + factor * (np.arange(n) + 0.5) for n, o in zip(shape, offset, strict=True)
    ]
    grids = np.meshgrid(*axes, indexing="ij")
    return sum(g * 10.0**k for k, g in enumerate(grids)).astype(np.float64)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_pixel_comes_from_its_place(data):
    pyramid = data.draw(pyramids(ramp))
    box, factor, shape = data.draw(requests(pyramid))
    got = pyramid.read(box, factor, shape, fill=np.nan)[0]
    centres = [v + factor * (np.arange(n) + 0.5)
               for v, n in zip(box.lower, shape, strict=True)]  # fmt: skip
    grids = np.meshgrid(*centres, indexing="ij")
    want = sum(g * 10.0**k for k, g in enumerate(grids))
    # At the border a pixel that is only half inside stands for its inner half.
    margin = 2 * max(factor, max(max(v.scale) for v in pyramid.levels))
    inner = np.ones(shape, dtype=bool)
    for grid, size in zip(grids, pyramid.extent.upper, strict=True):
        inner &= (grid > margin) & (grid < size - margin)
    error = np.abs(got - want)[inner] / sum(10.0**k for k in range(pyramid.ndim))
    # In coarse pixels. Whole pixels have no error at all; the average of parts of them
    # lies up to an eighth of a fine pixel beside its middle.
    error /= factor
    aligned = all(
        abs(v / t - round(v / t)) < 1e-6 and abs(t - round(t)) < 1e-6
        for level in pyramid.levels
        for v, t in (((b - o) / s, factor / s) for b, o, s in
                     zip(box.lower, level.offset, level.scale, strict=True))
    )  # fmt: skip
    assert error.size == 0 or error.max() < (1e-3 if aligned else 0.1)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 3).flatmap(lambda n: st.tuples(
        st.lists(st.floats(1, 3000), min_size=n, max_size=n),
        st.lists(st.floats(-100, 3100), min_size=n, max_size=n),
    )),
    st.integers(1, 256),
    st.lists(st.sampled_from([1.5, 2, 3, 4, 8]), min_size=0, max_size=3),
    st.one_of(st.none(), st.integers(0, 99)),
)  # fmt: skip
def test_nested_boxes_always_nest(place, edge, ratios, seed):
    size, centre = place
    extent = Box.from_shape(size)
    factors = list(itertools.accumulate([1.0, *ratios], lambda a, b: a * b))
    fine = place_fine(centre, (float(edge),) * len(size), extent)
    rng = None if seed is None else np.random.default_rng(seed)
    crop = nest(fine, factors, extent, rng)
    for inner, outer, factor in zip(
        crop.boxes, crop.boxes[1:], factors[1:], strict=False
    ):
        assert outer.contains(inner, 1e-6)
        assert outer.shape == pytest.approx((edge * factor,) * len(size))
        for low, high, length in zip(outer.lower, outer.upper, size, strict=True):
            # Inside the slide, or all around it.
            inside = low >= -1e-6 and high <= length + 1e-6
            around = low <= 1e-6 and high >= length - 1e-6
            fine_sticks_out = edge > length or int(length) != length
            assert inside or around or fine_sticks_out


REAL = ("wsi/cmu*.svs", "wsi/tcga*.svs", "wsi/*.qptiff", "omezarr/*")


def real_files():
    return sorted(p for pattern in REAL for p in DATA.glob(pattern))


@pytest.mark.skipif(not DATA.is_dir(), reason="the real files are not here")
def test_real_levels_lie_upon_each_other():
    """A stored coarse level against the average of level 0, by their best shift."""
    checked = 0
    for path in real_files():
        pyramid = open_pyramid(path)
        for level in pyramid.levels[1:]:
            shift = best_shift(pyramid, level)
            if shift is None:
                continue
            checked += 1
            assert np.abs(shift).max() < 0.1, f"{path.name} at {level.scale}: {shift}"
    assert checked >= 3


def best_shift(pyramid, level):
    """Coarse pixels by which a stored level is shifted against level 0; None: flat."""
    edge = min(128, *(n - 8 for n in level.shape))
    if edge < 24:
        return None
    lower = [o + s * ((n - edge) // 2) for o, s, n in
             zip(level.offset, level.scale, level.shape, strict=True)]  # fmt: skip
    upper = [v + s * edge for v, s in zip(lower, level.scale, strict=True)]
    box, factor = Box(tuple(lower), tuple(upper)), float(np.mean(level.scale))
    coarse = pyramid.read(box, factor, (edge, edge)).mean(axis=0)
    alone = Pyramid(pyramid.levels[:1], name="finest")
    fine = alone.read(box, factor, (edge, edge)).mean(axis=0)
    if coarse.std() < 1 or fine.std() < 1:
        return None
    # First order: coarse - fine = shift * gradient.
    slopes = np.stack([g[2:-2, 2:-2].ravel() for g in np.gradient(fine)], axis=1)
    rest = (coarse - fine)[2:-2, 2:-2].ravel()
    return -np.linalg.lstsq(slopes, rest - rest.mean(), rcond=None)[0]
